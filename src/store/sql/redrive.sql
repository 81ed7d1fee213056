-- redrive: dead_letters -> ready of queue $2 (or lined_up), or parked where $8 spreads them
-- over time; the id is kept, attempts are counted anew, the time to live too.
--
-- $3: these messages; or null and a filter: reason $4, dead from $5 to $6, at
-- most $7. $8: milliseconds between one and the next (0: all at once); $9: how
-- far the first is delayed. $10: rounds to add (the scheduled retry) or null
-- (a redrive by hand begins anew).
--
-- Index: dead_letters_pkey or dead_letters_by_time. SKIP LOCKED: two gateways
-- never put one letter back twice. A message that is alive in the target
-- queue already (a redrive to another queue that shares it) is left.
--
-- To an ordered queue they go in the order of their ids: to the end of their key's
-- line in lined_up, under the key's lock (publish_lined.sql).
--
-- The body goes to stragglers: its partition may be gone.
WITH picked AS MATERIALIZED (
    SELECT chosen.tid, row_number() OVER () - 1 AS n
    FROM (
        SELECT one.tid
        FROM unnest($3::bigint[]) AS wanted (message_id)
        CROSS JOIN LATERAL (
            SELECT d.ctid AS tid
            FROM postrider.dead_letters AS d
            WHERE d.queue_id = $1 AND d.message_id = wanted.message_id
            LIMIT 1
            FOR UPDATE OF d SKIP LOCKED
        ) AS one
        UNION ALL
        SELECT filtered.tid
        FROM (
            SELECT d.ctid AS tid
            FROM postrider.dead_letters AS d
            WHERE $3 IS NULL
              AND d.queue_id = $1
              AND ($4::text IS NULL OR d.reason = $4)
              AND d.dead_at >= coalesce($5::timestamptz, '-infinity')
              AND d.dead_at < coalesce($6::timestamptz, 'infinity')
            ORDER BY d.dead_at, d.message_id
            LIMIT $7
            FOR UPDATE OF d SKIP LOCKED
        ) AS filtered
    ) AS chosen
),
taken AS (
    DELETE FROM postrider.dead_letters AS d
    WHERE d.ctid = ANY(ARRAY(SELECT tid FROM picked))
      -- With LIMIT a probe a row; NOT EXISTS may become a hash of the whole queue.
      AND (
        SELECT 1 FROM postrider.parked AS p
        WHERE p.queue_id = $2 AND p.message_id = d.message_id LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.ready AS r
        WHERE r.queue_id = $2 AND r.position = d.message_id AND r.message_id = d.message_id
          AND r.priority = ANY('{0,1,2,3,4,5,6,7,8,9}'::smallint[]) LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.ready AS r
        WHERE r.queue_id = $2 AND r.message_id = d.message_id AND r.position <> r.message_id
        LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.lined_up AS l
        WHERE l.queue_id = $2 AND l.message_id = d.message_id AND NOT l.is_out LIMIT 1) IS NULL
    RETURNING d.*
),
ordered AS MATERIALIZED (
    SELECT
        numbered.*, (n - 1) * $8 + $9 AS delay_ms,
        numbered.ordered AND numbered.key IS NOT NULL AS lines_up
    FROM (
        SELECT
            taken.*, target.message_ttl_ms, target.ordered,
            row_number() OVER (
                ORDER BY CASE WHEN NOT target.ordered THEN dead_at END, message_id) AS n
        FROM taken
        CROSS JOIN LATERAL (
            SELECT queues.message_ttl_ms, queues.ordered
            FROM postrider.queues
            WHERE queues.id = $2
            OFFSET 0
        ) AS target
    ) AS numbered
    ORDER BY n
),
locked AS (
    INSERT INTO postrider.turns (queue_id, key)
    SELECT DISTINCT $2::bigint, key COLLATE "C" FROM ordered WHERE lines_up ORDER BY 1, 2
    ON CONFLICT (queue_id, key) DO UPDATE SET floor = excluded.floor WHERE false
    RETURNING 1
),
kept AS (
    INSERT INTO postrider.stragglers
        (queue_id, message_id, rounds, enqueued_at, body, content_type, headers, key,
         correlation_id, reply_to, traceparent, tracestate, topic, routing_key,
         schema_version)
    SELECT
        $2, message_id, coalesce(rounds + $10::integer, 0), enqueued_at, body, content_type,
        headers, key, correlation_id, reply_to, traceparent, tracestate, topic, routing_key,
        -- The version is one of the topic's, or of this queue's.
        CASE WHEN $1::bigint = $2::bigint OR topic IS NOT NULL THEN schema_version END
    FROM ordered
    -- Left from an earlier redrive, and not pruned yet.
    ON CONFLICT (queue_id, message_id) DO UPDATE
        SET rounds = excluded.rounds, touched_at = now()
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, own_ttl, straggler)
    SELECT
        $2, priority, nextval('postrider.message_ids'), message_id,
        now() + message_ttl_ms * interval '1 ms', true, true
    FROM ordered
    WHERE delay_ms <= 0 AND NOT lines_up
),
made_parked AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, priority, own_ttl, straggler)
    SELECT
        $2, message_id, now() + delay_ms * interval '1 ms',
        now() + (delay_ms + message_ttl_ms) * interval '1 ms', priority, true, true
    FROM ordered
    WHERE delay_ms > 0 AND NOT lines_up
),
made_lined_up AS (
    INSERT INTO postrider.lined_up
        (queue_id, key, position, message_id, wake_at, expires_at, admitted_at, priority, own_ttl,
         straggler)
    SELECT
        $2, key, nextval('postrider.message_ids'), message_id,
        now() + delay_ms * interval '1 ms',
        now() + (delay_ms + message_ttl_ms) * interval '1 ms', now(), priority, true, true
    FROM (SELECT * FROM ordered WHERE lines_up ORDER BY n) AS coming
    WHERE (SELECT count(*) FROM locked) IS NOT NULL
),
-- What leaves a queue for another counts as removed here and published there,
-- so that each queue's sum holds.
counted_out AS (
    INSERT INTO postrider.tallies (queue_id, dead, ready, delayed, removed)
    SELECT
        $1, -count(*),
        CASE WHEN $1 = $2 THEN count(*) FILTER (WHERE lines_up OR delay_ms <= 0) ELSE 0 END,
        CASE WHEN $1 = $2 THEN count(*) FILTER (WHERE NOT lines_up AND delay_ms > 0) ELSE 0 END,
        CASE WHEN $1 = $2 THEN 0 ELSE count(*) END
    FROM ordered
    HAVING count(*) > 0
),
counted_in AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed, published)
    SELECT
        $2, count(*) FILTER (WHERE lines_up OR delay_ms <= 0),
        count(*) FILTER (WHERE NOT lines_up AND delay_ms > 0), count(*)
    FROM ordered
    WHERE $1 <> $2
    HAVING count(*) > 0
)
SELECT
    message_id, delay_ms::bigint AS delay_ms, CASE WHEN lines_up THEN key END AS lined_up_key
FROM ordered
ORDER BY delay_ms, priority DESC, n
