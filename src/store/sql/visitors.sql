-- The oldest transaction that runs and may have drawn positions: without those
-- that came to the SQL door, which draw none however long they last. For the
-- watermarks (store/watermark/mod.rs), while a transaction holds them up.
--
-- A visitor is known by an advisory lock that the functions take (0014_door.sql);
-- no gateway takes it. Tables: none.
WITH snapshot AS MATERIALIZED (
    SELECT pg_current_snapshot() AS now
),
held AS MATERIALIZED (
    SELECT locktype, database, classid, objid, objsubid, transactionid, virtualtransaction
    FROM pg_locks
    WHERE granted AND locktype IN ('advisory', 'transactionid')
),
visitors AS MATERIALIZED (
    SELECT own.transactionid::text::bigint AS xid
    FROM held AS mark
    JOIN held AS own ON own.virtualtransaction = mark.virtualtransaction
    WHERE own.locktype = 'transactionid'
      AND mark.locktype = 'advisory'
      AND (mark.classid, mark.objid, mark.objsubid) = (1886548068::oid, 14::oid, 2)
      AND mark.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT coalesce(min(running.xid), min(pg_snapshot_xmax(snapshot.now)::text::bigint)) AS xmin
FROM snapshot
LEFT JOIN LATERAL (
    SELECT x::text::bigint AS xid FROM pg_snapshot_xip(snapshot.now) AS x
) AS running ON (running.xid & 4294967295) NOT IN (SELECT xid FROM visitors)
