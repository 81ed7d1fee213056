-- Reads the stream of topic $1 from behind (transaction $2, message $3), at most
-- $5 messages, not published before $4 (null: any).
--
-- Only what transactions stored of which none older runs any more: in that part
-- nothing can appear later, so a reader that goes on from the last row skips
-- none, in whatever order transactions commit.
--
-- Index: stream_pkey of each partition in order; messages_pkey once a row. A
-- body is there as long as its partition, and that as long as the stream's.
SELECT
    s.xid::text::bigint AS xid, s.message_id, m.enqueued_at, m.body, m.content_type, m.headers,
    m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate, m.topic, m.routing_key,
    m.schema_version
FROM (
    SELECT stream.xid, stream.message_id
    FROM postrider.topics
    CROSS JOIN LATERAL (
        SELECT stream.xid, stream.message_id
        FROM postrider.stream
        WHERE stream.topic_id = topics.id
          AND (stream.xid, stream.message_id) > ($2::text::xid8, $3)
          AND stream.xid < pg_snapshot_xmin(pg_current_snapshot())
          AND stream.published_at > now() - topics.retention_ms * interval '1 ms'
          AND stream.published_at >= coalesce($4::timestamptz, '-infinity')
        ORDER BY stream.xid, stream.message_id
        LIMIT $5
    ) AS stream
    WHERE topics.id = $1
) AS s
CROSS JOIN LATERAL (
    SELECT
        messages.enqueued_at, messages.body, messages.content_type, messages.headers,
        messages.key, messages.correlation_id, messages.reply_to, messages.traceparent,
        messages.tracestate, messages.topic, messages.routing_key, messages.schema_version
    FROM postrider.messages
    WHERE messages.id = s.message_id
    OFFSET 0
) AS m
ORDER BY s.xid, s.message_id
