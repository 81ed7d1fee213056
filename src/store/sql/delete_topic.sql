-- Deletes topic $1, if it is at version $2 (null: any), with its subscriptions
-- and the queues that these own, but for those which another topic's
-- subscription feeds too.
--
-- Index: topics' name, subscription_name_is_unique, subscriptions_by_queue.
-- Locks: the topic, then the queues in order of id. The rows of messages are
-- left to the prune worker, those of the stream to their partition's end.
WITH target AS MATERIALIZED (
    SELECT topics.id
    FROM postrider.topics
    WHERE topics.name = $1 AND ($2::bigint IS NULL OR topics.version = $2)
    FOR UPDATE OF topics
),
owned AS MATERIALIZED (
    SELECT queues.id
    FROM postrider.queues
    WHERE queues.id = ANY(ARRAY(
        SELECT s.queue_id
        FROM postrider.subscriptions AS s
        WHERE s.owns_queue AND s.topic_id = ANY(ARRAY(SELECT id FROM target))))
      AND NOT EXISTS (
        SELECT FROM postrider.subscriptions AS other
        WHERE other.queue_id = queues.id
          AND other.topic_id <> ALL(ARRAY(SELECT id FROM target)))
    ORDER BY queues.id
    FOR UPDATE OF queues
),
unsubscribed AS (
    DELETE FROM postrider.subscriptions
    WHERE topic_id = ANY(ARRAY(SELECT id FROM target))
),
gone AS (
    DELETE FROM postrider.topics WHERE id = ANY(ARRAY(SELECT id FROM target)) RETURNING id
),
queues_gone AS (
    DELETE FROM postrider.queues WHERE id = ANY(ARRAY(SELECT id FROM owned)) RETURNING id
),
noted AS (
    INSERT INTO postrider.deleted_queues (id) SELECT id FROM queues_gone
)
SELECT (SELECT count(*) FROM gone) AS gone, ARRAY(SELECT id FROM queues_gone) AS queue_ids
