-- reply: parked (leased) -> (nothing), and a row of replies for each: the ack and
-- the reply, or neither. Only the token of the running lease matches, and only
-- before the request's deadline.
--
-- Index: parked_pkey once a receipt; rows are deleted by address, in order, as in
-- ack.sql. lined_up_by_message once a receipt, and as in ack_ordered.sql where the
-- queue is ordered.
--
-- In an ordered queue nothing is settled before what was leased in front of it. What
-- is seen here to be in front can only be settled meanwhile, or take this lease away.
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
    SELECT lease.tid, i.token, i.ord, early.yes IS NOT NULL AS out_of_order
    FROM input AS i
    CROSS JOIN LATERAL (
        SELECT parked.ctid AS tid
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id
          AND parked.message_id = i.message_id
          AND parked.token = i.token
        LIMIT 1
    ) AS lease
    LEFT JOIN LATERAL (
        SELECT true AS yes
        FROM postrider.lined_up AS own
        CROSS JOIN LATERAL (
            SELECT queues.ordered FROM postrider.queues WHERE queues.id = own.queue_id LIMIT 1
        ) AS queue
        CROSS JOIN LATERAL (
            SELECT turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = own.queue_id AND turns.key = own.key
            LIMIT 1
        ) AS turn
        CROSS JOIN LATERAL (
            SELECT 1
            FROM postrider.lined_up AS front
            WHERE front.queue_id = own.queue_id AND front.key = own.key
              AND front.position >= turn.floor AND front.position < own.position
              AND front.is_out
              AND (
                SELECT 1 FROM postrider.parked AS p
                WHERE p.queue_id = front.queue_id AND p.message_id = front.message_id
                LIMIT 1) IS NOT NULL
            LIMIT 1
        ) AS in_front
        WHERE own.queue_id = i.queue_id AND own.message_id = i.message_id AND own.is_out
          AND queue.ordered
        LIMIT 1
    ) AS early ON true
    WHERE i.deadline > now()
    ORDER BY lease.tid
),
acked AS (
    DELETE FROM postrider.parked
    USING found
    WHERE parked.ctid = found.tid AND parked.token = found.token AND NOT found.out_of_order
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
    ord, acked.token IS NOT NULL AS acked, i.deadline <= now() AS late, acked.held,
    now() AS replied_at, looked.out_of_order IS TRUE AS out_of_order
FROM input AS i
LEFT JOIN (SELECT ord, out_of_order FROM found) AS looked USING (ord)
LEFT JOIN acked USING (queue_id, message_id, token)
ORDER BY ord
