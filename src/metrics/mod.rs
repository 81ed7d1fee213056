//! Every metric: its name, unit and labels, and nowhere else. `METRICS.md` has
//! the table for users.
//!
//! Each gateway has its own, so that several in one process (as in tests) count
//! apart. Whoever counts holds the number itself, so that counting is an addition
//! and looks nothing up. `GET /metrics` writes them all down.
//!
//! Written here rather than with a crate: metrics-exporter-prometheus keeps each
//! value of a histogram until somebody sums them up (a megabyte a second on the
//! hot path), and cannot forget the series of a queue that was deleted.

mod cells;
mod family;
mod process;
mod queues;
mod requests;
mod text;
mod webhooks;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub use cells::{Counter, Gauge, Histogram};
pub use queues::{QueueNumbers, Queues, Reading};
pub use requests::{InHand, Requests};
pub use webhooks::{Webhook, Webhooks};

use family::{
    ACQUIRE_SECONDS, BATCH_ROWS, BATCH_SECONDS, BATCH_WAIT, BUILD_INFO, CONNECTIONS, DEAD_ROWS,
    FIRST_DELIVERY, LEASE_TO_ACK, MOST_CONNECTIONS, RECEIVE_WAIT, VACUUM_SECONDS, VACUUMS,
    VIOLATIONS,
};
use text::Text;

/// Queues shown by name, and webhooks, if nobody says otherwise.
pub const NAMED_QUEUES: u32 = 500;

/// One gateway's metrics.
#[derive(Debug)]
pub struct Metrics {
    /// `postrider_http_*`, once the interface has said which operations there are.
    requests: OnceLock<Arc<Requests>>,
    /// `postrider_receive_wait_seconds`.
    pub receive_wait: Histogram,
    /// `postrider_queue_*`, and what else is read from the database.
    pub queues: Queues,
    named_queues: AtomicUsize,
    /// `postrider_publish_to_first_delivery_seconds`.
    pub first_delivery: Histogram,
    /// `postrider_lease_to_ack_seconds`.
    pub lease_to_ack: Histogram,
    /// `postrider_webhook_*`.
    pub webhooks: Webhooks,
    /// `postrider_batch_*{verb="publish"}`.
    pub publish: Batches,
    /// `postrider_batch_*{verb="publish_topic"}`.
    pub publish_topic: Batches,
    /// `postrider_batch_*{verb="publish_once"}`.
    pub publish_once: Batches,
    /// `postrider_batch_*{verb="transact"}`.
    pub transact: Batches,
    /// `postrider_batch_*{verb="claim"}`.
    pub claim: Batches,
    /// `postrider_batch_*{verb="ack"}`.
    pub ack: Batches,
    /// `postrider_batch_*{verb="reply"}`.
    pub reply: Batches,
    /// `postrider_batch_*{verb="read_replies"}`.
    pub read_replies: Batches,
    /// `postrider_batch_*{verb="settle"}`.
    pub settle: Batches,
    /// `postrider_batch_*{verb="extend"}`.
    pub extend: Batches,
    /// `postrider_batch_*{verb="record_push"}`.
    pub record_push: Batches,
    /// `postrider_database_*{pool="hot"}`.
    pub hot_pool: Pool,
    /// `postrider_database_*{pool="rest"}`.
    pub rest_pool: Pool,
    /// `postrider_watermark_violations_total{table}`: must stay 0.
    pub watermark_violations: Violations,
    /// `postrider_vacuums_total`.
    pub vacuums: Counter,
    /// `postrider_vacuum_duration_seconds`.
    pub vacuum_seconds: Histogram,
    /// `postrider_dead_rows{table}`, by [`DEAD_ROW_TABLES`].
    pub dead_rows: [Gauge; DEAD_ROW_TABLES.len()],
}

/// The narrow tables, whose dead rows are counted.
pub const DEAD_ROW_TABLES: [&str; 6] = [
    "ready",
    "parked",
    "tallies",
    "queue_counts",
    "lined_up",
    "turns",
];

/// What lay below a watermark, by table.
#[derive(Debug, Default)]
pub struct Violations {
    /// Lanes with a ready message there.
    pub ready: Counter,
    /// Queues with a parked one.
    pub parked: Counter,
}

/// The statements of one verb.
#[derive(Debug)]
pub struct Batches {
    verb: &'static str,
    rows: Histogram,
    seconds: Histogram,
    /// How long the first request of each waited for it.
    pub wait: Histogram,
}

/// Connections to the database.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    /// How long statements waited for one.
    pub acquire_seconds: Histogram,
    /// Open ones that nobody uses.
    pub idle: Gauge,
    /// Open ones in use.
    pub busy: Gauge,
    /// How many may be open.
    pub most: Gauge,
}

impl Batches {
    fn new(verb: &'static str) -> Self {
        Self {
            verb,
            rows: Histogram::new(&BATCH_ROWS),
            seconds: Histogram::new(&BATCH_SECONDS),
            wait: Histogram::new(&BATCH_WAIT),
        }
    }

    /// A statement of so many rows has run since `began`.
    pub fn record(&self, rows: usize, began: Instant) {
        self.rows.record(u64::try_from(rows).unwrap_or(u64::MAX));
        self.seconds.record_time(began.elapsed());
    }
}

