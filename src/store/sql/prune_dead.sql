-- dead_letters -> (nothing), up to $1 whose retention is over.
--
-- Index: dead_letters_by_expiry.
WITH over AS MATERIALIZED (
    SELECT d.ctid AS tid
    FROM postrider.dead_letters AS d
    WHERE d.expires_at <= now()
    ORDER BY d.expires_at
    LIMIT $1
    FOR UPDATE OF d SKIP LOCKED
),
gone AS (
    DELETE FROM postrider.dead_letters
    WHERE ctid = ANY(ARRAY(SELECT tid FROM over))
    RETURNING queue_id
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, dead, removed)
    SELECT queue_id, -count(*), count(*) FROM gone GROUP BY queue_id
)
SELECT count(*) FROM gone
