-- Removes what deleted queues have left, up to $1 rows of each kind and queue.
--
-- Index: the primary keys, by queue.
WITH ready_gone AS (
    DELETE FROM postrider.ready WHERE ctid = ANY(ARRAY(
        SELECT r.tid FROM postrider.deleted_queues AS q
        CROSS JOIN LATERAL (
            SELECT ready.ctid AS tid FROM postrider.ready WHERE ready.queue_id = q.id LIMIT $1
        ) AS r))
    RETURNING 1
),
parked_gone AS (
    DELETE FROM postrider.parked WHERE ctid = ANY(ARRAY(
        SELECT p.tid FROM postrider.deleted_queues AS q
        CROSS JOIN LATERAL (
            SELECT parked.ctid AS tid FROM postrider.parked WHERE parked.queue_id = q.id LIMIT $1
        ) AS p))
    RETURNING 1
),
dead_gone AS (
    DELETE FROM postrider.dead_letters WHERE ctid = ANY(ARRAY(
        SELECT d.tid FROM postrider.deleted_queues AS q
        CROSS JOIN LATERAL (
            SELECT dead_letters.ctid AS tid FROM postrider.dead_letters
            WHERE dead_letters.queue_id = q.id LIMIT $1
        ) AS d))
    RETURNING 1
),
lined_up_gone AS (
    DELETE FROM postrider.lined_up WHERE ctid = ANY(ARRAY(
        SELECT l.tid FROM postrider.deleted_queues AS q
        CROSS JOIN LATERAL (
            SELECT lined_up.ctid AS tid FROM postrider.lined_up
            WHERE lined_up.queue_id = q.id LIMIT $1
        ) AS l))
    RETURNING 1
),
turns_gone AS (
    DELETE FROM postrider.turns WHERE ctid = ANY(ARRAY(
        SELECT t.tid FROM postrider.deleted_queues AS q
        CROSS JOIN LATERAL (
            SELECT turns.ctid AS tid FROM postrider.turns WHERE turns.queue_id = q.id LIMIT $1
        ) AS t))
    RETURNING 1
)
SELECT (SELECT count(*) FROM ready_gone) + (SELECT count(*) FROM parked_gone)
    + (SELECT count(*) FROM dead_gone) + (SELECT count(*) FROM lined_up_gone)
    + (SELECT count(*) FROM turns_gone)
