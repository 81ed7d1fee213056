-- lined_up -> ready, up to $3 messages of queue $1, shared out among its keys from
-- behind $2. A claim came short though these are there. $4: how many keys it looks at.
--
-- Index: turns_pkey in order, lined_up_pkey from each key's floor. Locks: the rows in
-- turns of keys that have more, before the look that counts; those that are locked
-- have their turn passed on at this moment (migrations/0010_lines.sql).
SELECT key, promoted FROM postrider.fair_round($1::bigint, $2::text, $3::bigint, $4::bigint)
