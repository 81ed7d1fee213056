-- Ordered and fair queues: messages that wait for their key's turn, and who has
-- it. src/store/turns.rs says how the two tables work together.

ALTER TABLE postrider.queues
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN on_blocked text NOT NULL DEFAULT 'wait',
    ADD COLUMN fair boolean NOT NULL DEFAULT false,
    ADD COLUMN fair_seen boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT on_blocked_is_known CHECK (on_blocked IN ('wait', 'dead_letter_key')),
    ADD CONSTRAINT ordered_or_fair CHECK (NOT (ordered AND fair)),
    ADD CONSTRAINT fair_is_seen CHECK (fair_seen OR NOT fair);
COMMENT ON COLUMN postrider.queues.ordered IS 'Whether messages of one key are delivered one after the other; changes only while the queue is empty.';
COMMENT ON COLUMN postrider.queues.on_blocked IS 'What follows a dead letter of its key: goes on (wait), or follows it to the dead letters (dead_letter_key).';
COMMENT ON COLUMN postrider.queues.fair IS 'Whether messages with a key are fair unless they say otherwise.';
COMMENT ON COLUMN postrider.queues.fair_seen IS 'Whether a fair message was ever published to it: then claims pass turns on.';

CREATE TABLE postrider.lined_up (
    queue_id    bigint NOT NULL,
    key         text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,
    message_id  bigint NOT NULL,
    wake_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    admitted_at timestamptz,
    attempts    integer NOT NULL DEFAULT 0,
    priority    smallint NOT NULL,
    own_ttl     boolean NOT NULL DEFAULT false,
    straggler   boolean NOT NULL DEFAULT false,
    is_out      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (queue_id, key, position),
    CONSTRAINT priority_in_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT attempts_count_up CHECK (attempts >= 0)
) WITH (
    -- Room for is_out to change in place.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false
);
-- Always true, and implied only by conditions on these columns: so that a plan made
-- while the table is small does not look for a key through its whole queue (see
-- 0005_parked_by_wake.sql).
CREATE INDEX lined_up_by_message ON postrider.lined_up (queue_id, message_id)
    WHERE message_id IS NOT NULL;
CREATE INDEX lined_up_by_expiry ON postrider.lined_up (queue_id, expires_at)
    WHERE expires_at IS NOT NULL;
COMMENT ON TABLE postrider.lined_up IS 'Messages that wait for their key''s turn, and those that have it: a key''s line.';
COMMENT ON COLUMN postrider.lined_up.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.lined_up.key IS 'The message''s key.';
COMMENT ON COLUMN postrider.lined_up.position IS 'Place in the line: the message''s id, or a new number of message_ids when it comes back from the dead letters. Drawn under the lock of the row in turns, so that places of one key are committed in their order.';
COMMENT ON COLUMN postrider.lined_up.message_id IS 'The message.';
COMMENT ON COLUMN postrider.lined_up.wake_at IS 'Not before this time: its delay.';
COMMENT ON COLUMN postrider.lined_up.expires_at IS 'End of the time to live.';
COMMENT ON COLUMN postrider.lined_up.admitted_at IS 'When it was let back in from the dead letters: letters that died before no longer hold it.';
COMMENT ON COLUMN postrider.lined_up.attempts IS 'Attempts made so far.';
COMMENT ON COLUMN postrider.lined_up.priority IS 'As in ready; between keys only.';
COMMENT ON COLUMN postrider.lined_up.own_ttl IS 'As in ready.';
COMMENT ON COLUMN postrider.lined_up.straggler IS 'As in ready; of a message that is out, as it was when it went.';
COMMENT ON COLUMN postrider.lined_up.is_out IS 'It has had its turn: it is in ready or parked, or was settled since. What is out stands in front of what is not.';

