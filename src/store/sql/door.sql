-- The SQL door: door -> (nothing), what has been committed since the snapshot
-- that was looked at before; the caller publishes it in the same transaction.
--
-- $1: where that snapshot ended (its xmax); rows of later transactions may be
-- new. $2: the transactions that ran in it; rows of those that have ended since
-- are new. $3 and $4: only rows behind this one, which this pass has come to.
-- $5 and $6: at most so many rows, and bytes of bodies, at least one. $7: seconds
-- back that a refused message can be due, as in door_again.sql.
--
-- One row at least, for the snapshot: of it, `id` is null if nothing was found.
--
-- Index: door_pkey, door_refused_by_next_try. Locks: the rows; the caller has the
-- door's advisory lock.
WITH snapshot AS MATERIALIZED (
    SELECT pg_current_snapshot() AS now
),
found AS MATERIALIZED (
    SELECT new.*
    FROM (
        SELECT row.*
        FROM unnest($2::text[]::xid8[]) AS ran (xid)
        CROSS JOIN LATERAL (
            SELECT door.ctid AS tid, door.xid, door.id, octet_length(door.body) AS bytes
            FROM postrider.door
            WHERE door.xid = ran.xid
              AND (door.xid, door.id) > ($3::text::xid8, $4::bigint)
            ORDER BY door.xid, door.id
            LIMIT $5
        ) AS row
        WHERE pg_visible_in_snapshot(ran.xid, (SELECT now FROM snapshot))
        UNION ALL
        (SELECT door.ctid AS tid, door.xid, door.id, octet_length(door.body) AS bytes
        FROM postrider.door
        WHERE door.xid >= $1::text::xid8
          AND (door.xid, door.id) > ($3::text::xid8, $4::bigint)
        ORDER BY door.xid, door.id
        LIMIT $5)
    ) AS new
    ORDER BY new.xid, new.id
    LIMIT $5
),
counted AS MATERIALIZED (
    SELECT found.tid, sum(found.bytes) OVER (ORDER BY found.xid, found.id) - found.bytes AS before
    FROM found
),
taken AS (
    DELETE FROM postrider.door
    WHERE ctid = ANY(ARRAY(SELECT tid FROM counted WHERE before < $6))
    RETURNING *
)
SELECT
    pg_snapshot_xmax(snapshot.now)::text AS xmax,
    ARRAY(SELECT x::text FROM pg_snapshot_xip(snapshot.now) AS x) AS running,
    now() AS now,
    (SELECT count(*) FROM found) >= $5
        OR EXISTS (SELECT FROM counted WHERE before >= $6) AS more,
    EXISTS (
        SELECT FROM postrider.door_refused AS refused
        WHERE refused.next_try_at <= now()
          AND refused.next_try_at >= now() - $7 * interval '1 s') AS due,
    taken.xid::text AS xid,
    taken.id, taken.asked_at, taken.queue, taken.topic, taken.routing_key, taken.body,
    taken.headers, taken.key, taken.priority, taken.deliver_at, taken.ttl_ms, taken.dedup_id,
    taken.correlation_id, taken.reply_to, taken.traceparent
FROM snapshot
LEFT JOIN taken ON true
ORDER BY taken.xid, taken.id
