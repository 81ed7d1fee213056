-- hold: locks the leases that a transaction is about to ack and to nack, by two
-- statements, before the first of them.
--
-- In the order of their addresses, as ack.sql and settle.sql lock them: two
-- transactions with the same receipts cannot each hold what the other waits for.
--
-- Index: parked_pkey once a receipt.
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
)
SELECT 1
FROM postrider.parked
WHERE parked.ctid = ANY(ARRAY(SELECT tid FROM found))
FOR UPDATE OF parked
