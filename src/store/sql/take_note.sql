-- How far the sequences have come, on disk; for the watermarks
-- (store/watermark/mod.rs). $1: the floor of the tallies' ids.
--
-- The snapshot is older than what the sequences say in it: it is for the notes
-- before. The sequences are asked by a function, since what is read of them as of a
-- table can be what they are in the middle of writing.
--
-- What writes to the log is flushed when it commits, whatever the session says of
-- synchronous_commit; and with it all log before it, so that no crash takes the
-- sequences back behind what is noted. The message is for nobody. A standby is not
-- waited for.
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
    pg_logical_emit_message(true, 'postrider', '')::text AS flushed
