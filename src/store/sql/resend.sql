-- resend: (settled, body still there) -> ready (or lined_up) of queue $1, for the messages $2,
-- with their ids, as stragglers, attempts counted anew. Says of each message
-- what it is: sent anew, alive (ready, parked or dead: nothing is done), or gone.
--
-- Only what this webhook has pushed: an id says nothing of whose message it is,
-- the attempts do.
--
-- A message that is settled is in no row that could be locked. Its row in
-- stragglers is: touched_at must still be what this statement's snapshot shows,
-- or the row must not be there. So of two resends at once, or of a resend and a
-- redrive, one makes the message ready; the other finds it alive.
--
-- Index: as message.sql, push_attempts_by_message, the key of messages or of
-- stragglers, once a message. Lateral subqueries with a limit, not EXISTS, which
-- the planner may turn into a hash of the whole queue.
--
-- The transaction has its id before it draws positions, as publish.sql does.
WITH seen AS MATERIALIZED (
    SELECT
        wanted.message_id, kept.touched_at,
        coalesce(alive.found, false) AS alive,
        coalesce(pushed.found, false) AS pushed
    FROM unnest($2::bigint[]) AS wanted (message_id)
    LEFT JOIN LATERAL (
        SELECT s.touched_at
        FROM postrider.stragglers AS s
        WHERE s.queue_id = $1 AND s.message_id = wanted.message_id
        LIMIT 1
    ) AS kept ON true
    LEFT JOIN LATERAL (
        SELECT true AS found
        FROM (
            SELECT
            FROM postrider.parked AS p
            WHERE p.queue_id = $1 AND p.message_id = wanted.message_id
            UNION ALL
            SELECT
            FROM postrider.ready AS r
            WHERE r.queue_id = $1 AND r.position = wanted.message_id
              AND r.message_id = wanted.message_id
              AND r.priority = ANY('{0,1,2,3,4,5,6,7,8,9}'::smallint[])
            UNION ALL
            SELECT
            FROM postrider.ready AS r
            WHERE r.queue_id = $1 AND r.message_id = wanted.message_id
              AND r.position <> r.message_id
            UNION ALL
            SELECT
            FROM postrider.lined_up AS l
            WHERE l.queue_id = $1 AND l.message_id = wanted.message_id AND NOT l.is_out
            UNION ALL
            SELECT
            FROM postrider.dead_letters AS d
            WHERE d.queue_id = $1 AND d.message_id = wanted.message_id
        ) AS places
        LIMIT 1
    ) AS alive ON true
    LEFT JOIN LATERAL (
        SELECT true AS found
        FROM postrider.push_attempts AS a
        WHERE a.queue_id = $1 AND a.message_id = wanted.message_id
        LIMIT 1
    ) AS pushed ON true
    WHERE (SELECT pg_current_xact_id()) IS NOT NULL
),
stored AS (
    INSERT INTO postrider.stragglers
        (queue_id, message_id, touched_at, enqueued_at, body, content_type, headers, key,
         correlation_id, reply_to, traceparent, tracestate, topic, routing_key,
         schema_version)
    SELECT
        $1, seen.message_id, coalesce(seen.touched_at, clock_timestamp()), m.enqueued_at, m.body,
        m.content_type, m.headers, m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate,
        m.topic, m.routing_key, m.schema_version
    FROM seen
    CROSS JOIN LATERAL postrider.body_of($1, seen.message_id, seen.touched_at IS NOT NULL) AS m
    WHERE seen.pushed AND NOT seen.alive
    ORDER BY seen.message_id
    ON CONFLICT (queue_id, message_id) DO UPDATE SET rounds = 0, touched_at = clock_timestamp()
        WHERE stragglers.touched_at = excluded.touched_at
    RETURNING message_id, key
),
placed AS MATERIALIZED (
    SELECT
        stored.message_id, stored.key, target.message_ttl_ms,
        target.ordered AND stored.key IS NOT NULL AS lines_up
    FROM stored
    CROSS JOIN LATERAL (
        SELECT queues.message_ttl_ms, queues.ordered
        FROM postrider.queues
        WHERE queues.id = $1
        OFFSET 0
    ) AS target
    ORDER BY stored.message_id
),
locked AS (
    INSERT INTO postrider.turns (queue_id, key)
    SELECT DISTINCT $1::bigint, key COLLATE "C" FROM placed WHERE lines_up ORDER BY 1, 2
    ON CONFLICT (queue_id, key) DO UPDATE SET floor = excluded.floor WHERE false
    RETURNING 1
),
made_lined_up AS (
    INSERT INTO postrider.lined_up
        (queue_id, key, position, message_id, wake_at, expires_at, admitted_at, priority, own_ttl,
         straggler)
    SELECT
        $1, key, nextval('postrider.message_ids'), message_id, now(),
        now() + message_ttl_ms * interval '1 ms', now(), 0, true, true
    FROM (SELECT * FROM placed WHERE lines_up ORDER BY message_id) AS coming
    WHERE (SELECT count(*) FROM locked) IS NOT NULL
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, own_ttl, straggler)
    SELECT
        $1, 0, nextval('postrider.message_ids'), message_id,
        now() + message_ttl_ms * interval '1 ms', true, true
    FROM placed
    WHERE NOT lines_up
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, published)
    SELECT $1, count(*), count(*) FROM stored HAVING count(*) > 0
)
SELECT
    seen.message_id,
    CASE
        WHEN stored.message_id IS NOT NULL THEN 'sent'
        WHEN seen.alive OR EXISTS (
            SELECT FROM postrider.body_of($1, seen.message_id, seen.touched_at IS NOT NULL)
            WHERE seen.pushed) THEN 'alive'
        ELSE 'gone'
    END AS became,
    CASE WHEN placed.lines_up THEN placed.key END AS lined_up_key
FROM seen
LEFT JOIN stored ON stored.message_id = seen.message_id
LEFT JOIN placed ON placed.message_id = seen.message_id
