-- claim: ready -> parked (leased), up to $4 messages of queue $1, for one or
-- more receivers.
--
-- $2, $3: priorities from 9 down, and for each the position to scan from (the
-- watermark: everything below it is known to be gone). $5, $6: the lease and
-- the token of the first message claimed, the second, and so on; arrays of
-- numbers, in which the n-th is found at once.
--
-- Index: ready_pkey once a priority, in order, from the watermark. The
-- MATERIALIZED list of row addresses is what makes the LIMIT hold: a join
-- could run the locking subquery more than once.
--
-- Messages whose time to live has passed are not delivered: they are parked
-- as due at once, so that the promote worker settles them as any other
-- expired message. The last row tells their number.
WITH picked AS MATERIALIZED (
    SELECT claimable.*
    FROM unnest($2::smallint[], $3::bigint[]) AS lane (priority, floor)
    CROSS JOIN LATERAL (
        SELECT
            ready.ctid AS tid, ready.message_id, ready.expires_at, ready.attempts,
            ready.priority, ready.own_ttl, ready.straggler, ready.expires_at > now() AS live
        FROM postrider.ready
        WHERE ready.queue_id = $1
          AND ready.priority = lane.priority
          AND ready.position >= lane.floor
        ORDER BY ready.position
        LIMIT $4
        FOR UPDATE OF ready SKIP LOCKED
    ) AS claimable
    LIMIT $4
),
taken AS (
    DELETE FROM postrider.ready
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked))
),
live AS MATERIALIZED (
    SELECT numbered.*, ($5::bigint[])[n] AS lease_ms, ($6::bigint[])[n] AS token
    FROM (SELECT picked.*, row_number() OVER () AS n FROM picked WHERE live) AS numbered
),
leased AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, token, leased_at, expires_at, attempts, priority,
         own_ttl, straggler)
    SELECT
        $1, message_id, now() + lease_ms * interval '1 ms', token, now(), expires_at,
        attempts + 1, priority, own_ttl, straggler
    FROM live
),
overdue AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
    SELECT $1, message_id, now(), expires_at, attempts, priority, own_ttl, straggler
    FROM picked
    WHERE NOT live
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, leased, delayed, delivered)
    SELECT $1, -count(*), count(*) FILTER (WHERE live), count(*) FILTER (WHERE NOT live),
        count(*) FILTER (WHERE live)
    FROM picked
    HAVING count(*) > 0
)
SELECT
    live.n, live.message_id, live.token, live.attempts + 1 AS attempt, live.priority,
    now() + live.lease_ms * interval '1 ms' AS lease_expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM live
CROSS JOIN LATERAL (
    SELECT
        enqueued_at, body, content_type, headers, key, correlation_id, reply_to, traceparent,
        tracestate, topic, routing_key, schema_version
    FROM postrider.messages
    WHERE messages.id = live.message_id AND NOT live.straggler
    UNION ALL
    SELECT
        enqueued_at, body, content_type, headers, key, correlation_id, reply_to, traceparent,
        tracestate, topic, routing_key, schema_version
    FROM postrider.stragglers
    WHERE stragglers.queue_id = $1 AND stragglers.message_id = live.message_id AND live.straggler
) AS m
UNION ALL
SELECT
    0, 0, 0, count(*)::integer, 0::smallint, now(), now(), '', NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL
FROM picked
WHERE NOT live
HAVING count(*) > 0
