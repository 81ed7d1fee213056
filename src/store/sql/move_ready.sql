-- move: ready -> ready (straggler), as move_parked.sql.
--
-- Index: ready_pkey a priority at a time, ready_by_message, once a queue.
WITH moving AS MATERIALIZED (
    SELECT r.tid, r.queue_id, r.message_id
    FROM postrider.queues AS q
    CROSS JOIN LATERAL (
        SELECT one.* FROM generate_series(0, 9) AS lane (priority)
        CROSS JOIN LATERAL (
            SELECT ready.ctid AS tid, ready.queue_id, ready.message_id
            FROM postrider.ready
            WHERE ready.queue_id = q.id AND ready.priority = lane.priority::smallint
              AND ready.position >= $1 AND ready.position < $2
              AND ready.position = ready.message_id AND NOT ready.straggler
            FOR UPDATE OF ready SKIP LOCKED
        ) AS one
        UNION ALL
        SELECT back.* FROM (
            SELECT ready.ctid AS tid, ready.queue_id, ready.message_id
            FROM postrider.ready
            WHERE ready.queue_id = q.id
              AND ready.message_id >= $1 AND ready.message_id < $2
              AND ready.position <> ready.message_id AND NOT ready.straggler
            FOR UPDATE OF ready SKIP LOCKED
        ) AS back
    ) AS r
), copied AS (
    INSERT INTO postrider.stragglers
        (queue_id, message_id, enqueued_at, body, content_type, headers, key, correlation_id,
         reply_to, traceparent, tracestate, topic, routing_key, schema_version)
    SELECT
        moving.queue_id, moving.message_id, m.enqueued_at, m.body, m.content_type, m.headers,
        m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate, m.topic, m.routing_key,
        m.schema_version
    FROM moving
    CROSS JOIN LATERAL postrider.body_of(moving.queue_id, moving.message_id, false) AS m
    ON CONFLICT DO NOTHING
)
UPDATE postrider.ready SET straggler = true
WHERE ctid = ANY(ARRAY(SELECT tid FROM moving))
