-- Replies to requests, until their time is over. What a request is needs no table:
-- it is a message, and its correlation id says the rest (src/domain/request.rs).

CREATE TABLE postrider.replies (
    slot         smallint NOT NULL,
    id           bytea NOT NULL,
    queue_id     bigint NOT NULL,
    message_id   bigint NOT NULL,
    token        bigint NOT NULL,
    replied_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    body         bytea NOT NULL,
    content_type text,
    headers      jsonb,
    PRIMARY KEY (slot, id),
    CONSTRAINT id_has_128_bits CHECK (length(id) = 16),
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object')
) PARTITION BY LIST (slot);
ALTER TABLE postrider.replies ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE postrider.replies IS 'Replies, in a ring of slots by the end of their time; a slot is emptied whole when the time has gone by (src/store/replies.rs).';
COMMENT ON COLUMN postrider.replies.slot IS 'Which twenty minutes of a ring of eight expires_at is in.';
COMMENT ON COLUMN postrider.replies.id IS 'The random part of the request''s correlation id.';
COMMENT ON COLUMN postrider.replies.queue_id IS 'The queue the request was received from.';
COMMENT ON COLUMN postrider.replies.message_id IS 'The request.';
COMMENT ON COLUMN postrider.replies.token IS 'The lease it was answered under: the same receipt may answer again, another may not.';
COMMENT ON COLUMN postrider.replies.replied_at IS 'When it was stored.';
COMMENT ON COLUMN postrider.replies.expires_at IS 'Until when it can be read.';
COMMENT ON COLUMN postrider.replies.body IS 'As in messages.';
COMMENT ON COLUMN postrider.replies.content_type IS 'As in messages.';
COMMENT ON COLUMN postrider.replies.headers IS 'As in messages.';

-- Insert-only and emptied whole, so there is nothing to vacuum.
DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE postrider.replies_%1$s PARTITION OF postrider.replies
                FOR VALUES IN (%1$s)
                WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)',
            slot);
    END LOOP;
END $$;
