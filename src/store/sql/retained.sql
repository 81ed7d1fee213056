-- Whether any topic still retains a message with an id in [$1, $2): what keeps
-- a partition besides live messages.
--
-- Index: stream_pkey backwards, one row a topic. Of what a topic has there the
-- last in order of transactions is the youngest, give or take the length of a
-- statement, for which a minute is added.
SELECT EXISTS (
    SELECT
    FROM postrider.topics
    CROSS JOIN LATERAL (
        SELECT stream.published_at
        FROM postrider.stream
        WHERE stream.topic_id = topics.id
          AND stream.message_id >= $1 AND stream.message_id < $2
        ORDER BY stream.xid DESC, stream.message_id DESC
        LIMIT 1
    ) AS youngest
    WHERE topics.retention_ms > 0
      AND youngest.published_at
        > now() - topics.retention_ms * interval '1 ms' - interval '1 min'
)
