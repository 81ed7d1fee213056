-- The tables of Postrider. They live in a schema of their own so that a
-- database can be shared with an application.
--
-- Narrow rows move (ready, parked), wide rows never do (messages): see
-- src/store/mod.rs for why, and for the life of a message through them.

-- Queues and their settings ------------------------------------------------

CREATE TABLE postrider.queues (
    id                       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                     text COLLATE "C" NOT NULL UNIQUE,
    lease_ms                 bigint NOT NULL,
    max_attempts             integer NOT NULL,
    backoff_initial_ms       bigint NOT NULL,
    backoff_multiplier       double precision NOT NULL,
    backoff_max_ms           bigint NOT NULL,
    backoff_jitter           double precision NOT NULL,
    message_ttl_ms           bigint NOT NULL,
    delay_ms                 bigint NOT NULL,
    max_ready                bigint,
    overflow                 text NOT NULL,
    max_message_bytes        integer NOT NULL,
    dedup_window_ms          bigint NOT NULL,
    dead_letter_enabled      boolean NOT NULL,
    dead_letter_keep_expired boolean NOT NULL,
    dead_letter_retention_ms bigint NOT NULL,
    retry_every_ms           bigint NOT NULL,
    retry_max_rounds         integer NOT NULL,
    version                  bigint NOT NULL DEFAULT 1,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_a_name CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'),
    CONSTRAINT lease_in_range CHECK (lease_ms BETWEEN 1 AND 43200000),
    CONSTRAINT max_attempts_in_range CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT backoff_in_range CHECK (
        backoff_initial_ms BETWEEN 0 AND backoff_max_ms
        AND backoff_max_ms <= 31536000000
        AND backoff_multiplier BETWEEN 1 AND 100
        AND backoff_jitter BETWEEN 0 AND 1),
    CONSTRAINT message_ttl_in_range CHECK (message_ttl_ms BETWEEN 1 AND 31536000000),
    CONSTRAINT delay_in_range CHECK (delay_ms BETWEEN 0 AND 31536000000),
    CONSTRAINT max_ready_in_range CHECK (max_ready >= 1),
    CONSTRAINT overflow_is_known CHECK (overflow IN ('reject', 'drop_oldest')),
    CONSTRAINT max_message_bytes_in_range CHECK (max_message_bytes BETWEEN 1 AND 8388608),
    CONSTRAINT dedup_window_in_range CHECK (dedup_window_ms BETWEEN 1 AND 604800000),
    CONSTRAINT dead_letter_retention_in_range
        CHECK (dead_letter_retention_ms BETWEEN 1 AND 31536000000),
    CONSTRAINT retry_in_range CHECK (
        retry_every_ms BETWEEN 1000 AND 31536000000
        AND retry_max_rounds BETWEEN 0 AND 1000),
    CONSTRAINT version_counts_up CHECK (version >= 1)
);

