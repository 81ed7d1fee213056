-- The SQL door: those of door_refused whose next try is due, oldest first, at
-- most $1 and at most $2 bytes of bodies, but one at least; the caller publishes
-- them in the same transaction, and then deletes them or notes the refusal.
--
-- $3: seconds back that there is something to look for; before that all have
-- been tried, and what is dead is not walked over.
--
-- Index: door_refused_by_next_try. Locks: the rows; the caller has the door's
-- advisory lock.
WITH due AS MATERIALIZED (
    SELECT refused.ctid AS tid, refused.id, octet_length(refused.body) AS bytes
    FROM postrider.door_refused AS refused
    WHERE refused.next_try_at <= now()
      AND refused.next_try_at >= now() - $3 * interval '1 s'
    ORDER BY refused.next_try_at
    LIMIT $1
    FOR UPDATE OF refused SKIP LOCKED
),
counted AS MATERIALIZED (
    SELECT due.tid, sum(due.bytes) OVER (ORDER BY due.id) - due.bytes AS before FROM due
)
SELECT
    now() AS now,
    refused.id, refused.asked_at, refused.queue, refused.topic, refused.routing_key, refused.body,
    refused.headers, refused.key, refused.priority, refused.deliver_at, refused.ttl_ms,
    refused.dedup_id, refused.correlation_id, refused.reply_to, refused.traceparent
FROM postrider.door_refused AS refused
WHERE refused.ctid = ANY(ARRAY(SELECT tid FROM counted WHERE before < $2))
ORDER BY refused.id
