-- complete_claims: held -> done, for those whose token is the last one; done
-- before with the same token is done.
--
-- Index: claims_pkey once a key. Locks: the claims' rows, in order of their keys.
-- One row comes back for each key that was asked for, in order; is_new: this statement
-- has completed it.
--
-- A lock that is over counts as long as nobody has taken the claim since: the
-- token says so.
WITH held AS MATERIALIZED (
    SELECT key, token, done_at, until
    FROM postrider.claims
    WHERE key = ANY($1)
    ORDER BY key
    FOR UPDATE OF claims
),
input AS MATERIALIZED (
    SELECT i.key, i.token, i.ord
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS i (key, token, ord)
),
completed AS (
    UPDATE postrider.claims
    SET done_at = now(), until = now() + claims.keep_ms * interval '1 ms'
    FROM held
    JOIN input ON input.key = held.key AND input.token = held.token
    WHERE claims.key = held.key AND claims.token = held.token AND claims.done_at IS NULL
    RETURNING claims.key, claims.done_at, claims.until
)
SELECT
    coalesce(completed.done_at, held.done_at) AS done_at,
    coalesce(completed.until, held.until) AS until,
    completed.key IS NOT NULL AS is_new
FROM input
LEFT JOIN held ON held.key = input.key AND held.token = input.token
LEFT JOIN completed ON completed.key = held.key
ORDER BY input.ord
