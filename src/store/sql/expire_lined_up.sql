-- expire: lined_up -> parked (due at once), up to $1 messages a queue whose time to
-- live passed before their turn came; settled from there as any other. They need no
-- turn: nothing is delivered any more.
--
-- Index: lined_up_by_expiry, one range a queue. Under a snapshot that is held for
-- long it walks over what was acked since, as far as that would have expired by now:
-- nothing, unless messages live for less long than the snapshot does.
WITH overdue AS MATERIALIZED (
    SELECT late.tid
    FROM unnest($2::bigint[]) AS q (id)
    CROSS JOIN LATERAL (
        SELECT lined_up.ctid AS tid
        FROM postrider.lined_up
        WHERE lined_up.queue_id = q.id AND lined_up.expires_at <= now() AND NOT lined_up.is_out
        ORDER BY lined_up.expires_at
        LIMIT $1
    ) AS late
),
taken AS (
    DELETE FROM postrider.lined_up
    WHERE ctid = ANY(ARRAY(SELECT tid FROM overdue)) AND expires_at <= now() AND NOT is_out
    RETURNING queue_id, message_id, expires_at, attempts, priority, straggler
),
made_due AS (
    INSERT INTO postrider.parked
        (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
    SELECT queue_id, message_id, now(), expires_at, attempts, priority, true, straggler
    FROM taken
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed)
    SELECT queue_id, -count(*), count(*) FROM taken GROUP BY queue_id
)
SELECT DISTINCT queue_id FROM taken