COMMENT ON TABLE postrider.queues IS 'Queues and their settings; read through a cache that is at most a second old.';
COMMENT ON COLUMN postrider.queues.id IS 'Leads the key of every hot table; a queue made anew under an old name has a new id.';
COMMENT ON COLUMN postrider.queues.name IS 'What users call it.';
COMMENT ON COLUMN postrider.queues.lease_ms IS 'How long a receive leases a message when it does not say, milliseconds.';
COMMENT ON COLUMN postrider.queues.max_attempts IS 'Failed attempts after which a message is dead.';
COMMENT ON COLUMN postrider.queues.backoff_initial_ms IS 'Wait after the first failed attempt, milliseconds.';
COMMENT ON COLUMN postrider.queues.backoff_multiplier IS 'Factor from one wait to the next.';
COMMENT ON COLUMN postrider.queues.backoff_max_ms IS 'Longest wait, milliseconds.';
COMMENT ON COLUMN postrider.queues.backoff_jitter IS 'Share of the wait that is random: 0 none, 1 all of it.';
COMMENT ON COLUMN postrider.queues.message_ttl_ms IS 'Time to live from when a message is first ready, milliseconds.';
COMMENT ON COLUMN postrider.queues.delay_ms IS 'Delay of messages that do not say, milliseconds.';
COMMENT ON COLUMN postrider.queues.max_ready IS 'Bound on ready messages; null is none.';
COMMENT ON COLUMN postrider.queues.overflow IS 'At the bound: reject the publish, or drop_oldest.';
COMMENT ON COLUMN postrider.queues.max_message_bytes IS 'Largest body, bytes.';
COMMENT ON COLUMN postrider.queues.dedup_window_ms IS 'How long a dedup id is remembered, milliseconds.';
COMMENT ON COLUMN postrider.queues.dead_letter_enabled IS 'Whether dead messages are kept at all.';
COMMENT ON COLUMN postrider.queues.dead_letter_keep_expired IS 'Whether expired messages become dead letters too.';
COMMENT ON COLUMN postrider.queues.dead_letter_retention_ms IS 'How long dead letters are kept, milliseconds.';
COMMENT ON COLUMN postrider.queues.retry_every_ms IS 'How long after its death the scheduled job puts a dead letter back, milliseconds.';
COMMENT ON COLUMN postrider.queues.retry_max_rounds IS 'How often the scheduled job does so for one message; 0 is never.';
COMMENT ON COLUMN postrider.queues.version IS 'Counts the changes of the settings; the ETag.';
COMMENT ON COLUMN postrider.queues.created_at IS 'When it was made.';
COMMENT ON COLUMN postrider.queues.updated_at IS 'When its settings were last changed.';

