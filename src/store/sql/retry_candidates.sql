-- retry: which dead letters the scheduled retry may put back now: those whose
-- queue wants it, dead for retry_every, with rounds left. What expired would
-- only expire again and stays. redrive.sql then takes each once.
--
-- Index: dead_letters_by_round, one walk for each round of each such queue.
SELECT queues.id AS queue_id, due.message_id
FROM postrider.queues
CROSS JOIN LATERAL generate_series(0, queues.retry_max_rounds - 1) AS round (rounds)
CROSS JOIN LATERAL (
    SELECT d.message_id
    FROM postrider.dead_letters AS d
    WHERE d.queue_id = queues.id
      AND d.rounds = round.rounds
      AND d.dead_at <= now() - queues.retry_every_ms * interval '1 ms'
      AND d.reason <> 'expired'
    ORDER BY d.dead_at
    LIMIT $1
) AS due
WHERE queues.retry_max_rounds > 0
