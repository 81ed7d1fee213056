-- extend: parked (leased) -> parked (leased), with a new end. A lease that has
-- run out is not extended, even if nobody has noticed yet.
--
-- Index: parked_pkey once a receipt.
WITH input AS MATERIALIZED (
    SELECT i.*
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS i (queue_id, message_id, token, lease_ms)
),
found AS MATERIALIZED (
    SELECT lease.tid
    FROM input
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = input.queue_id
          AND parked.message_id = input.message_id
          AND parked.token = input.token
          -- Not a plain comparison, which parked_by_wake could be used for.
          AND (parked.wake_at > now()) IS TRUE
        LIMIT 1
    ) AS lease
)
UPDATE postrider.parked
SET wake_at = now() + input.lease_ms * interval '1 ms'
FROM input
WHERE parked.ctid = ANY(ARRAY(SELECT tid FROM found))
  AND input.queue_id = parked.queue_id
  AND input.message_id = parked.message_id
  AND input.token = parked.token
  AND (parked.wake_at > now()) IS TRUE
RETURNING parked.queue_id, parked.message_id, parked.token, parked.wake_at
