-- Looks at leased ($2 true) or delayed messages, those that wake first first,
-- from behind the cursor ($3 wake time, $4 message).
--
-- Index: parked_by_wake in order; rows of the other kind are passed over.
SELECT
    p.message_id, CASE WHEN $2 THEN 'leased' ELSE 'delayed' END AS state, p.attempts, p.priority,
    0::bigint AS position, p.wake_at, p.expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM (
    SELECT parked.*
    FROM postrider.parked
    WHERE parked.queue_id = $1
      AND (parked.token <> 0) = $2
      AND parked.wake_at >= $3
      AND (parked.wake_at, parked.message_id) > ($3, $4)
    ORDER BY parked.wake_at, parked.message_id
    LIMIT $5
) AS p
CROSS JOIN LATERAL postrider.body_of(p.queue_id, p.message_id, p.straggler) AS m
ORDER BY p.wake_at, p.message_id
