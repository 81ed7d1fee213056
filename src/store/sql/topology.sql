-- Topic $1 and its subscriptions, a row each (one with nulls if there is none),
-- in order of name: what a publish is routed by. Read once for all publishes of
-- half a second.
--
-- Index: topics' name, subscription_name_is_unique, queues_pkey.
SELECT
    t.id, t.name, t.retention_ms, t.max_message_bytes, t.dedup_window_ms, t.version,
    t.schema_version, t.created_at, t.updated_at,
    s.id AS subscription_id, s.name AS subscription_name, s.version AS subscription_version,
    s.filter::text AS filter, s.queue_id, s.queue_name, s.max_ready, s.overflow,
    s.ordered, s.fair, s.fair_seen
FROM postrider.topics AS t
LEFT JOIN LATERAL (
    SELECT
        subscriptions.id, subscriptions.name, subscriptions.version, subscriptions.filter,
        subscriptions.queue_id, q.name AS queue_name, q.max_ready, q.overflow,
        q.ordered, q.fair, q.fair_seen
    FROM postrider.subscriptions
    CROSS JOIN LATERAL (
        SELECT
            queues.name, queues.max_ready, queues.overflow, queues.ordered, queues.fair,
            queues.fair_seen
        FROM postrider.queues
        WHERE queues.id = subscriptions.queue_id
        OFFSET 0
    ) AS q
    WHERE subscriptions.topic_id = t.id
    ORDER BY subscriptions.topic_id, subscriptions.name
) AS s ON true
WHERE t.name = $1
ORDER BY s.name
