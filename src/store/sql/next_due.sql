-- When the next parked message of each queue is due, seconds from now
-- (negative: it is late), for those within $3 milliseconds. $1, $2: queues
-- with a known floor, and how many seconds back it lies.
--
-- Index: parked_by_wake, one probe a queue. The bound stands inside, so that
-- leases that were acked early, dead but held by somebody's snapshot, are not
-- walked over to the first that is alive.
SELECT
    queues.id AS queue_id,
    extract(epoch FROM soonest.wake_at - now())::double precision AS due_in
FROM postrider.queues
LEFT JOIN unnest($1::bigint[], $2::double precision[]) AS known (queue_id, floor_seconds)
    ON known.queue_id = queues.id
CROSS JOIN LATERAL (
    SELECT parked.wake_at
    FROM postrider.parked
    WHERE parked.queue_id = queues.id
      AND parked.wake_at
        >= coalesce(now() - known.floor_seconds * interval '1 s', '-infinity'::timestamptz)
      AND parked.wake_at <= now() + $3 * interval '1 ms'
    ORDER BY parked.wake_at
    LIMIT 1
) AS soonest