CREATE TABLE postrider.turns (
    queue_id  bigint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    floor     bigint NOT NULL DEFAULT 0,
    floor_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue_id, key)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false
);
COMMENT ON TABLE postrider.turns IS 'A row for each key with a line: who locks it may add to the line or pass the turn on.';
COMMENT ON COLUMN postrider.turns.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.turns.key IS 'The key.';
COMMENT ON COLUMN postrider.turns.floor IS 'No row of the line is below this position, or ever will be.';
COMMENT ON COLUMN postrider.turns.floor_at IS 'When floor was last moved up; at most once a second.';

-- Dead letters that hold their key (on_blocked = dead_letter_key).
ALTER TABLE postrider.dead_letters
    ADD COLUMN holds boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT reason_is_known,
    ADD CONSTRAINT reason_is_known CHECK (
        reason IN ('max-attempts', 'rejected', 'expired', 'overflow', 'key-blocked')) NOT VALID,
    ADD CONSTRAINT holds_a_key CHECK (NOT holds OR key IS NOT NULL) NOT VALID;
COMMENT ON COLUMN postrider.dead_letters.holds IS 'Whether what has the same key follows it to the dead letters.';
COMMENT ON COLUMN postrider.dead_letters.reason IS 'max-attempts, rejected (by its consumer), expired, overflow, or key-blocked (it followed a dead letter of its key).';
CREATE INDEX dead_letters_holding ON postrider.dead_letters (queue_id, key COLLATE "C", dead_at)
    WHERE holds;

-- Passes the turn of each of these keys on, if whoever had it is done: the first
-- in line becomes ready, or waits for its delay, or follows the dead letter that
-- holds its key (up to most of them). of_keys is null where of_messages says
-- which: the key of a message that had its turn.
--
-- A function, because its second query has a snapshot of its own, taken when the
-- locks are had. So nobody needs to say that a turn has ended, it is seen; and of
-- two that end something of one key at the same moment the later one sees both.
CREATE FUNCTION postrider.next_turn(
    of_queues bigint[], of_keys text[], of_messages bigint[], most bigint)
