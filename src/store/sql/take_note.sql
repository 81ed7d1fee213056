-- How far the sequences have come, on disk; for the watermarks
-- (store/watermark/mod.rs). $1: the floor of the tallies' ids.
--
-- The snapshot is older than what the sequences say in it: it is for the notes
-- before. The sequences are asked by a function, since what is read of them as of a
-- table can be what they are in the middle of writing.
--
-- With a transaction id the COMMIT of this statement is flushed, whatever the session
-- says of synchronous_commit: so is all log before it, and no crash takes the
-- sequences back behind what is noted. A standby is not waited for.
--
-- Index: tallies_pkey, the first from the floor.
SELECT
    coalesce(pg_sequence_last_value('postrider.message_ids'::regclass), 0) AS position,
    coalesce(pg_sequence_last_value(
        pg_get_serial_sequence('postrider.tallies', 'id')::regclass), 0) AS tally,
    (SELECT min(id) FROM postrider.tallies WHERE id >= $1) AS first_tally,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax,
    pg_postmaster_start_time() AS server,
    set_config('synchronous_commit', 'local', true) AS commits,
    pg_current_xact_id()::text AS xid