CREATE TABLE postrider.deleted_queues (
    id         bigint PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE postrider.deleted_queues IS 'Queues whose rows are still being removed, by the prune worker.';
COMMENT ON COLUMN postrider.deleted_queues.id IS 'The id the queue had.';
COMMENT ON COLUMN postrider.deleted_queues.deleted_at IS 'When it was deleted; kept for an hour, so that a publish that raced with it leaves nothing.';

-- Counts: each statement that moves messages adds one narrow row a queue, a
-- worker folds them. Inserts never wait for each other; an UPDATE of one
-- counter row would serialise every commit of the queue.

CREATE TABLE postrider.queue_counts (
    queue_id      bigint PRIMARY KEY REFERENCES postrider.queues (id) ON DELETE CASCADE,
    ready         bigint NOT NULL DEFAULT 0,
    leased        bigint NOT NULL DEFAULT 0,
    delayed       bigint NOT NULL DEFAULT 0,
    dead          bigint NOT NULL DEFAULT 0,
    published     bigint NOT NULL DEFAULT 0,
    delivered     bigint NOT NULL DEFAULT 0,
    acked         bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    expired       bigint NOT NULL DEFAULT 0,
    removed       bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE postrider.queue_counts IS 'Folded counts; published = ready + leased + delayed + dead + acked + expired + removed, with the rows of tallies added.';
COMMENT ON COLUMN postrider.queue_counts.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.queue_counts.ready IS 'Messages that can be received now.';
COMMENT ON COLUMN postrider.queue_counts.leased IS 'Messages under a lease.';
COMMENT ON COLUMN postrider.queue_counts.delayed IS 'Messages that wait for a time: delays and backoffs.';
COMMENT ON COLUMN postrider.queue_counts.dead IS 'Dead letters.';
COMMENT ON COLUMN postrider.queue_counts.published IS 'Messages stored, ever.';
COMMENT ON COLUMN postrider.queue_counts.delivered IS 'Leases given, ever.';
COMMENT ON COLUMN postrider.queue_counts.acked IS 'Messages acked, ever.';
COMMENT ON COLUMN postrider.queue_counts.failed IS 'Attempts that failed, ever.';
COMMENT ON COLUMN postrider.queue_counts.dead_lettered IS 'Messages that became dead letters, ever.';
COMMENT ON COLUMN postrider.queue_counts.expired IS 'Messages dropped because their time to live had passed, ever.';
COMMENT ON COLUMN postrider.queue_counts.removed IS 'Messages purged, cancelled or dropped, ever.';

CREATE TABLE postrider.tallies (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id      bigint NOT NULL,
    ready         integer NOT NULL DEFAULT 0,
    leased        integer NOT NULL DEFAULT 0,
    delayed       integer NOT NULL DEFAULT 0,
    dead          integer NOT NULL DEFAULT 0,
    published     integer NOT NULL DEFAULT 0,
    delivered     integer NOT NULL DEFAULT 0,
    acked         integer NOT NULL DEFAULT 0,
    failed        integer NOT NULL DEFAULT 0,
    dead_lettered integer NOT NULL DEFAULT 0,
    expired       integer NOT NULL DEFAULT 0,
    removed       integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE postrider.tallies IS 'What single statements changed, not yet folded into queue_counts.';
COMMENT ON COLUMN postrider.tallies.id IS 'In order of insertion; folded from the low end.';
COMMENT ON COLUMN postrider.tallies.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.tallies.ready IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.leased IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.delayed IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.dead IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.published IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.delivered IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.acked IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.failed IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.dead_lettered IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.expired IS 'Change of the count of the same name.';
COMMENT ON COLUMN postrider.tallies.removed IS 'Change of the count of the same name.';

-- Messages: insert-only, in partitions by id that are dropped whole --------

CREATE SEQUENCE postrider.message_ids AS bigint;
COMMENT ON SEQUENCE postrider.message_ids IS 'Ids of messages and positions in ready, one order for both.';

CREATE TABLE postrider.messages (
    id             bigint NOT NULL PRIMARY KEY,
    enqueued_at    timestamptz NOT NULL DEFAULT now(),
    body           bytea NOT NULL,
    content_type   text,
    headers        jsonb,
    key            text,
    correlation_id text,
    reply_to       text,
    traceparent    text,
    tracestate     text,
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object')
) PARTITION BY RANGE (id);
-- Bodies are kept as they came: compressing them costs more processor time
-- than the write it saves, on the hot path of every publish.
ALTER TABLE postrider.messages ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE postrider.messages IS 'What was published; insert-only, no row is ever updated or deleted.';
COMMENT ON COLUMN postrider.messages.id IS 'From message_ids: sorts by publish order.';
COMMENT ON COLUMN postrider.messages.enqueued_at IS 'When it was stored.';
COMMENT ON COLUMN postrider.messages.body IS 'The bytes, JSON too: jsonb would lose key order, number spelling and \u0000.';
COMMENT ON COLUMN postrider.messages.content_type IS 'Null for a JSON value.';
COMMENT ON COLUMN postrider.messages.headers IS 'The publisher''s headers, string to string; null for none.';
COMMENT ON COLUMN postrider.messages.key IS 'Ordering and partition key.';
COMMENT ON COLUMN postrider.messages.correlation_id IS 'The publisher''s own.';
COMMENT ON COLUMN postrider.messages.reply_to IS 'Where the publisher wants the answer.';
COMMENT ON COLUMN postrider.messages.traceparent IS 'W3C Trace Context.';
COMMENT ON COLUMN postrider.messages.tracestate IS 'W3C Trace Context.';

CREATE TABLE postrider.message_partitions (
    lo         bigint PRIMARY KEY,
    hi         bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT not_empty CHECK (hi > lo)
);
COMMENT ON TABLE postrider.message_partitions IS 'The partitions of messages that exist now; each is named messages_ and its lo.';
COMMENT ON COLUMN postrider.message_partitions.lo IS 'Its first id.';
COMMENT ON COLUMN postrider.message_partitions.hi IS 'The id behind its last.';
COMMENT ON COLUMN postrider.message_partitions.created_at IS 'When it was made.';

CREATE TABLE postrider.stragglers (
    queue_id       bigint NOT NULL,
    message_id     bigint NOT NULL,
    touched_at     timestamptz NOT NULL DEFAULT now(),
    rounds         integer NOT NULL DEFAULT 0,
    enqueued_at    timestamptz NOT NULL,
    body           bytea NOT NULL,
    content_type   text,
    headers        jsonb,
    key            text,
    correlation_id text,
    reply_to       text,
    traceparent    text,
    tracestate     text,
    PRIMARY KEY (queue_id, message_id),
    CONSTRAINT rounds_count_up CHECK (rounds >= 0)
);
ALTER TABLE postrider.stragglers ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE postrider.stragglers IS 'Bodies of live messages whose partition is gone or going: redriven dead letters, long delays.';
COMMENT ON COLUMN postrider.stragglers.queue_id IS 'The queue that still needs it.';
COMMENT ON COLUMN postrider.stragglers.message_id IS 'The id it has always had.';
COMMENT ON COLUMN postrider.stragglers.touched_at IS 'When it was last put here; prune leaves it alone for a minute.';
COMMENT ON COLUMN postrider.stragglers.rounds IS 'How often the scheduled retry has put it back.';
COMMENT ON COLUMN postrider.stragglers.enqueued_at IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.body IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.content_type IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.headers IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.key IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.correlation_id IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.reply_to IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.traceparent IS 'As in messages.';
COMMENT ON COLUMN postrider.stragglers.tracestate IS 'As in messages.';

-- Where a live message is: ready or parked, in each queue once -------------

CREATE TABLE postrider.ready (
    queue_id   bigint NOT NULL,
    position   bigint NOT NULL,
    message_id bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    priority   smallint NOT NULL,
    own_ttl    boolean NOT NULL DEFAULT false,
    straggler  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue_id, priority, position),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT attempts_count_up CHECK (attempts >= 0)
) WITH (
    -- The vacuum worker (src/workers/upkeep.rs) keeps it small; autovacuum is
    -- the safety net where the gateway's role may not vacuum.
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false
);
-- A message that comes back has a position of its own, so it cannot be found
-- by its id through the primary key. Messages on their first way through,
-- nearly all, pay nothing for this index.
CREATE INDEX ready_by_message ON postrider.ready (queue_id, message_id) WHERE position <> message_id;
-- Messages with the queue's time to live expire in order of position; those
-- with their own do not, and only they are indexed.
CREATE INDEX ready_by_expiry ON postrider.ready (queue_id, expires_at) WHERE own_ttl;
COMMENT ON TABLE postrider.ready IS 'Messages that can be received now. Rows are inserted and deleted, never updated but for straggler.';
COMMENT ON COLUMN postrider.ready.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.ready.position IS 'Place in its priority: the message''s id on its first way through, a new number of message_ids when it comes back.';
COMMENT ON COLUMN postrider.ready.message_id IS 'The message.';
COMMENT ON COLUMN postrider.ready.expires_at IS 'End of its time to live.';
COMMENT ON COLUMN postrider.ready.attempts IS 'Attempts made so far.';
COMMENT ON COLUMN postrider.ready.priority IS '9 is received first.';
COMMENT ON COLUMN postrider.ready.own_ttl IS 'Whether expires_at is out of step with the queue''s order of positions: an own time to live, or a message that came back.';
COMMENT ON COLUMN postrider.ready.straggler IS 'Whether the body is in stragglers rather than in messages.';

CREATE TABLE postrider.parked (
    queue_id   bigint NOT NULL,
    message_id bigint NOT NULL,
    wake_at    timestamptz NOT NULL,
    token      bigint NOT NULL DEFAULT 0,
    leased_at  timestamptz,
    expires_at timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    priority   smallint NOT NULL,
    own_ttl    boolean NOT NULL DEFAULT false,
    straggler  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue_id, message_id),
    CONSTRAINT leased_or_not CHECK ((token <> 0) = (leased_at IS NOT NULL)),
    CONSTRAINT a_lease_is_an_attempt CHECK (token = 0 OR attempts >= 1),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT attempts_count_up CHECK (attempts >= 0)
) WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false
);
CREATE INDEX parked_by_wake ON postrider.parked (queue_id, wake_at);
COMMENT ON TABLE postrider.parked IS 'Messages that are not ready until a time: leases, delays, backoffs.';
COMMENT ON COLUMN postrider.parked.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.parked.message_id IS 'The message.';
COMMENT ON COLUMN postrider.parked.wake_at IS 'When the lease ends or the wait is over.';
COMMENT ON COLUMN postrider.parked.token IS 'The lease''s own number, part of its receipt; 0 for a delay or backoff.';
COMMENT ON COLUMN postrider.parked.leased_at IS 'When the lease began; null for a delay or backoff.';
COMMENT ON COLUMN postrider.parked.expires_at IS 'End of the time to live.';
COMMENT ON COLUMN postrider.parked.attempts IS 'Attempts made so far, the running one included.';
COMMENT ON COLUMN postrider.parked.priority IS '9 is received first.';
COMMENT ON COLUMN postrider.parked.own_ttl IS 'As in ready.';
COMMENT ON COLUMN postrider.parked.straggler IS 'As in ready.';

