-- Removes bodies in stragglers, up to $1, whose message is no longer alive in
-- its queue.
--
-- A redrive may put a body back at this moment, which this statement's snapshot
-- does not show; touched_at is checked again on the row as it is then.
--
-- Index: stragglers_pkey, then the keys of ready, parked and lined_up, once a
-- row. The
-- table is small.
WITH orphans AS MATERIALIZED (
    SELECT s.ctid AS tid
    FROM postrider.stragglers AS s
    WHERE s.touched_at < now() - interval '1 min'
      -- With LIMIT a probe a row; NOT EXISTS may become a hash of all queues.
      AND (
        SELECT 1 FROM postrider.parked AS p
        WHERE p.queue_id = s.queue_id AND p.message_id = s.message_id LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.ready AS r
        WHERE r.queue_id = s.queue_id AND r.message_id = s.message_id
          AND r.position <> r.message_id LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.ready AS r
        WHERE r.queue_id = s.queue_id AND r.position = s.message_id
          AND r.message_id = s.message_id
          AND r.priority = ANY('{0,1,2,3,4,5,6,7,8,9}'::smallint[]) LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM postrider.lined_up AS l
        WHERE l.queue_id = s.queue_id AND l.message_id = s.message_id AND NOT l.is_out
        LIMIT 1) IS NULL
    LIMIT $1
),
gone AS (
    DELETE FROM postrider.stragglers
    WHERE ctid = ANY(ARRAY(SELECT tid FROM orphans)) AND touched_at < now() - interval '1 min'
    RETURNING 1
)
SELECT count(*) FROM gone
