//! What is in Postgres, and every statement that touches it.
//!
//! # Tables
//!
//! Narrow rows move, wide rows never do. A publish writes the body once, into
//! [`messages`](publish), which is insert-only and partitioned by id; what
//! moves between states is a row of some sixty bytes:
//!
//! ```text
//!                 delay            due
//!     publish ──────────▶ parked ───────▶ ready
//!        │                  ▲ │             │
//!        └──────────────────┼─┼────────────▶│
//!                  requeue  │ │ lease       │ claim
//!                (backoff)  │ │ expired     ▼
//!                           └─┴──────────  parked (leased) ──▶ gone (ack)
//!                                             │
//!                                             ▼
//!                                        dead_letters ──▶ ready (redrive)
//! ```
//!
//! So a claim is a delete of one narrow row and an insert of another, an ack a
//! delete, and a body is never rewritten: partitions whose messages are all
//! settled are dropped whole ([`partitions`]).
//!
//! Where receivers wait at the gateway of a publish the first state of a message is
//! leased: it is handed over ([`publish`]).
//!
//! A publish to a topic writes the body once too, and a narrow row for each
//! queue that a matching subscription feeds ([`publish_topic`]); from then on
//! the copies live apart. If the topic retains its messages, a row in `stream`
//! says where the message stands in commit order ([`stream`]).
//!
//! In ordered and fair queues messages with a key wait in `lined_up` before they are
//! ready, until their key's turn comes ([`turns`]).
//!
//! Messages of applications' own transactions come by way of [`door`], those of
//! the clock from [`schedules`]: both publish inside a [`transaction`].
//!
//! # Watermarks
//!
//! Deleted rows stay in the index until they can be vacuumed, which a snapshot
//! held anywhere in the database prevents; they pile up in front of the live
//! ones. Therefore each gateway remembers below which position nothing can be
//! alive, and claims scan from there ([`watermark`]).
//!
//! # Rules
//!
//! - One public method is one statement, or one [`transaction`], or says why not.
//!   A single statement commits by itself, so a caller that goes away leaves
//!   nothing half-done.
//! - The database's clock decides; Rust passes durations.
//! - Statements that change a message's state are in `sql/`, with the states
//!   before and after in their header.
//! - A lateral subquery with a `LIMIT` pins a nested loop over an index, and
//!   rows are deleted by the address found there. So plans cannot flip when a
//!   table grows from nothing to ten million rows between two `ANALYZE`s.

mod arrived;
mod backlog;
mod browse;
mod claim;
mod claims;
mod connect;
mod counts;
mod dead_letters;
mod delete_queue;
mod door;
mod due;
mod envelope;
mod error;
mod executor;
mod fair;
mod gateways;
mod idempotency;
mod keys;
mod lookback;
mod maintenance;
mod migrations;
mod numbers;
mod partitions;
mod pool;
mod publish;
mod publish_columns;
mod publish_topic;
mod publish_topic_columns;
mod purge;
mod queue_cache;
mod queues;
mod replies;
mod room;
mod runs;
mod schedules;
mod schemas;
mod settle;
mod storage;
mod stream;
mod subscriptions;
mod topics;
mod topology;
mod transact;
mod transaction;
mod turns;
mod watch;
pub mod watermark;
mod webhooks;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How to reach a database.
pub use sqlx::postgres::PgConnectOptions as ConnectOptions;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

pub use arrived::Arrived;
pub use backlog::Backlog;
pub use browse::{Attempt, Cursor, Peek, State, Stored};
pub use claim::{Claimed, Delivery, Receiver};
pub use claims::{ClaimDone, ClaimGivenUp, ClaimTaken};
pub use counts::Counts;
pub use dead_letters::{DeadFilter, DeadLetter, Redrive, Redriven};
pub use delete_queue::DeletedQueue;
pub use door::{DoorLook, DoorMoved, DoorPass};
pub use due::{Due, Ended};
pub use envelope::Envelope;
pub use error::{Error, Logged};
pub use gateways::{Announcements, Beat, Heard, News};
pub use idempotency::{Effect, Kept, Once, Seen};
pub use keys::{ApiKey, KeyRate, KeysVersion, NewApiKey, RevokedKey, StoredKey};
pub use publish::{Handover, Publish, PublishResult, Published, Refusal};
pub use publish_topic::{
    Fed, PublishTopic, PublishTopicResult, Routed, TopicPublished, TopicRefusal, TopicsFed,
};
pub use queues::{Put, Queue};
pub use replies::{Answer, Answered, Reply, ReplyRead, ReplyTo};
pub use room::{Bounds, Overflowed};
pub use schedules::{Fired, Schedule, ScheduleFailure};
pub use schemas::{NewSchema, NoSchema, SchemaOf, SchemaVersion};
pub use settle::{Fate, Settle, Settled};
pub use storage::{Holder, HotTable, KeptFor, Partition, Storage};
pub use stream::Retained;
pub use subscriptions::{Subscribe, SubscribeRefusal, Subscription};
pub use topics::Topic;
pub use topology::{Binding, Route, Topology};
pub use transact::{PartRefusal, Place, Refused, Steps, Transacted};
pub use transaction::{End, Transaction};
pub use turns::{BlockedKey, Promoted, SweptTo, Turn, TurnOf, Unblocked};
pub use watermark::Violations;
pub use webhooks::{
    AttemptFilter, Lane, OVERLAP, PushAttempt, PushOutcomeKind, PushRecord, Resent, Webhook,
    WebhookPut,
};

