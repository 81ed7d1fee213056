-- follow: lined_up -> parked (leased), behind messages of queue $1 that were leased
-- just now ($2, under tokens $3 for $4 milliseconds), up to $5 behind each.
--
-- Index: lined_up_by_message and parked_pkey once a message, turns_pkey,
-- lined_up_pkey from the key's floor. Locks: the keys' rows in turns, before the look
-- (migrations/0010_lines.sql).
SELECT
    f.message_id, f.token, f.attempt, f.priority, f.lease_expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM postrider.follow($1::bigint, $2::bigint[], $3::bigint[], $4::bigint, $5::bigint[]) AS f
CROSS JOIN LATERAL postrider.body_of($1, f.message_id, f.straggler) AS m
ORDER BY f.place
