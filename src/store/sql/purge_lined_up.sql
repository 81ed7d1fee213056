-- purge: lined_up -> (nothing), up to $3 messages of queue $1 that were there when
-- the purge began ($2). Those that are out are in ready or parked.
--
-- Index: lined_up_by_message. Takes no turns: next_turn.sql waits for the rows and
-- finds them gone.
WITH picked AS MATERIALIZED (
    SELECT lined_up.ctid AS tid
    FROM postrider.lined_up
    WHERE lined_up.queue_id = $1 AND lined_up.message_id <= $2 AND NOT lined_up.is_out
    ORDER BY lined_up.message_id
    LIMIT $3
),
gone AS (
    DELETE FROM postrider.lined_up
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked)) AND NOT is_out
    RETURNING 1
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, removed)
    SELECT $1, -count(*), count(*) FROM gone HAVING count(*) > 0
)
SELECT count(*) AS removed FROM gone
