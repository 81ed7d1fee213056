-- ack: parked (leased) -> (nothing), for leases of any queues. Only the token
-- of the running lease matches.
--
-- Index: parked_pkey once a receipt. Rows are deleted by address, in order, so
-- that two statements with the same receipts cannot deadlock; the token is
-- checked again on the row as it is when its lock is had. Not by token = ANY($3),
-- which compares each row with each receipt: with 2,000 that was 5.5 µs a row
-- instead of 2.4.
--
-- The body stays in its partition until that is dropped.
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
counted AS (
    INSERT INTO postrider.tallies (queue_id, leased, acked)
    SELECT queue_id, -count(*), count(*) FROM acked GROUP BY queue_id
)
SELECT queue_id, message_id, token, held FROM acked
