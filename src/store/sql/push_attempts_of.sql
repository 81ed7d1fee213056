-- push_attempts.sql for one message, $7.
--
-- Index: push_attempts_by_message, backwards, in each daily partition.
SELECT message_id, attempt, started_at, duration_ms, outcome, status, error, answer
FROM postrider.push_attempts
WHERE queue_id = $1
  AND message_id = $7
  AND started_at <= $2
  AND (started_at, message_id) < ($2, $3)
  AND ($4::smallint IS NULL OR status = $4)
  AND ($5::text IS NULL OR outcome = $5)
ORDER BY started_at DESC
LIMIT $6
