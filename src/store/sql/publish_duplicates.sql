-- Reads which message a dedup id belongs to, for publishes that lost the race
-- for it to a statement they could not see.
--
-- Index: dedup_pkey, once an id.
SELECT i.ord, seen.message_id AS id
FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS i (queue_id, dedup_id, ord)
CROSS JOIN LATERAL (
    SELECT min(dedup.message_id) AS message_id
    FROM postrider.dedup
    WHERE dedup.queue_id = i.queue_id
      AND dedup.dedup_id = i.dedup_id
      AND dedup.expires_at > now()
) AS seen
