-- The keys of queue $1 that do not move, in order, from behind $2: held by a dead
-- letter, or the message whose turn it is is leased or waits for a time. Looks at
-- up to $3 keys that have a line, and as many that are held; of how many wait behind
-- it counts to $4.
--
-- Index: turns_pkey and dead_letters_holding in order; lined_up_pkey and parked_pkey
-- once a key, attempts_by_message once a message that rests.
WITH RECURSIVE holding (key) AS (
    -- From key to key: one may have any number of letters.
    (
        SELECT d.key COLLATE "C"
        FROM postrider.dead_letters AS d
        WHERE d.queue_id = $1 AND d.key COLLATE "C" > $2 AND d.holds
        ORDER BY d.key COLLATE "C"
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT d.key COLLATE "C"
        FROM postrider.dead_letters AS d
        WHERE d.queue_id = $1 AND d.key COLLATE "C" > holding.key AND d.holds
        ORDER BY d.key COLLATE "C"
        LIMIT 1
    )
    FROM holding
    WHERE holding.key IS NOT NULL
),
candidates AS MATERIALIZED (
    (
        SELECT turns.key
        FROM postrider.turns
        WHERE turns.queue_id = $1 AND turns.key > $2
        ORDER BY turns.key
        LIMIT $3
    )
    UNION
    (SELECT holding.key FROM holding WHERE holding.key IS NOT NULL LIMIT $3)
),
page AS MATERIALIZED (
    SELECT candidates.key FROM candidates ORDER BY candidates.key LIMIT $3
)
SELECT
    page.key,
    CASE
        WHEN hold.message_id IS NOT NULL AND head.message_id IS NULL THEN 'dead-letter'
        WHEN head.token <> 0 THEN 'leased'
        WHEN head.attempts > 0 THEN 'backing-off'
        WHEN head.message_id IS NOT NULL THEN 'delayed'
    END AS reason,
    CASE WHEN head.message_id IS NULL THEN hold.message_id ELSE head.message_id END AS message_id,
    CASE
        WHEN head.message_id IS NULL THEN hold.dead_at
        WHEN head.token <> 0 THEN head.leased_at
        ELSE coalesce(failed.ended_at, m.enqueued_at)
    END AS since,
    CASE WHEN head.message_id IS NOT NULL THEN head.wake_at END AS until,
    (
        SELECT count(*)
        FROM (
            SELECT
            FROM postrider.lined_up AS l
            WHERE l.queue_id = $1 AND l.key = page.key
              AND l.position >= coalesce(turn.floor, 0) AND NOT l.is_out
            LIMIT $4
        ) AS behind
    ) AS waiting
FROM page
LEFT JOIN LATERAL (
    SELECT turns.floor FROM postrider.turns WHERE turns.queue_id = $1 AND turns.key = page.key
    LIMIT 1
) AS turn ON true
LEFT JOIN LATERAL (
    SELECT p.message_id, p.token, p.attempts, p.leased_at, p.wake_at, p.straggler
    FROM (
        SELECT l.message_id, l.is_out
        FROM postrider.lined_up AS l
        WHERE l.queue_id = $1 AND l.key = page.key AND l.position >= coalesce(turn.floor, 0)
        ORDER BY l.position
        LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT parked.message_id, parked.token, parked.attempts, parked.leased_at,
            parked.wake_at, parked.straggler
        FROM postrider.parked
        WHERE first.is_out AND parked.queue_id = $1 AND parked.message_id = first.message_id
        LIMIT 1
    ) AS p
) AS head ON true
LEFT JOIN LATERAL (
    SELECT d.message_id, d.dead_at
    FROM postrider.dead_letters AS d
    WHERE d.queue_id = $1 AND d.key COLLATE "C" = page.key AND d.holds
    ORDER BY d.dead_at
    LIMIT 1
) AS hold ON true
LEFT JOIN LATERAL (
    SELECT a.ended_at
    FROM postrider.attempts AS a
    WHERE a.queue_id = $1 AND a.message_id = head.message_id
    ORDER BY a.ended_at DESC
    LIMIT 1
) AS failed ON true
LEFT JOIN LATERAL postrider.body_of($1, head.message_id, head.straggler) AS m ON true
ORDER BY page.key
