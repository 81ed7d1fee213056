-- take_claim: (nothing | over) -> held; what is held or done stays as it is.
--
-- Index: claims_pkey. Locks: the claim's row, if it has to be written.
--
-- A claim that is held or done is only read, so that a consumer that asks for it
-- again and again writes nothing. Of two that find none, one inserts and the other
-- waits for that and finds it held: the answer has no row then, because the row is
-- younger than what the statement sees, and the caller looks again.
--
-- The token is drawn when the row is locked, so it is greater than that of any
-- taking before, whoever was fastest to begin.
WITH there AS MATERIALIZED (
    SELECT done_at, until
    FROM postrider.claims
    WHERE key = $1 AND until > now()
),
taken AS (
    INSERT INTO postrider.claims AS claim (key, token, keep_ms, until)
    SELECT $1, nextval('postrider.claim_tokens'), $3::bigint, now() + $2::bigint * interval '1 ms'
    WHERE NOT EXISTS (SELECT FROM there)
    ON CONFLICT (key) DO UPDATE
    SET token = nextval('postrider.claim_tokens'),
        keep_ms = excluded.keep_ms,
        done_at = NULL,
        until = excluded.until
    WHERE claim.until <= now()
    RETURNING token, until
)
SELECT token, NULL::timestamptz AS done_at, until, 0::bigint AS left_ms FROM taken
UNION ALL
SELECT
    NULL, done_at, until,
    ceil(extract(epoch FROM until - now()) * 1000)::bigint
FROM there
