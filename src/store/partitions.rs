//! Making partitions ahead of need and dropping those that nothing needs.
//!
//! Bodies are never deleted: a partition of `messages` is dropped whole when no
//! row of `ready`, `parked` or `lined_up` points into it and no topic retains a
//! message of it; the partition of `stream` over the same ids goes with it. A few
//! stragglers would pin it, a message delayed by a week for instance; once they are
//! all that is left, their bodies are copied to `stragglers` and the partition goes.
//!
//! A new partition is built apart and attached, which does not lock out
//! publishes; dropping one does for an instant, so it gives up after 50 ms of
//! waiting for a lock and tries again later.

use sqlx::Row as _;

use super::{Error, Store, statements};

statements! {
    ALIVE = "alive";
    RETAINED = "retained";
    MOVE_PARKED = "move_parked";
    MOVE_READY = "move_ready";
    MOVE_LINED_UP = "move_lined_up";
}

/// Partitions of messages kept ahead of the sequence. At a hundred thousand
/// messages a second one lasts ten seconds.
const AHEAD: i64 = 4;

/// Ids kept ahead however small the partitions are: more than a few statements
/// can draw, so that a publish that has to make partitions succeeds then.
const LEAST_AHEAD: i64 = 10_000;

/// Live messages that may be moved out to free a partition: one in a hundred.
const STRAGGLERS_PERMILLE: i64 = 10;

/// Days of `attempts`, `push_attempts`, `dedup` and `idempotency` made ahead: gateways may rest
/// for a weekend.
const DAYS_AHEAD: i64 = 4;

/// Days that failed attempts are kept, and what pushes came to.
const ATTEMPT_DAYS: i64 = 30;

/// Days that dedup ids are kept: the longest window and the day it began.
const DEDUP_DAYS: i64 = 9;

