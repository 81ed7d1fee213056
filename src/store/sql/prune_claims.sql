-- prune_claims: over for an hour -> (nothing).
--
-- Index: claims_by_end, from the end that the round before has come to: under a
-- held snapshot what was removed stays in the index, and is not walked over
-- again. No claim gets an end that has passed.
--
-- The hour is for consumers that complete a claim after the end of their lock.
WITH over AS MATERIALIZED (
    SELECT ctid AS tid
    FROM postrider.claims
    WHERE until > now() - $2 * interval '1 s' AND until <= now() - interval '1 hour'
    ORDER BY until
    LIMIT $1
    FOR UPDATE OF claims SKIP LOCKED
),
removed AS (
    DELETE FROM postrider.claims
    WHERE ctid = ANY(ARRAY(SELECT tid FROM over))
    RETURNING key
)
SELECT count(*) FROM removed
