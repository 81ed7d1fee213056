-- purge: parked -> (nothing), up to $3 messages of queue $1 with ids up to $2.
--
-- Index: parked_pkey.
WITH picked AS MATERIALIZED (
    SELECT parked.ctid AS tid
    FROM postrider.parked
    WHERE parked.queue_id = $1 AND parked.message_id <= $2
    ORDER BY parked.message_id
    LIMIT $3
),
gone AS (
    DELETE FROM postrider.parked
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked))
    RETURNING token
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, leased, delayed, removed)
    SELECT $1, -count(*) FILTER (WHERE token <> 0), -count(*) FILTER (WHERE token = 0), count(*)
    FROM gone
    HAVING count(*) > 0
)
SELECT count(*) AS removed FROM gone
