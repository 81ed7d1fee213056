-- backlogs: notes which queues have become too full and which are no longer,
-- and answers with those. A queue is too full at four fifths of its max_ready,
-- or at $1 messages if it has none, and no longer below half of that: in between
-- it stays what it was, so that a number that wavers tells nothing.
--
-- The row is what makes it told once: of two gateways one inserts or deletes it.
--
-- Index: queues_pkey, queue_counts_pkey, backlogs_pkey. As exact as the folded
-- counts, a few seconds old.
WITH level AS MATERIALIZED (
    SELECT
        q.id, c.ready,
        coalesce(greatest(q.max_ready * 4 / 5, 1), $1) AS threshold
    FROM postrider.queues AS q
    JOIN postrider.queue_counts AS c ON c.queue_id = q.id
),
raised AS (
    INSERT INTO postrider.backlogs (queue_id)
    SELECT id FROM level WHERE ready >= threshold
    ON CONFLICT (queue_id) DO NOTHING
    RETURNING queue_id
),
cleared AS (
    DELETE FROM postrider.backlogs
    USING level
    WHERE backlogs.queue_id = level.id AND level.ready * 2 < level.threshold
    RETURNING backlogs.queue_id
)
SELECT level.id AS queue_id, level.ready, level.threshold, true AS high
FROM raised JOIN level ON level.id = raised.queue_id
UNION ALL
SELECT level.id, level.ready, level.threshold, false
FROM cleared JOIN level ON level.id = cleared.queue_id
