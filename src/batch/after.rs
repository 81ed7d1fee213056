//! What has to follow a commit at this gateway: turns of keys are passed on, receivers
//! are woken, other gateways are given hints, timers are set, events are told. Nothing
//! is lost if the gateway dies before; others find it a little later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Batcher;
use super::one_by_one::OneByOne;
use super::requests::{PUBLISHES, TO_TOPICS};
use super::turns::{Told, Turns};
use crate::domain::{DeadReason, Disposition, Event, Seconds};
use crate::store::{
    Arrived, Bounds, Fed, Overflowed, Publish, PublishResult, PublishTopic, PublishTopicResult,
    Published, Queue, Store, Turn,
};

/// Whom to tell.
#[derive(Debug, Clone)]
pub(super) struct After {
    told: Told,
    turns: Arc<Turns>,
}

impl After {
    pub(super) fn new(told: Told, turns: Arc<Turns>) -> Self {
        Self { told, turns }
    }

    /// Passes turns of keys on, and waits for it: after the answer the next message is
    /// there to be received.
    pub(super) async fn pass(&self, turns: Vec<Turn>) {
        self.turns.pass(turns).await;
    }

    /// Wakes receivers for messages that were published to queues, at once or at their
    /// time.
    pub(super) fn wake<'a>(&self, published: impl IntoIterator<Item = (i64, &'a [Published])>) {
        // Each queue is looked at once.
        let mut ready = HashSet::new();
        for (queue_id, messages) in published {
            if self.note(queue_id, messages) {
                ready.insert(queue_id);
            }
        }
        for queue_id in ready {
            self.told.receivers.ready(queue_id);
        }
    }

    /// Notes when messages of a queue will be ready; whether any is.
    fn note(&self, queue_id: i64, messages: &[Published]) -> bool {
        let mut any_ready = false;
        let is_here = |m: &&Published| !m.duplicate && !m.lined_up && m.leased_at.is_none();
        for message in messages.iter().filter(is_here) {
            match u64::try_from(message.wakes_in_ms) {
                Ok(ms) if ms > 0 => self.told.due.note(queue_id, Duration::from_millis(ms)),
                _ => any_ready = true,
            }
        }
        any_ready
    }

    /// Messages were published in a transaction.
    pub(super) async fn arrived(&self, store: &Store, arrived: Arrived) {
        let mut turns = arrived.turns;
        let queues = arrived.queues.iter();
        self.wake(queues.map(|(publish, messages)| (publish.queue.id, &messages[..])));
        for (publish, messages) in &arrived.queues {
            turns.extend(turns_of(publish, messages));
        }
        self.fed(&arrived.fed);
        turns.extend(self.drop_overflow(store, arrived.bounds).await);
        self.pass(turns).await;
    }

    /// Messages were published to topics: what that did to each queue.
    pub(super) fn fed(&self, fed: &[Fed]) {
        for Fed {
            queue_id,
            any_ready,
            wakes_in_ms,
        } in fed
        {
            if let Some(ms) = wakes_in_ms.and_then(|ms| u64::try_from(ms).ok()) {
                self.told.due.note(*queue_id, Duration::from_millis(ms));
            }
            if *any_ready {
                self.told.receivers.ready(*queue_id);
            }
        }
    }

    /// Queues that drop their oldest may have to; the turns that may have come.
    pub(super) async fn drop_overflow(&self, store: &Store, bounds: Vec<Bounds>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for bounds in bounds {
            turns.extend(self.overflowed(&store.drop_overflow(bounds).await));
        }
        turns
    }

    /// Messages were dropped for want of room; the turns that may have come.
    fn overflowed(&self, overflowed: &[Overflowed]) -> Vec<Turn> {
        for queue in overflowed.iter().filter(|queue| !queue.dead.is_empty()) {
            let event = Event::dead_lettered(DeadReason::Overflow.as_str(), &queue.dead);
            self.told.events.add(queue.queue_id, event);
        }
        overflowed.iter().flat_map(Overflowed::turns).collect()
    }

    /// Leases of a queue were ended as decided: each message, and what was decided. The
    /// turns that may have come.
    pub(super) fn settled(
        &self,
        queue: &Queue,
        ended: impl Iterator<Item = (i64, Disposition)>,
    ) -> Vec<Turn> {
        // Where leases are bounded, the end of each makes room.
        let mut any_ready = queue.settings.max_in_flight.is_some();
        let mut dead: HashMap<DeadReason, Vec<i64>> = HashMap::new();
        let mut over = Vec::new();
        for (message_id, disposition) in ended {
            match disposition {
                Disposition::Requeue(wait) | Disposition::Postpone(wait)
                    if wait > Seconds::ZERO =>
                {
                    self.told.due.note(queue.id, wait.to_duration());
                }
                Disposition::Requeue(_) | Disposition::Postpone(_) | Disposition::Release => {
                    any_ready = true;
                }
                Disposition::DeadLetter(reason) => {
                    dead.entry(reason).or_default().push(message_id);
                    over.push(message_id);
                }
                Disposition::Drop | Disposition::Expire => over.push(message_id),
            }
        }
        for (reason, ids) in dead {
            let event = Event::dead_lettered(reason.as_str(), &ids);
            self.told.events.add(queue.id, event);
        }
        if any_ready {
            self.told.receivers.ready(queue.id);
        }
        queue.turns_of(over.into_iter())
    }

    /// Leases of a queue were acked: if it bounds them, there is room for others.
    pub(super) fn freed(&self, queue: &Queue) {
        if queue.settings.max_in_flight.is_some() {
            self.told.receivers.ready(queue.id);
        }
    }
}

