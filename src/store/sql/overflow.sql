-- drop_oldest: ready | lined_up -> dead_letters ('overflow') | (nothing), for what queue $1
-- has over its bound of $2: lowest priority first, and in it the oldest; where that
-- is not enough, the oldest that wait for their key's turn. $3: the floor of the
-- tallies.
--
-- excess_ready waits until nobody else drops from the queue, and then counts
-- (migrations/0006_limits.sql): two that counted at the same moment would both
-- drop what is too much.
--
-- Index: ready_pkey in order; queue_counts_pkey, tallies_pkey from the floor up.
-- SKIP LOCKED: what is being claimed is leaving anyway.
WITH excess AS MATERIALIZED (
    SELECT postrider.excess_ready($1, $2, $3) AS n
),
picked AS MATERIALIZED (
    SELECT ready.ctid AS tid
    FROM postrider.ready
    WHERE ready.queue_id = $1
    ORDER BY ready.queue_id, ready.priority, ready.position
    LIMIT (SELECT n FROM excess)
    FOR UPDATE OF ready SKIP LOCKED
),
from_ready AS (
    DELETE FROM postrider.ready
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked))
    RETURNING queue_id, message_id, attempts, priority, straggler
),
in_line AS MATERIALIZED (
    SELECT lined_up.ctid AS tid
    FROM postrider.lined_up
    WHERE lined_up.queue_id = $1 AND NOT lined_up.is_out
    ORDER BY lined_up.queue_id, lined_up.message_id
    LIMIT (SELECT greatest(0, n - (SELECT count(*) FROM picked)) FROM excess)
    FOR UPDATE OF lined_up SKIP LOCKED
),
from_line AS (
    DELETE FROM postrider.lined_up
    WHERE ctid = ANY(ARRAY(SELECT tid FROM in_line)) AND NOT is_out
    RETURNING queue_id, message_id, attempts, priority, straggler
),
taken AS MATERIALIZED (
    SELECT * FROM from_ready UNION ALL SELECT * FROM from_line
),
kept AS (
    INSERT INTO postrider.dead_letters
        (queue_id, message_id, expires_at, reason, attempts, rounds, priority, enqueued_at, body,
         content_type, headers, key, correlation_id, reply_to, traceparent, tracestate, topic,
         routing_key, schema_version)
    SELECT
        taken.queue_id, taken.message_id, now() + queue.dead_letter_retention_ms * interval '1 ms',
        'overflow', taken.attempts, m.rounds, taken.priority, m.enqueued_at, m.body,
        m.content_type, m.headers, m.key, m.correlation_id, m.reply_to, m.traceparent,
        m.tracestate, m.topic, m.routing_key, m.schema_version
    FROM taken
    CROSS JOIN LATERAL (
        SELECT queues.dead_letter_retention_ms
        FROM postrider.queues
        WHERE queues.id = taken.queue_id AND queues.dead_letter_enabled
        OFFSET 0
    ) AS queue
    CROSS JOIN LATERAL postrider.body_of(taken.queue_id, taken.message_id, taken.straggler) AS m
    RETURNING message_id
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, dead, dead_lettered, removed)
    SELECT $1, -n, kept_n, kept_n, n - kept_n
    FROM (SELECT (SELECT count(*) FROM taken) AS n, (SELECT count(*) FROM kept) AS kept_n) AS t
    WHERE n > 0
)
SELECT taken.message_id, kept.message_id IS NOT NULL AS dead
FROM taken
LEFT JOIN kept ON kept.message_id = taken.message_id
