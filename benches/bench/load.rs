//! Closed loops: so many clients, each with its next request as soon as the
//! last is answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::machine::{Cpu, Processes};

/// What the clients of a line count into.
pub(crate) struct Meter {
    started: Instant,
    warm_up: Duration,
    end: Duration,
    counted: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
}

/// What a line brought.
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu: Cpu,
}

impl Meter {
    fn new(warm_up: Duration, measured: Duration) -> Self {
        Self {
            started: Instant::now(),
            warm_up,
            end: warm_up + measured,
            counted: Cell::new(0),
            // Microseconds up to a minute, to 1 %.
            latency: RefCell::new(
                Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order"),
            ),
        }
    }

    /// Whether the clients should go on.
    pub(crate) fn runs(&self) -> bool {
        self.started.elapsed() < self.end
    }

    /// How long the clients should still go on.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_sub(self.started.elapsed())
    }

    /// `messages` came, nobody knows how long they took.
    pub(crate) fn tally(&self, messages: u64) {
        let now = self.started.elapsed();
        if (self.warm_up..=self.end).contains(&now) {
            self.counted.set(self.counted.get() + messages);
        }
    }

    /// `messages` were dealt with since `began`.
    pub(crate) fn count(&self, messages: u64, began: Instant) {
        let now = self.started.elapsed();
        if (self.warm_up..=self.end).contains(&now) {
            self.counted.set(self.counted.get() + messages);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latency.borrow_mut().saturating_record(micros);
        }
    }
}

/// Runs clients, `clients` of them, for the warm-up and the measured time.
///
/// # Errors
/// The first error of any client: nothing may fail in a measurement.
pub(crate) async fn run<C>(
    processes: &Processes,
    clients: usize,
    warm_up: Duration,
    measured: Duration,
    client: impl Fn(usize, Rc<Meter>) -> C,
) -> anyhow::Result<Rate>
where
    C: Future<Output = anyhow::Result<()>> + 'static,
{
    let meter = Rc::new(Meter::new(warm_up, measured));
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..clients)
        .map(|number| local.spawn_local(client(number, Rc::clone(&meter))))
        .collect();
    let cpu = local
        .run_until(async {
            tokio::time::sleep(warm_up).await;
            let before = processes.cpu();
            tokio::time::sleep(measured).await;
            processes.cpu().since(&before, measured)
        })
        .await;
    local
        .run_until(async {
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    let latency = meter.latency.borrow();
    let at = |quantile| Duration::from_micros(latency.value_at_quantile(quantile));
    Ok(Rate {
        per_second: as_f64(meter.counted.get()) / measured.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu,
    })
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}
