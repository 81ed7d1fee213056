-- Counts, up to $3, the live messages with ids in [$1, $2) whose body is still
-- in messages, over every queue, deleted ones included: what pins a partition.
--
-- Index: ready_pkey a priority at a time (a message on its first way through has
-- its id as position), ready_by_message, parked_pkey,
-- lined_up_by_message, once a queue.
SELECT count(*)
FROM (
    SELECT
    FROM (
        SELECT id FROM postrider.queues UNION ALL SELECT id FROM postrider.deleted_queues
    ) AS q
    CROSS JOIN LATERAL (
        SELECT
        FROM (
            SELECT
            FROM generate_series(0, 9) AS lane (priority)
            CROSS JOIN LATERAL (
                SELECT
                FROM postrider.ready AS r
                WHERE r.queue_id = q.id
                  AND r.priority = lane.priority::smallint
                  AND r.position >= $1 AND r.position < $2
                  AND r.position = r.message_id AND NOT r.straggler
                LIMIT $3
            ) AS first_way
            UNION ALL
            SELECT
            FROM postrider.ready AS r
            WHERE r.queue_id = q.id AND r.message_id >= $1 AND r.message_id < $2
              AND r.position <> r.message_id AND NOT r.straggler
            UNION ALL
            SELECT
            FROM postrider.parked AS p
            WHERE p.queue_id = q.id AND p.message_id >= $1 AND p.message_id < $2
              AND NOT p.straggler
            UNION ALL
            SELECT
            FROM postrider.lined_up AS l
            WHERE l.queue_id = q.id AND l.message_id >= $1 AND l.message_id < $2
              AND NOT l.straggler AND NOT l.is_out
        ) AS kinds
        LIMIT $3
    ) AS alive
    LIMIT $3
) AS counted
