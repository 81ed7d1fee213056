-- JSON Schemas of queues and topics, in versions that stay, and with each message
-- the version that it was checked with.

CREATE TABLE postrider.schemas (
    queue_id      bigint REFERENCES postrider.queues (id) ON DELETE CASCADE,
    topic_id      bigint REFERENCES postrider.topics (id) ON DELETE CASCADE,
    version       integer NOT NULL,
    schema        text NOT NULL,
    compatibility text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT of_a_queue_or_a_topic CHECK (num_nonnulls(queue_id, topic_id) = 1),
    CONSTRAINT one_of_each_version_a_queue UNIQUE (queue_id, version),
    CONSTRAINT one_of_each_version_a_topic UNIQUE (topic_id, version),
    CONSTRAINT version_counts_up CHECK (version >= 1),
    CONSTRAINT schema_is_small CHECK (octet_length(schema) <= 65536),
    CONSTRAINT compatibility_is_known
        CHECK (compatibility IN ('backward', 'forward', 'full', 'none'))
);
COMMENT ON TABLE postrider.schemas IS 'What bodies of messages have to be: every version that a queue or topic has had. Insert-only.';
COMMENT ON COLUMN postrider.schemas.queue_id IS 'The queue; null for a topic''s.';
COMMENT ON COLUMN postrider.schemas.topic_id IS 'The topic; null for a queue''s.';
COMMENT ON COLUMN postrider.schemas.version IS 'Counts from 1, also over a time without a schema.';
COMMENT ON COLUMN postrider.schemas.schema IS 'The JSON Schema, byte for byte as it came.';
COMMENT ON COLUMN postrider.schemas.compatibility IS 'How it was compared with the version before it: backward, forward, full or none.';
COMMENT ON COLUMN postrider.schemas.created_at IS 'When it was put.';

ALTER TABLE postrider.queues ADD COLUMN schema_version integer;
ALTER TABLE postrider.queues ADD CONSTRAINT schema_version_counts_up CHECK (schema_version >= 1);
COMMENT ON COLUMN postrider.queues.schema_version IS 'The version of schemas that publishes are checked with; null: they are not.';
ALTER TABLE postrider.topics ADD COLUMN schema_version integer;
ALTER TABLE postrider.topics ADD CONSTRAINT schema_version_counts_up CHECK (schema_version >= 1);
COMMENT ON COLUMN postrider.topics.schema_version IS 'The version of schemas that publishes are checked with; null: they are not.';

-- A null here takes no room: rows have a bitmap of their nulls already.
ALTER TABLE postrider.messages ADD COLUMN schema_version integer;
COMMENT ON COLUMN postrider.messages.schema_version IS 'The version that its body was checked with, of the topic''s schema if it was published to one, else of the queue''s; null: there was none.';
ALTER TABLE postrider.stragglers ADD COLUMN schema_version integer;
COMMENT ON COLUMN postrider.stragglers.schema_version IS 'As in messages.';
ALTER TABLE postrider.dead_letters ADD COLUMN schema_version integer;
COMMENT ON COLUMN postrider.dead_letters.schema_version IS 'As in messages.';

DROP FUNCTION postrider.body_of;
CREATE FUNCTION postrider.body_of(of_queue bigint, of_message bigint, is_straggler boolean)
RETURNS TABLE (
    rounds integer, enqueued_at timestamptz, body bytea, content_type text, headers jsonb,
    key text, correlation_id text, reply_to text, traceparent text, tracestate text,
    topic text, routing_key text, schema_version integer)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT
        0, m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
        m.traceparent, m.tracestate, m.topic, m.routing_key, m.schema_version
    FROM postrider.messages AS m
    WHERE m.id = of_message AND NOT is_straggler
    UNION ALL
    SELECT
        s.rounds, s.enqueued_at, s.body, s.content_type, s.headers, s.key, s.correlation_id,
        s.reply_to, s.traceparent, s.tracestate, s.topic, s.routing_key, s.schema_version
    FROM postrider.stragglers AS s
    WHERE s.queue_id = of_queue AND s.message_id = of_message AND is_straggler;
END;
COMMENT ON FUNCTION postrider.body_of IS 'The wide half of a live message: from messages, or from stragglers.';
REVOKE ALL ON FUNCTION postrider.body_of FROM PUBLIC;