-- How attempts ended, if not by an ack ------------------------------------

CREATE TABLE postrider.attempts (
    queue_id   bigint NOT NULL,
    message_id bigint NOT NULL,
    token      bigint NOT NULL,
    attempt    integer NOT NULL,
    leased_at  timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL DEFAULT now(),
    outcome    text NOT NULL,
    error      text,
    CONSTRAINT attempt_counts_from_one CHECK (attempt >= 1),
    CONSTRAINT outcome_is_known CHECK (outcome IN ('nacked', 'rejected', 'lease-expired'))
) PARTITION BY RANGE (ended_at);
CREATE INDEX attempts_by_message ON postrider.attempts (queue_id, message_id, ended_at);
COMMENT ON TABLE postrider.attempts IS 'Failed attempts: a message''s history, and the proof that a receipt is no longer good. Daily partitions, dropped whole.';
COMMENT ON COLUMN postrider.attempts.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.attempts.message_id IS 'The message.';
COMMENT ON COLUMN postrider.attempts.token IS 'The lease''s number.';
COMMENT ON COLUMN postrider.attempts.attempt IS '1 for the first.';
COMMENT ON COLUMN postrider.attempts.leased_at IS 'When it began.';
COMMENT ON COLUMN postrider.attempts.ended_at IS 'When it ended.';
COMMENT ON COLUMN postrider.attempts.outcome IS 'nacked, rejected (dead-lettered by its consumer) or lease-expired.';
COMMENT ON COLUMN postrider.attempts.error IS 'The reason the consumer gave.';

