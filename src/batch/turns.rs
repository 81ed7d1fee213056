//! Passing turns on in ordered and fair queues, after what ended them has been
//! committed ([`Store::next_turns`]).
//!
//! Whoever ends a turn waits for this before it answers: after the answer to an ack
//! or a publish the next message is there to be received. If it fails nobody is told:
//! what they did is committed, and the sweep passes the turn on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::due::DueSchedule;
use super::events::Events;
use super::receivers::Receivers;
use super::requests::{Passing, TURNS};
use super::{Batcher, Broker};
use crate::domain::{DeadReason, Event, Lease, Seconds};
use crate::store::{
    Delivery, Error, Fate, Promoted, Queue, Redriven, Settle, Settled, Store, SweptTo, Turn,
    Unblocked,
};

/// Joins the turns that are to be passed on at the same moment.
#[derive(Debug)]
pub(super) struct Turns {
    batcher: Batcher<Passing, ()>,
    told: Told,
    tracker: TaskTracker,
}

/// Who hears of messages whose turn has come.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) receivers: Arc<Receivers>,
    pub(super) due: Arc<DueSchedule>,
    pub(super) events: Arc<Events>,
}

impl Turns {
    pub(super) fn start(
        store: &Store,
        told: Told,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (store, telling) = (store.clone(), told.clone());
        let batcher = Batcher::start(tracker, stop, TURNS, move |items: Arc<Vec<Passing>>| {
            let (store, told) = (store.clone(), telling.clone());
            async move {
                let all: Vec<Turn> = items.iter().flat_map(|some| some.0.clone()).collect();
                told.tell(store.next_turns(&all).await?);
                Ok(vec![(); items.len()])
            }
        });
        Self {
            batcher,
            told,
            tracker: tracker.clone(),
        }
    }

    /// Passes turns on, if there are any.
    pub(super) async fn pass(&self, turns: Vec<Turn>) {
        if !turns.is_empty()
            && let Err(error) = Box::pin(self.batcher.call(Passing(turns))).await
        {
            tracing::warn!(%error, "turns are left to the sweep");
        }
    }

    /// Tells what a sweep came to.
    pub(super) fn tell(&self, promoted: Promoted) {
        self.told.tell(promoted);
    }
}

impl Told {
    fn tell(&self, promoted: Promoted) {
        note_parked(&self.due, &promoted);
        let mut dead: HashMap<i64, Vec<i64>> = HashMap::new();
        for (queue_id, message_id) in promoted.dead {
            dead.entry(queue_id).or_default().push(message_id);
        }
        for (queue_id, message_ids) in dead {
            let event = Event::dead_lettered(DeadReason::KeyBlocked.as_str(), &message_ids);
            self.events.add(queue_id, event);
        }
        for queue_id in promoted.ready {
            self.receivers.ready(queue_id);
        }
    }
}

/// Messages whose turn has come but not their time.
pub(super) fn note_parked(due: &DueSchedule, promoted: &Promoted) {
    for (queue_id, wakes_in_ms) in &promoted.parked {
        let wait = Duration::from_millis(u64::try_from(*wakes_in_ms).unwrap_or(0));
        due.note(*queue_id, wait);
    }
}

/// Leases that ended because something was unsettled in front of them: their places
/// among those that are settled, and whether going back to the line was what was
/// wanted.
#[derive(Default)]
pub(super) struct Returned(Vec<(usize, bool)>);

impl Returned {
    /// Puts in what is answered.
    pub(super) fn answer(&self, results: &mut [Settled]) {
        for (place, wanted) in &self.0 {
            if let Some(result) = results.get_mut(*place) {
                *result = if *wanted {
                    Settled::Done
                } else {
                    Settled::Not(Fate::OutOfOrder)
                };
            }
        }
    }
}

impl Broker {
    /// Before leases end otherwise than by an ack: those behind them go back to their
    /// line.
    pub(super) async fn step_back(
        &self,
        queue: &Queue,
        items: &[Settle],
    ) -> Result<Returned, Error> {
        if !queue.settings.ordered {
            return Ok(Returned::default());
        }
        let returned = self.store.step_back(items).await?;
        let places = items
            .iter()
            .enumerate()
            .filter(|(_, item)| returned.contains(&(item.lease.message_id, item.lease.token)));
        Ok(Returned(
            places
                .map(|(place, item)| (place, item.disposition.stays()))
                .collect(),
        ))
    }

