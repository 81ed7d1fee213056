-- purge: ready -> (nothing), up to $3 messages of queue $1 whose position was
-- given out before the purge began ($2), or whose id was: what has come back or has
-- had its turn since. Called until it finds none.
--
-- Index: ready_pkey, a priority at a time; ready_by_message.
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
    UNION ALL
    SELECT back.tid
    FROM (
        SELECT ready.ctid AS tid
        FROM postrider.ready
        WHERE ready.queue_id = $1 AND ready.message_id <= $2 AND ready.position > $2
          AND ready.position <> ready.message_id
        LIMIT $3
        FOR UPDATE OF ready SKIP LOCKED
    ) AS back
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
