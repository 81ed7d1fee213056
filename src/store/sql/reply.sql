-- reply: parked (leased) -> (nothing), and a row of replies for each: the ack and
-- the reply, or neither. Only the token of the running lease matches, and only
-- before the request's deadline.
--
-- Index: parked_pkey once a receipt; rows are deleted by address, in order, as in
-- ack.sql.
--
-- Two messages can have one correlation id only if somebody published it again who
-- knows it; then the first reply stays.
WITH input AS MATERIALIZED (
    SELECT i.*
    FROM unnest(
        $1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bytea[],
        $6::timestamptz[], $7::timestamptz[], $8::bytea[], $9::text[], $10::jsonb[]
    ) WITH ORDINALITY AS i (
        queue_id, message_id, token, slot, id,
        deadline, expires_at, body, content_type, headers, ord)
),
found AS MATERIALIZED (
    SELECT lease.tid, i.token
    FROM input AS i
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id
          AND parked.message_id = i.message_id
          AND parked.token = i.token
        LIMIT 1
    ) AS lease
    WHERE i.deadline > now()
    ORDER BY lease.tid
),
acked AS (
    DELETE FROM postrider.parked
    USING found
    WHERE parked.ctid = found.tid AND parked.token = found.token
    RETURNING
        parked.queue_id, parked.message_id, parked.token, now() - parked.leased_at AS held
),
stored AS (
    INSERT INTO postrider.replies
        (slot, id, queue_id, message_id, token, expires_at, body, content_type, headers)
    SELECT
        i.slot, i.id, i.queue_id, i.message_id, i.token, i.expires_at, i.body, i.content_type,
        i.headers
    FROM input AS i
    JOIN acked USING (queue_id, message_id, token)
    ON CONFLICT (slot, id) DO NOTHING
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, leased, acked)
    SELECT queue_id, -count(*), count(*) FROM acked GROUP BY queue_id
)
SELECT
    i.ord, acked.token IS NOT NULL AS acked, i.deadline <= now() AS late, acked.held,
    now() AS replied_at
FROM input AS i
LEFT JOIN acked USING (queue_id, message_id, token)
ORDER BY i.ord
