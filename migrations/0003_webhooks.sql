-- Webhooks: consumers that the gateways run. What a webhook is stands in one
-- row; what it did, in push_attempts.

CREATE TABLE postrider.webhooks (
    queue_id               bigint PRIMARY KEY REFERENCES postrider.queues (id) ON DELETE CASCADE,
    url                    text NOT NULL,
    headers                jsonb NOT NULL DEFAULT '{}',
    timeout_ms             bigint NOT NULL,
    max_in_flight          integer NOT NULL,
    rate_limit_per_second  double precision,
    breaker_failure_rate   double precision NOT NULL,
    breaker_window         integer NOT NULL,
    breaker_min_calls      integer NOT NULL,
    breaker_open_ms        bigint NOT NULL,
    disable_after_ms       bigint NOT NULL,
    status                 text NOT NULL DEFAULT 'active',
    status_reason          text,
    status_since           timestamptz NOT NULL DEFAULT now(),
    secret                 bytea NOT NULL,
    old_secret             bytea,
    old_secret_until       timestamptz,
    owner                  bigint,
    owner_until            timestamptz,
    breaker                jsonb NOT NULL DEFAULT '{"epoch": 0, "state": "closed", "window": ""}',
    failing_since          timestamptz,
    version                bigint NOT NULL DEFAULT 1,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT url_in_range CHECK (length(url) BETWEEN 1 AND 2048),
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object'),
    CONSTRAINT timeout_in_range CHECK (timeout_ms BETWEEN 100 AND 300000),
    CONSTRAINT max_in_flight_in_range CHECK (max_in_flight BETWEEN 1 AND 1000),
    CONSTRAINT rate_limit_in_range CHECK (rate_limit_per_second BETWEEN 0.01 AND 100000),
    CONSTRAINT breaker_in_range CHECK (
        breaker_failure_rate BETWEEN 0.01 AND 1
        AND breaker_window BETWEEN 1 AND 1000
        AND breaker_min_calls BETWEEN 1 AND breaker_window
        AND breaker_open_ms BETWEEN 100 AND 86400000),
    CONSTRAINT disable_after_in_range CHECK (disable_after_ms BETWEEN 60000 AND 31536000000),
    CONSTRAINT status_is_known CHECK (status IN ('active', 'paused', 'disabled')),
    CONSTRAINT disabled_says_why CHECK (
        (status = 'disabled') = (status_reason IS NOT NULL)
        AND (status_reason IS NULL OR status_reason IN ('gone', 'failing'))),
    CONSTRAINT old_secret_has_an_end CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT owner_has_an_end CHECK ((owner IS NULL) = (owner_until IS NULL)),
    CONSTRAINT breaker_is_a_state CHECK (
        breaker ->> 'state' IN ('closed', 'open', 'half-open', 'recovering')
        AND jsonb_typeof(breaker -> 'epoch') = 'number'),
    CONSTRAINT version_counts_up CHECK (version >= 1)
) WITH (
    -- Owners renew themselves every two seconds: room for that on the page, so
    -- that no index has to know of it.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000
);
CREATE INDEX webhooks_active ON postrider.webhooks (queue_id) WHERE status = 'active';
CREATE INDEX webhooks_by_owner ON postrider.webhooks (owner, queue_id) WHERE owner IS NOT NULL;
COMMENT ON TABLE postrider.webhooks IS 'Webhooks, by the queue that each consumes; one gateway at a time owns the lane of one.';
COMMENT ON COLUMN postrider.webhooks.queue_id IS 'The queue; it has one webhook or none.';
COMMENT ON COLUMN postrider.webhooks.url IS 'Where to push to.';
COMMENT ON COLUMN postrider.webhooks.headers IS 'Headers to send along, string to string.';
COMMENT ON COLUMN postrider.webhooks.timeout_ms IS 'How long a push may take in all, milliseconds.';
COMMENT ON COLUMN postrider.webhooks.max_in_flight IS 'Pushes on their way at a time.';
COMMENT ON COLUMN postrider.webhooks.rate_limit_per_second IS 'Pushes a second; null for no bound.';
COMMENT ON COLUMN postrider.webhooks.breaker_failure_rate IS 'Share of failures at which the breaker opens.';
COMMENT ON COLUMN postrider.webhooks.breaker_window IS 'How many of the last calls it looks at.';
COMMENT ON COLUMN postrider.webhooks.breaker_min_calls IS 'With fewer it stays closed.';
COMMENT ON COLUMN postrider.webhooks.breaker_open_ms IS 'How long it stays open, milliseconds.';
COMMENT ON COLUMN postrider.webhooks.disable_after_ms IS 'For how long nothing but failures is borne, milliseconds.';
COMMENT ON COLUMN postrider.webhooks.status IS 'active, paused (by a user) or disabled (by a gateway).';
COMMENT ON COLUMN postrider.webhooks.status_reason IS 'Why it is disabled: gone (the endpoint answered 410) or failing (too long).';
COMMENT ON COLUMN postrider.webhooks.status_since IS 'When it became so.';
COMMENT ON COLUMN postrider.webhooks.secret IS 'The signing secret, sealed by a key that is not in the database.';
COMMENT ON COLUMN postrider.webhooks.old_secret IS 'The one before, sealed; it signs along until its end.';
COMMENT ON COLUMN postrider.webhooks.old_secret_until IS 'Its end.';
COMMENT ON COLUMN postrider.webhooks.owner IS 'The gateway that runs the lane, by its id in gateways; null for none.';
COMMENT ON COLUMN postrider.webhooks.owner_until IS 'Until when, unless it renews; then another gateway may take the lane.';
COMMENT ON COLUMN postrider.webhooks.breaker IS 'State of the circuit breaker (src/domain/breaker); written by the owner only, never with a lower epoch.';
COMMENT ON COLUMN postrider.webhooks.failing_since IS 'When the first of the failures was, if there has been no success since.';
COMMENT ON COLUMN postrider.webhooks.version IS 'Counts the changes of the settings; part of the ETag.';
COMMENT ON COLUMN postrider.webhooks.created_at IS 'When it was made; part of the ETag.';
COMMENT ON COLUMN postrider.webhooks.updated_at IS 'When its settings were last changed.';

