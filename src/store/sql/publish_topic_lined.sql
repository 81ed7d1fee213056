-- publish to topics, where any of the queues is ordered or fair, or any message is
-- fair: as publish_topic.sql, but copies with a key go to lined_up of queues that
-- are ordered, and of fair ones if they are not delayed. next_turn.sql then lets
-- them out, when this has been committed.
--
-- $1 to $20: as there. $21: what the publishers said of fair. $22: the schemas'
-- versions, which are $21 there.
--
-- Index: as there, and turns_pkey once a distinct queue and key. Locks: the rows of
-- those in turns, in order, before ids are drawn, as in publish_lined.sql; then
-- unique keys in dedup, in order.
WITH known AS MATERIALIZED (
    SELECT id, retention_ms FROM postrider.topics WHERE id = ANY($1)
),
live AS MATERIALIZED (
    SELECT queues.id, queues.delay_ms, queues.message_ttl_ms, queues.ordered, queues.fair
    FROM postrider.queues
    WHERE queues.id = ANY($20)
),
given AS MATERIALIZED (
    SELECT i.*, (now() AT TIME ZONE 'UTC')::date AS today
    FROM unnest(
        $1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::jsonb[], $7::text[],
        $8::bigint[], $9::timestamptz[], $10::bigint[], $11::smallint[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[],
        $19::bigint[], $21::boolean[], $22::integer[]
    ) WITH ORDINALITY AS i (
        topic_id, topic, routing_key, body, content_type, headers, key,
        delay_ms, deliver_at, ttl_ms, priority, correlation_id,
        reply_to, traceparent, tracestate, dedup_id, dedup_window_ms, queues_to,
        queues_from, fair, schema_version, ord)
    WHERE i.topic_id = ANY(ARRAY(SELECT id FROM known))
),
-- What may line up: whether a copy is delayed is seen below.
locked AS (
    INSERT INTO postrider.turns (queue_id, key)
    SELECT DISTINCT live.id, given.key COLLATE "C"
    FROM given
    CROSS JOIN LATERAL generate_series(given.queues_from + 1, given.queues_to) AS place (n)
    JOIN live ON live.id = ($20::bigint[])[place.n]
    WHERE given.key IS NOT NULL AND (live.ordered OR coalesce(given.fair, live.fair))
    ORDER BY 1, 2
    ON CONFLICT (queue_id, key) DO UPDATE SET floor = excluded.floor WHERE false
    RETURNING 1
),
input AS MATERIALIZED (
    SELECT nextval('postrider.message_ids') AS id, given.*
    FROM given
    WHERE (SELECT pg_current_xact_id()) IS NOT NULL
      AND (SELECT count(*) FROM locked) IS NOT NULL
),
first AS MATERIALIZED (
    SELECT DISTINCT ON (topic_id, dedup_id) id, topic_id, dedup_id, dedup_window_ms, today
    FROM input
    WHERE dedup_id IS NOT NULL
    ORDER BY topic_id, dedup_id, ord
),
earlier AS MATERIALIZED (
    SELECT first.topic_id, first.dedup_id, seen.message_id
    FROM first
    CROSS JOIN LATERAL (
        SELECT min(dedup.message_id) AS message_id
        FROM postrider.dedup
        WHERE dedup.queue_id = first.topic_id
          AND dedup.dedup_id = first.dedup_id
          AND dedup.expires_at > now()
    ) AS seen
    WHERE seen.message_id IS NOT NULL
),
fresh AS MATERIALIZED (
    SELECT first.*
    FROM first
    WHERE NOT EXISTS (
        SELECT FROM earlier
        WHERE earlier.topic_id = first.topic_id AND earlier.dedup_id = first.dedup_id)
),
won_yesterday AS (
    INSERT INTO postrider.dedup AS d (queue_id, dedup_id, day, message_id, expires_at)
    SELECT topic_id, dedup_id, today - 1, id, now() + dedup_window_ms * interval '1 ms'
    FROM fresh
    WHERE (now() AT TIME ZONE 'UTC')::time < time '00:01'
    ORDER BY topic_id, dedup_id
    ON CONFLICT (queue_id, dedup_id, day) DO UPDATE
        SET message_id = excluded.message_id, expires_at = excluded.expires_at
        WHERE d.expires_at <= now()
    RETURNING message_id
),
won AS (
    INSERT INTO postrider.dedup AS d (queue_id, dedup_id, day, message_id, expires_at)
    SELECT topic_id, dedup_id, today, id, now() + dedup_window_ms * interval '1 ms'
    FROM fresh
    WHERE (now() AT TIME ZONE 'UTC')::time >= time '00:01'
       OR id IN (SELECT message_id FROM won_yesterday)
    ORDER BY topic_id, dedup_id
    ON CONFLICT (queue_id, dedup_id, day) DO UPDATE
        SET message_id = excluded.message_id, expires_at = excluded.expires_at
        WHERE d.expires_at <= now()
    RETURNING queue_id, dedup_id, message_id
),
new AS MATERIALIZED (
    SELECT input.*, topic_id = ANY(ARRAY(SELECT id FROM known WHERE retention_ms > 0)) AS retained
    FROM input
    WHERE dedup_id IS NULL OR id IN (SELECT message_id FROM won)
),
placed AS MATERIALIZED (
    SELECT
        live.id AS queue_id, live.ordered, coalesce(new.fair, live.fair) AS fair, new.key,
        new.id AS message_id, new.priority,
        greatest(now(), new.deliver_at, now() + interval '1 ms' * coalesce(
            new.delay_ms, CASE WHEN new.deliver_at IS NULL THEN live.delay_ms END, 0)) AS wake_at,
        coalesce(new.ttl_ms, live.message_ttl_ms) AS ttl_ms,
        new.ttl_ms IS NOT NULL AS own_ttl
    FROM new
    CROSS JOIN LATERAL generate_series(new.queues_from + 1, new.queues_to) AS place (n)
    JOIN live ON live.id = ($20::bigint[])[place.n]
),
copies AS MATERIALIZED (
    SELECT
        placed.*,
        key IS NOT NULL AND (ordered OR (fair AND wake_at <= now())) AS lines_up
    FROM placed
),
stored AS (
    INSERT INTO postrider.messages
        (id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
         topic, routing_key, schema_version)
    SELECT
        id, body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
        topic, routing_key, schema_version
    FROM new
    WHERE retained OR id IN (SELECT message_id FROM copies)
),
streamed AS (
    INSERT INTO postrider.stream (topic_id, message_id, routing_key)
    SELECT topic_id, id, routing_key FROM new WHERE retained
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, own_ttl)
    SELECT
        queue_id, priority, message_id, message_id, wake_at + ttl_ms * interval '1 ms', own_ttl
    FROM copies
    WHERE wake_at <= now() AND NOT lines_up
),
made_parked AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, priority, own_ttl)
    SELECT queue_id, message_id, wake_at, wake_at + ttl_ms * interval '1 ms', priority, own_ttl
    FROM copies
    WHERE wake_at > now() AND NOT lines_up
),
made_lined_up AS (
    INSERT INTO postrider.lined_up
        (queue_id, key, position, message_id, wake_at, expires_at, priority, own_ttl)
    SELECT
        queue_id, key, message_id, message_id, wake_at, wake_at + ttl_ms * interval '1 ms',
        priority, own_ttl
    FROM copies
    WHERE lines_up
),
sums AS MATERIALIZED (
    SELECT
        queue_id,
        count(*) FILTER (WHERE lines_up OR wake_at <= now()) AS ready,
        count(*) FILTER (WHERE NOT lines_up AND wake_at <= now()) AS at_once,
        count(*) FILTER (WHERE NOT lines_up AND wake_at > now()) AS delayed,
        (extract(epoch FROM
            min(wake_at) FILTER (WHERE NOT lines_up AND wake_at > now()) - now()) * 1000)::bigint
            AS wakes_in_ms
    FROM copies
    GROUP BY queue_id
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed, published)
    SELECT queue_id, ready, delayed, ready + delayed FROM sums
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
    coalesce(reached.n, 0) AS reached,
    NULL::bigint AS queue_id, NULL::boolean AS any_ready, NULL::bigint AS wakes_in_ms,
    NULL::text AS lined_up_key
FROM input
LEFT JOIN won ON won.queue_id = input.topic_id AND won.dedup_id = input.dedup_id
LEFT JOIN earlier ON earlier.topic_id = input.topic_id AND earlier.dedup_id = input.dedup_id
LEFT JOIN (
    SELECT message_id, count(*) AS n FROM copies GROUP BY message_id
) AS reached ON reached.message_id = input.id
UNION ALL
-- What became ready or waits, by queue.
SELECT NULL, NULL, NULL, NULL, queue_id, at_once > 0, wakes_in_ms, NULL
FROM sums
UNION ALL
-- Whose turn may have come.
SELECT DISTINCT NULL::bigint, NULL::bigint, NULL::boolean, NULL::bigint, queue_id, false,
    NULL::bigint, key
FROM copies
WHERE lines_up
