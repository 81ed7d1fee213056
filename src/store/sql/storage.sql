-- storage: who keeps dead rows from being removed, how many there are, and how
-- far the log has come. Reads statistics and locks nothing.
--
-- What holds back the removal: snapshots and transactions of this database, of
-- standbys that report theirs (hot_standby_feedback), replication slots, and
-- prepared transactions. A slot's catalog_xmin holds back system tables only.
-- Vacuums are left out, since other vacuums do not wait for them. Sessions and
-- prepared transactions say since when; slots and standbys do not.
--
-- A role without pg_monitor sees only its own sessions' transactions.
WITH held AS (
    SELECT
        CASE WHEN a.backend_type = 'walsender' THEN 'standby' ELSE 'session' END AS kind,
        a.pid, a.application_name AS application, a.usename::text AS role,
        host(a.client_addr) AS client, a.state, NULL::text AS name,
        CASE WHEN a.backend_type <> 'walsender'
            THEN extract(epoch FROM clock_timestamp() - a.xact_start)::double precision
        END AS age_seconds,
        greatest(age(a.backend_xmin), age(a.backend_xid)) AS transactions,
        a.backend_xmin::text AS xmin, false AS catalog_only
    FROM pg_stat_activity AS a
    WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
      AND a.pid <> pg_backend_pid()
      AND (a.datname = current_database() OR a.backend_type = 'walsender')
      AND a.backend_type <> 'autovacuum worker'
      AND a.query !~* '^\s*vacuum'
    UNION ALL
    SELECT
        'prepared', NULL, NULL, owner::text, NULL, 'prepared', gid,
        extract(epoch FROM clock_timestamp() - prepared)::double precision,
        age(transaction), transaction::text, false
    FROM pg_prepared_xacts
    WHERE database = current_database()
    UNION ALL
    SELECT
        'slot', active_pid, plugin::text, NULL, NULL,
        CASE WHEN active THEN 'active' ELSE 'inactive' END, slot_name::text, NULL,
        age(coalesce(xmin, catalog_xmin)), coalesce(xmin, catalog_xmin)::text, xmin IS NULL
    FROM pg_replication_slots
    WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
),
oldest AS (
    SELECT * FROM held ORDER BY catalog_only, transactions DESC, age_seconds DESC LIMIT 10
),
hot AS (
    SELECT
        t.place, t.name, pg_stat_get_live_tuples(c.oid) AS live_rows,
        pg_stat_get_dead_tuples(c.oid) AS dead_rows, pg_total_relation_size(c.oid) AS bytes,
        extract(epoch FROM clock_timestamp() - greatest(
            pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)
        ))::double precision AS vacuumed_seconds_ago
    FROM unnest(ARRAY['ready', 'parked', 'tallies', 'queue_counts'])
        WITH ORDINALITY AS t (name, place)
    CROSS JOIN LATERAL (SELECT ('postrider.' || t.name)::regclass::oid) AS c (oid)
)
SELECT
    coalesce((SELECT json_agg(oldest) FROM oldest), '[]') AS holders,
    (SELECT json_agg(hot ORDER BY place) FROM hot) AS tables,
    CASE WHEN NOT pg_is_in_recovery()
        THEN (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::double precision
    END AS wal_bytes,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
    current_user::text AS role,
    (SELECT raised_at FROM postrider.alarms WHERE name = 'snapshot') AS raised_at,
    now() AS checked_at
