-- purge: ready -> (nothing), up to $3 messages of queue $1 whose position was
-- given out before the purge began ($2). Called until it finds none.
--
-- Index: ready_pkey, a priority at a time.
WITH picked AS MATERIALIZED (
    SELECT near.tid
    FROM generate_series(0, 9) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS tid
        FROM postrider.ready
        WHERE ready.queue_id = $1
          AND ready.priority = lane.priority::smallint
          AND ready.position <= $2
        ORDER BY ready.position
        LIMIT $3
        FOR UPDATE OF ready SKIP LOCKED
    ) AS near
    LIMIT $3
),
gone AS (
    DELETE FROM postrider.ready WHERE ctid = ANY(ARRAY(SELECT tid FROM picked)) RETURNING 1
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, removed)
    SELECT $1, -count(*), count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) AS removed FROM gone
