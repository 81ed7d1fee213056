-- unblock: of the keys $2 of queue $1, dead letters hold them no longer, and a head
-- that rests is due at once. Says what it did; next_turn.sql then lets in who is
-- next.
--
-- Index: dead_letters_holding, turns_pkey, lined_up_pkey, parked_pkey, once a key.
-- Locks: rows by address, of keys in order. A lease is left alone, also one that was
-- given at this moment: the token is checked again on the row as it is.
WITH wanted AS MATERIALIZED (
    SELECT DISTINCT i.key COLLATE "C" AS key FROM unnest($2::text[]) AS i (key) ORDER BY 1
),
held AS MATERIALIZED (
    SELECT letter.tid
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT d.ctid AS tid
        FROM postrider.dead_letters AS d
        WHERE d.queue_id = $1 AND d.key COLLATE "C" = wanted.key AND d.holds
        ORDER BY d.dead_at, d.message_id
        FOR UPDATE OF d
    ) AS letter
),
released AS (
    UPDATE postrider.dead_letters SET holds = false
    WHERE ctid = ANY(ARRAY(SELECT tid FROM held)) AND holds
    RETURNING key
),
heads AS MATERIALIZED (
    SELECT wanted.key, head.*
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid, parked.token
        FROM (
            SELECT l.message_id, l.is_out
            FROM postrider.lined_up AS l
            WHERE l.queue_id = $1 AND l.key = wanted.key
              AND l.position >= coalesce((
                SELECT turns.floor
                FROM postrider.turns
                WHERE turns.queue_id = $1 AND turns.key = wanted.key
              ), 0)
            ORDER BY l.position
            LIMIT 1
        ) AS first
        CROSS JOIN LATERAL (
            SELECT p.ctid, p.token
            FROM postrider.parked AS p
            WHERE first.is_out AND p.queue_id = $1 AND p.message_id = first.message_id
              -- A delay that the publisher wanted is left alone.
              AND p.attempts > 0
            LIMIT 1
        ) AS parked
    ) AS head
),
woken AS (
    UPDATE postrider.parked SET wake_at = now()
    WHERE ctid = ANY(ARRAY(SELECT tid FROM heads WHERE token = 0)) AND token = 0
    RETURNING message_id
)
SELECT
    wanted.key,
    (SELECT count(*) FROM released WHERE released.key COLLATE "C" = wanted.key) AS dead_letters,
    coalesce(heads.token = 0, false) AS woken,
    coalesce(heads.token <> 0, false) AS leased
FROM wanted
LEFT JOIN heads ON heads.key = wanted.key
ORDER BY wanted.key
