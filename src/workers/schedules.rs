//! Publishes what schedules have due ([`crate::store`], `schedules`), at their
//! time. This gateway's changes are noted at once, those of others are found with
//! the next heartbeat; a gateway without schedules runs no statement for them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Health, within_deadline};
use crate::batch::Broker;
use crate::domain::Event;
use crate::store::Fired;

/// The least between two looks: what is still due is another gateway's just now,
/// or comes every second.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait after a failure.
const FAILED: Duration = Duration::from_millis(500);

pub(super) fn start(broker: &Arc<Broker>, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(keep(Arc::clone(broker), stop.clone()));
}

async fn keep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut health = Health::new("schedules");
    loop {
        tokio::select! {
            () = broker.schedules().rings() => {}
            () = stop.cancelled() => return,
        }
        let fired = within_deadline(broker.store().fire_schedules()).await;
        match health.note(fired) {
            Some(fired) => told(&broker, fired).await,
            None => broker.schedules().note(FAILED),
        }
    }
}

/// Wakes whoever waits for the messages, tells of ticks without one, and notes
/// when the next is due.
async fn told(broker: &Broker, fired: Fired) {
    broker.arrived(fired.arrived).await;
    for failure in fired.failed {
        let (schedule, code, detail) = (&failure.schedule, failure.code, &failure.detail);
        tracing::warn!(%schedule, code, detail, "a tick of a schedule has no message");
        broker.events().add(
            None,
            Event::ScheduleFailed {
                schedule: failure.schedule,
                reason: failure.code,
                detail: failure.detail,
            },
        );
    }
    if let Some(next_in) = fired.next_in {
        broker.schedules().note(next_in.max(PAUSE));
    }
}
