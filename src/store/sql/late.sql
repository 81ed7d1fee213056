-- late: what became of receipts that no running lease matched. An ack that
-- comes after its lease ran out still counts if nobody has had the message
-- since: ready -> (nothing).
--
-- A lease ends by an ack, which leaves nothing, or by a failure, which leaves
-- a row in attempts. So a receipt with neither lease nor failure was acked
-- before (or its message purged), and to ack it again is fine. For the same
-- reason an ack that still counts takes the row of its failure away.
--
-- Index: parked_pkey, attempts_by_message, ready_by_message, once a receipt
-- each. Rare: not on the way of a receipt that is good.
WITH looked AS MATERIALIZED (
    SELECT
        i.*, running.token AS running_token, own.outcome AS own_outcome,
        last.token AS last_token, waiting.tid AS waiting_tid
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[])
        WITH ORDINALITY AS i (queue_id, message_id, token, is_ack, ord)
    LEFT JOIN LATERAL (
        SELECT parked.token
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id AND parked.message_id = i.message_id
        LIMIT 1
    ) AS running ON true
    LEFT JOIN LATERAL (
        SELECT attempts.outcome
        FROM postrider.attempts
        WHERE attempts.queue_id = i.queue_id AND attempts.message_id = i.message_id
          AND attempts.token = i.token
        LIMIT 1
    ) AS own ON true
    LEFT JOIN LATERAL (
        SELECT attempts.token
        FROM postrider.attempts
        WHERE attempts.queue_id = i.queue_id AND attempts.message_id = i.message_id
        ORDER BY attempts.ended_at DESC, attempts.attempt DESC
        LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT ready.ctid AS tid
        FROM postrider.ready
        WHERE ready.queue_id = i.queue_id AND ready.message_id = i.message_id
          AND ready.position <> ready.message_id
        LIMIT 1
    ) AS waiting ON true
),
acked AS (
    DELETE FROM postrider.ready
    WHERE ctid = ANY(ARRAY(
        SELECT waiting_tid
        FROM looked
        WHERE is_ack AND own_outcome = 'lease-expired' AND last_token = token))
    RETURNING queue_id, message_id
),
forgotten AS (
    DELETE FROM postrider.attempts
    USING looked, acked
    WHERE acked.queue_id = looked.queue_id AND acked.message_id = looked.message_id
      AND looked.last_token = looked.token
      AND attempts.queue_id = looked.queue_id AND attempts.message_id = looked.message_id
      AND attempts.token = looked.token
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, acked)
    SELECT queue_id, -count(*), count(*) FROM acked GROUP BY queue_id
)
SELECT
    looked.ord,
    CASE
        -- The lease is there (it moved while we looked, or it has run out and
        -- is not settled yet).
        WHEN looked.running_token = looked.token THEN 'running'
        WHEN looked.own_outcome = 'lease-expired' AND looked.last_token = looked.token
            AND looked.waiting_tid IS NOT NULL
        THEN CASE
            WHEN NOT looked.is_ack THEN 'expired'
            WHEN acked.message_id IS NOT NULL THEN 'acked'
            -- Somebody took it at this moment, or acked it: look again.
            ELSE 'running'
        END
        WHEN looked.own_outcome IS NOT NULL OR looked.running_token IS NOT NULL THEN 'lost'
        ELSE 'gone'
    END AS fate
FROM looked
LEFT JOIN acked ON acked.queue_id = looked.queue_id AND acked.message_id = looked.message_id
ORDER BY looked.ord
