-- take_keys: what is known of idempotency keys, and which this transaction has
-- from now on (migrations/0011_idempotency.sql). $1: digests, $2: the number of the
-- advisory lock of each. Nobody waits for a lock.
--
-- Index: idempotency_pkey once a key and day.
SELECT ord, taken, fingerprint, status, answer
FROM postrider.take_idempotency_keys($1::bytea[], $2::bigint[])
