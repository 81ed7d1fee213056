-- The counts of queue $1 as of the last fold, the age of its oldest ready
-- message and who consumes it. $2, $3: priorities and watermarks, as in
-- claim.sql.
--
-- Index: queue_counts_pkey; ready_pkey's head a priority; parked_pkey for
-- at most 10,000 rows. So a deep backlog costs nothing.
SELECT
    greatest(c.ready, 0) AS ready,
    greatest(c.leased, 0) AS leased,
    greatest(c.delayed, 0) AS delayed,
    greatest(c.dead, 0) AS dead,
    now() AS counted_at,
    (
        SELECT extract(epoch FROM now() - min(m.enqueued_at))::double precision
        FROM unnest($2::smallint[], $3::bigint[]) AS lane (priority, floor)
        CROSS JOIN LATERAL (
            SELECT ready.message_id, ready.straggler
            FROM postrider.ready
            WHERE ready.queue_id = $1
              AND ready.priority = lane.priority
              AND ready.position >= lane.floor
            ORDER BY ready.position
            LIMIT 1
        ) AS head
        CROSS JOIN LATERAL postrider.body_of($1, head.message_id, head.straggler) AS m
    ) AS oldest_ready_age_seconds,
    (
        SELECT count(DISTINCT lease.token)
        FROM (
            SELECT parked.token
            FROM postrider.parked
            WHERE parked.queue_id = $1 AND c.leased > 0
            LIMIT 10000
        ) AS lease
        WHERE lease.token <> 0
    ) AS holding,
    (
        SELECT coalesce(sum((gateways.waiting ->> $1::text)::bigint), 0)::bigint
        FROM postrider.gateways
        WHERE gateways.seen_at > now() - interval '10 s' AND gateways.id <> $4
    ) AS waiting_elsewhere
FROM postrider.queue_counts AS c
WHERE c.queue_id = $1
