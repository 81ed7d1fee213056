-- How many seconds ago the first parked message of each queue was due
-- (negative: it is not yet), from the given floor on and up to $3 milliseconds
-- from now, locked or not; a queue with none is left out. See store/watermark/mod.rs.
--
-- Index: parked_by_wake, one probe a queue, bounded for the reason that
-- next_due.sql gives.
SELECT i.queue_id, extract(epoch FROM now() - soonest.wake_at)::double precision AS age
FROM unnest($1::bigint[], $2::double precision[]) AS i (queue_id, floor_seconds)
CROSS JOIN LATERAL (
    SELECT parked.wake_at
    FROM postrider.parked
    WHERE parked.queue_id = i.queue_id
      AND parked.wake_at >= now() - i.floor_seconds * interval '1 s'
      AND parked.wake_at <= now() + $3 * interval '1 ms'
    ORDER BY parked.wake_at
    LIMIT 1
) AS soonest
