-- The first ready position of each queue and priority at or above the given
-- floor, whether locked or not; a lane with none is left out. With it the
-- watermarks move up: see store/watermark/mod.rs.
--
-- Index: ready_pkey, one probe a lane.
SELECT lane.queue_id, lane.priority, head.position
FROM unnest($1::bigint[], $2::smallint[], $3::bigint[]) AS lane (queue_id, priority, floor)
CROSS JOIN LATERAL (
    SELECT ready.position
    FROM postrider.ready
    WHERE ready.queue_id = lane.queue_id
      AND ready.priority = lane.priority
      AND ready.position >= lane.floor
    ORDER BY ready.position
    LIMIT 1
) AS head