use crate::metrics::Metrics;
use migrations::MIGRATIONS;
use pool::Pool;

/// Set on every connection; the answer is the server's process.
///
/// Nothing waits for ever: statements and locks have their time-outs, a session
/// that somebody left in a transaction is ended, and the server notices within a
/// minute that a gateway is gone and gives up what that has locked. (How a
/// gateway notices that the server is gone: [`watch`].)
///
/// The planner's switches are part of the design: the statements are written
/// for one plan, the statistics of tables that go from empty to millions in a
/// minute are always wrong, and a generic plan saves planning a dozen common
/// table expressions each time.
const SESSION: &str = "
    SET application_name = 'postrider';
    SET timezone = 'UTC';
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET plan_cache_mode = 'force_generic_plan';
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET jit = off;
    SET work_mem = '16MB';
    SET client_min_messages = 'warning';
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '60s';
    SELECT pg_backend_pid()";

/// Set on the connection of migrations, which may run for longer than a
/// statement's time-out and need no planner switches. One that waits for another
/// gateway's is told so and waits on.
const MIGRATION_SESSION: &str = "
    SET application_name = 'postrider migrate';
    SET statement_timeout = 0;
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET client_min_messages = 'warning';
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '60s'";

/// How long making a connection may take, where nobody else bounds it.
const CONNECT: Duration = Duration::from_secs(5);

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    /// For publish, claim and the ends of leases: a few connections that are
    /// always busy, so that what their sessions have cached is warm, and that no
    /// listing, sweep or transaction holds. So what is read inside a transaction
    /// goes over these: with `pool` it might wait for its own connection.
    hot: Pool,
    probe: Arc<watch::Probe>,
    storage: Arc<storage::Observed>,
    queues: Arc<queue_cache::Cache>,
    topologies: Arc<topology::Cache>,
    schemas: Arc<schemas::Compiled>,
    watermarks: Arc<watermark::Watermarks>,
    keys_version: Arc<keys::KeysVersion>,
    clock: Arc<replies::Clock>,
    /// Since when no claim is left that should have been removed by then.
    claims_pruned: Arc<Mutex<lookback::Lookback>>,
    door: Arc<door::Seen>,
    schedules: Arc<schedules::Looked>,
    metrics: Arc<Metrics>,
    partition_size: i64,
}

impl Store {
    /// Messages a partition.
    pub const PARTITION_SIZE: i64 = 1_000_000;

    /// A store on the database that `options` describe; connects when needed.
    /// At most `connections` are open at a time, but for one that vacuums and one
    /// that asks after statements that take long.
    #[must_use]
    pub fn new(options: ConnectOptions, connections: u32, partition_size: i64) -> Self {
        let options = options.disable_statement_logging();
        // A dozen taken in turn do a tenth less than four.
        let hot = (connections / 3).max(1);
        // One listens to other gateways, one asks whether the server is there.
        let pool = connections.saturating_sub(hot + 2).max(1);
        let metrics = Arc::<Metrics>::default();
        let acquire_seconds = metrics.hot_pool.acquire_seconds.clone();
        Self {
            // At rest the workers use the same connection every second or so, and
            // none of their statements needs a ping of its own.
            pool: Pool::new(options.clone(), pool, Duration::from_secs(2), None),
            hot: Pool::new(options, hot, Duration::from_secs(1), Some(acquire_seconds)),
            probe: Arc::default(),
            storage: Arc::default(),
            queues: Arc::default(),
            topologies: Arc::default(),
            schemas: Arc::default(),
            watermarks: Arc::default(),
            keys_version: Arc::default(),
            clock: Arc::default(),
            claims_pruned: Arc::default(),
            door: Arc::default(),
            schedules: Arc::default(),
            metrics,
            partition_size,
        }
    }

