-- The proof of the watermarks: how many ready messages lie below them. Must be
-- none. Index: ready_pkey, one range a lane; slow where dead rows pile up, so
-- it runs rarely.
SELECT count(*) AS below
FROM unnest($1::bigint[], $2::smallint[], $3::bigint[]) AS lane (queue_id, priority, floor)
CROSS JOIN LATERAL (
    SELECT FROM postrider.ready
    WHERE ready.queue_id = lane.queue_id
      AND ready.priority = lane.priority
      AND ready.position < lane.floor
    LIMIT 1
) AS violation
