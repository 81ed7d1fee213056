-- expire: ready -> parked (due at once), for messages whose time to live has
-- passed though nobody tried to receive them; settled from there as any other.
--
-- Index: ready_by_expiry for those with their own time to live; for the
-- others, which expire in order of position, the head of each priority in
-- ready_pkey, and on from it only where the head has expired. $2, $3, $4: queues,
-- priorities, and for each the watermark, as in claim.sql; without one the head
-- is looked for from the beginning. turns_pkey, one probe a queue.
WITH overdue AS MATERIALIZED (
    SELECT own.tid
    FROM postrider.queues
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS tid
        FROM postrider.ready
        WHERE ready.queue_id = queues.id AND ready.own_ttl AND ready.expires_at <= now()
        ORDER BY ready.expires_at
        LIMIT $1
    ) AS own
    UNION ALL
    SELECT follower.tid
    FROM postrider.queues
    CROSS JOIN generate_series(0, 9) AS lane (priority)
    LEFT JOIN unnest($2::bigint[], $3::smallint[], $4::bigint[])
        AS known (queue_id, priority, floor)
        ON known.queue_id = queues.id AND known.priority = lane.priority
    CROSS JOIN LATERAL (
        SELECT ready.expires_at <= now() AS expired
        FROM postrider.ready
        WHERE ready.queue_id = queues.id AND ready.priority = lane.priority::smallint
          AND ready.position >= coalesce(known.floor, 0)
        ORDER BY ready.position
        LIMIT 1
    ) AS head
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS tid, ready.expires_at, ready.own_ttl
        FROM postrider.ready
        WHERE head.expired
          AND ready.queue_id = queues.id AND ready.priority = lane.priority::smallint
          AND ready.position >= coalesce(known.floor, 0)
        ORDER BY ready.position
        LIMIT $1
    ) AS follower
    WHERE follower.expires_at <= now() AND NOT follower.own_ttl
),
taken AS (
    DELETE FROM postrider.ready
    WHERE ctid = ANY(ARRAY(SELECT tid FROM overdue)) AND expires_at <= now()
    RETURNING queue_id, message_id, expires_at, attempts, priority, own_ttl, straggler
),
made_due AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
    SELECT
        queue_id, message_id, now(), expires_at, attempts, priority, own_ttl, straggler
    FROM taken
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed)
    SELECT queue_id, -count(*), count(*) FROM taken GROUP BY queue_id
)
SELECT DISTINCT queue_id, false AS has_lines FROM taken
UNION ALL
-- Not of what expired: queues in which keys have lines.
SELECT queues.id, true
FROM postrider.queues
CROSS JOIN LATERAL (
    SELECT FROM postrider.turns WHERE turns.queue_id = queues.id LIMIT 1
) AS any_key
