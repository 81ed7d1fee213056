-- A schema's next version: (nothing) -> in force for queue $1, if the last one was
-- $2 (0: none) and $5 is in force (null: none). Versions are counted over a time
-- without a schema too.
--
-- Index: queues_pkey, one_of_each_version_a_queue. Locks: the queue's row, so that
-- of two at the same moment one comes after the other; the second finds its number
-- taken, by the unique key if not by the count, and nothing of it stays.
WITH last AS MATERIALIZED (
    SELECT coalesce(max(schemas.version), 0) AS version
    FROM postrider.schemas
    WHERE schemas.queue_id = $1
),
owner AS (
    UPDATE postrider.queues
    SET schema_version = $2 + 1
    FROM last
    WHERE queues.id = $1 AND last.version = $2
      AND schema_version IS NOT DISTINCT FROM $5
    RETURNING queues.id
)
INSERT INTO postrider.schemas (queue_id, version, schema, compatibility)
SELECT id, $2 + 1, $3, $4 FROM owner
RETURNING created_at
