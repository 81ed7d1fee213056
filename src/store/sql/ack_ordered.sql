-- ack of ordered queues: as ack.sql, but a message is only acked when those of its
-- key that were leased before it are settled, or are acked by this statement too;
-- else it is left, and out_of_order is true.
--
-- The leases are locked before the look, by address as in ack.sql: none of those that
-- this statement counts on can end otherwise meanwhile.
--
-- Index: parked_pkey once a receipt; lined_up_by_message, turns_pkey, and lined_up_pkey
-- from the key's floor to the message, once a receipt: what stands there is out.
WITH leased AS MATERIALIZED (
    SELECT lease.tid, i.queue_id, i.message_id, i.token
    FROM (
        SELECT DISTINCT i.*
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (queue_id, message_id, token)
    ) AS i
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
found AS MATERIALIZED (
    SELECT parked.ctid AS tid, leased.queue_id, leased.message_id, leased.token
    FROM leased
    JOIN postrider.parked ON parked.ctid = leased.tid AND parked.token = leased.token
    FOR UPDATE OF parked
),
placed AS MATERIALIZED (
    SELECT found.*, line.key, line.position, coalesce(line.floor, 0) AS floor
    FROM found
    LEFT JOIN LATERAL (
        SELECT l.key, l.position, turn.floor
        FROM postrider.lined_up AS l
        LEFT JOIN LATERAL (
            SELECT turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = l.queue_id AND turns.key = l.key
            LIMIT 1
        ) AS turn ON true
        WHERE l.queue_id = found.queue_id AND l.message_id = found.message_id AND l.is_out
        ORDER BY l.message_id, l.position DESC
        LIMIT 1
    ) AS line ON true
),
judged AS MATERIALIZED (
    SELECT placed.*,
        (
            SELECT 1
            FROM postrider.lined_up AS e
            WHERE e.queue_id = placed.queue_id AND e.key = placed.key
              AND e.position >= placed.floor AND e.position < placed.position AND e.is_out
              AND (
                SELECT 1 FROM found AS too
                WHERE too.queue_id = e.queue_id AND too.message_id = e.message_id
                LIMIT 1) IS NULL
              AND ((
                    SELECT 1 FROM postrider.parked AS p
                    WHERE p.queue_id = e.queue_id AND p.message_id = e.message_id
                    LIMIT 1) IS NOT NULL
                OR (
                    SELECT 1 FROM postrider.ready AS r
                    WHERE r.queue_id = e.queue_id AND r.message_id = e.message_id
                      AND r.position <> r.message_id
                    LIMIT 1) IS NOT NULL)
            LIMIT 1
        ) IS NOT NULL AS out_of_order
    FROM placed
),
acked AS (
    DELETE FROM postrider.parked
    USING judged
    WHERE parked.ctid = judged.tid AND parked.token = judged.token AND NOT judged.out_of_order
    RETURNING
        parked.queue_id, parked.message_id, parked.token, now() - parked.leased_at AS held
),
counted AS (
    INSERT INTO postrider.tallies (queue_id, leased, acked)
    SELECT queue_id, -count(*), count(*) FROM acked GROUP BY queue_id
)
SELECT queue_id, message_id, token, held, false AS out_of_order FROM acked
UNION ALL
SELECT queue_id, message_id, token, interval '0', true FROM judged WHERE out_of_order
