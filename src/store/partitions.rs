//! Making partitions ahead of need and dropping those that nothing needs.
//!
//! Bodies are never deleted: a partition of `messages` is dropped whole when no
//! row of `ready` or `parked` points into it. A few stragglers would pin it, a
//! message delayed by a week for instance; once they are all that is left,
//! their bodies are copied to `stragglers` and the partition goes.
//!
//! A new partition is built apart and attached, which does not lock out
//! publishes; dropping one does for an instant, so it gives up after 50 ms of
//! waiting for a lock and tries again later.

use sqlx::Row as _;

use super::{Error, Store};

/// Partitions of messages kept ahead of the sequence. At a hundred thousand
/// messages a second one lasts ten seconds.
const AHEAD: i64 = 4;

/// Live messages that may be moved out to free a partition: one in a hundred.
const STRAGGLERS_PERMILLE: i64 = 10;

/// Days of `attempts` and `dedup` made ahead: gateways may rest for a weekend.
const DAYS_AHEAD: i64 = 4;

/// Days that failed attempts are kept.
const ATTEMPT_DAYS: i64 = 30;

/// Days that dedup ids are kept: the longest window and the day it began.
const DEDUP_DAYS: i64 = 9;

/// The advisory lock under which partitions are made and dropped, so that
/// gateways take turns. Any constant that nobody else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('postrider partitions'))";

