-- kept_answer: reads what a request with an idempotency key was answered; takes
-- nothing. For requests that would be refused: what was answered before counts.
--
-- Index: idempotency_pkey once a day.
SELECT k.fingerprint, k.status, k.answer
FROM postrider.idempotency AS k
WHERE k.digest = $1
  AND k.day >= (now() AT TIME ZONE 'UTC')::date - 1
  AND k.expires_at > now()
LIMIT 1
