-- keep_answers: (nothing) -> kept, for the answers of a transaction that has taken
-- the keys (take_keys.sql), in the transaction that has the effects.
--
-- Only a row whose time is over may be in the way: the clock was set back, or a day
-- ended by a leap. A row that is missing from what is returned was in the way
-- against the rules.
--
-- Index: idempotency_pkey. Locks: none that anybody waits for, by the keys.
INSERT INTO postrider.idempotency AS k
    (digest, day, fingerprint, status, answer, expires_at)
SELECT
    i.digest, (now() AT TIME ZONE 'UTC')::date, i.fingerprint, i.status, i.answer,
    now() + interval '24 hours'
FROM unnest($1::bytea[], $2::bytea[], $3::smallint[], $4::bytea[])
    AS i (digest, fingerprint, status, answer)
ON CONFLICT (digest, day) DO UPDATE
    SET fingerprint = excluded.fingerprint, status = excluded.status,
        answer = excluded.answer, expires_at = excluded.expires_at
    WHERE k.expires_at <= now()
RETURNING 1
