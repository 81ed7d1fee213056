-- push_attempts.sql for those that were not delivered: few among many, so with
-- an index of their own.
--
-- Index: push_attempts_not_delivered, backwards, in each daily partition, the
-- newest first.
SELECT message_id, attempt, started_at, duration_ms, outcome, status, error, answer
FROM postrider.push_attempts
WHERE queue_id = $1
  AND outcome <> 'delivered'
  AND started_at <= $2
  AND (started_at, message_id) < ($2, $3)
  AND ($4::smallint IS NULL OR status = $4)
  AND ($5::text IS NULL OR outcome = $5)
ORDER BY started_at DESC, message_id DESC
LIMIT $6
