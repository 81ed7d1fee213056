//! What keeps the tables small and the counts right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::every;
use crate::batch::Broker;
use crate::domain::Seconds;
use crate::store::{DeadFilter, Error, Redrive, Violations};

/// Dead rows of the narrow tables that are worth a vacuum: a few megabytes.
const DEAD_ROWS: i64 = 50_000;

/// A vacuum in vain is followed by so many times its own time without one: it takes
/// at most a fiftieth of a core.
const IN_VAIN: u32 = 50;

/// But not by more than this: what it could not free may be free by then.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// How often the watermarks are looked at whether they should rise; that costs
/// no statement.
const RAISE: Duration = Duration::from_millis(100);

/// How often days that are over are looked for.
const DAYS: Duration = Duration::from_mins(10);

/// Dead letters put back by one round of the retry.
const RETRIES: i64 = 1000;

pub(super) fn start(
    broker: &Arc<Broker>,
    push_attempt_days: i64,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    let run_each = |period, name, work: fn(Arc<Broker>) -> BoxedWork| {
        let broker = Arc::clone(broker);
        tracker.spawn(every(period, name, stop.clone(), move || {
            work(Arc::clone(&broker))
        }));
    };
    let run = |seconds, name, work| run_each(Duration::from_secs(seconds), name, work);
    run(2, "expire", |broker| Box::pin(expire(broker)));
    run(3, "fold", |broker| Box::pin(fold(broker)));
    run(5, "retry", |broker| Box::pin(retry(broker)));
    run(5, "rotate", |broker| Box::pin(make_partitions(broker)));
    run(10, "drop", |broker| Box::pin(drop_partitions(broker)));
    let dropping = Arc::clone(broker);
    tracker.spawn(every(DAYS, "drop-days", stop.clone(), move || {
        let broker = Arc::clone(&dropping);
        async move { broker.store().drop_days(push_attempt_days).await }
    }));
    run(30, "prune", |broker| Box::pin(prune(broker)));
    run_each(RAISE, "raise", |broker| Box::pin(raise(broker)));
    run(60, "sweep", |broker| Box::pin(sweep(broker)));
    let (vacuuming, resting) = (Arc::clone(broker), Arc::<Resting>::default());
    let every_three = Duration::from_secs(3);
    tracker.spawn(every(every_three, "vacuum", stop.clone(), move || {
        vacuum(Arc::clone(&vacuuming), Arc::clone(&resting))
    }));
}

type BoxedWork = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// What rides on it runs only where keys have lines: looking for turns that a
/// gateway which was killed has not passed on.
async fn expire(broker: Arc<Broker>) -> Result<(), Error> {
    let (mut expired, with_lines) = broker.store().expire().await?;
    if !with_lines.is_empty() {
        expired.extend(broker.store().expire_lined_up(&with_lines).await?);
        broker.sweep_all().await?;
    }
    for queue_id in expired {
        broker.due().note(queue_id, Duration::ZERO);
    }
    Ok(())
}

async fn fold(broker: Arc<Broker>) -> Result<(), Error> {
    while broker.store().fold().await? {}
    Ok(())
}

async fn retry(broker: Arc<Broker>) -> Result<(), Error> {
    let mut by_queue: HashMap<i64, Vec<i64>> = HashMap::new();
    for (queue_id, message_id) in broker.store().retry_candidates(RETRIES).await? {
        by_queue.entry(queue_id).or_default().push(message_id);
    }
    for (queue_id, ids) in by_queue {
        let redrive = Redrive {
            to_queue_id: queue_id,
            ids: Some(ids),
            filter: DeadFilter::default(),
            limit: RETRIES,
            apart: Seconds::ZERO,
            first_in: Seconds::ZERO,
            scheduled: true,
        };
        let redriven = broker.store().redrive(queue_id, &redrive).await?;
        if !redriven.is_empty() {
            tracing::info!(queue_id, messages = redriven.len(), "dead letters retried");
            broker.redriven(queue_id, &redriven).await;
        }
    }
    Ok(())
}

async fn make_partitions(broker: Arc<Broker>) -> Result<(), Error> {
    if broker.store().partitions_run_short().await? {
        broker.store().make_partitions().await?;
    }
    Ok(())
}

async fn drop_partitions(broker: Arc<Broker>) -> Result<(), Error> {
    let partitions = broker.store().drop_partitions().await?;
    if partitions > 0 {
        tracing::debug!(partitions, "dropped what was settled");
    }
    Ok(())
}

async fn prune(broker: Arc<Broker>) -> Result<(), Error> {
    while broker.store().prune().await? {}
    Ok(())
}

async fn raise(broker: Arc<Broker>) -> Result<(), Error> {
    if broker.store().watermarks().want_raising() {
        broker.store().raise_watermarks().await?;
    }
    Ok(())
}

async fn sweep(broker: Arc<Broker>) -> Result<(), Error> {
    let Violations { ready, parked } = broker.store().watermark_violations().await?;
    let metrics = &broker.store().metrics().watermark_violations;
    metrics.ready.increment(u64::try_from(ready).unwrap_or(0));
    metrics.parked.increment(u64::try_from(parked).unwrap_or(0));
    if ready > 0 || parked > 0 {
        tracing::error!(
            ready,
            parked,
            "messages lie below a watermark: please report this"
        );
    }
    Ok(())
}

/// Until when dead rows are left alone, since the last vacuum could not free them.
type Resting = Mutex<Option<Instant>>;

async fn vacuum(broker: Arc<Broker>, resting: Arc<Resting>) -> Result<(), Error> {
    let store = broker.store();
    let found = store.hot_dead_rows().await?;
    let rests = is_ahead(&resting);
    // Asked last: what was asked is forgotten.
    if store.was_full() || (found > DEAD_ROWS && !rests) {
        let began = Instant::now();
        if store.vacuum_hot_tables().await? {
            let took = began.elapsed();
            let rest = rest_after(found, store.hot_dead_rows().await?, took);
            *lock(&resting) = rest.map(|rest| Instant::now() + rest);
        }
    }
    Ok(())
}

fn lock(resting: &Resting) -> MutexGuard<'_, Option<Instant>> {
    resting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_ahead(resting: &Resting) -> bool {
    lock(resting).is_some_and(|until| until > Instant::now())
}

/// How long to wait after a vacuum that found so many dead rows and left so many. What
/// it could not free somebody's snapshot holds, and each one walks over all of that:
/// under a snapshot that had been held for a minute at full speed each took 0.4 s.
fn rest_after(found: i64, left: i64, took: Duration) -> Option<Duration> {
    (left > found / 2).then(|| (took * IN_VAIN).min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vacuum_could_not_free_is_left_alone_for_a_while() {
        let took = Duration::from_millis(400);
        assert_eq!(rest_after(1_000_000, 990_000, took), Some(took * 50));
        // It freed what there was; some is dead since.
        assert_eq!(rest_after(1_000_000, 20_000, took), None);
        let took = Duration::from_secs(20);
        assert_eq!(
            rest_after(1_000_000, 990_000, took),
            Some(Duration::from_mins(1))
        );
    }
}
