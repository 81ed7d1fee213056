-- Topics and subscriptions: a publish to a topic stores the body once, in
-- messages, and a narrow row in ready or parked of each queue that a matching
-- subscription feeds. See src/store/publish_topic.rs.
--
-- Gateways of the version before run on: what they know has only gained
-- columns that may be null. Their locks are held for an instant.

CREATE TABLE postrider.topics (
    -- Of the same sequence as queues' ids: dedup and others take either.
    id                bigint PRIMARY KEY DEFAULT nextval('postrider.queues_id_seq'),
    name              text COLLATE "C" NOT NULL CONSTRAINT topic_name_is_unique UNIQUE,
    retention_ms      bigint NOT NULL,
    max_message_bytes integer NOT NULL,
    dedup_window_ms   bigint NOT NULL,
    version           bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_a_name CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'),
    CONSTRAINT retention_in_range CHECK (retention_ms BETWEEN 0 AND 31536000000),
    CONSTRAINT max_message_bytes_in_range CHECK (max_message_bytes BETWEEN 1 AND 8388608),
    CONSTRAINT dedup_window_in_range CHECK (dedup_window_ms BETWEEN 1 AND 604800000),
    CONSTRAINT version_counts_up CHECK (version >= 1)
);
COMMENT ON TABLE postrider.topics IS 'Topics and their settings; read through a cache that is at most a second old.';
COMMENT ON COLUMN postrider.topics.id IS 'Drawn from the sequence of queues'' ids, so that no queue has it.';
COMMENT ON COLUMN postrider.topics.name IS 'What users call it.';
COMMENT ON COLUMN postrider.topics.retention_ms IS 'How long its messages can be read from the stream, milliseconds; 0 is not at all. Counts from the publish and for what is there already, too.';
COMMENT ON COLUMN postrider.topics.max_message_bytes IS 'Largest body, bytes.';
COMMENT ON COLUMN postrider.topics.dedup_window_ms IS 'How long a dedup id is remembered, milliseconds.';
COMMENT ON COLUMN postrider.topics.version IS 'Counts the changes of the settings; the ETag.';
COMMENT ON COLUMN postrider.topics.created_at IS 'When it was made.';
COMMENT ON COLUMN postrider.topics.updated_at IS 'When its settings were last changed.';

CREATE TABLE postrider.subscriptions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id    bigint NOT NULL
        CONSTRAINT subscription_has_a_topic REFERENCES postrider.topics (id) ON DELETE CASCADE,
    name        text COLLATE "C" NOT NULL,
    -- Not ON DELETE: a queue that is fed does not go unnoticed.
    queue_id    bigint NOT NULL
        CONSTRAINT subscription_has_a_queue REFERENCES postrider.queues (id),
    owns_queue  boolean NOT NULL,
    filter      json,
    version     bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_name_is_unique UNIQUE (topic_id, name),
    CONSTRAINT name_is_a_name CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'),
    CONSTRAINT filter_is_an_object CHECK (json_typeof(filter) = 'object'),
    CONSTRAINT version_counts_up CHECK (version >= 1)
);
CREATE INDEX subscriptions_by_queue ON postrider.subscriptions (queue_id);
COMMENT ON TABLE postrider.subscriptions IS 'What binds a topic to a queue.';
COMMENT ON COLUMN postrider.subscriptions.id IS 'With the version it names a compiled filter.';
COMMENT ON COLUMN postrider.subscriptions.topic_id IS 'The topic.';
COMMENT ON COLUMN postrider.subscriptions.name IS 'What users call it; unique in its topic.';
COMMENT ON COLUMN postrider.subscriptions.queue_id IS 'The queue that it feeds.';
COMMENT ON COLUMN postrider.subscriptions.owns_queue IS 'Whether the queue was made for it and goes with it.';
COMMENT ON COLUMN postrider.subscriptions.filter IS 'Which messages, as the user wrote it; null is all. Not jsonb, which cannot hold \u0000.';
COMMENT ON COLUMN postrider.subscriptions.version IS 'Counts the changes; the ETag.';
COMMENT ON COLUMN postrider.subscriptions.created_at IS 'When it was made.';
COMMENT ON COLUMN postrider.subscriptions.updated_at IS 'When it was last changed.';

-- The gateway's own, which tells of itself.
INSERT INTO postrider.topics (name, retention_ms, max_message_bytes, dedup_window_ms)
VALUES ('system.events', 0, 1048576, 86400000);

-- Where a message came through a topic: null for a publish to a queue, whose
-- statement leaves these columns out.

ALTER TABLE postrider.messages ADD COLUMN topic text, ADD COLUMN routing_key text;
COMMENT ON COLUMN postrider.messages.topic IS 'The topic it was published to; null for a publish to a queue.';
COMMENT ON COLUMN postrider.messages.routing_key IS 'What it was routed by; null for a publish to a queue.';
ALTER TABLE postrider.stragglers ADD COLUMN topic text, ADD COLUMN routing_key text;
COMMENT ON COLUMN postrider.stragglers.topic IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.routing_key IS 'As in messages.';
ALTER TABLE postrider.dead_letters ADD COLUMN topic text, ADD COLUMN routing_key text;
COMMENT ON COLUMN postrider.dead_letters.topic IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.routing_key IS 'As in messages.';

DROP FUNCTION postrider.body_of;
CREATE FUNCTION postrider.body_of(of_queue bigint, of_message bigint, is_straggler boolean)
RETURNS TABLE (
    rounds integer, enqueued_at timestamptz, body bytea, content_type text, headers jsonb,
    key text, correlation_id text, reply_to text, traceparent text, tracestate text,
    topic text, routing_key text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT
        0, m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
        m.traceparent, m.tracestate, m.topic, m.routing_key
    FROM postrider.messages AS m
    WHERE m.id = of_message AND NOT is_straggler
    UNION ALL
    SELECT
        s.rounds, s.enqueued_at, s.body, s.content_type, s.headers, s.key, s.correlation_id,
        s.reply_to, s.traceparent, s.tracestate, s.topic, s.routing_key
    FROM postrider.stragglers AS s
    WHERE s.queue_id = of_queue AND s.message_id = of_message AND is_straggler;
END;
COMMENT ON FUNCTION postrider.body_of IS 'The wide half of a live message: from messages, or from stragglers.';

-- The stream: what a topic with retention can be read from ------------------

-- In the order of transaction ids, and read only below the oldest transaction
-- that still runs: what is read later is never before what was read. Ids of
-- messages are drawn in one order and committed in any, so a reader that went
-- by them alone would skip what commits late.
CREATE TABLE postrider.stream (
    topic_id     bigint NOT NULL,
    message_id   bigint NOT NULL,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    published_at timestamptz NOT NULL DEFAULT now(),
    routing_key  text NOT NULL,
    PRIMARY KEY (topic_id, xid, message_id)
) PARTITION BY RANGE (message_id);
COMMENT ON TABLE postrider.stream IS 'Messages of topics with retention, in commit order. Partitioned as messages are, by the same bounds, and dropped with them; insert-only.';
COMMENT ON COLUMN postrider.stream.topic_id IS 'The topic.';
COMMENT ON COLUMN postrider.stream.message_id IS 'The message; its body is in messages.';
COMMENT ON COLUMN postrider.stream.xid IS 'The transaction that stored it: the order of reading.';
COMMENT ON COLUMN postrider.stream.published_at IS 'When; it expires the topic''s retention later. Not the time of expiry, which would have to be written anew when the retention changes.';
COMMENT ON COLUMN postrider.stream.routing_key IS 'As in messages.';