fn turns_of(publish: &Publish, messages: &[Published]) -> Vec<Turn> {
    if publish.lines_up() {
        publish.turns(messages)
    } else {
        Vec::new()
    }
}

/// Starts publishes. Those that line up, and may have to wait for the lock of a key,
/// are apart: the others do not wait with them, nor for turns that what they push out
/// has had.
pub(super) fn publishes(
    line_up: bool,
    others: Option<&Arc<OneByOne>>,
    store: &Store,
    after: &After,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<Publish, PublishResult> {
    let (store, after, tasks) = (store.clone(), after.clone(), tracker.clone());
    let run = move |items: Arc<Vec<Publish>>| {
        let (store, after, tracker) = (store.clone(), after.clone(), tasks.clone());
        async move {
            if line_up {
                let (results, bounds) = store.publish(&items, &HashMap::new()).await?;
                let turns = after.drop_overflow(&store, vec![bounds]).await;
                after.pass(turns).await;
                return Ok(results);
            }
            let handovers = after.told.receivers.hand_over(&items);
            let span = handovers.span();
            let stored = store.publish(&items, handovers.by_message()).await;
            if let Some(span) = span {
                span.ran(stored.is_err());
            }
            let (results, bounds) = stored?;
            handovers.deliver(&items, &results);
            // Before the next statement of this writer, which must not hand over what
            // is behind these.
            let published = items.iter().zip(&results);
            after.wake(published.filter_map(|(publish, result)| {
                Some((publish.queue.id, &result.as_ref().ok()?[..]))
            }));
            let turns = after.drop_overflow(&store, vec![bounds]).await;
            if !turns.is_empty() {
                tracker.spawn(async move { after.pass(turns).await });
            }
            Ok(results)
        }
    };
    Batcher::start_among(others, tracker, stop, PUBLISHES, run)
}

/// Starts the publishes to topics.
pub(super) fn topic_publishes(
    store: &Store,
    after: &After,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<PublishTopic, PublishTopicResult> {
    let (store, after) = (store.clone(), after.clone());
    Batcher::start(tracker, stop, TO_TOPICS, move |items: Arc<Vec<_>>| {
        let (store, after) = (store.clone(), after.clone());
        async move {
            let done = store.publish_topic(&items).await?;
            let mut turns = done.turns;
            turns.extend(after.overflowed(&done.overflowed));
            after.pass(turns).await;
            // Once for all requests, which may have queues in common.
            after.fed(&done.fed);
            Ok(done.results)
        }
    })
}
