-- The SQL door: messages that an application publishes in a transaction of its
-- own, by a function. src/store/door/mod.rs says how they go on from here.
--
-- What is here does not touch the tables that messages move through. Positions
-- there are drawn in transactions that last for less than a minute, which the
-- watermarks rest on (src/store/watermark/mod.rs); an application's may last for
-- an hour. So the functions only write down what was asked, in a table that the
-- gateways look into.

CREATE TABLE postrider.door (
    xid            xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id             bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    asked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    queue          text COLLATE "C",
    topic          text COLLATE "C",
    routing_key    text,
    body           bytea NOT NULL,
    headers        jsonb,
    key            text,
    priority       smallint NOT NULL,
    deliver_at     timestamptz,
    ttl_ms         bigint,
    dedup_id       text,
    correlation_id text,
    reply_to       text,
    traceparent    text,
    PRIMARY KEY (xid, id),
    CONSTRAINT to_a_queue_or_a_topic CHECK (num_nonnulls(queue, topic) = 1),
    CONSTRAINT routed_to_a_topic CHECK ((topic IS NULL) = (routing_key IS NULL)),
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof(headers) = 'object'),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT ttl_in_range CHECK (ttl_ms BETWEEN 1 AND 31536000000)
) WITH (
    -- Rows stay for milliseconds; what is dead must not wait for a fifth of them.
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
-- As in messages: compressing costs more processor time than it saves.
ALTER TABLE postrider.door ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE postrider.door IS 'What postrider.publish and publish_topic were called with, until a gateway has taken it: milliseconds after the commit.';
COMMENT ON COLUMN postrider.door.xid IS 'The transaction that asked: leads the key, so that a look needs not go over what was looked at before (src/store/door/mod.rs).';
COMMENT ON COLUMN postrider.door.id IS 'The ticket that the call returned; in the order of the calls.';
COMMENT ON COLUMN postrider.door.asked_at IS 'When the function was called.';
COMMENT ON COLUMN postrider.door.queue IS 'The name of the queue to publish to.';
COMMENT ON COLUMN postrider.door.topic IS 'Or of the topic.';
COMMENT ON COLUMN postrider.door.routing_key IS 'What a topic''s subscriptions choose by.';
COMMENT ON COLUMN postrider.door.body IS 'The text form of the jsonb, UTF-8.';
COMMENT ON COLUMN postrider.door.headers IS 'String to string; null for none.';
COMMENT ON COLUMN postrider.door.key IS 'Ordering and partition key.';
COMMENT ON COLUMN postrider.door.priority IS '0 to 9.';
COMMENT ON COLUMN postrider.door.deliver_at IS 'Not before this; a delay was added to the time of the call.';
COMMENT ON COLUMN postrider.door.ttl_ms IS 'Its own time to live, milliseconds; null for the queue''s.';
COMMENT ON COLUMN postrider.door.dedup_id IS 'A second publish with the same id stores nothing.';
COMMENT ON COLUMN postrider.door.correlation_id IS 'The publisher''s own.';
COMMENT ON COLUMN postrider.door.reply_to IS 'Where the publisher wants the answer.';
COMMENT ON COLUMN postrider.door.traceparent IS 'W3C Trace Context.';

-- What a gateway could not publish after the commit, when the caller is gone.
CREATE TABLE postrider.door_refused (
    id             bigint PRIMARY KEY,
    asked_at       timestamptz NOT NULL,
    refused_at     timestamptz NOT NULL DEFAULT now(),
    reason         text NOT NULL,
    detail         text NOT NULL,
    tries          integer NOT NULL DEFAULT 1,
    next_try_at    timestamptz NOT NULL,
    queue          text COLLATE "C",
    topic          text COLLATE "C",
    routing_key    text,
    body           bytea NOT NULL,
    headers        jsonb,
    key            text,
    priority       smallint NOT NULL,
    deliver_at     timestamptz,
    ttl_ms         bigint,
    dedup_id       text,
    correlation_id text,
    reply_to       text,
    traceparent    text,
    CONSTRAINT to_a_queue_or_a_topic CHECK (num_nonnulls(queue, topic) = 1),
    CONSTRAINT tries_count_up CHECK (tries >= 1)
);
ALTER TABLE postrider.door_refused ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX door_refused_by_next_try ON postrider.door_refused (next_try_at);
COMMENT ON TABLE postrider.door_refused IS 'What came through the door and could not be published: tried again, ever more rarely, until it can be or an operator deletes the row.';
COMMENT ON COLUMN postrider.door_refused.id IS 'The ticket that the call returned.';
COMMENT ON COLUMN postrider.door_refused.asked_at IS 'When the function was called.';
COMMENT ON COLUMN postrider.door_refused.refused_at IS 'When it was refused first.';
COMMENT ON COLUMN postrider.door_refused.reason IS 'As the code of a refusal over HTTP: queue-not-found, topic-not-found, queue-full, message-too-large, schema-violation, invalid; internal if the database would not store it.';
COMMENT ON COLUMN postrider.door_refused.detail IS 'The same in words.';
COMMENT ON COLUMN postrider.door_refused.tries IS 'How often it was refused.';
COMMENT ON COLUMN postrider.door_refused.next_try_at IS 'When it is tried again; set it to now() to have that at once.';
COMMENT ON COLUMN postrider.door_refused.queue IS 'As in door; may be corrected.';
COMMENT ON COLUMN postrider.door_refused.topic IS 'As in door; may be corrected.';
COMMENT ON COLUMN postrider.door_refused.routing_key IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.body IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.headers IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.key IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.priority IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.deliver_at IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.ttl_ms IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.dedup_id IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.correlation_id IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.reply_to IS 'As in door.';
COMMENT ON COLUMN postrider.door_refused.traceparent IS 'As in door.';

-- The functions. They run as their owner, with a search path of their own: what
-- the caller has made under whatever name, and how its session is set, changes
-- nothing. Strings with backslashes are written E'', which no setting changes.

CREATE FUNCTION postrider.door_version() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN 1;
COMMENT ON FUNCTION postrider.door_version IS 'The version of the functions publish and publish_topic: within one, parameters with defaults may be added at the end and a refusal may become more exact; nothing else changes.';

-- What is the same for queues and topics: checks all that HTTP checks, writes
-- down what was asked, wakes the gateways. For the two functions below only.
CREATE FUNCTION postrider.door_enter(
    to_queue text, to_topic text, routing text, most_bytes bigint,
    body jsonb, headers jsonb, key text, priority integer, delay_seconds numeric,
    deliver_at timestamptz, ttl_seconds numeric, dedup_id text, correlation_id text,
    reply_to text, traceparent text
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $door$
#variable_conflict use_variable
DECLARE
    -- Control characters: C0, DEL, C1.
    control CONSTANT text COLLATE "C" := E'[\\u0001-\\u001f\\u007f-\\u009f]';
    bytes bytea;
    ready_at timestamptz;
    field text;
    value text;
    ticket bigint;
BEGIN
    IF body IS NULL THEN
        RAISE EXCEPTION 'body must not be null' USING ERRCODE = 'null_value_not_allowed',
            DETAIL = 'code: invalid', HINT = 'The JSON value null is ''null''::jsonb.';
    END IF;
    bytes := convert_to(body::text, 'UTF8');
    IF octet_length(bytes) > most_bytes THEN
        RAISE EXCEPTION 'the body is % bytes, over the limit of %', octet_length(bytes), most_bytes
            USING ERRCODE = 'program_limit_exceeded', DETAIL = 'code: message-too-large',
                HINT = 'Send where the data is instead of the data, or raise max_message_bytes.';
    END IF;
    IF priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'priority must be from 0 to 9, not %', priority
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = '9 is received first; 0 is the default.';
    END IF;
    -- NaN is greater than any number.
    IF NOT delay_seconds BETWEEN 0 AND 31536000 THEN
        RAISE EXCEPTION 'delay_seconds must be from 0 to 31536000 (365 days), not %', delay_seconds
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'It counts from the call of the function.';
    END IF;
    IF delay_seconds IS NOT NULL AND deliver_at IS NOT NULL THEN
        RAISE EXCEPTION 'deliver_at and delay_seconds exclude each other'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Give one of them.';
    END IF;
    ready_at := coalesce(deliver_at, clock_timestamp() + make_interval(secs => delay_seconds::float8));
    IF NOT isfinite(ready_at) OR ready_at >= clock_timestamp() + make_interval(hours => 366 * 24) THEN
        RAISE EXCEPTION 'deliver_at must be at most 365 days ahead'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'What is to come later has to be published later.';
    END IF;
    IF NOT round(ttl_seconds, 3) BETWEEN 0.001 AND 31536000 THEN
        RAISE EXCEPTION 'ttl_seconds must be from 0.001 to 31536000 (365 days), not %', ttl_seconds
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Without it the queue''s time to live counts.';
    END IF;
    FOR field, value IN VALUES ('key', key), ('dedup_id', dedup_id),
        ('correlation_id', correlation_id), ('reply_to', reply_to)
    LOOP
        IF value = '' OR octet_length(convert_to(value, 'UTF8')) > 256
            OR value COLLATE "C" ~ control
        THEN
            RAISE EXCEPTION '% must be 1 to 256 bytes without control characters', field
                USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                    HINT = 'Leave it out, or give null, for none.';
        END IF;
    END LOOP;
    IF octet_length(convert_to(routing, 'UTF8')) > 255 OR routing COLLATE "C" ~ control THEN
        RAISE EXCEPTION 'routing_key must be at most 255 bytes without control characters'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Words separated by dots, as orders.eu.paid.';
    END IF;
    IF traceparent COLLATE "C" !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN
        RAISE EXCEPTION 'traceparent is not one of W3C Trace Context'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.';
    END IF;
    IF jsonb_typeof(headers) = 'null' THEN
        headers := NULL;
    END IF;
    IF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers must be an object of strings'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Such as jsonb_build_object(''shop'', ''eu'').';
    END IF;
    IF headers IS NOT NULL THEN
        IF (SELECT count(*) FROM jsonb_object_keys(headers)) > 64 THEN
            RAISE EXCEPTION 'headers must be at most 64'
                USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                    HINT = 'What is longer belongs into the body.';
        END IF;
        -- RFC 9110's token characters.
        SELECT e.key INTO field
        FROM jsonb_each(headers) AS e
        WHERE e.key COLLATE "C" !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]{1,128}$'
           OR jsonb_typeof(e.value) <> 'string'
           OR octet_length(convert_to(e.value #>> '{}', 'UTF8')) > 4096
           OR (e.value #>> '{}') COLLATE "C" ~ control
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the header % is not acceptable', quote_literal(left(field, 100))
                USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                    HINT = 'A name is 1 to 128 token characters (RFC 9110), a value a string of at '
                        'most 4096 bytes without control characters.';
        END IF;
    END IF;
    -- A mark, until the transaction ends: it draws no positions, and the watermarks
    -- do not wait for it (src/store/sql/visitors.sql). Nobody waits for this lock.
    PERFORM pg_advisory_xact_lock_shared(1886548068, 14);
    INSERT INTO postrider.door AS d
        (queue, topic, routing_key, body, headers, key, priority, deliver_at, ttl_ms, dedup_id,
         correlation_id, reply_to, traceparent)
    VALUES
        (to_queue, to_topic, routing, bytes, nullif(headers, '{}'), key, coalesce(priority, 0),
         ready_at, round(ttl_seconds * 1000), dedup_id, correlation_id, reply_to, traceparent)
    RETURNING d.id INTO ticket;
    -- Once a transaction: Postgres tells equal ones apart from none.
    IF current_setting('postrider.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('postrider_ready', 'door:');
    END IF;
    RETURN ticket;
END
$door$;
COMMENT ON FUNCTION postrider.door_enter IS 'Internal: what publish and publish_topic have in common.';

CREATE FUNCTION postrider.publish(
    queue text, body jsonb, headers jsonb DEFAULT NULL, key text DEFAULT NULL,
    priority integer DEFAULT NULL, delay_seconds numeric DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl_seconds numeric DEFAULT NULL,
    dedup_id text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL,
    traceparent text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $door$
#variable_conflict use_variable
DECLARE
    most_bytes bigint;
BEGIN
    IF queue IS NULL OR queue COLLATE "C" !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'
        OR strpos(queue COLLATE "C", '..') > 0
    THEN
        RAISE EXCEPTION '% is not a name', quote_nullable(left(queue, 100))
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = '1 to 80 letters, digits, ''_'', ''.'' and ''-'', beginning with a letter, '
                    'digit or ''_'', without ''..''.';
    END IF;
    SELECT q.max_message_bytes INTO most_bytes FROM postrider.queues AS q WHERE q.name = queue COLLATE "C";
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no queue %', queue
            USING ERRCODE = 'undefined_object', DETAIL = 'code: queue-not-found',
                HINT = format('Make it first: PUT /v1/queues/%s', queue);
    END IF;
    RETURN postrider.door_enter(queue, NULL, NULL, most_bytes, body, headers, key, priority,
        delay_seconds, deliver_at, ttl_seconds, dedup_id, correlation_id, reply_to, traceparent);
END
$door$;
COMMENT ON FUNCTION postrider.publish IS 'Publishes a message to a queue, if and when this transaction commits. Call it with named arguments; they are those of POST /v1/queues/{queue}/messages. delay_seconds counts from the call. The body is stored as the text form of the jsonb. Returns a ticket, which is not the message''s id: that is not known before the commit. Raises 42704 for a queue that is not there, 22023 and 22004 for what HTTP answers with 422, 54000 for a body over the queue''s max_message_bytes. The queue''s schema, if it has one, is checked after the commit: a body that breaks it goes to door_refused.';

CREATE FUNCTION postrider.publish_topic(
    topic text, body jsonb, routing_key text DEFAULT '', headers jsonb DEFAULT NULL,
    key text DEFAULT NULL, priority integer DEFAULT NULL, delay_seconds numeric DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl_seconds numeric DEFAULT NULL,
    dedup_id text DEFAULT NULL, correlation_id text DEFAULT NULL, reply_to text DEFAULT NULL,
    traceparent text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $door$
#variable_conflict use_variable
DECLARE
    most_bytes bigint;
BEGIN
    IF topic IS NULL OR topic COLLATE "C" !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$'
        OR strpos(topic COLLATE "C", '..') > 0
    THEN
        RAISE EXCEPTION '% is not a name', quote_nullable(left(topic, 100))
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = '1 to 80 letters, digits, ''_'', ''.'' and ''-'', beginning with a letter, '
                    'digit or ''_'', without ''..''.';
    END IF;
    IF starts_with(topic COLLATE "C", 'system.') THEN
        RAISE EXCEPTION 'topics that begin with system. are the gateway''s'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'code: invalid',
                HINT = 'Publish to a topic of your own.';
    END IF;
    SELECT t.max_message_bytes INTO most_bytes FROM postrider.topics AS t WHERE t.name = topic COLLATE "C";
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no topic %', topic
            USING ERRCODE = 'undefined_object', DETAIL = 'code: topic-not-found',
                HINT = format('Make it first: PUT /v1/topics/%s', topic);
    END IF;
    RETURN postrider.door_enter(NULL, topic, coalesce(routing_key, ''), most_bytes, body, headers,
        key, priority, delay_seconds, deliver_at, ttl_seconds, dedup_id, correlation_id, reply_to,
        traceparent);
END
$door$;
COMMENT ON FUNCTION postrider.publish_topic IS 'Publishes a message to a topic, if and when this transaction commits: as postrider.publish, with a routing_key. Subscriptions are asked, and the topic''s schema is checked, after the commit.';

-- Whoever may use the schema could call every function in it, since Postgres gives
-- that right to all: those of the migrations before, too. They are the gateway's,
-- whose role owns them. Defaults of a schema can only add to this right, so it is
-- taken away again with each function that comes later; a test looks.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA postrider FROM PUBLIC;

-- The role whose members may call the functions, and nothing else. Roles are of
-- the whole server: another database's migration may make it at the same moment,
-- and ours may not be allowed to; then an operator does (README, the SQL door).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postrider_publisher') THEN
        CREATE ROLE postrider_publisher NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END
$$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'postrider_publisher') THEN
        GRANT USAGE ON SCHEMA postrider TO postrider_publisher;
        GRANT EXECUTE ON FUNCTION postrider.door_version, postrider.publish,
            postrider.publish_topic TO postrider_publisher;
    END IF;
END
$$;