    /// How to reach the private Postgres whose socket is in this folder.
    #[must_use]
    pub fn socket_options(folder: &Path, user: &str) -> ConnectOptions {
        // Without a password file: nobody else's settings count here.
        ConnectOptions::new_without_pgpass()
            .socket(folder)
            .port(5432)
            .username(user)
            .database("postgres")
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Brings the schema up to date and makes the partitions that publishes
    /// will need. Safe when several gateways start at once: Postgres' advisory
    /// lock lets one at a time do it.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::TooOld`]; [`Error::Migrate`] if the schema
    /// was made by a newer version or changed by hand.
    pub async fn migrate(&self) -> Result<(), Error> {
        let connecting = PgConnection::connect_with(self.pool.options());
        let mut connection = connect::in_time(CONNECT, connecting).await?;
        sqlx::raw_sql(MIGRATION_SESSION)
            .execute(&mut connection)
            .await?;
        let row = sqlx::query(
            "SELECT current_setting('server_version'),
                current_setting('server_version_num')::integer",
        )
        .fetch_one(&mut connection)
        .await?;
        if row.try_get::<i32, _>(1)? < 140_000 {
            return Err(Error::TooOld(row.try_get(0)?));
        }
        let migrator = sqlx::migrate::Migrator {
            migrations: Cow::Borrowed(&MIGRATIONS),
            table_name: Cow::Borrowed("postrider.migrations"),
            create_schemas: Cow::Owned(vec![Cow::Borrowed("postrider")]),
            ..sqlx::migrate::Migrator::DEFAULT
        };
        migrator.run_direct(None, &mut connection, false).await?;
        connection.close().await?;
        match self.make_partitions().await {
            // Acks must work, and there is room for those.
            Err(error @ Error::StorageFull(_)) => {
                tracing::error!(%error, "no room for more partitions");
                Ok(())
            }
            made => made,
        }
    }

    /// The settings that promises rest on, each with what is lost without it;
    /// empty if all are on.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn durability_gaps(&self) -> Result<Vec<String>, Error> {
        let row = sqlx::query(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),
                    current_setting('full_page_writes')",
        )
        .fetch_one(&self.pool)
        .await?;
        let (fsync, commit, pages): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let mut gaps = Vec::new();
        if fsync == "off" {
            gaps.push("fsync is off: a crash of the machine can lose or corrupt everything".into());
        }
        if commit == "off" {
            gaps.push(
                "synchronous_commit is off: a crash of Postgres can lose published messages".into(),
            );
        }
        if pages == "off" {
            gaps.push("full_page_writes is off: a crash of the machine can corrupt pages".into());
        }
        Ok(gaps)
    }

    /// The secret that all gateways on this database share.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn secret(&self) -> Result<Vec<u8>, Error> {
        let row = sqlx::query("SELECT secret FROM postrider.cluster")
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// What each hot statement's `.sql` file holds, for the test that prepares
    /// them all against the real schema.
    #[must_use]
    pub fn statements() -> Vec<(&'static str, &'static str)> {
        let groups: &[&[(&str, &str)]] = &[
            backlog::STATEMENTS,
            publish::STATEMENTS,
            publish_topic::STATEMENTS,
            room::STATEMENTS,
            stream::STATEMENTS,
            topology::STATEMENTS,
            topics::STATEMENTS,
            turns::STATEMENTS,
            subscriptions::STATEMENTS,
            delete_queue::STATEMENTS,
            claim::STATEMENTS,
            claims::STATEMENTS,
            settle::STATEMENTS,
            replies::STATEMENTS,
            runs::STATEMENTS,
            storage::STATEMENTS,
            due::STATEMENTS,
            browse::STATEMENTS,
            purge::STATEMENTS,
            dead_letters::STATEMENTS,
            counts::STATEMENTS,
            gateways::STATEMENTS,
            watermark::STATEMENTS,
            maintenance::STATEMENTS,
            numbers::STATEMENTS,
            partitions::STATEMENTS,
            schemas::STATEMENTS,
            idempotency::STATEMENTS,
            door::STATEMENTS,
            schedules::STATEMENTS,
        ];
        [groups.concat(), webhooks::STATEMENTS.concat()].concat()
    }

    /// Closes all connections, once those in use are given back.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.hot.close(), self.probe.close());
    }

    /// The metrics of this gateway.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The watermarks of this gateway.
    #[must_use]
    pub fn watermarks(&self) -> &watermark::Watermarks {
        &self.watermarks
    }
}

/// Declares the statements of a module: a constant each, and the list of all.
macro_rules! statements {
    ($($name:ident = $file:literal;)+) => {
        $(pub(super) const $name: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/src/store/sql/", $file, ".sql"));)+
        pub(super) const STATEMENTS: &[(&str, &str)] = &[$(($file, $name)),+];
    };
}
use statements;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_says_how_long_anything_may_take() {
        for (session, statement) in [(SESSION, "'30s'"), (MIGRATION_SESSION, "0")] {
            for (name, value) in [
                ("statement_timeout", statement),
                ("lock_timeout", "'10s'"),
                ("idle_in_transaction_session_timeout", "'60s'"),
            ] {
                let set = format!("SET {name} = {value};");
                let lines = session.lines().filter(|line| line.trim() == set);
                assert_eq!(lines.count(), 1, "{set} in {session}");
            }
        }
    }
}