-- Dead letters ------------------------------------------------------------

CREATE TABLE postrider.dead_letters (
    queue_id       bigint NOT NULL,
    message_id     bigint NOT NULL,
    dead_at        timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    reason         text NOT NULL,
    attempts       integer NOT NULL,
    rounds         integer NOT NULL DEFAULT 0,
    priority       smallint NOT NULL,
    last_error     text,
    enqueued_at    timestamptz NOT NULL,
    body           bytea NOT NULL,
    content_type   text,
    headers        jsonb,
    key            text,
    correlation_id text,
    reply_to       text,
    traceparent    text,
    tracestate     text,
    PRIMARY KEY (queue_id, message_id),
    CONSTRAINT reason_is_known CHECK (reason IN ('max-attempts', 'rejected', 'expired', 'overflow')),
    CONSTRAINT attempts_count_up CHECK (attempts >= 0),
    CONSTRAINT rounds_count_up CHECK (rounds >= 0),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9)
);
ALTER TABLE postrider.dead_letters ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX dead_letters_by_time ON postrider.dead_letters (queue_id, dead_at, message_id);
CREATE INDEX dead_letters_by_round ON postrider.dead_letters (queue_id, rounds, dead_at);
CREATE INDEX dead_letters_by_expiry ON postrider.dead_letters (expires_at);
COMMENT ON TABLE postrider.dead_letters IS 'Messages that were given up, whole: they outlive the partition they came in.';
COMMENT ON COLUMN postrider.dead_letters.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.dead_letters.message_id IS 'The id it has always had.';
COMMENT ON COLUMN postrider.dead_letters.dead_at IS 'When it died.';
COMMENT ON COLUMN postrider.dead_letters.expires_at IS 'When it is removed.';
COMMENT ON COLUMN postrider.dead_letters.reason IS 'max-attempts, rejected (by its consumer), expired or overflow.';
COMMENT ON COLUMN postrider.dead_letters.attempts IS 'Attempts made.';
COMMENT ON COLUMN postrider.dead_letters.rounds IS 'How often the scheduled retry has put it back before.';
COMMENT ON COLUMN postrider.dead_letters.priority IS 'As in ready.';
COMMENT ON COLUMN postrider.dead_letters.last_error IS 'The reason the last attempt''s consumer gave.';
COMMENT ON COLUMN postrider.dead_letters.enqueued_at IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.body IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.content_type IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.headers IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.key IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.correlation_id IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.reply_to IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.traceparent IS 'As in messages.';
COMMENT ON COLUMN postrider.dead_letters.tracestate IS 'As in messages.';