RETURNS TABLE (queue_id bigint, key text, message_id bigint, became text, wakes_in_ms bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    locked_queues bigint[];
    locked_keys text[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT DISTINCT of_key.queue_id, of_key.key COLLATE "C" AS key
        FROM (
            SELECT i.queue_id, coalesce(i.key, line.key) AS key
            FROM unnest(of_queues, of_keys, of_messages) AS i (queue_id, key, message_id)
            LEFT JOIN LATERAL (
                SELECT lined_up.key
                FROM postrider.lined_up
                WHERE i.key IS NULL
                  AND lined_up.queue_id = i.queue_id AND lined_up.message_id = i.message_id
                LIMIT 1
            ) AS line ON true
        ) AS of_key
        WHERE of_key.key IS NOT NULL
        ORDER BY 1, 2
    ),
    locked AS MATERIALIZED (
        SELECT held.queue_id, held.key
        FROM wanted
        CROSS JOIN LATERAL (
            SELECT turns.queue_id, turns.key
            FROM postrider.turns
            WHERE turns.queue_id = wanted.queue_id AND turns.key = wanted.key
            FOR UPDATE OF turns
        ) AS held
    )
    SELECT array_agg(locked.queue_id), array_agg(locked.key)
    INTO locked_queues, locked_keys
    FROM locked;
    IF locked_queues IS NULL THEN
        RETURN;
    END IF;

    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT
            i.queue_id, i.key, turn.floor, turn.floor_at, queue.ordered, queue.kills,
            queue.retention_ms, next.tid, next.position, next.admitted_at, hold.dead_at AS held_at
        FROM unnest(locked_queues, locked_keys) AS i (queue_id, key)
        CROSS JOIN LATERAL (
            SELECT turns.floor, turns.floor_at
            FROM postrider.turns
            WHERE turns.queue_id = i.queue_id AND turns.key = i.key
            LIMIT 1
        ) AS turn
        CROSS JOIN LATERAL (
            SELECT
                queues.ordered, queues.ordered AND queues.on_blocked = 'dead_letter_key' AS kills,
                queues.dead_letter_retention_ms AS retention_ms
            FROM postrider.queues
            WHERE queues.id = i.queue_id
            OFFSET 0
        ) AS queue
        LEFT JOIN LATERAL (
            SELECT lined_up.ctid AS tid, lined_up.position, lined_up.admitted_at
            FROM postrider.lined_up
            WHERE lined_up.queue_id = i.queue_id AND lined_up.key = i.key
              AND lined_up.position >= turn.floor AND NOT lined_up.is_out
            ORDER BY lined_up.position
            LIMIT 1
        ) AS next ON true
        LEFT JOIN LATERAL (
            SELECT d.dead_at
            FROM postrider.dead_letters AS d
            WHERE queue.kills AND d.queue_id = i.queue_id AND d.key COLLATE "C" = i.key AND d.holds
            ORDER BY d.dead_at DESC
            LIMIT 1
        ) AS hold ON true
    ),
    outs AS MATERIALIZED (
        SELECT line.queue_id, line.key, o.tid, o.position,
            -- A fair message's turn ends when it is claimed.
            o.waits OR (line.ordered AND o.parked) AS alive
        FROM line
        CROSS JOIN LATERAL (
            SELECT
                lined_up.ctid AS tid, lined_up.position,
                (
                    SELECT 1 FROM postrider.ready AS r
                    WHERE r.queue_id = line.queue_id AND r.message_id = lined_up.message_id
                      AND r.position <> r.message_id
                    LIMIT 1
                ) IS NOT NULL AS waits,
                (
                    SELECT 1 FROM postrider.parked AS p
                    WHERE p.queue_id = line.queue_id AND p.message_id = lined_up.message_id
                    LIMIT 1
                ) IS NOT NULL AS parked
            FROM postrider.lined_up
            WHERE lined_up.queue_id = line.queue_id AND lined_up.key = line.key
              AND lined_up.position >= line.floor
              AND lined_up.position < coalesce(line.position, 9223372036854775807)
              AND lined_up.is_out
            OFFSET 0
        ) AS o
    ),
    done AS (
        DELETE FROM postrider.lined_up
        WHERE lined_up.ctid = ANY(ARRAY(SELECT outs.tid FROM outs WHERE NOT outs.alive))
          AND lined_up.is_out
    ),
    free AS MATERIALIZED (
        SELECT line.*,
            line.held_at IS NOT NULL
                AND (line.admitted_at IS NULL OR line.admitted_at < line.held_at) AS blocked
        FROM line
        WHERE line.tid IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM outs
            WHERE outs.queue_id = line.queue_id AND outs.key = line.key AND outs.alive)
    ),
    promoted AS (
        UPDATE postrider.lined_up
        SET is_out = true
        WHERE lined_up.ctid = ANY(ARRAY(SELECT free.tid FROM free WHERE NOT free.blocked))
          AND NOT lined_up.is_out
        RETURNING lined_up.*
    ),
    gone_out AS MATERIALIZED (
        SELECT promoted.*,
            CASE WHEN promoted.expires_at <= now() THEN now() ELSE promoted.wake_at END AS wakes_at,
            promoted.expires_at > now() AND promoted.wake_at <= clock_timestamp() AS at_once
        FROM promoted
    ),
    made_ready AS (
        INSERT INTO postrider.ready
            (queue_id, priority, position, message_id, expires_at, attempts, own_ttl, straggler)
        SELECT
            g.queue_id, g.priority, nextval('postrider.message_ids'), g.message_id, g.expires_at,
            g.attempts, true, g.straggler
        FROM gone_out AS g
        WHERE g.at_once
    ),
    made_parked AS (
        INSERT INTO postrider.parked
            (queue_id, message_id, wake_at, expires_at, attempts, priority, own_ttl, straggler)
        SELECT
            g.queue_id, g.message_id, g.wakes_at, g.expires_at, g.attempts, g.priority, true,
            g.straggler
        FROM gone_out AS g
        WHERE NOT g.at_once
    ),
    doomed AS MATERIALIZED (
        SELECT f.tid, f.retention_ms
        FROM (
            SELECT behind.tid, free.retention_ms
            FROM free
            CROSS JOIN LATERAL (
                SELECT lined_up.ctid AS tid
                FROM postrider.lined_up
                WHERE lined_up.queue_id = free.queue_id AND lined_up.key = free.key
                  AND lined_up.position >= free.position AND NOT lined_up.is_out
                  AND (lined_up.admitted_at IS NULL OR lined_up.admitted_at < free.held_at)
                ORDER BY lined_up.position
                LIMIT most
            ) AS behind
            WHERE free.blocked
            LIMIT most
        ) AS f
    ),
    followed AS (
        DELETE FROM postrider.lined_up
        USING doomed
        WHERE lined_up.ctid = doomed.tid AND NOT lined_up.is_out
        RETURNING lined_up.*, doomed.retention_ms
    ),
    died AS (
        INSERT INTO postrider.dead_letters
            (queue_id, message_id, expires_at, reason, attempts, rounds, priority, enqueued_at,
             body, content_type, headers, key, correlation_id, reply_to, traceparent, tracestate,
             topic, routing_key, schema_version, holds)
        SELECT
            f.queue_id, f.message_id, now() + f.retention_ms * interval '1 ms', 'key-blocked',
            f.attempts, m.rounds, f.priority, m.enqueued_at, m.body, m.content_type, m.headers,
            m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate, m.topic,
            m.routing_key, m.schema_version, true
        FROM followed AS f
        CROSS JOIN LATERAL postrider.body_of(f.queue_id, f.message_id, f.straggler) AS m
    ),
    raised AS (
        UPDATE postrider.turns
        SET floor = line.position, floor_at = now()
        FROM line
        WHERE turns.queue_id = line.queue_id AND turns.key = line.key
          AND line.position > line.floor
          AND line.floor_at < now() - interval '1 s'
          -- A key that is seldom used needs none.
          AND random() < 0.05
          AND NOT EXISTS (
            SELECT FROM outs
            WHERE outs.queue_id = line.queue_id AND outs.key = line.key AND outs.alive)
    ),
    counted AS (
        INSERT INTO postrider.tallies (queue_id, ready, delayed, dead, dead_lettered)
        SELECT sums.queue_id, -sum(sums.left_line), sum(sums.delayed), sum(sums.dead), sum(sums.dead)
        FROM (
            SELECT g.queue_id, 1 AS left_line, 1 AS delayed, 0 AS dead
            FROM gone_out AS g
            WHERE NOT g.at_once
            UNION ALL
            SELECT f.queue_id, 1, 0, 1 FROM followed AS f
        ) AS sums
        GROUP BY sums.queue_id
    )
    SELECT
        g.queue_id, g.key, g.message_id, CASE WHEN g.at_once THEN 'ready' ELSE 'parked' END,
        (extract(epoch FROM g.wakes_at - now()) * 1000)::bigint
    FROM gone_out AS g
    UNION ALL
    SELECT f.queue_id, f.key, f.message_id, 'dead', 0 FROM followed AS f;
