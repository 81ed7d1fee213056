-- dead_letters -> (nothing), one. Index: dead_letters_pkey.
WITH gone AS (
    DELETE FROM postrider.dead_letters
    WHERE queue_id = $1 AND message_id = $2
    RETURNING 1
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, dead, removed)
    SELECT $1, -count(*), count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) AS removed FROM gone