impl Store {
    /// Makes the partitions that the next publishes and failures will need.
    /// One transaction, sent as one.
    ///
    /// # Errors
    /// Any.
    pub async fn make_partitions(&self) -> Result<(), Error> {
        let size = self.partition_size;
        let statement = format!(
            "{LOCK};
            SET LOCAL lock_timeout = '2s';
            DO $$
            DECLARE
                next_lo bigint;
                day date;
                -- Only the last few matter, so a walk from the top is short.
                wanted bigint := (SELECT last_value FROM postrider.message_ids) + {AHEAD} * {size};
            BEGIN
                SELECT coalesce(max(hi), 0) INTO next_lo FROM postrider.message_partitions;
                WHILE next_lo < wanted LOOP
                    EXECUTE format(
                        'CREATE TABLE postrider.messages_%1$s (
                            LIKE postrider.messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS
                            INCLUDING INDEXES INCLUDING STORAGE,
                            CONSTRAINT in_partition CHECK (id >= %1$s AND id < %2$s))
                        WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)',
                        next_lo, next_lo + {size});
                    EXECUTE format(
                        'ALTER TABLE postrider.messages ATTACH PARTITION postrider.messages_%1$s
                            FOR VALUES FROM (%1$s) TO (%2$s)',
                        next_lo, next_lo + {size});
                    EXECUTE format(
                        'ALTER TABLE postrider.messages_%1$s DROP CONSTRAINT in_partition',
                        next_lo);
                    INSERT INTO postrider.message_partitions (lo, hi)
                    VALUES (next_lo, next_lo + {size});
                    next_lo := next_lo + {size};
                END LOOP;
                FOR day IN
                    SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(-1, {DAYS_AHEAD}) AS n
                LOOP
                    IF to_regclass(format('postrider.dedup_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
                        EXECUTE format(
                            'CREATE TABLE postrider.dedup_%s PARTITION OF postrider.dedup
                                FOR VALUES FROM (%L) TO (%L)',
                            to_char(day, 'YYYYMMDD'), day, day + 1);
                    END IF;
                    IF to_regclass(format('postrider.attempts_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
                        EXECUTE format(
                            'CREATE TABLE postrider.attempts_%s PARTITION OF postrider.attempts
                                FOR VALUES FROM (%L) TO (%L)',
                            to_char(day, 'YYYYMMDD'),
                            day::timestamp AT TIME ZONE 'UTC',
                            (day + 1)::timestamp AT TIME ZONE 'UTC');
                    END IF;
                END LOOP;
            END $$"
        );
        self.transaction(statement).await
    }

    /// Whether the sequence has come so near to the last partition that more
    /// must be made.
    ///
    /// # Errors
    /// Any.
    pub async fn partitions_run_short(&self) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT (SELECT last_value FROM postrider.message_ids) + $1
                    > coalesce((SELECT max(hi) FROM postrider.message_partitions), 0)
                OR to_regclass('postrider.dedup_'
                    || to_char((now() AT TIME ZONE 'UTC')::date + 2, 'YYYYMMDD')) IS NULL",
        )
        .bind((AHEAD - 1) * self.partition_size)
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Drops the oldest partition of messages if nothing points into it, after
    /// moving out the last few that do; and the days of dedup ids and attempts
    /// that are over. Whether it dropped one of messages.
    ///
    /// # Errors
    /// Any; [`Error::Unavailable`] if a lock was not to be had in time.
    pub async fn drop_partitions(&self) -> Result<bool, Error> {
        self.drop_days("dedup", DEDUP_DAYS).await?;
        self.drop_days("attempts", ATTEMPT_DAYS).await?;

        let row = sqlx::query(
            "SELECT lo, hi FROM postrider.message_partitions WHERE hi <= $1 ORDER BY lo LIMIT 1",
        )
        // Every publish that drew an id of it has ended.
        .bind(self.watermarks.settled())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let (lo, hi): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);

        // One more than are worth moving: then it is not the last few.
        let few = (hi - lo) * STRAGGLERS_PERMILLE / 1000;
        if self.alive(lo, hi, few + 1).await? > few {
            return Ok(false);
        }
        self.move_stragglers(lo, hi).await?;
        // What moved between ready and parked while we looked was missed: look
        // once more, under the lock that the drop needs anyway.
        let statement = format!(
            "{LOCK};
            SET LOCAL lock_timeout = '50ms';
            DO $$
            BEGIN
                LOCK TABLE postrider.messages IN ACCESS EXCLUSIVE MODE;
                IF ({ALIVE}) = 0 THEN
                    DROP TABLE IF EXISTS postrider.messages_{lo};
                    DELETE FROM postrider.message_partitions WHERE lo = {lo};
                END IF;
            END $$",
            ALIVE = alive_sql(&lo.to_string(), &hi.to_string(), "1"),
        );
        self.transaction(statement).await?;
        let row = sqlx::query(
            "SELECT NOT EXISTS (SELECT FROM postrider.message_partitions WHERE lo = $1)",
        )
        .bind(lo)
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// How many messages of these ids are alive with their body in `messages`;
    /// counts to `most`.
    async fn alive(&self, lo: i64, hi: i64, most: i64) -> Result<i64, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(alive_sql(
            "$1::bigint",
            "$2::bigint",
            "$3",
        )))
        .bind(lo)
        .bind(hi)
        .bind(most)
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Copies the bodies of the live messages of a partition to `stragglers` and
    /// points their rows there.
    async fn move_stragglers(&self, lo: i64, hi: i64) -> Result<(), Error> {
        for statement in [MOVE_PARKED, MOVE_READY] {
            sqlx::query(statement)
                .bind(lo)
                .bind(hi)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    async fn drop_days(&self, table: &'static str, days: i64) -> Result<(), Error> {
        // relname sorts as its date does.
        let rows = sqlx::query(
            "SELECT c.relname::text FROM pg_inherits i
             JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = ('postrider.' || $1)::regclass
               AND c.relname < $1 || '_'
                || to_char((now() AT TIME ZONE 'UTC')::date - $2::integer, 'YYYYMMDD')",
        )
        .bind(table)
        .bind(i32::try_from(days).unwrap_or(i32::MAX))
        .fetch_all(&self.pool)
        .await?;
        for row in rows {
            let name: String = row.try_get(0)?;
            self.transaction(format!(
                "SET LOCAL lock_timeout = '50ms'; DROP TABLE IF EXISTS postrider.{name}"
            ))
            .await?;
        }
        Ok(())
    }

    /// Runs several statements as one implicit transaction, in one message: no
    /// future can be dropped between its begin and its end.
    async fn transaction(&self, statements: String) -> Result<(), Error> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Counts live messages with ids in `[lo, hi)`, up to `most`, over every queue,
/// deleted ones included. A message on its first way through ready has its id
/// as position.
fn alive_sql(lo: &str, hi: &str, most: &str) -> String {
    format!(
        "SELECT count(*) FROM (
            SELECT FROM (
                SELECT id FROM postrider.queues UNION ALL SELECT id FROM postrider.deleted_queues
            ) AS q
            CROSS JOIN LATERAL (
                (SELECT FROM generate_series(0, 9) AS lane (priority)
                 CROSS JOIN LATERAL (
                    SELECT FROM postrider.ready AS r
                    WHERE r.queue_id = q.id AND r.priority = lane.priority::smallint
                      AND r.position >= {lo} AND r.position < {hi}
                      AND r.position = r.message_id AND NOT r.straggler
                    LIMIT {most}) AS first_way)
                UNION ALL
                (SELECT FROM postrider.ready AS r
                 WHERE r.queue_id = q.id AND r.message_id >= {lo} AND r.message_id < {hi}
                   AND r.position <> r.message_id AND NOT r.straggler
                 LIMIT {most})
                UNION ALL
                (SELECT FROM postrider.parked AS p
                 WHERE p.queue_id = q.id AND p.message_id >= {lo} AND p.message_id < {hi}
                   AND NOT p.straggler
                 LIMIT {most})
            ) AS alive
            LIMIT {most}
        ) AS counted"
    )
}

const MOVE_PARKED: &str = "
    WITH moving AS MATERIALIZED (
        SELECT p.ctid AS tid, p.queue_id, p.message_id
        FROM postrider.queues AS q
        CROSS JOIN LATERAL (
            SELECT parked.ctid, parked.queue_id, parked.message_id
            FROM postrider.parked
            WHERE parked.queue_id = q.id AND parked.message_id >= $1 AND parked.message_id < $2
              AND NOT parked.straggler
            FOR UPDATE OF parked SKIP LOCKED
        ) AS p
    ), copied AS (
        INSERT INTO postrider.stragglers
            (queue_id, message_id, enqueued_at, body, content_type, headers, key, correlation_id,
             reply_to, traceparent, tracestate)
        SELECT
            moving.queue_id, moving.message_id, m.enqueued_at, m.body, m.content_type, m.headers,
            m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate
        FROM moving
        CROSS JOIN LATERAL postrider.body_of(moving.queue_id, moving.message_id, false) AS m
        ON CONFLICT DO NOTHING
    )
    UPDATE postrider.parked SET straggler = true
    WHERE ctid = ANY(ARRAY(SELECT tid FROM moving))";

const MOVE_READY: &str = "
    WITH moving AS MATERIALIZED (
        SELECT r.tid, r.queue_id, r.message_id
        FROM postrider.queues AS q
        CROSS JOIN LATERAL (
            SELECT one.* FROM generate_series(0, 9) AS lane (priority)
            CROSS JOIN LATERAL (
                SELECT ready.ctid AS tid, ready.queue_id, ready.message_id
                FROM postrider.ready
                WHERE ready.queue_id = q.id AND ready.priority = lane.priority::smallint
                  AND ready.position >= $1 AND ready.position < $2
                  AND ready.position = ready.message_id AND NOT ready.straggler
                FOR UPDATE OF ready SKIP LOCKED
            ) AS one
            UNION ALL
            SELECT back.* FROM (
                SELECT ready.ctid AS tid, ready.queue_id, ready.message_id
                FROM postrider.ready
                WHERE ready.queue_id = q.id
                  AND ready.message_id >= $1 AND ready.message_id < $2
                  AND ready.position <> ready.message_id AND NOT ready.straggler
                FOR UPDATE OF ready SKIP LOCKED
            ) AS back
        ) AS r
    ), copied AS (
        INSERT INTO postrider.stragglers
            (queue_id, message_id, enqueued_at, body, content_type, headers, key, correlation_id,
             reply_to, traceparent, tracestate)
        SELECT
            moving.queue_id, moving.message_id, m.enqueued_at, m.body, m.content_type, m.headers,
            m.key, m.correlation_id, m.reply_to, m.traceparent, m.tracestate
        FROM moving
        CROSS JOIN LATERAL postrider.body_of(moving.queue_id, moving.message_id, false) AS m
        ON CONFLICT DO NOTHING
    )
    UPDATE postrider.ready SET straggler = true
    WHERE ctid = ANY(ARRAY(SELECT tid FROM moving))";
