-- Schedules whose next tick is due, the earliest first, at most $1; the caller
-- publishes for each and moves it on (schedules_done.sql), in this transaction.
-- $2: seconds back that one can be due; before that all have been moved on, and
-- what is dead is not walked over. $3: not these, which this gateway could not read
-- just now. $4: only this one, if it is not null.
--
-- Index: schedules_by_next_run. Locks: the rows; those that another gateway is at
-- are left to it.
WITH due AS MATERIALIZED (
    SELECT schedules.ctid AS tid
    FROM postrider.schedules
    WHERE schedules.next_run <= now()
      AND schedules.next_run >= now() - $2 * interval '1 s'
      AND schedules.id <> ALL($3::bigint[])
      AND ($4::bigint IS NULL OR schedules.id = $4)
    ORDER BY schedules.next_run
    LIMIT $1
    FOR UPDATE OF schedules SKIP LOCKED
)
SELECT schedules.*, now() AS now
FROM postrider.schedules
WHERE schedules.ctid = ANY(ARRAY(SELECT tid FROM due))
ORDER BY schedules.next_run, schedules.id
