-- due: parked (delay or backoff over) -> ready; and tells which leases have
-- run out and which messages have outlived their time, for decide.
--
-- $1, $2: queues, and for each the wake time to look from, seconds ago (the
-- floor: nothing older is left). $3: at most so many a queue.
--
-- Index: parked_by_wake once a queue, in order. The leases are not locked:
-- settle.sql takes each by its token, once, whoever comes first.
--
-- The position is new: what becomes ready goes to the tail, never below a
-- watermark.
WITH seen AS MATERIALIZED (
    SELECT d.*
    FROM unnest($1::bigint[], $2::double precision[]) AS i (queue_id, floor_seconds)
    CROSS JOIN LATERAL (
        SELECT
            parked.ctid AS tid, parked.queue_id, parked.message_id, parked.token,
            parked.attempts, parked.expires_at <= now() AS outlived
        FROM postrider.parked
        WHERE parked.queue_id = i.queue_id
          AND parked.wake_at <= now()
          AND parked.wake_at >= now() - i.floor_seconds * interval '1 s'
        ORDER BY parked.wake_at
        LIMIT $3
        FOR UPDATE OF parked SKIP LOCKED
    ) AS d
),
woken AS (
    DELETE FROM postrider.parked
    WHERE ctid = ANY(ARRAY(SELECT tid FROM seen WHERE token = 0 AND NOT outlived))
    RETURNING queue_id, message_id, expires_at, attempts, priority, straggler
),
made_ready AS (
    INSERT INTO postrider.ready
        (queue_id, priority, position, message_id, expires_at, attempts, own_ttl, straggler)
    SELECT
        queue_id, priority, nextval('postrider.message_ids'), message_id, expires_at, attempts,
        true, straggler
    FROM woken
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, ready, delayed)
    SELECT queue_id, count(*), -count(*) FROM woken GROUP BY queue_id
)
SELECT queue_id, message_id, token, attempts, outlived, token = 0 AND NOT outlived AS woken
FROM seen
