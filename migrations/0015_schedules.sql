-- Schedules: messages that the clock publishes. src/store/schedules says how each
-- tick comes once, over any number of gateways.

CREATE TABLE postrider.schedules (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text COLLATE "C" NOT NULL UNIQUE,
    cron            text NOT NULL,
    timezone        text NOT NULL,
    queue           text COLLATE "C",
    topic           text COLLATE "C",
    routing_key     text,
    body            bytea NOT NULL,
    content_type    text,
    headers         jsonb,
    key             text,
    priority        smallint NOT NULL,
    delay_ms        bigint,
    ttl_ms          bigint,
    correlation_id  text,
    reply_to        text,
    paused          boolean NOT NULL,
    catch_up        text NOT NULL,
    next_run        timestamptz,
    last_run        timestamptz,
    last_error_code text,
    last_error      text,
    last_error_at   timestamptz,
    version         bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_a_name CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'),
    CONSTRAINT to_a_queue_or_a_topic CHECK (num_nonnulls(queue, topic) = 1),
    CONSTRAINT routed_to_a_topic CHECK ((topic IS NULL) = (routing_key IS NULL)),
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object'),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT delay_in_range CHECK (delay_ms BETWEEN 0 AND 31536000000),
    CONSTRAINT ttl_in_range CHECK (ttl_ms BETWEEN 1 AND 31536000000),
    CONSTRAINT catch_up_is_known CHECK (catch_up IN ('one', 'none', 'all')),
    CONSTRAINT paused_has_no_next_run CHECK (NOT (paused AND next_run IS NOT NULL)),
    CONSTRAINT error_is_whole CHECK (num_nonnulls(last_error_code, last_error, last_error_at) IN (0, 3)),
    CONSTRAINT version_counts_up CHECK (version >= 1)
);
ALTER TABLE postrider.schedules ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX schedules_by_next_run ON postrider.schedules (next_run) WHERE next_run IS NOT NULL;
COMMENT ON TABLE postrider.schedules IS 'What is published when.';
COMMENT ON COLUMN postrider.schedules.id IS 'A schedule made anew under an old name has a new id.';
COMMENT ON COLUMN postrider.schedules.name IS 'What users call it.';
COMMENT ON COLUMN postrider.schedules.cron IS 'When: a pattern of cron, of the wall clock of its time zone.';
COMMENT ON COLUMN postrider.schedules.timezone IS 'Of the IANA''s database.';
COMMENT ON COLUMN postrider.schedules.queue IS 'The name of the queue to publish to.';
COMMENT ON COLUMN postrider.schedules.topic IS 'Or of the topic.';
COMMENT ON COLUMN postrider.schedules.routing_key IS 'What a topic''s subscriptions choose by.';
COMMENT ON COLUMN postrider.schedules.body IS 'As in messages.';
COMMENT ON COLUMN postrider.schedules.content_type IS 'As in messages.';
COMMENT ON COLUMN postrider.schedules.headers IS 'As in messages, without those that tell of the tick.';
COMMENT ON COLUMN postrider.schedules.key IS 'As in messages.';
COMMENT ON COLUMN postrider.schedules.priority IS '0 to 9.';
COMMENT ON COLUMN postrider.schedules.delay_ms IS 'Delay after the tick, milliseconds; null for the queue''s.';
COMMENT ON COLUMN postrider.schedules.ttl_ms IS 'Time to live, milliseconds; null for the queue''s.';
COMMENT ON COLUMN postrider.schedules.correlation_id IS 'As in messages.';
COMMENT ON COLUMN postrider.schedules.reply_to IS 'As in messages.';
COMMENT ON COLUMN postrider.schedules.paused IS 'Whether it rests.';
COMMENT ON COLUMN postrider.schedules.catch_up IS 'What becomes of ticks that nobody was there for: one message for all, none, or all.';
COMMENT ON COLUMN postrider.schedules.next_run IS 'The first tick that nothing was done for; null if it is paused, or never comes again. Whoever moves it publishes the message, in one transaction.';
COMMENT ON COLUMN postrider.schedules.last_run IS 'The last tick that a message was published for.';
COMMENT ON COLUMN postrider.schedules.last_error_code IS 'Why the last tick had no message: the code of a refusal over HTTP; null if it had one.';
COMMENT ON COLUMN postrider.schedules.last_error IS 'The same in words.';
COMMENT ON COLUMN postrider.schedules.last_error_at IS 'When.';
COMMENT ON COLUMN postrider.schedules.version IS 'Counts the changes of the settings; the ETag.';
COMMENT ON COLUMN postrider.schedules.created_at IS 'When it was made.';
COMMENT ON COLUMN postrider.schedules.updated_at IS 'When its settings were last changed.';
