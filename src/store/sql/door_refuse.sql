-- The SQL door: (taken from door) -> door_refused, for what could not be
-- published.
--
-- Index: door_refused_pkey. Locks: none but those rows.
INSERT INTO postrider.door_refused AS refused
    (id, asked_at, reason, detail, next_try_at, queue, topic, routing_key, body, headers, key,
     priority, deliver_at, ttl_ms, dedup_id, correlation_id, reply_to, traceparent)
SELECT
    i.id, i.asked_at, i.reason, i.detail, now() + interval '1 s', i.queue, i.topic, i.routing_key,
    i.body, i.headers, i.key, i.priority, i.deliver_at, i.ttl_ms, i.dedup_id, i.correlation_id,
    i.reply_to, i.traceparent
FROM unnest(
    $1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::bytea[], $9::jsonb[], $10::text[], $11::smallint[], $12::timestamptz[], $13::bigint[],
    $14::text[], $15::text[], $16::text[], $17::text[]
) AS i (
    id, asked_at, reason, detail, queue, topic, routing_key, body, headers, key, priority,
    deliver_at, ttl_ms, dedup_id, correlation_id, reply_to, traceparent)
