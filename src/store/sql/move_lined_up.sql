-- move: lined_up -> lined_up (straggler), as move_parked.sql. Of what is out ready
-- or parked knows where the body is.
--
-- Index: lined_up_by_message, one range a queue.
WITH moving AS MATERIALIZED (
    SELECT l.ctid AS tid, l.queue_id, l.message_id
    FROM postrider.queues AS q
    CROSS JOIN LATERAL (
        SELECT lined_up.ctid, lined_up.queue_id, lined_up.message_id
        FROM postrider.lined_up
        WHERE lined_up.queue_id = q.id
          AND lined_up.message_id >= $1 AND lined_up.message_id < $2
          AND NOT lined_up.straggler AND NOT lined_up.is_out
        FOR UPDATE OF lined_up SKIP LOCKED
    ) AS l
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
UPDATE postrider.lined_up SET straggler = true
WHERE ctid = ANY(ARRAY(SELECT tid FROM moving))
