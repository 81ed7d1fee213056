-- One dead letter. Index: dead_letters_pkey.
SELECT
    message_id, dead_at, expires_at, reason, attempts, rounds, priority, last_error, enqueued_at,
    body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
    topic, routing_key, schema_version
FROM postrider.dead_letters
WHERE queue_id = $1 AND message_id = $2
