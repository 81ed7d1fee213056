-- give_up_claim: held -> (nothing), if the token is the last one.
--
-- Index: claims_pkey. Locks: the claim's row.
--
-- No row where there is no claim any more: it was given up before, or its time has
-- been over for long.
WITH there AS MATERIALIZED (
    SELECT token = $2 AND done_at IS NOT NULL AS done
    FROM postrider.claims
    WHERE key = $1
),
given_up AS (
    DELETE FROM postrider.claims
    WHERE key = $1 AND token = $2 AND done_at IS NULL
    RETURNING key
)
SELECT
    CASE
        WHEN EXISTS (SELECT FROM given_up) THEN 'given-up'
        WHEN there.done THEN 'done'
        ELSE 'lost'
    END AS fate
FROM there
