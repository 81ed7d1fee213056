-- One message of a queue, wherever it is: ready, parked, in line or dead.
--
-- Index: ready_pkey (first way through) or ready_by_message (came back),
-- parked_pkey, lined_up_by_message, dead_letters_pkey.
WITH place AS MATERIALIZED (
    SELECT 'ready' AS state, r.attempts, r.priority, NULL::timestamptz AS wake_at, r.expires_at,
        r.straggler
    FROM postrider.ready AS r
    WHERE r.queue_id = $1 AND r.position = $2 AND r.message_id = $2
      AND r.priority = ANY('{0,1,2,3,4,5,6,7,8,9}'::smallint[])
    UNION ALL
    SELECT 'ready', r.attempts, r.priority, NULL, r.expires_at, r.straggler
    FROM postrider.ready AS r
    WHERE r.queue_id = $1 AND r.message_id = $2 AND r.position <> r.message_id
    UNION ALL
    SELECT CASE WHEN p.token <> 0 THEN 'leased' ELSE 'delayed' END, p.attempts, p.priority,
        p.wake_at, p.expires_at, p.straggler
    FROM postrider.parked AS p
    WHERE p.queue_id = $1 AND p.message_id = $2
    UNION ALL
    SELECT 'ready', l.attempts, l.priority, NULL, l.expires_at, l.straggler
    FROM postrider.lined_up AS l
    WHERE l.queue_id = $1 AND l.message_id = $2 AND NOT l.is_out
)
SELECT
    $2 AS message_id, place.state, place.attempts, place.priority, place.wake_at,
    place.expires_at, m.enqueued_at, m.body, m.content_type, m.headers, m.key,
    m.correlation_id, m.reply_to, m.traceparent, m.tracestate, m.topic, m.routing_key,
    m.schema_version
FROM place
CROSS JOIN LATERAL postrider.body_of($1, $2, place.straggler) AS m
UNION ALL
SELECT
    d.message_id, 'dead', d.attempts, d.priority, NULL, d.expires_at, d.enqueued_at, d.body,
    d.content_type, d.headers, d.key, d.correlation_id, d.reply_to, d.traceparent, d.tracestate,
    d.topic, d.routing_key, d.schema_version
FROM postrider.dead_letters AS d
WHERE d.queue_id = $1 AND d.message_id = $2
LIMIT 1
