-- publish: (nothing) -> ready | parked, one statement for all requests that
-- were waiting. A message is stored once in messages (insert-only) and gets
-- one narrow row in ready, or in parked if it has to wait or is handed over.
--
-- $16, $17: the token and the duration of the lease with which a message is handed
-- over to a receiver that waits at this gateway (batch/receivers/handover.rs): what a claim
-- would do next, without its flush. Null for all others; only messages that are not
-- delayed have them.
--
-- Index: queues_pkey once a distinct queue. Locks: none.
--
-- Rows for a queue that is gone are left out; the caller misses them and
-- answers 404. So are those for one that is ordered, if the caller did not know
-- that yet: it takes publish_lined.sql.
--
-- The transaction has its id before it draws positions: the watermarks rest on
-- that (store/watermark/mod.rs).
--
-- For messages without a dedup id; publish_dedup.sql takes any, and takes half
-- as long again for a small batch.
WITH input AS MATERIALIZED (
    SELECT
        nextval('postrider.message_ids') AS id,
        i.*,
        greatest(now(), now() + i.delay_ms * interval '1 ms', i.deliver_at) AS wake_at,
        CASE WHEN token IS NOT NULL THEN now() END AS leased_at
    FROM unnest(
        $1::bigint[], $2::bytea[], $3::text[], $4::jsonb[], $5::text[], $6::smallint[],
        $7::bigint[], $8::timestamptz[], $9::bigint[], $10::boolean[], $11::text[], $12::text[],
        $13::text[], $14::text[], $15::integer[], $16::bigint[], $17::bigint[]
    ) WITH ORDINALITY AS i (
        queue_id, body, content_type, headers, key, priority,
        delay_ms, deliver_at, ttl_ms, own_ttl,
        correlation_id, reply_to, traceparent, tracestate, schema_version, token, lease_ms,
        ord)
    WHERE (SELECT pg_current_xact_id()) IS NOT NULL
      AND i.queue_id = ANY(ARRAY(SELECT id FROM postrider.queues WHERE id = ANY($1) AND NOT ordered))
),
stored AS (
    INSERT INTO postrider.messages
        (id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
         schema_version)
    SELECT
        id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
        schema_version
    FROM input
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, own_ttl)
    SELECT queue_id, priority, id, id, wake_at + ttl_ms * interval '1 ms', own_ttl
    FROM input
    WHERE wake_at <= now() AND token IS NULL
),
made_parked AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, token, leased_at, expires_at, attempts, priority, own_ttl)
    SELECT
        queue_id, id, coalesce(now() + lease_ms * interval '1 ms', wake_at), coalesce(token, 0),
        leased_at, wake_at + ttl_ms * interval '1 ms', num_nonnulls(token), priority, own_ttl
    FROM input
    WHERE wake_at > now() OR token IS NOT NULL
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, leased, delayed, published, delivered)
    SELECT
        queue_id,
        count(*) FILTER (WHERE wake_at <= now() AND token IS NULL),
        count(token),
        count(*) FILTER (WHERE wake_at > now()),
        count(*),
        count(token)
    FROM input
    GROUP BY queue_id
)
SELECT
    ord, id, false AS duplicate,
    (extract(epoch FROM wake_at - now()) * 1000)::bigint AS wakes_in_ms,
    leased_at
FROM input
ORDER BY ord
