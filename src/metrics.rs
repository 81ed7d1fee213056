//! Every metric: its name, unit and labels, and nowhere else.
//!
//! Each gateway has a recorder of its own, so that several in one process (as in
//! tests) count apart, and holds a handle to each metric, so that counting costs
//! no look-up. `GET /metrics` renders them.

use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Rows of one statement.
const BATCH_ROWS: &str = "postrider_batch_rows";
/// Time of one statement.
const BATCH_SECONDS: &str = "postrider_batch_duration_seconds";
/// Lanes and queues with a message below their watermark.
const VIOLATIONS: &str = "postrider_watermark_violations_total";
/// Vacuums of the narrow tables.
const VACUUMS: &str = "postrider_vacuums_total";
/// How long one took.
const VACUUM_SECONDS: &str = "postrider_vacuum_duration_seconds";
/// Dead rows of the narrow tables.
const DEAD_ROWS: &str = "postrider_dead_rows";

const ROWS: [f64; 11] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];
const SECONDS: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0,
];

const METADATA: Metadata<'static> = Metadata::new("postrider", Level::INFO, None);

/// One gateway's metrics.
pub struct Metrics {
    handle: PrometheusHandle,
    /// `postrider_batch_*{verb="publish"}`.
    pub publish: Batches,
    /// `postrider_batch_*{verb="publish_topic"}`.
    pub publish_topic: Batches,
    /// `postrider_batch_*{verb="claim"}`.
    pub claim: Batches,
    /// `postrider_batch_*{verb="ack"}`.
    pub ack: Batches,
    /// `postrider_batch_*{verb="settle"}`.
    pub settle: Batches,
    /// `postrider_batch_*{verb="extend"}`.
    pub extend: Batches,
    /// `postrider_watermark_violations_total{table}`: must stay 0.
    pub watermark_violations: Violations,
    /// `postrider_vacuums_total`.
    pub vacuums: Counter,
    /// `postrider_vacuum_duration_seconds`.
    pub vacuum_seconds: Histogram,
    /// `postrider_dead_rows`.
    pub dead_rows: Gauge,
}

/// What lay below a watermark, by table.
pub struct Violations {
    /// Lanes with a ready message there.
    pub ready: Counter,
    /// Queues with a parked one.
    pub parked: Counter,
}

/// The statements of one verb.
pub struct Batches {
    rows: Histogram,
    seconds: Histogram,
}

impl Batches {
    /// A statement of so many rows has run since `began`.
    pub fn record(&self, rows: usize, began: Instant) {
        self.rows.record(u32::try_from(rows).unwrap_or(u32::MAX));
        self.seconds.record(began.elapsed());
    }
}

impl Metrics {
    /// How often [`Self::upkeep`] has to be called.
    pub const UPKEEP: Duration = Duration::from_secs(5);

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sums up what histograms have gathered; without it they grow.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let with = |builder: PrometheusBuilder, name: &str, buckets: &[f64]| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
                .expect("the buckets are not empty")
        };
        let builder = with(PrometheusBuilder::new(), BATCH_ROWS, &ROWS);
        let builder = with(builder, BATCH_SECONDS, &SECONDS);
        let recorder = with(builder, VACUUM_SECONDS, &SECONDS).build_recorder();
        describe(&recorder);
        let key = Key::from_static_name;
        Self {
            handle: recorder.handle(),
            publish: batches(&recorder, "publish"),
            publish_topic: batches(&recorder, "publish_topic"),
            claim: batches(&recorder, "claim"),
            ack: batches(&recorder, "ack"),
            settle: batches(&recorder, "settle"),
            extend: batches(&recorder, "extend"),
            watermark_violations: Violations {
                ready: violations(&recorder, "ready"),
                parked: violations(&recorder, "parked"),
            },
            vacuums: recorder.register_counter(&key(VACUUMS), &METADATA),
            vacuum_seconds: recorder.register_histogram(&key(VACUUM_SECONDS), &METADATA),
            dead_rows: recorder.register_gauge(&key(DEAD_ROWS), &METADATA),
        }
    }
}

fn violations(recorder: &PrometheusRecorder, table: &'static str) -> Counter {
    let key = Key::from_parts(VIOLATIONS, vec![Label::new("table", table)]);
    recorder.register_counter(&key, &METADATA)
}

fn batches(recorder: &PrometheusRecorder, verb: &'static str) -> Batches {
    let key = |name| Key::from_parts(name, vec![Label::new("verb", verb)]);
    Batches {
        rows: recorder.register_histogram(&key(BATCH_ROWS), &METADATA),
        seconds: recorder.register_histogram(&key(BATCH_SECONDS), &METADATA),
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let text = SharedString::const_str;
    let histogram = |name, unit, help| {
        recorder.describe_histogram(KeyName::from_const_str(name), unit, text(help));
    };
    let counter = |name, help| {
        recorder.describe_counter(KeyName::from_const_str(name), None, text(help));
    };
    histogram(
        BATCH_ROWS,
        None,
        "Messages that one statement dealt with, by verb.",
    );
    histogram(
        BATCH_SECONDS,
        Some(Unit::Seconds),
        "Time of one statement, by verb.",
    );
    histogram(
        VACUUM_SECONDS,
        Some(Unit::Seconds),
        "Time of one vacuum of the narrow tables.",
    );
    counter(
        VIOLATIONS,
        "Lanes in which the sweep found a ready message below the watermark; must stay 0.",
    );
    counter(VACUUMS, "Vacuums of the narrow tables by this gateway.");
    recorder.describe_gauge(
        KeyName::from_const_str(DEAD_ROWS),
        None,
        text("Dead rows of the narrow tables, as Postgres' statistics have it."),
    );
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
