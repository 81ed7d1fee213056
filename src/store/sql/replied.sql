-- replied: which of these replies were stored before, under the same lease.
--
-- Index: replies_pkey once a reply. Rare: for the second of two replies.
SELECT i.ord
FROM unnest($1::smallint[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS i (slot, id, token, ord)
WHERE EXISTS (
    SELECT FROM postrider.replies
    WHERE replies.slot = i.slot AND replies.id = i.id AND replies.token = i.token)
