-- read_replies: the replies to these requests, and which of the rest are over.
--
-- Index: replies_pkey once a request. One row for each request that has a reply,
-- or is over and will not have one.
SELECT
    i.ord, reply.replied_at, reply.body, reply.content_type, reply.headers
FROM unnest($1::smallint[], $2::bytea[], $3::timestamptz[])
    WITH ORDINALITY AS i (slot, id, over_at, ord)
LEFT JOIN LATERAL (
    SELECT replies.replied_at, replies.body, replies.content_type, replies.headers
    FROM postrider.replies
    WHERE replies.slot = i.slot AND replies.id = i.id AND replies.expires_at > now()
    LIMIT 1
) AS reply ON true
WHERE reply.replied_at IS NOT NULL OR i.over_at <= now()
