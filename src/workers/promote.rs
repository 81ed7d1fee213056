//! Makes ready what has waited long enough, and ends leases that have run out.
//!
//! It sleeps until the next time that something is due: what this gateway parks
//! it is told at once ([`DueSchedule`](crate::batch::DueSchedule)), what other
//! gateways parked, or this one before it was restarted, it finds by asking the
//! database every [`POLL`] for what is due within [`HORIZON`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Health, every, within_deadline};
use crate::batch::{Broker, Settling};
use crate::store::{Ended, Error};

const POLL: Duration = Duration::from_secs(2);

/// Between two rounds in the same queue; each moves up to a thousand messages.
const PAUSE: Duration = Duration::from_millis(5);

/// Longer than [`POLL`], so that a poll sees everything before it is due.
const HORIZON: Duration = Duration::from_secs(5);

pub(super) fn start(broker: &Arc<Broker>, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(promote(Arc::clone(broker), stop.clone()));
    let broker = Arc::clone(broker);
    tracker.spawn(every(POLL, "poll-due", stop.clone(), move || {
        poll(Arc::clone(&broker))
    }));
}

async fn promote(broker: Arc<Broker>, stop: CancellationToken) {
    let mut health = Health::new("promote");
    loop {
        let queue_ids = tokio::select! {
            queue_ids = broker.due().due() => queue_ids,
            () = stop.cancelled() => return,
        };
        if health
            .note(within_deadline(round(&broker, &queue_ids)).await)
            .is_none()
        {
            // Not lost: due again, but not in a tight loop.
            for queue_id in queue_ids {
                broker.due().note(queue_id, Duration::from_millis(500));
            }
        }
    }
}

/// Deals with what is due in these queues, and notes what is due there next.
async fn round(broker: &Broker, queue_ids: &[i64]) -> Result<(), Error> {
    let store = broker.store();
    let due = store.due(queue_ids).await?;
    broker.ready(due.woken.iter().copied());
    settle(broker, due.ended).await?;
    for (queue_id, due_in) in store.soonest(queue_ids, HORIZON).await? {
        // What is still due was locked just now, or belongs to a queue that is
        // gone: it must not keep this loop spinning.
        broker.due().note(queue_id, due_in.max(PAUSE));
    }
    Ok(())
}

async fn settle(broker: &Broker, ended: Vec<Ended>) -> Result<(), Error> {
    let mut by_queue: HashMap<i64, Vec<Settling>> = HashMap::new();
    for Ended { lease, failure } in ended {
        by_queue.entry(lease.queue_id).or_default().push(Settling {
            lease,
            failure,
            error: None,
        });
    }
    for (queue_id, items) in by_queue {
        // A queue that is gone has nothing to decide; prune removes its rows.
        if let Some(queue) = broker.store().queue_by_id(queue_id).await? {
            broker.settle(&queue, items).await?;
        }
    }
    Ok(())
}

async fn poll(broker: Arc<Broker>) -> Result<(), Error> {
    for (queue_id, due_in) in broker.store().next_due(HORIZON).await? {
        broker.due().note(queue_id, due_in);
    }
    Ok(())
}
