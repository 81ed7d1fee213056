-- The proof of the floors of wake times: in how many queues a parked message
-- was due longer ago than the scan for due ones looks back. Must be none.
-- Index: parked_by_wake, one range a queue; as slow as below_floors.
SELECT count(*) AS below
FROM unnest($1::bigint[], $2::double precision[]) AS i (queue_id, floor_seconds)
CROSS JOIN LATERAL (
    SELECT FROM postrider.parked
    WHERE parked.queue_id = i.queue_id
      AND parked.wake_at < now() - i.floor_seconds * interval '1 s'
    LIMIT 1
) AS violation