END;
$$;
COMMENT ON FUNCTION postrider.next_turn IS 'Passes the turns of keys on where they have ended; says what became of whom.';

-- Removes the rows of keys that have no line any more. Again the look comes after
-- the lock: who lines up takes the row first, and makes it anew if it is gone.
CREATE FUNCTION postrider.leave_turns(of_queues bigint[], of_keys text[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    locked tid[];
    removed bigint;
BEGIN
    SELECT array_agg(held.tid) INTO locked
    FROM unnest(of_queues, of_keys) AS i (queue_id, key)
    CROSS JOIN LATERAL (
        SELECT turns.ctid AS tid
        FROM postrider.turns
        WHERE turns.queue_id = i.queue_id AND turns.key = i.key
        FOR UPDATE OF turns SKIP LOCKED
    ) AS held;
    DELETE FROM postrider.turns AS t
    WHERE t.ctid = ANY(locked)
      AND (
        SELECT 1 FROM postrider.lined_up AS l
        WHERE l.queue_id = t.queue_id AND l.key = t.key AND l.position >= t.floor
        LIMIT 1) IS NULL;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END;
$$;
COMMENT ON FUNCTION postrider.leave_turns IS 'Removes the rows in turns of keys that have no line; how many.';

-- Lets up to wanted messages of a fair queue out beyond those whose turn it is, as
-- many of each key as of the others: so that a key that is alone in the queue is
-- not received one by one. Keys that have more, from behind after_key; up to most
-- keys are looked at. Where it got to, or null at the end, and how many it let out.
CREATE FUNCTION postrider.fair_round(
    of_queue bigint, after_key text, wanted bigint, most bigint)
RETURNS TABLE (key text, promoted bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    with_more text[];
    locked_keys text[];
    last_key text;
    share bigint;
BEGIN
    -- A look that locks nothing: most keys have nothing more.
    SELECT array_agg(more.key) INTO with_more
    FROM (
        SELECT looked.key
        FROM (
            SELECT turns.key, turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = of_queue AND turns.key > after_key
            ORDER BY turns.key
            LIMIT most
        ) AS looked
        WHERE (
            SELECT 1
            FROM postrider.lined_up
            WHERE lined_up.queue_id = of_queue AND lined_up.key = looked.key
              AND lined_up.position >= looked.floor AND NOT lined_up.is_out
            LIMIT 1) IS NOT NULL
        LIMIT wanted
    ) AS more;
    IF cardinality(with_more) = wanted THEN
        last_key := with_more[cardinality(with_more)];
    ELSE
        SELECT turns.key INTO last_key
        FROM postrider.turns
        WHERE turns.queue_id = of_queue AND turns.key > after_key
        ORDER BY turns.key
        OFFSET most - 1
        LIMIT 1;
    END IF;
    SELECT array_agg(held.key) INTO locked_keys
    FROM unnest(with_more) AS i (key)
    CROSS JOIN LATERAL (
        SELECT turns.key
        FROM postrider.turns
        WHERE turns.queue_id = of_queue AND turns.key = i.key
        FOR UPDATE OF turns SKIP LOCKED
    ) AS held;
    IF locked_keys IS NULL THEN
        RETURN QUERY SELECT last_key, 0::bigint;
        RETURN;
    END IF;
    share := (wanted + cardinality(locked_keys) - 1) / cardinality(locked_keys);

    RETURN QUERY
    WITH chosen AS MATERIALIZED (
        SELECT next.tid
        FROM unnest(locked_keys) AS i (key)
        CROSS JOIN LATERAL (
            SELECT turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = of_queue AND turns.key = i.key
            LIMIT 1
        ) AS turn
        CROSS JOIN LATERAL (
            SELECT lined_up.ctid AS tid
            FROM postrider.lined_up
            WHERE lined_up.queue_id = of_queue AND lined_up.key = i.key
              AND lined_up.position >= turn.floor
              AND NOT lined_up.is_out AND (lined_up.expires_at > now()) IS TRUE
            ORDER BY lined_up.position
            LIMIT share
        ) AS next
        LIMIT wanted
    ),
    -- What is out for a turn is in front already.
    taken AS (
        DELETE FROM postrider.lined_up
        WHERE lined_up.ctid = ANY(ARRAY(SELECT chosen.tid FROM chosen)) AND NOT lined_up.is_out
        RETURNING lined_up.*
    ),
    made_ready AS (
        INSERT INTO postrider.ready
            (queue_id, priority, position, message_id, expires_at, attempts, own_ttl, straggler)
        SELECT
            t.queue_id, t.priority, nextval('postrider.message_ids'), t.message_id, t.expires_at,
            t.attempts, true, t.straggler
        FROM (SELECT * FROM taken ORDER BY taken.position) AS t
    )
    SELECT last_key, (SELECT count(*) FROM taken);
END;
$$;
COMMENT ON FUNCTION postrider.fair_round IS 'Lets messages of a fair queue out beyond their turn; where it got to and how many.';

-- Whether a queue is empty, for a transaction that then changes whether it is
-- ordered. Waits for what is being written to any queue and keeps new writes
-- waiting until the transaction ends, an instant: whoever writes after it sees the
-- queue as it is then. (A statement takes its snapshot after its locks.)
CREATE FUNCTION postrider.is_empty_for_good(of_queue bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    LOCK TABLE postrider.lined_up, postrider.ready, postrider.parked IN SHARE MODE;
    RETURN (SELECT 1 FROM postrider.ready WHERE queue_id = of_queue LIMIT 1) IS NULL
        AND (SELECT 1 FROM postrider.parked WHERE queue_id = of_queue LIMIT 1) IS NULL
        AND (
            SELECT 1 FROM postrider.lined_up
            WHERE queue_id = of_queue AND NOT is_out LIMIT 1) IS NULL;
END;
$$;
COMMENT ON FUNCTION postrider.is_empty_for_good IS 'Whether a queue has no messages, until this transaction ends.';

-- Runs: several messages of one key under one lease token, to be settled in order.

ALTER TABLE postrider.attempts
    DROP CONSTRAINT outcome_is_known,
    ADD CONSTRAINT outcome_is_known CHECK (
        outcome IN ('nacked', 'rejected', 'lease-expired', 'returned')) NOT VALID;
COMMENT ON COLUMN postrider.attempts.outcome IS 'nacked, rejected (dead-lettered by its consumer), lease-expired, or returned (an earlier message of its run failed: no attempt was used up).';

-- Leases what stands in line behind messages that were leased just now
-- (of_messages, under tokens), up to so many behind each (rooms), under the same
-- token. Stops at the first that is delayed, has outlived its time or would follow a
-- dead letter.
CREATE FUNCTION postrider.follow(
    of_queue bigint, of_messages bigint[], tokens bigint[], lease_ms bigint, rooms bigint[])
RETURNS TABLE (
    message_id bigint, token bigint, attempt integer, priority smallint,
    lease_expires_at timestamptz, straggler boolean, place bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    locked_keys text[];
    heads bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT line.key, i.message_id
        FROM unnest(of_messages) AS i (message_id)
        CROSS JOIN LATERAL (
            SELECT lined_up.key
            FROM postrider.lined_up
            WHERE lined_up.queue_id = of_queue AND lined_up.message_id = i.message_id
              AND lined_up.is_out
            LIMIT 1
        ) AS line
        ORDER BY line.key COLLATE "C"
    ),
    locked AS MATERIALIZED (
        SELECT wanted.key, wanted.message_id
        FROM wanted
        CROSS JOIN LATERAL (
            SELECT
            FROM postrider.turns
            WHERE turns.queue_id = of_queue AND turns.key = wanted.key
            FOR UPDATE OF turns
        ) AS held
    )
    SELECT array_agg(locked.key), array_agg(locked.message_id)
    INTO locked_keys, heads
    FROM locked;
    IF locked_keys IS NULL THEN
        RETURN;
    END IF;

    RETURN QUERY
    WITH head AS MATERIALIZED (
        SELECT h.key, i.token, i.room, turn.floor, hold.dead_at AS held_at
        FROM unnest(locked_keys, heads) AS h (key, message_id)
        JOIN unnest(of_messages, tokens, rooms) AS i (message_id, token, room)
            ON i.message_id = h.message_id
        CROSS JOIN LATERAL (
            SELECT turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = of_queue AND turns.key = h.key
            LIMIT 1
        ) AS turn
        -- If it is still leased.
        CROSS JOIN LATERAL (
            SELECT
            FROM postrider.parked AS p
            WHERE p.queue_id = of_queue AND p.message_id = h.message_id AND p.token = i.token
            LIMIT 1
        ) AS lease
        LEFT JOIN LATERAL (
            SELECT d.dead_at
            FROM postrider.dead_letters AS d
            WHERE d.queue_id = of_queue AND d.key COLLATE "C" = h.key AND d.holds
            ORDER BY d.dead_at DESC
            LIMIT 1
        ) AS hold ON true
    ),
    next AS MATERIALIZED (
        SELECT head.token, behind.tid
        FROM head
        CROSS JOIN LATERAL (
            SELECT l.tid, bool_and(l.may) OVER (ORDER BY l.position) AS may
            FROM (
                SELECT
                    lined_up.ctid AS tid, lined_up.position,
                    lined_up.wake_at <= clock_timestamp()
                        AND (lined_up.expires_at > now()) IS TRUE
                        AND (head.held_at IS NULL OR lined_up.admitted_at > head.held_at)
                            IS TRUE AS may
                FROM postrider.lined_up
                WHERE lined_up.queue_id = of_queue AND lined_up.key = head.key
                  AND lined_up.position >= head.floor AND NOT lined_up.is_out
                ORDER BY lined_up.position
                LIMIT head.room
            ) AS l
        ) AS behind
        WHERE behind.may
    ),
    gone_out AS (
        UPDATE postrider.lined_up
        SET is_out = true
        FROM next
        WHERE lined_up.ctid = next.tid AND NOT lined_up.is_out
        RETURNING lined_up.*, next.token
    ),
    leased AS (
        INSERT INTO postrider.parked
            (queue_id, message_id, wake_at, token, leased_at, expires_at, attempts, priority,
             own_ttl, straggler)
        SELECT
            g.queue_id, g.message_id, now() + lease_ms * interval '1 ms', g.token, now(),
            g.expires_at, g.attempts + 1, g.priority, true, g.straggler
        FROM gone_out AS g
    ),
    counted AS (
        INSERT INTO postrider.tallies (queue_id, ready, leased, delivered)
        SELECT of_queue, -count(*), count(*), count(*) FROM gone_out HAVING count(*) > 0
    )
    SELECT
        g.message_id, g.token, g.attempts + 1, g.priority,
        now() + lease_ms * interval '1 ms', g.straggler, g.position
    FROM gone_out AS g;
END;
$$;
COMMENT ON FUNCTION postrider.follow IS 'Leases what stands in line behind messages that were leased just now.';

-- Leases of ordered queues are about to end otherwise than by an ack: what was
-- leased behind them under the same token goes back to its line, and so do they
-- themselves if something is unsettled in front of them. No attempt is used up.
CREATE FUNCTION postrider.step_back(
    of_queues bigint[], of_messages bigint[], tokens bigint[], must_be_due boolean[])
RETURNS TABLE (queue_id bigint, message_id bigint, token bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    locked_queues bigint[];
    locked_keys text[];
    locked_tokens bigint[];
    places bigint[];
BEGIN
    WITH wanted AS MATERIALIZED (
        SELECT i.queue_id, line.key, i.token, min(line.position) AS position
        FROM unnest(of_queues, of_messages, tokens, must_be_due)
            AS i (queue_id, message_id, token, must_be_due)
        CROSS JOIN LATERAL (
            SELECT
            FROM postrider.parked AS p
            WHERE p.queue_id = i.queue_id AND p.message_id = i.message_id AND p.token = i.token
              AND (NOT i.must_be_due OR (p.wake_at <= now()) IS TRUE)
            LIMIT 1
        ) AS lease
        CROSS JOIN LATERAL (
            SELECT lined_up.key, lined_up.position
            FROM postrider.lined_up
            WHERE lined_up.queue_id = i.queue_id AND lined_up.message_id = i.message_id
              AND lined_up.is_out
            ORDER BY lined_up.message_id, lined_up.position DESC
            LIMIT 1
        ) AS line
        GROUP BY i.queue_id, line.key, i.token
        ORDER BY i.queue_id, line.key COLLATE "C"
    ),
    locked AS MATERIALIZED (
        SELECT wanted.*
        FROM wanted
        CROSS JOIN LATERAL (
            SELECT
            FROM postrider.turns
            WHERE turns.queue_id = wanted.queue_id AND turns.key = wanted.key
            FOR UPDATE OF turns
        ) AS held
    )
    SELECT
        array_agg(locked.queue_id), array_agg(locked.key), array_agg(locked.token),
        array_agg(locked.position)
    INTO locked_queues, locked_keys, locked_tokens, places
    FROM locked;
    IF locked_queues IS NULL THEN
        RETURN;
    END IF;

    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT
            i.*, turn.floor, coalesce(next.position, 9223372036854775807) AS end_at
        FROM unnest(locked_queues, locked_keys, locked_tokens, places)
            AS i (queue_id, key, token, position)
        CROSS JOIN LATERAL (
            SELECT turns.floor
            FROM postrider.turns
            WHERE turns.queue_id = i.queue_id AND turns.key = i.key
            LIMIT 1
        ) AS turn
        LEFT JOIN LATERAL (
            SELECT lined_up.position
            FROM postrider.lined_up
            WHERE lined_up.queue_id = i.queue_id AND lined_up.key = i.key
              AND lined_up.position >= turn.floor AND NOT lined_up.is_out
            ORDER BY lined_up.position
            LIMIT 1
        ) AS next ON true
    ),
    unsettled AS MATERIALIZED (
        SELECT
            line.queue_id, line.key, line.token, line.position AS from_place, o.*,
            min(o.position) OVER (PARTITION BY line.queue_id, line.key, line.token) AS first_place
        FROM line
        CROSS JOIN LATERAL (
            SELECT
                lined_up.ctid AS tid, lined_up.message_id, lined_up.position, p.tid AS lease_tid,
                p.token AS lease_token
            FROM postrider.lined_up
            CROSS JOIN LATERAL (
                SELECT parked.ctid AS tid, parked.token
                FROM postrider.parked
                WHERE parked.queue_id = line.queue_id
                  AND parked.message_id = lined_up.message_id
                UNION ALL
                SELECT NULL, 0
                FROM postrider.ready AS r
                WHERE r.queue_id = line.queue_id AND r.message_id = lined_up.message_id
                  AND r.position <> r.message_id
                LIMIT 1
            ) AS p
            WHERE lined_up.queue_id = line.queue_id AND lined_up.key = line.key
              AND lined_up.position >= line.floor AND lined_up.position < line.end_at
              AND lined_up.is_out
        ) AS o
    ),
    back AS MATERIALIZED (
        SELECT u.*
        FROM unsettled AS u
        WHERE u.lease_token = u.token
          AND u.position >= u.from_place AND u.position > u.first_place
        ORDER BY u.lease_tid
    ),
    ended AS (
        DELETE FROM postrider.parked
        USING back
        WHERE parked.ctid = back.lease_tid AND parked.token = back.token
        RETURNING
            parked.queue_id, parked.message_id, parked.token, parked.attempts, parked.leased_at,
            parked.straggler, back.tid
    ),
    in_line AS (
        UPDATE postrider.lined_up
        SET is_out = false, straggler = ended.straggler
        FROM ended
        WHERE lined_up.ctid = ended.tid
    ),
    remembered AS (
        INSERT INTO postrider.attempts
            (queue_id, message_id, token, attempt, leased_at, outcome, error)
        SELECT
            e.queue_id, e.message_id, e.token, e.attempts, e.leased_at, 'returned', NULL
        FROM ended AS e
    ),
    counted AS (
        INSERT INTO postrider.tallies (queue_id, ready, leased)
        SELECT e.queue_id, count(*), -count(*) FROM ended AS e GROUP BY e.queue_id
    )
    SELECT e.queue_id, e.message_id, e.token FROM ended AS e;
END;
$$;
COMMENT ON FUNCTION postrider.step_back IS 'Gives what was leased behind messages that fail back to its line; says which leases ended.';
