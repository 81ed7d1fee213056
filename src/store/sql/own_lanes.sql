-- Shares the lanes of active webhooks out among the gateways that ask for
-- them: gateway $1 renews what it owns, takes what nobody owns, and lets the
-- rest run out, up to its share and $2.
--
-- The share is exact: of n lanes and g gateways each has n / g, and the first
-- n % g of them, by id, one more. A gateway that has too much (another has come)
-- lets the last of its lanes go: it is to end what is on its way there
-- ("leaving"), and nobody has the lane meanwhile but it. While something is ($3,
-- the queues where so), the lane is renewed, else the next gateway would send as
-- many again beside it; otherwise it runs out.
--
-- So is a paused or disabled webhook's lane.
--
-- Index: webhooks_by_owner, webhooks_active. What is locked by somebody else is
-- not taken; what is ours is waited for, in order of queue, else a change of the
-- settings would look like a loss of the lane.
WITH others AS MATERIALIZED (
    SELECT g.id
    FROM postrider.gateways AS g
    WHERE g.id <> $1
      AND g.seen_at > now() - interval '10 s'
      AND g.lanes_at > now() - interval '10 s'
),
beat AS (
    INSERT INTO postrider.gateways (id, lanes_at) VALUES ($1, now())
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), lanes_at = now()
),
share AS MATERIALIZED (
    SELECT least(
        lanes.n / gateways.n + (gateways.before < lanes.n % gateways.n)::integer, $2::bigint
    ) AS n
    FROM (SELECT count(*) AS n FROM postrider.webhooks WHERE status = 'active') AS lanes
    CROSS JOIN (
        SELECT count(*) + 1 AS n, count(*) FILTER (WHERE id < $1) AS before FROM others
    ) AS gateways
),
mine AS MATERIALIZED (
    SELECT w.*
    FROM postrider.webhooks AS w
    WHERE w.owner = $1 AND w.owner_until > now()
    ORDER BY w.queue_id
    FOR UPDATE OF w
),
ranked AS MATERIALIZED (
    SELECT
        mine.queue_id,
        mine.status = 'active'
            AND row_number() OVER (PARTITION BY mine.status = 'active' ORDER BY mine.queue_id)
                <= (SELECT n FROM share) AS keeps
    FROM mine
),
free AS MATERIALIZED (
    SELECT w.queue_id
    FROM postrider.webhooks AS w
    WHERE w.status = 'active' AND (w.owner IS NULL OR w.owner_until <= now())
    ORDER BY w.queue_id
    LIMIT (
        SELECT greatest(0, share.n - count(*) FILTER (WHERE ranked.keeps))
        FROM share LEFT JOIN ranked ON true
        GROUP BY share.n)
    FOR UPDATE OF w SKIP LOCKED
),
ending AS (
    UPDATE postrider.webhooks AS w
    SET owner_until = now() + interval '10 s'
    WHERE w.queue_id = ANY(ARRAY(
        SELECT ranked.queue_id
        FROM ranked
        WHERE NOT ranked.keeps AND ranked.queue_id = ANY($3::bigint[])))
),
owned AS (
    UPDATE postrider.webhooks AS w
    SET owner = $1, owner_until = now() + interval '10 s'
    WHERE w.queue_id = ANY(ARRAY(
        SELECT ranked.queue_id FROM ranked WHERE ranked.keeps
        UNION ALL
        SELECT free.queue_id FROM free))
    RETURNING w.*
)
SELECT
    lane.queue_id, lane.url, lane.headers, lane.timeout_ms, lane.max_in_flight,
    lane.rate_limit_per_second, lane.breaker_failure_rate, lane.breaker_window,
    lane.breaker_min_calls, lane.breaker_open_ms, lane.disable_after_ms, lane.status,
    lane.status_reason, lane.status_since, lane.secret, lane.old_secret, lane.old_secret_until,
    lane.breaker, lane.failing_since, lane.version, lane.created_at, lane.updated_at,
    lane.old_secret_until > now() AS old_secret_signs, lane.leaving,
    (extract(epoch FROM lane.failing_since) * 1000)::bigint AS failing_since_ms,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
FROM (
    SELECT owned.*, false AS leaving FROM owned
    UNION ALL
    SELECT mine.*, true AS leaving
    FROM mine
    JOIN ranked ON ranked.queue_id = mine.queue_id
    WHERE NOT ranked.keeps
) AS lane
ORDER BY lane.queue_id
