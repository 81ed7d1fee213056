-- publish, where any message has a dedup id: as publish.sql, but a message with
-- a dedup id is stored only by the statement that wins its row in dedup.
--
-- Index: queues_pkey once a distinct queue; dedup_pkey once a dedup id.
-- Locks: none but those of unique keys in dedup, taken in key order.
--
-- Midnight: the day is part of dedup's key so that old days can be dropped
-- whole. Two publishes of one id on either side of midnight would win a row
-- each; so in the first minute of a day a publish must also win the row of
-- the day before. A minute outlasts every statement (statement_timeout), so
-- after it all rows of the day before are visible to `earlier`.
WITH input AS MATERIALIZED (
    SELECT
        nextval('postrider.message_ids') AS id,
        i.*,
        greatest(now(), now() + i.delay_ms * interval '1 ms', i.deliver_at) AS wake_at
    FROM unnest(
        $1::bigint[], $2::bytea[], $3::text[], $4::jsonb[], $5::text[], $6::smallint[],
        $7::bigint[], $8::timestamptz[], $9::bigint[], $10::boolean[], $11::text[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::bigint[], $17::integer[]
    ) WITH ORDINALITY AS i (
        queue_id, body, content_type, headers, key, priority,
        delay_ms, deliver_at, ttl_ms, own_ttl, correlation_id, reply_to, traceparent, tracestate,
        dedup_id, dedup_window_ms, schema_version, ord)
    WHERE (SELECT pg_current_xact_id()) IS NOT NULL
      AND i.queue_id = ANY(ARRAY(SELECT id FROM postrider.queues WHERE id = ANY($1) AND NOT ordered))
),
first AS MATERIALIZED (
    SELECT DISTINCT ON (queue_id, dedup_id) id, queue_id, dedup_id, dedup_window_ms
    FROM input
    WHERE dedup_id IS NOT NULL
    ORDER BY queue_id, dedup_id, ord
),
earlier AS MATERIALIZED (
    SELECT first.queue_id, first.dedup_id, seen.message_id
    FROM first
    CROSS JOIN LATERAL (
        SELECT min(dedup.message_id) AS message_id
        FROM postrider.dedup
        WHERE dedup.queue_id = first.queue_id
          AND dedup.dedup_id = first.dedup_id
          AND dedup.expires_at > now()
    ) AS seen
    WHERE seen.message_id IS NOT NULL
),
fresh AS MATERIALIZED (
    SELECT first.*, (now() AT TIME ZONE 'UTC')::date AS today
    FROM first
    WHERE NOT EXISTS (
        SELECT FROM earlier
        WHERE earlier.queue_id = first.queue_id AND earlier.dedup_id = first.dedup_id)
),
won_yesterday AS (
    INSERT INTO postrider.dedup AS d (queue_id, dedup_id, day, message_id, expires_at)
    SELECT queue_id, dedup_id, today - 1, id, now() + dedup_window_ms * interval '1 ms'
    FROM fresh
    WHERE (now() AT TIME ZONE 'UTC')::time < time '00:01'
    ORDER BY queue_id, dedup_id
    ON CONFLICT (queue_id, dedup_id, day) DO UPDATE
        SET message_id = excluded.message_id, expires_at = excluded.expires_at
        WHERE d.expires_at <= now()
    RETURNING message_id
),
won AS (
    INSERT INTO postrider.dedup AS d (queue_id, dedup_id, day, message_id, expires_at)
    SELECT queue_id, dedup_id, today, id, now() + dedup_window_ms * interval '1 ms'
    FROM fresh
    WHERE (now() AT TIME ZONE 'UTC')::time >= time '00:01'
       OR id IN (SELECT message_id FROM won_yesterday)
    ORDER BY queue_id, dedup_id
    ON CONFLICT (queue_id, dedup_id, day) DO UPDATE
        SET message_id = excluded.message_id, expires_at = excluded.expires_at
        WHERE d.expires_at <= now()
    RETURNING queue_id, dedup_id, message_id
),
stored AS (
    INSERT INTO postrider.messages
        (id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
         schema_version)
    SELECT
        id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
        schema_version
    FROM input
    WHERE dedup_id IS NULL OR id IN (SELECT message_id FROM won)
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, own_ttl)
    SELECT queue_id, priority, id, id, wake_at + ttl_ms * interval '1 ms', own_ttl
    FROM input
    WHERE wake_at <= now()
      AND (dedup_id IS NULL OR id IN (SELECT message_id FROM won))
),
made_parked AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, priority, own_ttl)
    SELECT queue_id, id, wake_at, wake_at + ttl_ms * interval '1 ms', priority, own_ttl
    FROM input
    WHERE wake_at > now()
      AND (dedup_id IS NULL OR id IN (SELECT message_id FROM won))
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed, published)
    SELECT
        queue_id,
        count(*) FILTER (WHERE wake_at <= now()),
        count(*) FILTER (WHERE wake_at > now()),
        count(*)
    FROM input
    WHERE dedup_id IS NULL OR id IN (SELECT message_id FROM won)
    GROUP BY queue_id
)
SELECT
    input.ord,
    -- Null: the id was taken by a publish that this statement could not see
    -- yet; the caller looks it up (publish_duplicates.sql).
    CASE
        WHEN input.dedup_id IS NULL THEN input.id
        ELSE coalesce(won.message_id, earlier.message_id)
    END AS id,
    input.dedup_id IS NOT NULL AND won.message_id IS DISTINCT FROM input.id AS duplicate,
    (extract(epoch FROM input.wake_at - now()) * 1000)::bigint AS wakes_in_ms
FROM input
LEFT JOIN won ON won.queue_id = input.queue_id AND won.dedup_id = input.dedup_id
LEFT JOIN earlier ON earlier.queue_id = input.queue_id AND earlier.dedup_id = input.dedup_id
ORDER BY input.ord