/// Days that answers to idempotency keys are kept: 24 hours, the day they began, and a
/// day's grace for clocks.
const IDEMPOTENCY_DAYS: i64 = 2;

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
        let (size, ahead) = (self.partition_size, self.ahead());
        let statement = format!(
            "{LOCK};
            SET LOCAL lock_timeout = '2s';
            DO $$
            DECLARE
                next_lo bigint;
                part record;
                day date;
                -- Only the last few matter, so a walk from the top is short.
                wanted bigint := (SELECT last_value FROM postrider.message_ids) + {ahead};
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
                -- Also for those that a gateway of an earlier version made.
                FOR part IN
                    SELECT lo, hi FROM postrider.message_partitions
                    WHERE to_regclass('postrider.stream_' || lo) IS NULL
                    ORDER BY lo
                LOOP
                    EXECUTE format(
                        'CREATE TABLE postrider.stream_%1$s (
                            LIKE postrider.stream INCLUDING DEFAULTS INCLUDING CONSTRAINTS
                            INCLUDING INDEXES,
                            CONSTRAINT in_partition
                                CHECK (message_id >= %1$s AND message_id < %2$s))',
                        part.lo, part.hi);
                    EXECUTE format(
                        'ALTER TABLE postrider.stream ATTACH PARTITION postrider.stream_%1$s
                            FOR VALUES FROM (%1$s) TO (%2$s)',
                        part.lo, part.hi);
                    EXECUTE format(
                        'ALTER TABLE postrider.stream_%1$s DROP CONSTRAINT in_partition',
                        part.lo);
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
                    IF to_regclass(format('postrider.idempotency_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
                        EXECUTE format(
                            'CREATE TABLE postrider.idempotency_%s PARTITION OF postrider.idempotency
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
                    IF to_regclass(format('postrider.push_attempts_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
                        EXECUTE format(
                            'CREATE TABLE postrider.push_attempts_%s PARTITION OF postrider.push_attempts
                                FOR VALUES FROM (%L) TO (%L)',
                            to_char(day, 'YYYYMMDD'),
                            day::timestamp AT TIME ZONE 'UTC',
                            (day + 1)::timestamp AT TIME ZONE 'UTC');
                    END IF;
                END LOOP;
            END $$"
        );
        self.run_as_one(statement).await
    }

    /// How many ids behind the last one drawn have a partition.
    fn ahead(&self) -> i64 {
        (AHEAD * self.partition_size).max(LEAST_AHEAD)
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
                    || to_char((now() AT TIME ZONE 'UTC')::date + 2, 'YYYYMMDD')) IS NULL
                OR EXISTS (
                    SELECT FROM postrider.message_partitions
                    WHERE to_regclass('postrider.stream_' || lo) IS NULL)",
        )
        .bind(self.ahead() / AHEAD * (AHEAD - 1))
        .fetch_one(&self.pool)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Drops the days of dedup ids, idempotency keys and attempts that are over, those
    /// of pushes after `push_attempt_days`, and replies whose time is over.
    ///
    /// # Errors
    /// Any; [`Error::Unavailable`] if a lock was not to be had in time.
    pub async fn drop_days(&self, push_attempt_days: i64) -> Result<(), Error> {
        self.drop_days_of("dedup", DEDUP_DAYS).await?;
        self.drop_days_of("idempotency", IDEMPOTENCY_DAYS).await?;
        self.drop_days_of("attempts", ATTEMPT_DAYS).await?;
        self.drop_days_of("push_attempts", push_attempt_days)
            .await?;
        self.drop_replies().await
    }

    /// Drops the partitions of messages that nothing points into, after moving
    /// out the last few that do. How many it dropped.
    ///
    /// # Errors
    /// Any; [`Error::Unavailable`] if a lock was not to be had in time.
    pub async fn drop_partitions(&self) -> Result<usize, Error> {
        let rows = sqlx::query(
            "SELECT lo, hi FROM postrider.message_partitions
             WHERE hi <= least($1, pg_sequence_last_value('postrider.message_ids'::regclass))
             ORDER BY lo",
        )
        // Every publish that drew an id of them has ended; at this server, which may
        // have been failed over to and not have come as far.
        .bind(self.watermarks.settled())
        .fetch_all(&self.pool)
        .await?;
        let mut dropped = 0;
        for row in rows {
            dropped += usize::from(
                self.drop_partition(row.try_get(0)?, row.try_get(1)?)
                    .await?,
            );
        }
        Ok(dropped)
    }

    async fn drop_partition(&self, lo: i64, hi: i64) -> Result<bool, Error> {
        // Before anything is moved out: the bodies stay as long as the stream.
        if self.retains(lo, hi).await? {
            return Ok(false);
        }
        // One more than are worth moving: then it is not the last few.
        let few = (hi - lo) * STRAGGLERS_PERMILLE / 1000;
        let alive = self.alive(lo, hi, few + 1).await?;
        if alive > few {
            return Ok(false);
        }
        if alive > 0 {
            self.move_stragglers(lo, hi).await?;
            if self.alive(lo, hi, 1).await? > 0 {
                return Ok(false);
            }
        }
        // None in one snapshot is none for good: a message moves between ready
        // and parked within one statement, a redriven one has its body in
        // stragglers, and no publish can draw these ids any more.
        self.run_as_one(format!(
            "{LOCK};
            SET LOCAL lock_timeout = '50ms';
            DROP TABLE IF EXISTS postrider.messages_{lo}, postrider.stream_{lo};
            DELETE FROM postrider.message_partitions WHERE lo = {lo}"
        ))
        .await?;
        Ok(true)
    }

    /// Whether a topic retains messages of these ids.
    pub(super) async fn retains(&self, lo: i64, hi: i64) -> Result<bool, Error> {
        let row = sqlx::query(RETAINED)
            .bind(lo)
            .bind(hi)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// How many messages of these ids are alive with their body in `messages`;
    /// counts to `most`.
    pub(super) async fn alive(&self, lo: i64, hi: i64, most: i64) -> Result<i64, Error> {
        let row = sqlx::query(ALIVE)
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
        // In the order in which messages go, so that none is passed.
        for statement in [MOVE_LINED_UP, MOVE_PARKED, MOVE_READY] {
            sqlx::query(statement)
                .bind(lo)
                .bind(hi)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    async fn drop_days_of(&self, table: &'static str, days: i64) -> Result<(), Error> {
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
            self.run_as_one(format!(
                "SET LOCAL lock_timeout = '50ms'; DROP TABLE IF EXISTS postrider.{name}"
            ))
            .await?;
        }
        Ok(())
    }

    /// Runs several statements as one implicit transaction, in one message: no
    /// future can be dropped between its begin and its end.
    pub(super) async fn run_as_one(&self, statements: String) -> Result<(), Error> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
