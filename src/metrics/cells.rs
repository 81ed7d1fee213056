//! What counts: a number or two that any task may change without waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::family::{Family, Kind, Scale};

/// Only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Goes up by so much.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Is so much from now on.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Goes up, or down, by so much.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many values were at most so large. Recording one adds to two integers,
/// and a histogram is no larger for what it has seen.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    scale: Scale,
    /// Values up to each bound and above the one before; the last has no bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(family: &Family) -> Self {
        let Kind::Histogram(scale) = family.kind else {
            unreachable!("{} is no histogram", family.name)
        };
        Self(Arc::new(Buckets {
            scale,
            counts: (0..=scale.bounds.len())
                .map(|_| AtomicU64::new(0))
                .collect(),
            sum: AtomicU64::new(0),
        }))
    }

    /// A number.
    pub fn record(&self, value: u64) {
        let bucket = self
            .0
            .scale
            .bounds
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(self.0.scale.bounds.len());
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// A time; histograms of times count nanoseconds.
    pub fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn scale(&self) -> Scale {
        self.0.scale
    }

    /// How many were in each bucket.
    pub(super) fn counts(&self) -> Vec<u64> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.0.counts.iter().map(load).collect()
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::{BATCH_ROWS, BATCH_SECONDS};
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_below_it() {
        let rows = Histogram::new(&BATCH_ROWS);
        for value in [1, 2, 3, 2000, 2001] {
            rows.record(value);
        }
        assert_eq!(rows.counts(), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(rows.sum(), 4007);
    }

    #[test]
    fn times_are_nanoseconds() {
        let times = Histogram::new(&BATCH_SECONDS);
        times.record_time(Duration::from_millis(3));
        assert_eq!(times.sum(), 3_000_000);
    }
}