    /// Fills up what a receiver of an ordered queue got with what stands behind it in
    /// line. If that fails it has what it has.
    ///
    /// In a task of its own: a receiver that goes away does not stop it half-way. What
    /// it was to get is then leased until the lease's end.
    pub async fn follow(
        &self,
        queue_id: i64,
        deliveries: Vec<Delivery>,
        most: u32,
        lease: Seconds,
    ) -> Vec<Delivery> {
        let keyed = deliveries.iter().filter(|d| d.envelope.key.is_some());
        let heads: Vec<Lease> = keyed.map(|delivery| delivery.lease).collect();
        let room = (most as usize).saturating_sub(deliveries.len());
        if heads.is_empty() || room == 0 {
            return deliveries;
        }
        let store = self.store.clone();
        let following = async move { store.follow(queue_id, &heads, room, lease).await };
        let followers = match self.turns.tracker.spawn(following).await {
            Ok(Ok(followers)) => followers,
            Ok(Err(error)) => {
                tracing::debug!(%error, "nothing follows");
                return deliveries;
            }
            Err(_) => return deliveries,
        };
        self.due.note(queue_id, lease.to_duration());
        let mut behind: HashMap<String, Vec<Delivery>> = HashMap::new();
        for delivery in followers {
            let key = delivery.envelope.key.clone().unwrap_or_default();
            behind.entry(key).or_default().push(delivery);
        }
        let mut all = Vec::with_capacity(most as usize);
        for delivery in deliveries {
            let key = delivery.envelope.key.clone();
            all.push(delivery);
            all.extend(
                key.and_then(|key| behind.remove(&key))
                    .into_iter()
                    .flatten(),
            );
        }
        all
    }

    /// Passes the turns of a queue's keys on, where they may have ended.
    pub async fn pass(&self, turns: Vec<Turn>, queue: &Queue) {
        if queue.has_lines() {
            self.turns.pass(turns).await;
        }
    }

    /// Lets keys of a queue flow again.
    ///
    /// # Errors
    /// Any.
    pub async fn unblock(&self, queue: &Queue, keys: &[String]) -> Result<Vec<Unblocked>, Error> {
        let done = self.store.unblock(queue.id, keys).await?;
        if done.iter().any(|key| key.woken) {
            self.due.note(queue.id, Duration::ZERO);
        }
        let turns = keys.iter().map(|key| Turn::key(queue.id, key));
        self.pass(turns.collect(), queue).await;
        Ok(done)
    }

    /// Passes turns on that nobody has, in one queue.
    ///
    /// # Errors
    /// Any; some may have been passed on.
    pub async fn sweep(&self, queue: &Queue) -> Result<(), Error> {
        if queue.has_lines() {
            self.sweep_from(Some(queue.id)).await?;
        }
        Ok(())
    }

    /// The same in all queues.
    ///
    /// # Errors
    /// Any; some may have been passed on.
    pub async fn sweep_all(&self) -> Result<(), Error> {
        self.sweep_from(None).await
    }

    async fn sweep_from(&self, queue_id: Option<i64>) -> Result<(), Error> {
        let mut from: SweptTo = (queue_id.unwrap_or(0), String::new());
        loop {
            let (promoted, swept_to) = self.store.sweep_turns(&from, queue_id).await?;
            self.turns.tell(promoted);
            match swept_to {
                Some(to) => from = to,
                None => return Ok(()),
            }
        }
    }

    /// Dead letters were put back into a queue.
    pub async fn redriven(&self, queue_id: i64, messages: &[Redriven]) {
        let turns = messages.iter().filter_map(|message| message.turn(queue_id));
        self.turns.pass(turns.collect()).await;
        for message in messages.iter().filter(|message| message.lined_up.is_none()) {
            match u64::try_from(message.delay_ms) {
                Ok(ms) if ms > 0 => self.due.note(queue_id, Duration::from_millis(ms)),
                _ => self.receivers.ready(queue_id),
            }
        }
    }
}
