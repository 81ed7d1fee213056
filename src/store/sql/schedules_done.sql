-- Moves schedules on, after what was due has been published or could not be. $3:
-- the last tick that was published for, $4 and $5: why one was not.
--
-- Index: schedules_pkey. Locks: rows that this transaction has locked.
UPDATE postrider.schedules
SET next_run = i.next_run,
    last_run = coalesce(i.last_run, schedules.last_run),
    last_error_code = CASE
        WHEN i.last_run IS NULL AND i.code IS NULL THEN schedules.last_error_code ELSE i.code END,
    last_error = CASE
        WHEN i.last_run IS NULL AND i.code IS NULL THEN schedules.last_error ELSE i.error END,
    last_error_at = CASE
        WHEN i.code IS NOT NULL THEN now()
        WHEN i.last_run IS NULL THEN schedules.last_error_at END
FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[])
    AS i (id, next_run, last_run, code, error)
WHERE schedules.id = i.id
