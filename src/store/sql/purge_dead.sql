-- purge: dead_letters -> (nothing), up to $4 of queue $1 that died before $2,
-- of reason $3 if given.
--
-- Index: dead_letters_by_time.
WITH picked AS MATERIALIZED (
    SELECT d.ctid AS tid
    FROM postrider.dead_letters AS d
    WHERE d.queue_id = $1 AND d.dead_at < $2 AND ($3::text IS NULL OR d.reason = $3)
      AND ($5::timestamptz IS NULL OR d.dead_at >= $5)
    ORDER BY d.dead_at, d.message_id
    LIMIT $4
    FOR UPDATE OF d SKIP LOCKED
),
gone AS (
    DELETE FROM postrider.dead_letters WHERE ctid = ANY(ARRAY(SELECT tid FROM picked)) RETURNING 1
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, dead, removed)
    SELECT $1, -count(*), count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) AS removed FROM gone