-- Deduplication -----------------------------------------------------------

CREATE TABLE postrider.dedup (
    queue_id   bigint NOT NULL,
    dedup_id   text COLLATE "C" NOT NULL,
    day        date NOT NULL,
    message_id bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (queue_id, dedup_id, day)
) PARTITION BY RANGE (day);
COMMENT ON TABLE postrider.dedup IS 'Dedup ids seen within their window. Daily partitions, dropped whole.';
COMMENT ON COLUMN postrider.dedup.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.dedup.dedup_id IS 'What the publisher gave.';
COMMENT ON COLUMN postrider.dedup.day IS 'UTC day of the publish; see publish.sql for what happens at midnight.';
COMMENT ON COLUMN postrider.dedup.message_id IS 'The message that was stored.';
COMMENT ON COLUMN postrider.dedup.expires_at IS 'End of the window.';

-- The gateways, and what they share ---------------------------------------

CREATE TABLE postrider.gateways (
    id         bigint PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    waiting    jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT waiting_is_an_object CHECK (jsonb_typeof(waiting) = 'object')
) WITH (fillfactor = 50);
COMMENT ON TABLE postrider.gateways IS 'Heartbeats of running gateways.';
COMMENT ON COLUMN postrider.gateways.id IS 'Drawn at random at start.';
COMMENT ON COLUMN postrider.gateways.started_at IS 'When it started.';
COMMENT ON COLUMN postrider.gateways.seen_at IS 'Its last heartbeat; older than ten seconds is gone.';
COMMENT ON COLUMN postrider.gateways.waiting IS 'Receivers that wait there: queue id to number.';

CREATE TABLE postrider.cluster (
    only_row boolean PRIMARY KEY DEFAULT true,
    secret   bytea NOT NULL,
    CONSTRAINT one_row CHECK (only_row),
    CONSTRAINT secret_is_long CHECK (length(secret) >= 32)
);
COMMENT ON TABLE postrider.cluster IS 'What all gateways on this database share.';
COMMENT ON COLUMN postrider.cluster.only_row IS 'There is one row.';
COMMENT ON COLUMN postrider.cluster.secret IS 'Authenticates receipts, so that a made-up one is known as such.';
-- Two random UUIDs: 244 bits from the server's strong random source.
INSERT INTO postrider.cluster (secret)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Where a message's body is, for the statements off the hot path.

CREATE FUNCTION postrider.body_of(of_queue bigint, of_message bigint, is_straggler boolean)
RETURNS TABLE (
    rounds integer, enqueued_at timestamptz, body bytea, content_type text, headers jsonb,
    key text, correlation_id text, reply_to text, traceparent text, tracestate text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT
        0, m.enqueued_at, m.body, m.content_type, m.headers, m.key, m.correlation_id, m.reply_to,
        m.traceparent, m.tracestate
    FROM postrider.messages AS m
    WHERE m.id = of_message AND NOT is_straggler
    UNION ALL
    SELECT
        s.rounds, s.enqueued_at, s.body, s.content_type, s.headers, s.key, s.correlation_id,
        s.reply_to, s.traceparent, s.tracestate
    FROM postrider.stragglers AS s
    WHERE s.queue_id = of_queue AND s.message_id = of_message AND is_straggler;
END;
COMMENT ON FUNCTION postrider.body_of IS 'The wide half of a live message: from messages, or from stragglers.';
