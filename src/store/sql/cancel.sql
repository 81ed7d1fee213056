-- cancel: ready | parked | lined_up | dead_letters -> (nothing), one message. Whoever
-- holds a lease on it may still ack it.
--
-- Index: as message.sql.
WITH from_ready AS (
    DELETE FROM postrider.ready
    WHERE queue_id = $1 AND message_id = $2
      AND ((position = $2 AND priority = ANY('{0,1,2,3,4,5,6,7,8,9}'::smallint[]))
        OR position <> message_id)
    RETURNING 1
),
from_parked AS (
    DELETE FROM postrider.parked
    WHERE queue_id = $1 AND message_id = $2
    RETURNING token
),
from_line AS (
    DELETE FROM postrider.lined_up
    WHERE queue_id = $1 AND message_id = $2 AND NOT is_out
    RETURNING 1
),
from_dead AS (
    DELETE FROM postrider.dead_letters
    WHERE queue_id = $1 AND message_id = $2
    RETURNING 1
),
sums AS (
    SELECT
        (SELECT count(*) FROM from_ready) + (SELECT count(*) FROM from_line) AS ready,
        (SELECT count(*) FROM from_parked WHERE token <> 0) AS leased,
        (SELECT count(*) FROM from_parked WHERE token = 0) AS delayed,
        (SELECT count(*) FROM from_dead) AS dead
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, leased, delayed, dead, removed)
    SELECT $1, -ready, -leased, -delayed, -dead, ready + leased + delayed + dead
    FROM sums
    WHERE ready + leased + delayed + dead > 0
)
SELECT ready + leased + delayed + dead AS removed FROM sums
