-- Looks at ready messages in the order they will be received, from behind the
-- cursor ($2 priority, $3 position).
--
-- Index: ready_pkey, one ordered walk a priority.
SELECT
    r.message_id, 'ready' AS state, r.attempts, r.priority, r.position,
    NULL::timestamptz AS wake_at, r.expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM (
    SELECT near.*
    FROM generate_series($2::integer, 0, -1) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT ready.*
        FROM postrider.ready
        WHERE ready.queue_id = $1
          AND ready.priority = lane.priority::smallint
          AND ready.position > CASE WHEN lane.priority = $2 THEN $3::bigint ELSE 0 END
        ORDER BY ready.position
        LIMIT $4
    ) AS near
    LIMIT $4
) AS r
CROSS JOIN LATERAL postrider.body_of(r.queue_id, r.message_id, r.straggler) AS m
