-- Dead letters of a queue, newest first, from behind the cursor ($5 time, $6
-- message), of reason $2 and between $3 and $4 where given.
--
-- Index: dead_letters_by_time, backwards.
SELECT
    message_id, dead_at, expires_at, reason, attempts, rounds, priority, last_error, enqueued_at,
    body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
    topic, routing_key, schema_version
FROM postrider.dead_letters
WHERE queue_id = $1
  AND ($2::text IS NULL OR reason = $2)
  AND dead_at >= coalesce($3::timestamptz, '-infinity')
  AND dead_at < coalesce($4::timestamptz, 'infinity')
  AND dead_at <= $5
  AND (dead_at, message_id) < ($5, $6)
ORDER BY dead_at DESC, message_id DESC
LIMIT $7
