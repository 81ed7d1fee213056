-- heartbeat: gateway $1 lives, and so many receivers wait here ($2, by queue). And
-- what every gateway has to know every two seconds: whether there are others, the
-- version of the API keys, the time, whether something is in the SQL door that was
-- not at the last look ($3 and $4 as in door.sql, $5 as in door_again.sql), and when
-- the next schedule is due ($6 as in schedules_due.sql).
--
-- Index: gateways_pkey; door_pkey once a transaction of $4 and once for all later
-- ones; door_refused_by_next_try; schedules_by_next_run. Locks: the gateway's row, and
-- those of gateways that have been gone for a day.
WITH beat AS (
    INSERT INTO postrider.gateways (id, waiting) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), waiting = excluded.waiting
),
gone AS (
    DELETE FROM postrider.gateways
    WHERE seen_at < now() - interval '1 day' AND id <> $1
)
SELECT
    EXISTS (
        SELECT FROM postrider.gateways
        WHERE id <> $1 AND seen_at > now() - interval '10 s') AS others,
    (SELECT keys_version FROM postrider.cluster) AS keys_version,
    now() AS now,
    EXISTS (SELECT FROM postrider.door WHERE door.xid >= $3::text::xid8)
        OR EXISTS (
            SELECT FROM unnest($4::text[]::xid8[]) AS ran (xid)
            CROSS JOIN LATERAL (
                SELECT FROM postrider.door WHERE door.xid = ran.xid LIMIT 1) AS hit
            WHERE pg_visible_in_snapshot(ran.xid, pg_current_snapshot()))
        OR EXISTS (
            SELECT FROM postrider.door_refused
            WHERE next_try_at <= now()
              AND next_try_at >= now() - $5 * interval '1 s') AS door,
    pg_snapshot_xmax(pg_current_snapshot())::text AS xmax,
    ARRAY(SELECT x::text FROM pg_snapshot_xip(pg_current_snapshot()) AS x) AS running,
    (SELECT ceil(extract(epoch FROM min(next_run) - now()) * 1000)::bigint
     FROM postrider.schedules
     WHERE next_run >= now() - $6 * interval '1 s') AS next_run_in_ms
