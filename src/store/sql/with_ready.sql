-- Which of the given queues have a ready message: the fallback poll of waiting
-- receivers, one statement for all. $2: the lowest of each queue's watermarks.
--
-- Index: ready_pkey, one probe a priority until one hits.
SELECT i.queue_id
FROM unnest($1::bigint[], $2::bigint[]) AS i (queue_id, floor)
WHERE EXISTS (
    SELECT FROM generate_series(0, 9) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT FROM postrider.ready
        WHERE ready.queue_id = i.queue_id
          AND ready.priority = lane.priority::smallint
          AND ready.position >= i.floor
        LIMIT 1
    ) AS hit
)
