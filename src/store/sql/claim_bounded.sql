-- claim of a queue with max_in_flight: as claim.sql, and no more than that leaves
-- room for. $7: the bound; $8: the floor of the tallies.
--
-- free_in_flight waits until no other claim of the queue is under way, and then
-- counts what is leased (migrations/0006_limits.sql). That is before the first
-- row is looked at: the innermost LIMIT asks for it. What became ready while it
-- waited is not in this statement's snapshot; whoever made it ready has told the
-- receivers, who ask again. Leases are counted from when it has waited.
--
-- Index: as claim.sql, queue_counts_pkey, tallies_pkey from the floor up.
WITH free AS MATERIALIZED (
    SELECT n, clock_timestamp() AS since
    FROM (SELECT postrider.free_in_flight($1, $7, $8) AS n OFFSET 0) AS turn
),
picked AS MATERIALIZED (
    SELECT claimable.*
    FROM unnest($2::smallint[], $3::bigint[]) AS lane (priority, floor)
    CROSS JOIN LATERAL (
        SELECT
            ready.ctid AS tid, ready.message_id, ready.expires_at, ready.attempts,
            ready.priority, ready.own_ttl, ready.straggler, ready.expires_at > now() AS live
        FROM postrider.ready
        WHERE ready.queue_id = $1
          AND ready.priority = lane.priority
          AND ready.position >= lane.floor
        ORDER BY ready.position
        LIMIT least($4, (SELECT n FROM free))
        FOR UPDATE OF ready SKIP LOCKED
    ) AS claimable
    LIMIT least($4, (SELECT n FROM free))
),
taken AS (
    DELETE FROM postrider.ready
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked))
),
live AS MATERIALIZED (
    SELECT numbered.*, ($5::bigint[])[n] AS lease_ms, ($6::bigint[])[n] AS token
    FROM (SELECT picked.*, row_number() OVER () AS n FROM picked WHERE live) AS numbered
),
leased AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, token, leased_at, expires_at, attempts, priority,
         own_ttl, straggler)
    SELECT
        $1, message_id, since + lease_ms * interval '1 ms', token, since, expires_at,
        attempts + 1, priority, own_ttl, straggler
    FROM live, free
),
overdue AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
    SELECT $1, message_id, now(), expires_at, attempts, priority, own_ttl, straggler
    FROM picked
    WHERE NOT live
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, leased, delayed, delivered)
    SELECT $1, -count(*), count(*) FILTER (WHERE live), count(*) FILTER (WHERE NOT live),
        count(*) FILTER (WHERE live)
    FROM picked
    HAVING count(*) > 0
)
SELECT
    live.n, live.message_id, live.token, live.attempts + 1 AS attempt, live.priority,
    free.since + live.lease_ms * interval '1 ms' AS lease_expires_at,
    m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
    m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
FROM live
CROSS JOIN free
CROSS JOIN LATERAL (
    SELECT
        enqueued_at, body, content_type, headers, key, correlation_id, reply_to, traceparent,
        tracestate, topic, routing_key, schema_version
    FROM postrider.messages
    WHERE messages.id = live.message_id AND NOT live.straggler
    UNION ALL
    SELECT
        enqueued_at, body, content_type, headers, key, correlation_id, reply_to, traceparent,
        tracestate, topic, routing_key, schema_version
    FROM postrider.stragglers
    WHERE stragglers.queue_id = $1 AND stragglers.message_id = live.message_id AND live.straggler
) AS m
UNION ALL
SELECT
    0, 0, 0, count(*)::integer, 0::smallint, now(), now(), '', NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL
FROM picked
WHERE NOT live
HAVING count(*) > 0
