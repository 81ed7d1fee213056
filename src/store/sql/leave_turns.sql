-- Removes the rows in turns of keys ($1 queues, $2 keys) that have no line.
--
-- Index: turns_pkey, lined_up_pkey. Locks: the rows, before the look
-- (migrations/0010_lines.sql).
SELECT postrider.leave_turns($1::bigint[], $2::text[]) AS removed
