-- move: parked -> parked (straggler), for messages with ids in [$1, $2): their
-- bodies are copied to stragglers, so that their partition can go.
--
-- Index: parked_pkey, one range a queue. SKIP LOCKED: what is being settled may
-- be gone the next time.
WITH moving AS MATERIALIZED (
    SELECT p.ctid AS tid, p.queue_id, p.message_id
    FROM postrider.queues AS q
    CROSS JOIN LATERAL (
        SELECT parked.ctid, parked.queue_id, parked.message_id
        FROM postrider.parked
        WHERE parked.queue_id = q.id AND parked.message_id >= $1 AND parked.message_id < $2
          AND NOT parked.straggler
        FOR UPDATE OF parked SKIP LOCKED
    ) AS p
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
UPDATE postrider.parked SET straggler = true
WHERE ctid = ANY(ARRAY(SELECT tid FROM moving))
