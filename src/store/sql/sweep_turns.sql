-- What a gateway that was killed may have left: up to $3 keys from behind the
-- cursor ($1 queue, $2 key), and how each is: 'idle' (it has no line), 'stuck'
-- (somebody waits and nobody has the turn), or neither. $4: of this queue only.
--
-- Changes nothing: next_turn.sql and leave_turns.sql look again under the key's
-- lock. What is under way looks stuck too.
--
-- Index: turns_pkey in order, then lined_up_pkey, ready_by_message and parked_pkey
-- once a key.
SELECT
    t.queue_id, t.key,
    CASE
        WHEN first.message_id IS NULL THEN 'idle'
        WHEN NOT first.is_out THEN 'stuck'
        WHEN first.waits OR (queue.ordered AND first.parked) THEN 'fine'
        ELSE 'stuck'
    END AS state
FROM (
    SELECT turns.queue_id, turns.key, turns.floor
    FROM postrider.turns
    WHERE (turns.queue_id, turns.key) > ($1, $2)
      AND ($4::bigint IS NULL OR turns.queue_id = $4)
    ORDER BY turns.queue_id, turns.key
    LIMIT $3
) AS t
LEFT JOIN LATERAL (
    SELECT queues.ordered FROM postrider.queues WHERE queues.id = t.queue_id OFFSET 0
) AS queue ON true
LEFT JOIN LATERAL (
    SELECT
        l.message_id, l.is_out,
        (
            SELECT 1 FROM postrider.ready AS r
            WHERE r.queue_id = t.queue_id AND r.message_id = l.message_id
              AND r.position <> r.message_id
            LIMIT 1
        ) IS NOT NULL AS waits,
        (
            SELECT 1 FROM postrider.parked AS p
            WHERE p.queue_id = t.queue_id AND p.message_id = l.message_id
            LIMIT 1
        ) IS NOT NULL AS parked
    FROM postrider.lined_up AS l
    WHERE l.queue_id = t.queue_id AND l.key = t.key AND l.position >= t.floor
    ORDER BY l.position
    LIMIT 1
) AS first ON true
ORDER BY t.queue_id, t.key
