-- The numbers of the first $1 queues, by id, and last the sums of the rest, with
-- a null for their name. Read only.
--
-- $2: queues that this gateway knows watermarks of; $3: those, ten a queue, from
-- priority 9 down. An array, in which the n-th is found at once. Of the others
-- ready is read from its beginning.
--
-- Index: queues_pkey in order, queue_counts_pkey; of queues with something ready
-- ready_pkey once a priority; of those with leases parked_by_wake, from now on,
-- at most some 20,000 rows over all queues. A webhook's row by its key.
--
-- The counts are as of the last fold. Consumers are as counts.sql has them, but
-- for the rest, where only those that wait are counted.
WITH named AS MATERIALIZED (
    SELECT
        q.id, q.name, c.ready, c.leased, c.delayed, c.dead, c.published, c.delivered, c.acked,
        c.nacked, c.failed, c.dead_lettered, c.expired, c.removed
    FROM (SELECT id, name FROM postrider.queues ORDER BY id LIMIT $1) AS q
    JOIN postrider.queue_counts AS c ON c.queue_id = q.id
),
waiting AS MATERIALIZED (
    SELECT w.key::bigint AS queue_id, sum(w.value::bigint)::bigint AS n
    FROM postrider.gateways AS g
    CROSS JOIN LATERAL jsonb_each_text(g.waiting) AS w (key, value)
    WHERE g.seen_at > now() - interval '10 s'
    GROUP BY 1
),
share AS MATERIALIZED (
    SELECT greatest(100, 20000 / greatest(1, count(*))) AS most FROM named WHERE leased > 0
),
known AS MATERIALIZED (
    SELECT k.queue_id, k.ord
    FROM unnest($2::bigint[]) WITH ORDINALITY AS k (queue_id, ord)
)
SELECT
    named.name, greatest(named.ready, 0) AS ready, greatest(named.leased, 0) AS leased,
    greatest(named.delayed, 0) AS delayed, greatest(named.dead, 0) AS dead, named.published,
    named.delivered, named.acked, named.nacked, named.failed, named.dead_lettered, named.expired,
    named.removed,
    oldest.age AS oldest_ready_age_seconds,
    coalesce(waiting.n, 0) + holding.n AS consumers,
    webhooks.breaker ->> 'state' AS breaker
FROM named
LEFT JOIN waiting ON waiting.queue_id = named.id
LEFT JOIN known ON known.queue_id = named.id
LEFT JOIN postrider.webhooks ON webhooks.queue_id = named.id
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM now() - min(m.enqueued_at))::double precision AS age
    FROM generate_series(0, 9) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT ready.message_id, ready.straggler
        FROM postrider.ready
        WHERE ready.queue_id = named.id
          AND ready.priority = lane.priority
          AND ready.position
              >= coalesce(($3::bigint[])[(known.ord - 1) * 10 + 10 - lane.priority], 0)
        ORDER BY ready.position
        LIMIT 1
    ) AS head
    CROSS JOIN LATERAL postrider.body_of(named.id, head.message_id, head.straggler) AS m
    WHERE named.ready > 0
) AS oldest
CROSS JOIN LATERAL (
    SELECT count(DISTINCT lease.token) AS n
    FROM (
        SELECT parked.token
        FROM postrider.parked
        WHERE parked.queue_id = named.id AND parked.wake_at > now() AND named.leased > 0
        LIMIT (SELECT most FROM share)
    ) AS lease
    WHERE lease.token <> 0
) AS holding
UNION ALL
SELECT
    NULL, greatest(sum(c.ready), 0)::bigint, greatest(sum(c.leased), 0)::bigint,
    greatest(sum(c.delayed), 0)::bigint, greatest(sum(c.dead), 0)::bigint,
    sum(c.published)::bigint, sum(c.delivered)::bigint, sum(c.acked)::bigint,
    sum(c.nacked)::bigint, sum(c.failed)::bigint, sum(c.dead_lettered)::bigint,
    sum(c.expired)::bigint, sum(c.removed)::bigint,
    NULL, coalesce(sum(waiting.n), 0)::bigint, NULL
FROM postrider.queue_counts AS c
LEFT JOIN waiting ON waiting.queue_id = c.queue_id
WHERE c.queue_id > (SELECT coalesce(max(named.id), 0) FROM named)
HAVING count(*) > 0
