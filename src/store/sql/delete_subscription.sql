-- Deletes subscription $2 of topic $1, if it is at version $3 (null: any), and
-- the queue that it owns, unless another subscription feeds that too.
--
-- Index: topics' name, subscription_name_is_unique, subscriptions_by_queue.
-- Locks: the subscription, then its queue.
WITH target AS MATERIALIZED (
    SELECT s.id, s.queue_id, s.owns_queue
    FROM postrider.topics AS t
    JOIN postrider.subscriptions AS s ON s.topic_id = t.id
    WHERE t.name = $1 AND s.name = $2 AND ($3::bigint IS NULL OR s.version = $3)
    FOR UPDATE OF s
),
owned AS MATERIALIZED (
    SELECT queues.id
    FROM postrider.queues
    WHERE queues.id = ANY(ARRAY(SELECT queue_id FROM target WHERE owns_queue))
      AND NOT EXISTS (
        SELECT FROM postrider.subscriptions AS other
        WHERE other.queue_id = queues.id AND other.id <> ALL(ARRAY(SELECT id FROM target)))
    FOR UPDATE OF queues
),
gone AS (
    DELETE FROM postrider.subscriptions
    WHERE id = ANY(ARRAY(SELECT id FROM target))
    RETURNING id
),
queue_gone AS (
    DELETE FROM postrider.queues WHERE id = ANY(ARRAY(SELECT id FROM owned)) RETURNING id
),
noted AS (
    INSERT INTO postrider.deleted_queues (id) SELECT id FROM queue_gone
)
SELECT (SELECT count(*) FROM gone) AS gone, ARRAY(SELECT id FROM queue_gone) AS queue_ids
