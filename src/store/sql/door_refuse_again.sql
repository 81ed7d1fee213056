-- The SQL door: door_refused -> (the same), for what was tried again in vain. It
-- waits for twice as long as before, at most five minutes.
--
-- Index: door_refused_pkey. Locks: those rows, which the caller has locked.
UPDATE postrider.door_refused AS refused
SET reason = i.reason,
    detail = i.detail,
    tries = refused.tries + 1,
    next_try_at = now() + least(300, 2.0 ^ least(refused.tries, 10)) * interval '1 s'
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS i (id, reason, detail)
WHERE refused.id = i.id
