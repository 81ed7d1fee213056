-- Deletes queue $1, if it is at version $2 (null: any). Where subscriptions feed
-- it, only with $3, and then they go too; else they are named.
--
-- A subscription made at the same moment locks the queue's row by its foreign
-- key; if this statement did not see it yet, the key refuses the deletion and
-- the caller tries again.
--
-- Index: queues' name, subscriptions_by_queue. The rows of its messages are
-- left to the prune worker: nothing finds them any more.
WITH target AS MATERIALIZED (
    SELECT queues.id
    FROM postrider.queues
    WHERE queues.name = $1 AND ($2::bigint IS NULL OR queues.version = $2)
    FOR UPDATE OF queues
),
feeding AS MATERIALIZED (
    SELECT s.id, t.name AS topic, s.name AS subscription
    FROM postrider.subscriptions AS s
    JOIN postrider.topics AS t ON t.id = s.topic_id
    WHERE s.queue_id = ANY(ARRAY(SELECT id FROM target))
),
unsubscribed AS (
    DELETE FROM postrider.subscriptions
    WHERE $3::boolean AND id = ANY(ARRAY(SELECT id FROM feeding))
),
gone AS (
    DELETE FROM postrider.queues
    WHERE id = ANY(ARRAY(SELECT id FROM target)) AND ($3 OR NOT EXISTS (SELECT FROM feeding))
    RETURNING id
),
noted AS (
    INSERT INTO postrider.deleted_queues (id) SELECT id FROM gone
)
SELECT
    (SELECT count(*) FROM gone) AS gone,
    ARRAY(SELECT topic || '/' || subscription FROM feeding ORDER BY topic, subscription)::text[]
        AS feeding
