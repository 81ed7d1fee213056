//! What runs besides requests, in every gateway. The work is shared through the
//! database (row locks, tokens, advisory locks), so that any number of gateways
//! may run the same worker and each thing is done once; every iteration is safe
//! to repeat or to die in.
//!
//! | worker | does | when |
//! | --- | --- | --- |
//! | [`promote`] | delays over, leases run out | at their time |
//! | [`upkeep`] expire | time to live over, in ready | every 2 s |
//! | [`upkeep`] fold | counts | every 3 s |
//! | [`upkeep`] retry | scheduled retry of dead letters | every 5 s |
//! | [`upkeep`] rotate | partitions made and dropped | every 5 s, every 10 s; days and replies every 10 min |
//! | [`upkeep`] prune | leftovers removed | every 30 s |
//! | [`upkeep`] raise | watermarks | every 2 s, every 0.1 s while much is claimed |
//! | [`upkeep`] sweep | proof of the watermarks | every minute |
//! | [`upkeep`] vacuum | the narrow tables | every 3 s if they need it |
//! | watch | replaces connections that have gone silent | every second, in memory |
//! | [`events`] | publishes to `system.events`; looks for backlogs and held snapshots | once a second if there is something, every 10 s |
//! | [`push`] | leases, sends and settles for webhooks | as messages come; lanes renewed every 2 s |
//! | [`door`] | publishes what came through the SQL door | when told of it, at the latest with the next heartbeat |
//! | [`schedules`] | publishes what schedules have due | at their time |
//! | [`peers`] | tells and hears other gateways; the fallback polls | as it happens, every 2 s |

mod door;
mod events;
mod peers;
mod promote;
mod push;
mod schedules;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use push::Outbound;

use crate::batch::Broker;
use crate::store;

/// What the workers of one gateway go by.
#[derive(Debug)]
pub struct Options {
    /// This gateway's number among the gateways of the database.
    pub gateway_id: i64,
    /// Messages in a queue without `max_ready` that are too many.
    pub backlog_high: i64,
    /// The age of a snapshot, in seconds, that is too old.
    pub snapshot_age_warning: u32,
    /// Days that attempts of pushes are kept.
    pub push_attempt_days: i64,
    /// What pushing takes; `None`: this gateway does not push.
    pub outbound: Option<Outbound>,
    /// Pushes on their way, which end by themselves once `stop` is cancelled.
    pub pushes: TaskTracker,
}

/// Starts all workers. They end when `stop` is cancelled, after the iteration
/// they are in.
pub fn start(
    broker: &Arc<Broker>,
    options: Options,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    let Options {
        gateway_id,
        backlog_high,
        snapshot_age_warning,
        push_attempt_days,
        outbound,
        pushes,
    } = options;
    if let Some(outbound) = outbound {
        push::start(broker, outbound, gateway_id, tracker, &pushes, stop);
    }
    events::start(broker, backlog_high, snapshot_age_warning, tracker, stop);
    door::start(broker, tracker, stop);
    schedules::start(broker, tracker, stop);
    promote::start(broker, tracker, stop);
    peers::start(broker, gateway_id, tracker, stop);
    upkeep::start(broker, push_attempt_days, tracker, stop);
    let watched = broker.store().clone();
    tracker.spawn(every(WATCH, "watch", stop.clone(), move || {
        let store = watched.clone();
        async move {
            store.watch().await;
            Ok(())
        }
    }));
}

/// How often statements are looked for that no answer will come to.
const WATCH: Duration = Duration::from_secs(1);

/// The longest that an iteration may take. Statements end by themselves after
/// 30 s, and the watchdog ends those that no answer will come to; this is for
/// connections of a worker's own.
const DEADLINE: Duration = Duration::from_mins(2);

/// Runs `work` every `period` until told to stop. A failure is logged once and
/// tried again.
async fn every<F, R>(period: Duration, name: &'static str, stop: CancellationToken, mut work: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), store::Error>>,
{
    let mut health = Health::new(name);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        health.note(within_deadline(work()).await);
    }
}

async fn within_deadline<T>(
    work: impl Future<Output = Result<T, store::Error>>,
) -> Option<Result<T, store::Error>> {
    tokio::time::timeout(DEADLINE, work).await.ok()
}

/// Logs when a worker begins to fail and when it works again, not every time.
struct Health {
    name: &'static str,
    failing: bool,
}

impl Health {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            failing: false,
        }
    }

    /// Notes how an iteration went; `None` is the deadline. Whether it went
    /// well.
    fn note<T>(&mut self, result: Option<Result<T, store::Error>>) -> Option<T> {
        let (worker, was_failing) = (self.name, self.failing);
        self.failing = !matches!(result, Some(Ok(_)));
        match result {
            Some(Ok(value)) => {
                if was_failing {
                    tracing::info!(worker, "works again");
                }
                return Some(value);
            }
            Some(Err(error)) if !was_failing => {
                tracing::warn!(worker, %error, "failed, will be tried again");
            }
            None if !was_failing => tracing::warn!(worker, "took too long, will be tried again"),
            Some(Err(error)) => tracing::debug!(worker, %error, "failed again"),
            None => tracing::debug!(worker, "took too long again"),
        }
        None
    }
}
