-- The failed attempts of a message, oldest first, and the running one last.
--
-- Index: attempts_by_message in each daily partition, parked_pkey.
SELECT attempt, leased_at, ended_at, outcome, error
FROM postrider.attempts
WHERE queue_id = $1 AND message_id = $2
UNION ALL
SELECT attempts, leased_at, NULL, 'running', NULL
FROM postrider.parked
WHERE queue_id = $1 AND message_id = $2 AND token <> 0
ORDER BY leased_at
