-- Milliseconds until the next tick of any schedule; null if there is none. $1:
-- seconds back that one can be due, and $2: not these, as in schedules_due.sql.
--
-- Index: schedules_by_next_run, one probe, and one for each of $2.
SELECT ceil(extract(epoch FROM min(schedules.next_run) - now()) * 1000)::bigint AS in_ms
FROM postrider.schedules
WHERE schedules.next_run >= now() - $1 * interval '1 s'
  AND schedules.id <> ALL($2::bigint[])
