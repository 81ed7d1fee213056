-- publish, where any message may have to wait for its key's turn: as
-- publish_dedup.sql (whether or not there are dedup ids), but a message with a key
-- goes to lined_up if its queue is ordered, or if it is fair and not delayed.
-- next_turn.sql then lets it out, when this has been committed.
--
-- $15: dedup ids, $16: their windows, $17: what the publisher said of fair.
--
-- Index: queues_pkey once a distinct queue; dedup_pkey once a dedup id; turns_pkey
-- once a distinct key. Locks: the rows of the keys in turns, in order, before
-- anything is drawn from the sequence: so the ids of one key are committed in
-- their order, and a line has no gap that fills up later. Then unique keys in
-- dedup, in order. A row that is there is locked and not changed (WHERE false): a
-- key's rows in turns do not pile up while somebody holds a snapshot.
WITH given AS MATERIALIZED (
    SELECT
        i.*,
        greatest(now(), now() + i.delay_ms * interval '1 ms', i.deliver_at) AS wake_at,
        i.key IS NOT NULL AND (
            known.ordered
            OR coalesce(i.fair, known.fair)
                AND greatest(now() + i.delay_ms * interval '1 ms', i.deliver_at) <= now()
        ) AS lines_up
    FROM unnest(
        $1::bigint[], $2::bytea[], $3::text[], $4::jsonb[], $5::text[], $6::smallint[],
        $7::bigint[], $8::timestamptz[], $9::bigint[], $10::boolean[], $11::text[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::bigint[], $17::boolean[], $18::integer[]
    ) WITH ORDINALITY AS i (
        queue_id, body, content_type, headers, key, priority,
        delay_ms, deliver_at, ttl_ms, own_ttl, correlation_id, reply_to, traceparent, tracestate,
        dedup_id, dedup_window_ms, fair, schema_version, ord)
    JOIN postrider.queues AS known ON known.id = i.queue_id
    WHERE known.id = ANY($1)
    ORDER BY ord
),
locked AS (
    INSERT INTO postrider.turns (queue_id, key)
    SELECT DISTINCT queue_id, key COLLATE "C" FROM given WHERE lines_up ORDER BY 1, 2
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
    WHERE wake_at <= now() AND NOT lines_up
      AND (dedup_id IS NULL OR id IN (SELECT message_id FROM won))
),
made_parked AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, priority, own_ttl)
    SELECT queue_id, id, wake_at, wake_at + ttl_ms * interval '1 ms', priority, own_ttl
    FROM input
    WHERE wake_at > now() AND NOT lines_up
      AND (dedup_id IS NULL OR id IN (SELECT message_id FROM won))
),
made_lined_up AS (
    INSERT INTO postrider.lined_up
        (queue_id, key, position, message_id, wake_at, expires_at, priority, own_ttl)
    SELECT
        queue_id, key, id, id, wake_at, wake_at + ttl_ms * interval '1 ms', priority, own_ttl
    FROM input
    WHERE lines_up
      AND (dedup_id IS NULL OR id IN (SELECT message_id FROM won))
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed, published)
    SELECT
        queue_id,
        -- Whose turn it is not counts as ready, whatever its delay.
        count(*) FILTER (WHERE lines_up OR wake_at <= now()),
        count(*) FILTER (WHERE NOT lines_up AND wake_at > now()),
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
    (extract(epoch FROM input.wake_at - now()) * 1000)::bigint AS wakes_in_ms,
    input.lines_up
FROM input
LEFT JOIN won ON won.queue_id = input.queue_id AND won.dedup_id = input.dedup_id
LEFT JOIN earlier ON earlier.queue_id = input.queue_id AND earlier.dedup_id = input.dedup_id
ORDER BY input.ord
