-- ack_in_place: as ack.sql, for a disk that is full. There the count is a row in
-- tallies, which may have to grow; here it goes into queue_counts at once, whose
-- pages are left half empty for that. Nothing else of it needs room: a deleted
-- row stays where it is.
--
-- Index: parked_pkey once a receipt, queue_counts_pkey. Counters are locked in
-- key order, as fold.sql does; that is why ack.sql does not: queues would wait
-- for each other.
WITH found AS MATERIALIZED (
    SELECT lease.tid, i.token
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (queue_id, message_id, token)
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id
          AND parked.message_id = i.message_id
          AND parked.token = i.token
        LIMIT 1
    ) AS lease
    ORDER BY lease.tid
),
acked AS (
    DELETE FROM postrider.parked
    USING found
    WHERE parked.ctid = found.tid AND parked.token = found.token
    RETURNING
        parked.queue_id, parked.message_id, parked.token, now() - parked.leased_at AS held
),
sums AS MATERIALIZED (
    SELECT queue_id, count(*) AS rows FROM acked GROUP BY queue_id ORDER BY queue_id
),
locked AS MATERIALIZED (
    SELECT counts.queue_id
    FROM postrider.queue_counts AS counts
    WHERE counts.queue_id = ANY(ARRAY(SELECT queue_id FROM sums))
    ORDER BY counts.queue_id
    FOR UPDATE OF counts
),
counted AS (
    UPDATE postrider.queue_counts AS c
    SET leased = c.leased - sums.rows, acked = c.acked + sums.rows
    FROM sums, locked
    WHERE c.queue_id = locked.queue_id AND sums.queue_id = locked.queue_id
)
SELECT queue_id, message_id, token, held FROM acked
