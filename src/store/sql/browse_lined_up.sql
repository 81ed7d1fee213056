-- Looks at messages of queue $1 that wait for their key's turn, in the order of
-- their ids, from behind $2. They come after those that are ready.
--
-- Index: lined_up_by_message in order.
SELECT
    l.message_id, 'ready' AS state, l.attempts, l.priority, l.message_id AS position,
    NULL::timestamptz AS wake_at, l.expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM (
    SELECT lined_up.*
    FROM postrider.lined_up
    WHERE lined_up.queue_id = $1 AND lined_up.message_id > $2 AND NOT lined_up.is_out
    ORDER BY lined_up.message_id
    LIMIT $3
) AS l
CROSS JOIN LATERAL postrider.body_of(l.queue_id, l.message_id, l.straggler) AS m
ORDER BY l.message_id
