-- settle: parked -> ready | parked (backoff) | dead_letters | (nothing), as
-- domain::disposition decided, for nacks, expired leases and messages whose
-- time to live has passed.
--
-- The inputs, a row each: the lease (queue, message, token; token 0 where
-- nobody holds it), whether it must be due ($4: an extend since then wins),
-- the action ($5: 'requeue', 'release', 'postpone', 'dead-letter', 'drop',
-- 'expire'), the delay of a requeue or postpone, the reason of a dead letter, the
-- outcome and error for the history (outcome null: none is written).
--
-- Index: parked_pkey once a row; deleted by address as in ack.sql.
WITH input AS MATERIALIZED (
    SELECT i.*
    FROM unnest(
        $1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::bigint[],
        $7::text[], $8::text[], $9::text[]
    ) AS i (queue_id, message_id, token, must_be_due, action, delay_ms, reason, outcome, error)
),
found AS MATERIALIZED (
    SELECT lease.tid
    FROM input
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = input.queue_id
          AND parked.message_id = input.message_id
          AND parked.token = input.token
          AND (NOT input.must_be_due OR parked.wake_at <= now())
        LIMIT 1
    ) AS lease
),
ended AS (
    DELETE FROM postrider.parked
    WHERE ctid = ANY(ARRAY(SELECT tid FROM found)) AND token = ANY($3)
    RETURNING
        queue_id, message_id, token, leased_at, expires_at, attempts, priority, own_ttl, straggler
),
settled AS MATERIALIZED (
    SELECT
        ended.queue_id, ended.message_id, ended.token, ended.leased_at, ended.expires_at,
        ended.priority, ended.own_ttl, ended.straggler,
        -- A release or postpone is a lease that nobody worked on: no attempt
        -- was made.
        CASE WHEN input.action IN ('release', 'postpone') THEN ended.attempts - 1
            ELSE ended.attempts
        END AS attempts,
        -- Null for what does not come back.
        CASE
            WHEN input.action = 'release' THEN 0
            WHEN input.action IN ('requeue', 'postpone') THEN input.delay_ms
        END AS waits_ms,
        input.action, input.reason, input.outcome, input.error
    FROM ended
    JOIN input
        ON input.queue_id = ended.queue_id
        AND input.message_id = ended.message_id
        AND input.token = ended.token
),
requeued AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, attempts, own_ttl, straggler)
    SELECT
        queue_id, priority, nextval('postrider.message_ids'), message_id, expires_at,
        attempts, true, straggler
    FROM settled
    WHERE waits_ms = 0
),
backed_off AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
    SELECT
        queue_id, message_id, now() + waits_ms * interval '1 ms', expires_at, attempts, priority,
        own_ttl, straggler
    FROM settled
    WHERE waits_ms > 0
),
died AS (
    INSERT INTO postrider.dead_letters
        (queue_id, message_id, expires_at, reason, attempts, rounds, priority, last_error,
         enqueued_at, body, content_type, headers, key, correlation_id, reply_to, traceparent,
         tracestate, topic, routing_key, schema_version, holds)
    SELECT
        settled.queue_id, settled.message_id,
        now() + queue.dead_letter_retention_ms * interval '1 ms',
        settled.reason, settled.attempts, m.rounds, settled.priority,
        coalesce(settled.error, history.error),
        m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
        m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version,
        queue.kills AND m.key IS NOT NULL AND settled.reason <> 'expired'
    FROM settled
    CROSS JOIN LATERAL (
        SELECT
            queues.dead_letter_retention_ms,
            queues.ordered AND queues.on_blocked = 'dead_letter_key' AS kills
        FROM postrider.queues
        WHERE queues.id = settled.queue_id
        OFFSET 0
    ) AS queue
    CROSS JOIN LATERAL postrider.body_of(
        settled.queue_id, settled.message_id, settled.straggler) AS m
    LEFT JOIN LATERAL (
        SELECT attempts.error
        FROM postrider.attempts
        WHERE attempts.queue_id = settled.queue_id AND attempts.message_id = settled.message_id
        ORDER BY attempts.ended_at DESC
        LIMIT 1
    ) AS history ON true
    WHERE settled.action = 'dead-letter'
),
remembered AS (
    INSERT INTO postrider.attempts
        (queue_id, message_id, token, attempt, leased_at, outcome, error)
    SELECT queue_id, message_id, token, attempts, leased_at, outcome, error
    FROM settled
    WHERE outcome IS NOT NULL
),
counted AS (
    INSERT INTO postrider.tallies
        (queue_id, ready, leased, delayed, dead, nacked, failed, dead_lettered, expired,
         removed)
    SELECT
        queue_id,
        count(*) FILTER (WHERE waits_ms = 0),
        -count(*) FILTER (WHERE token <> 0),
        count(*) FILTER (WHERE waits_ms > 0)
            - count(*) FILTER (WHERE token = 0),
        count(*) FILTER (WHERE action = 'dead-letter'),
        count(*) FILTER (WHERE outcome IN ('nacked', 'rejected')),
        count(*) FILTER (WHERE outcome IS NOT NULL),
        count(*) FILTER (WHERE action = 'dead-letter'),
        count(*) FILTER (WHERE action = 'expire'),
        count(*) FILTER (WHERE action = 'drop')
    FROM settled
    GROUP BY queue_id
)
SELECT queue_id, message_id, token, action FROM settled