impl Pool {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            acquire_seconds: Histogram::new(&ACQUIRE_SECONDS),
            idle: Gauge::default(),
            busy: Gauge::default(),
            most: Gauge::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: OnceLock::new(),
            receive_wait: Histogram::new(&RECEIVE_WAIT),
            queues: Queues::default(),
            named_queues: AtomicUsize::new(NAMED_QUEUES as usize),
            first_delivery: Histogram::new(&FIRST_DELIVERY),
            lease_to_ack: Histogram::new(&LEASE_TO_ACK),
            webhooks: Webhooks::new(NAMED_QUEUES as usize),
            publish: Batches::new("publish"),
            publish_topic: Batches::new("publish_topic"),
            publish_once: Batches::new("publish_once"),
            transact: Batches::new("transact"),
            claim: Batches::new("claim"),
            ack: Batches::new("ack"),
            reply: Batches::new("reply"),
            read_replies: Batches::new("read_replies"),
            settle: Batches::new("settle"),
            extend: Batches::new("extend"),
            record_push: Batches::new("record_push"),
            hot_pool: Pool::new("hot"),
            rest_pool: Pool::new("rest"),
            watermark_violations: Violations::default(),
            vacuums: Counter::default(),
            vacuum_seconds: Histogram::new(&VACUUM_SECONDS),
            dead_rows: Default::default(),
        }
    }
}

impl Metrics {
    /// Shows at most so many queues by name, and as many webhooks.
    pub fn set_named_queues(&self, most: usize) {
        self.named_queues.store(most, Ordering::Relaxed);
        self.webhooks.set_most(most);
    }

    /// How many queues are shown by name.
    #[must_use]
    pub fn named_queues(&self) -> usize {
        self.named_queues.load(Ordering::Relaxed)
    }

    /// The numbers of requests, by operation. The first who asks says which there
    /// are; [`Requests::begin`] takes an operation's place in that list.
    pub fn requests(&self, operations: impl IntoIterator<Item = &'static str>) -> Arc<Requests> {
        let requests = || Arc::new(Requests::new(operations));
        Arc::clone(self.requests.get_or_init(requests))
    }

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Text::default();
        text.family(&BUILD_INFO)
            .value(&[env!("CARGO_PKG_VERSION")], 1);
        if let Some(requests) = self.requests.get() {
            requests.write(&mut text);
        }
        text.family(&RECEIVE_WAIT)
            .histogram(&[], &self.receive_wait);
        self.queues.write(&mut text);
        text.family(&FIRST_DELIVERY)
            .histogram(&[], &self.first_delivery);
        text.family(&LEASE_TO_ACK)
            .histogram(&[], &self.lease_to_ack);
        self.webhooks.write(&mut text);
        self.write_batches(&mut text);
        self.write_pools(&mut text);
        self.write_upkeep(&mut text);
        process::write(&mut text);
        text.finish()
    }

    fn write_batches(&self, text: &mut Text) {
        let verbs = [
            &self.publish,
            &self.publish_topic,
            &self.publish_once,
            &self.transact,
            &self.claim,
            &self.ack,
            &self.reply,
            &self.read_replies,
            &self.settle,
            &self.extend,
            &self.record_push,
        ];
        let mut rows = text.family(&BATCH_ROWS);
        for batches in verbs {
            rows.histogram(&[batches.verb], &batches.rows);
        }
        let mut seconds = text.family(&BATCH_SECONDS);
        for batches in verbs {
            seconds.histogram(&[batches.verb], &batches.seconds);
        }
        let mut wait = text.family(&BATCH_WAIT);
        // A claim is for who stands in line, and gathers nothing.
        for batches in verbs.into_iter().filter(|batches| batches.verb != "claim") {
            wait.histogram(&[batches.verb], &batches.wait);
        }
    }

    fn write_pools(&self, text: &mut Text) {
        let pools = [&self.hot_pool, &self.rest_pool];
        let mut connections = text.family(&CONNECTIONS);
        for pool in pools {
            connections
                .value(&[pool.name, "idle"], pool.idle.get())
                .value(&[pool.name, "busy"], pool.busy.get());
        }
        let mut most = text.family(&MOST_CONNECTIONS);
        for pool in pools {
            most.value(&[pool.name], pool.most.get());
        }
        let hot = &self.hot_pool;
        text.family(&ACQUIRE_SECONDS)
            .histogram(&[hot.name], &hot.acquire_seconds);
    }

    fn write_upkeep(&self, text: &mut Text) {
        text.family(&VIOLATIONS)
            .value(&["ready"], self.watermark_violations.ready.get())
            .value(&["parked"], self.watermark_violations.parked.get());
        text.family(&VACUUMS).value(&[], self.vacuums.get());
        text.family(&VACUUM_SECONDS)
            .histogram(&[], &self.vacuum_seconds);
        let mut dead = text.family(&DEAD_ROWS);
        for (table, rows) in DEAD_ROW_TABLES.iter().zip(&self.dead_rows) {
            dead.value(&[table], rows.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_every_scrape_once() {
        let metrics = Metrics::default();
        metrics.requests(["publish"]);
        let text = metrics.render();
        for family in family::ALL {
            let head = format!("# HELP {} ", family.name);
            assert_eq!(text.matches(&head).count(), 1, "{}", family.name);
        }
        assert_eq!(text.matches("# HELP ").count(), family::ALL.len());
    }
}
