//! Publishes what came through the SQL door ([`crate::store`], `door`): as soon as
//! the function's NOTIFY comes with the commit, or else when a heartbeat finds it.
//!
//! All gateways hear of it, and one of them moves what is there; the others look
//! again a little later, should it die over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Health, within_deadline};
use crate::batch::Broker;
use crate::domain::Event;
use crate::store::{DoorLook, DoorMoved, Error};

/// How long to leave the door to the gateway that is in it.
const BUSY: Duration = Duration::from_millis(50);

/// How long to wait after a failure.
const FAILED: Duration = Duration::from_millis(500);

pub(super) fn start(broker: &Arc<Broker>, tracker: &TaskTracker, stop: &CancellationToken) {
    tracker.spawn(keep(Arc::clone(broker), stop.clone()));
}

async fn keep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut health = Health::new("door");
    loop {
        tokio::select! {
            () = broker.door().notified() => {}
            () = stop.cancelled() => return,
        }
        let pause = match health.note(within_deadline(pass(&broker, &stop)).await) {
            Some(true) => continue,
            Some(false) => BUSY,
            None => FAILED,
        };
        broker.door().notify_one();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Moves all that is there; whether it could, or another gateway does.
async fn pass(broker: &Broker, stop: &CancellationToken) -> Result<bool, Error> {
    let mut pass = broker.store().door_pass();
    while !stop.is_cancelled() {
        match broker.store().look_at_door(&mut pass).await? {
            DoorLook::Busy => return Ok(false),
            DoorLook::More(moved) => told(broker, moved).await,
            DoorLook::Empty(moved) => {
                told(broker, moved).await;
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// Wakes whoever waits for the messages, and tells of those that were refused.
async fn told(broker: &Broker, moved: DoorMoved) {
    broker.arrived(moved.arrived).await;
    let mut refused: BTreeMap<_, u64> = BTreeMap::new();
    for of in moved.refused {
        *refused.entry(of).or_default() += 1;
    }
    for ((reason, to), count) in refused {
        tracing::warn!(
            reason,
            to,
            count,
            "messages of the SQL door could not be published: they are in \
             postrider.door_refused, and are tried again"
        );
        broker
            .events()
            .add(None, Event::DoorRefused { reason, to, count });
    }
}
