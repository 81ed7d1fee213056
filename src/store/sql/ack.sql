-- ack: parked (leased) -> (nothing), for leases of any queues. Only the token
-- of the running lease matches.
--
-- Index: parked_pkey once a receipt. Rows are deleted by address, which sorts
-- them, so that two statements with the same receipts cannot deadlock; the
-- token is checked again on the row as it is when its lock is had.
--
-- The body stays in its partition until that is dropped.
WITH found AS MATERIALIZED (
    SELECT lease.tid
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (queue_id, message_id, token)
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id
          AND parked.message_id = i.message_id
          AND parked.token = i.token
        LIMIT 1
    ) AS lease
),
acked AS (
    DELETE FROM postrider.parked
    WHERE ctid = ANY(ARRAY(SELECT tid FROM found)) AND token = ANY($3)
    RETURNING queue_id, message_id, token
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, leased, acked)
    SELECT queue_id, -count(*), count(*) FROM acked GROUP BY queue_id
)
SELECT queue_id, message_id, token FROM acked
