-- asked: what messages asked for, whoever has them: a reply, if their correlation
-- id is that of a request. Reads only; what a message says never changes.
--
-- Index: messages_pkey, or stragglers_pkey, once a message. No row for one whose
-- body is gone.
SELECT
    i.ord,
    coalesce(whole.correlation_id, moved.correlation_id) AS correlation_id,
    coalesce(whole.enqueued_at, moved.enqueued_at) AS enqueued_at
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS i (queue_id, message_id, ord)
LEFT JOIN LATERAL (
    SELECT messages.correlation_id, messages.enqueued_at
    FROM postrider.messages
    WHERE messages.id = i.message_id
    LIMIT 1
) AS whole ON true
LEFT JOIN LATERAL (
    SELECT stragglers.correlation_id, stragglers.enqueued_at
    FROM postrider.stragglers
    WHERE whole.enqueued_at IS NULL
      AND stragglers.queue_id = i.queue_id AND stragglers.message_id = i.message_id
    LIMIT 1
) AS moved ON true
WHERE whole.enqueued_at IS NOT NULL OR moved.enqueued_at IS NOT NULL