CREATE TABLE postrider.push_attempts (
    queue_id    bigint NOT NULL,
    message_id  bigint NOT NULL,
    token       bigint NOT NULL,
    attempt     integer NOT NULL,
    started_at  timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    outcome     text NOT NULL,
    status      smallint,
    error       text,
    answer      bytea,
    CONSTRAINT attempt_counts_from_one CHECK (attempt >= 1),
    CONSTRAINT duration_in_range CHECK (duration_ms >= 0),
    CONSTRAINT outcome_is_known CHECK (outcome IN ('delivered', 'failed', 'gone', 'waiting')),
    CONSTRAINT status_in_range CHECK (status BETWEEN 100 AND 999),
    CONSTRAINT error_is_short CHECK (length(error) <= 1024),
    CONSTRAINT answer_is_short CHECK (length(answer) <= 1024)
) PARTITION BY RANGE (started_at);
CREATE INDEX push_attempts_by_time ON postrider.push_attempts (queue_id, started_at, message_id);
CREATE INDEX push_attempts_by_message
    ON postrider.push_attempts (queue_id, message_id, started_at);
-- Few among many, and what people look for.
CREATE INDEX push_attempts_not_delivered
    ON postrider.push_attempts (queue_id, started_at, message_id) WHERE outcome <> 'delivered';
COMMENT ON TABLE postrider.push_attempts IS 'What pushes to webhooks came to. Daily partitions, dropped whole; insert-only.';
COMMENT ON COLUMN postrider.push_attempts.queue_id IS 'The queue of the webhook.';
COMMENT ON COLUMN postrider.push_attempts.message_id IS 'The message.';
COMMENT ON COLUMN postrider.push_attempts.token IS 'The number of the lease that the push was made under.';
COMMENT ON COLUMN postrider.push_attempts.attempt IS '1 for the first.';
COMMENT ON COLUMN postrider.push_attempts.started_at IS 'When it began.';
COMMENT ON COLUMN postrider.push_attempts.duration_ms IS 'How long it took, milliseconds.';
COMMENT ON COLUMN postrider.push_attempts.outcome IS 'delivered (2xx), gone (410), waiting (429 or 503 with Retry-After: no attempt is used up) or failed.';
COMMENT ON COLUMN postrider.push_attempts.status IS 'The status of the answer; null if none came.';
COMMENT ON COLUMN postrider.push_attempts.error IS 'What went wrong, in words; null if delivered.';
COMMENT ON COLUMN postrider.push_attempts.answer IS 'The first kilobyte of the answer''s body; null for an empty one.';

-- A gateway that does not push (it has no key to the secrets) must not be
-- counted when the lanes are shared out.
ALTER TABLE postrider.gateways ADD COLUMN lanes_at timestamptz;
COMMENT ON COLUMN postrider.gateways.lanes_at IS 'When it last asked for its lanes of webhooks; null if it never does.';
