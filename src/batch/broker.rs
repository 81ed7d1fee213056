//! Everything a client can do with messages, batched.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::after::{self, After};
use super::once::{self, PublishOnce, PublishOnceResult};
use super::one_by_one::OneByOne;
use super::receivers::{Received, Receivers};
use super::requests::{ACKS, Acks, EXTENDS, Extends, PUSH_RECORDS, SETTLES, Settles};
use super::transact::{self, Transact, TransactResult};
use super::turns::{Told, Turns};
use super::{Alarm, Batcher, DueSchedule, Events, Hints, Replies, Wait, Weigh};
use crate::domain::{Disposition, Failure, Lease, Seconds, decide};
use crate::store::{
    Error, Fate, Publish, PublishResult, PublishTopic, PublishTopicResult, PushRecord, Queue,
    Receiver, Settle, Settled, Store,
};

/// The hot paths of one gateway.
#[derive(Debug)]
pub struct Broker {
    pub(super) store: Store,
    publishes: Batcher<Publish, PublishResult>,
    /// Those that may have to wait for the lock of a key: the others do not wait
    /// with them.
    lined_publishes: Batcher<Publish, PublishResult>,
    topic_publishes: Batcher<PublishTopic, PublishTopicResult>,
    once: Batcher<PublishOnce, PublishOnceResult>,
    transactions: Batcher<Transact, TransactResult>,
    acks: Batcher<Acks, Vec<Settled>>,
    /// Those of ordered queues.
    pub(super) ordered_acks: Batcher<Acks, Vec<Settled>>,
    settles: Batcher<Settles, Vec<Settled>>,
    extends: Batcher<Extends, Vec<Result<DateTime<Utc>, Fate>>>,
    replies: Replies,
    pub(super) receivers: Arc<Receivers>,
    pub(super) due: Arc<DueSchedule>,
    hints: Arc<Hints>,
    events: Arc<Events>,
    pushes: Batcher<PushRecord, ()>,
    pub(super) turns: Arc<Turns>,
    pub(super) after: After,
    webhooks_changed: Notify,
    pub(super) door: Notify,
    pub(super) schedules: Alarm,
}

/// A lease to end otherwise than by an ack, and why.
#[derive(Debug, Clone)]
pub struct Settling {
    /// Which.
    pub lease: Lease,
    /// Why.
    pub failure: Failure,
    /// What its consumer said.
    pub error: Option<String>,
}

impl Broker {
    /// Starts the writers.
    #[must_use]
    pub fn start(store: &Store, tracker: &TaskTracker, stop: &CancellationToken) -> Self {
        let due = Arc::<DueSchedule>::default();
        let hints = Arc::<Hints>::default();
        let events = Arc::<Events>::default();
        let others = Arc::new(OneByOne::on_this_machine());
        let receivers = Arc::new(Receivers::new(
            store.clone(),
            tracker.clone(),
            Arc::clone(&due),
            Arc::clone(&hints),
            Arc::clone(&others),
        ));
        let told = Told {
            receivers: Arc::clone(&receivers),
            due: Arc::clone(&due),
            events: Arc::clone(&events),
        };
        let turns = Arc::new(Turns::start(store, told.clone(), tracker, stop));
        let after = After::new(told, Arc::clone(&turns));
        let settle_store = store.clone();
        let extend_store = store.clone();
        let push_store = store.clone();
        let broker = Self {
            store: store.clone(),
            publishes: after::publishes(false, Some(&others), store, &after, tracker, stop),
            lined_publishes: after::publishes(true, None, store, &after, tracker, stop),
            topic_publishes: after::topic_publishes(store, &after, tracker, stop),
            once: once::start(store, &after, tracker, stop),
            transactions: transact::start(store, &after, tracker, stop),
            acks: acks(store, false, Some(&others), tracker, stop),
            ordered_acks: acks(store, true, None, tracker, stop),
            settles: Batcher::start(tracker, stop, SETTLES, move |items: Arc<Vec<Settles>>| {
                let store = settle_store.clone();
                async move {
                    let all: Vec<Settle> = items.iter().flat_map(|some| some.0.clone()).collect();
                    let results = store.settle(&all).await?;
                    Ok(split(results, items.iter().map(Settles::rows)))
                }
            }),
            extends: Batcher::start(tracker, stop, EXTENDS, move |items: Arc<Vec<Extends>>| {
                let store = extend_store.clone();
                async move {
                    let all: Vec<_> = items.iter().flat_map(|some| some.0.clone()).collect();
                    let results = store.extend(&all).await?;
                    Ok(split(results, items.iter().map(Extends::rows)))
                }
            }),
            replies: Replies::start(store, &hints, tracker, stop),
            receivers,
            due,
            hints,
            events,
            pushes: Batcher::start(
                tracker,
                stop,
                PUSH_RECORDS,
                move |items: Arc<Vec<PushRecord>>| {
                    let store = push_store.clone();
                    async move {
                        store.record_pushes(&items).await?;
                        Ok(vec![(); items.len()])
                    }
                },
            ),
            turns,
            after,
            webhooks_changed: Notify::new(),
            door: Notify::new(),
            schedules: Alarm::default(),
        };
        broker.count_waits();
        broker
    }

    fn count_waits(&self) {
        let metrics = self.store.metrics();
        self.publishes.count_waits(&metrics.publish.wait);
        self.lined_publishes.count_waits(&metrics.publish.wait);
        self.topic_publishes
            .count_waits(&metrics.publish_topic.wait);
        self.once.count_waits(&metrics.publish_once.wait);
        self.transactions.count_waits(&metrics.transact.wait);
        self.acks.count_waits(&metrics.ack.wait);
        self.ordered_acks.count_waits(&metrics.ack.wait);
        self.settles.count_waits(&metrics.settle.wait);
        self.extends.count_waits(&metrics.extend.wait);
        self.pushes.count_waits(&metrics.record_push.wait);
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// When what is parked is due next.
    #[must_use]
    pub fn due(&self) -> &DueSchedule {
        &self.due
    }

    /// What the other gateways should hear.
    #[must_use]
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// Replies to requests, and those who wait for them.
    #[must_use]
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// What is to be told through `system.events`.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Somebody changed a webhook through this gateway.
    #[must_use]
    pub fn webhooks_changed(&self) -> &Notify {
        &self.webhooks_changed
    }

    /// Stores what a push came to.
    ///
    /// # Errors
    /// Any; it may then be missing from the list of attempts.
    pub async fn record_push(&self, record: PushRecord) -> Result<(), Error> {
        self.pushes.call(record).await
    }

    /// Stores messages; when it returns they are committed and flushed.
    ///
    /// # Errors
    /// Any; whether they were stored is then not known, unless
    /// [`Error::Overloaded`].
    pub async fn publish(&self, request: Publish) -> Result<PublishResult, Error> {
        if !request.lines_up() {
            return self.publishes.call(request).await;
        }
        let result = self.lined_publishes.call(request.clone()).await?;
        if let Ok(published) = &result {
            self.after.pass(request.turns(published)).await;
            self.after.wake([(request.queue.id, &published[..])]);
        }
        Ok(result)
    }

    /// Stores messages in every queue that they are routed to; when it returns
    /// they are committed and flushed.
    ///
    /// # Errors
    /// Any; whether they were stored is then not known, unless
    /// [`Error::Overloaded`].
    pub async fn publish_topic(&self, request: PublishTopic) -> Result<PublishTopicResult, Error> {
        self.topic_publishes.call(request).await
    }

    /// Stores the messages of a request with an idempotency key, if it is the first
    /// with it; when it returns they are committed and flushed, and so is the answer.
    ///
    /// # Errors
    /// As [`Self::publish`]; the same request may be sent again.
    pub async fn publish_once(&self, request: PublishOnce) -> Result<PublishOnceResult, Error> {
        self.once.call(request).await
    }

    /// Does steps together, or none of them.
    ///
    /// # Errors
    /// Any; whether they took effect is then not known, unless
    /// [`Error::Overloaded`].
    pub async fn transact(&self, request: Transact) -> Result<TransactResult, Error> {
        self.transactions.call(transact::planned(request)).await
    }

    /// Leases messages to a receiver, waiting for them if it is patient.
    ///
    /// # Errors
    /// Any; nothing was leased, or the lease will run out.
    pub async fn receive(
        &self,
        queue_id: i64,
        wish: Receiver,
        wait: Wait,
    ) -> Result<Received, Error> {
        self.receivers.receive(queue_id, wish, wait).await
    }

    /// Acks leases of a queue. Who does so calls [`Self::freed`] afterwards.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn ack_in(&self, queue: &Queue, leases: Vec<Lease>) -> Result<Vec<Settled>, Error> {
        if queue.settings.ordered {
            self.ordered_acks.call(Acks(leases)).await
        } else {
            self.ack(leases).await
        }
    }

    /// Acks leases. Who does so calls [`Self::freed`] afterwards.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known, and the same ack may be
    /// tried again.
    pub async fn ack(&self, leases: Vec<Lease>) -> Result<Vec<Settled>, Error> {
        self.acks.call(Acks(leases)).await
    }

    /// Ends leases of one queue otherwise than by an ack.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known.
    pub async fn settle(&self, queue: &Queue, items: Vec<Settling>) -> Result<Vec<Settled>, Error> {
        let items: Vec<Settle> = items.into_iter().map(|item| plan(queue, item)).collect();
        let planned: Vec<(i64, Disposition)> = items
            .iter()
            .map(|item| (item.lease.message_id, item.disposition))
            .collect();
        let returned = self.step_back(queue, &items).await?;
        let mut results = self.settles.call(Settles(items)).await?;
        let done = planned.into_iter().zip(&results);
        let done = done.filter(|(_, result)| **result == Settled::Done);
        let turns = self.after.settled(queue, done.map(|(planned, _)| planned));
        returned.answer(&mut results);
        self.after.pass(turns).await;
        Ok(results)
    }

    /// Moves the ends of leases, counted from now.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known.
    pub async fn extend(
        &self,
        items: Vec<(Lease, Seconds)>,
    ) -> Result<Vec<Result<DateTime<Utc>, Fate>>, Error> {
        let ends: Vec<(i64, Seconds)> = items
            .iter()
            .map(|(lease, end)| (lease.queue_id, *end))
            .collect();
        let results = self.extends.call(Extends(items)).await?;
        for ((queue_id, end), result) in ends.into_iter().zip(&results) {
            // It may be sooner than what it was.
            if result.is_ok() {
                self.due.note(queue_id, end.to_duration());
            }
        }
        Ok(results)
    }

    /// Leases of a queue ended otherwise than by a settle: if it bounds them,
    /// there is room for others.
    pub fn freed(&self, queue: &Queue) {
        self.after.freed(queue);
    }

    /// Messages became ready in these queues by another way than publish or
    /// settle.
    pub fn ready(&self, queue_ids: impl IntoIterator<Item = i64>) {
        for queue_id in queue_ids {
            self.receivers.ready(queue_id);
        }
    }

    /// Messages became ready in these queues, says another gateway or a poll.
    pub fn ready_elsewhere(&self, queue_ids: impl IntoIterator<Item = i64>) {
        for queue_id in queue_ids {
            self.receivers.ready_elsewhere(queue_id);
        }
    }

    /// How many receivers wait here in each queue.
    #[must_use]
    pub fn waiting(&self) -> HashMap<i64, usize> {
        self.receivers.waiting()
    }

    /// How many receivers of a queue wait here, while nobody looks for what is ready: the
    /// next publish is handed over to these.
    #[must_use]
    pub fn at_rest(&self, queue_id: i64) -> usize {
        self.receivers.at_rest(queue_id)
    }

    /// Sends those who wait away, for shutdown.
    pub fn close(&self) {
        self.receivers.close();
        self.replies.close();
    }
}

/// Starts the acks; those of ordered queues apart, since the others pay less.
fn acks(
    store: &Store,
    ordered: bool,
    others: Option<&Arc<OneByOne>>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<Acks, Vec<Settled>> {
    let store = store.clone();
    Batcher::start_among(others, tracker, stop, ACKS, move |items: Arc<Vec<Acks>>| {
        let store = store.clone();
        async move {
            let all: Vec<Lease> = items.iter().flat_map(|acks| acks.0.clone()).collect();
            let results = if ordered {
                store.ack_ordered(&all).await?
            } else {
                store.ack(&all).await?
            };
            Ok(split(results, items.iter().map(Acks::rows)))
        }
    })
}

/// What is to be done with a lease, as [`decide`] says.
pub(super) fn plan(queue: &Queue, item: Settling) -> Settle {
    let Settling {
        lease,
        failure,
        error,
    } = item;
    let outcome = match failure {
        Failure::Nacked { .. } => Some("nacked"),
        Failure::Rejected => Some("rejected"),
        Failure::LeaseExpired => Some("lease-expired"),
        Failure::Outlived | Failure::Undelivered | Failure::Deferred { .. } => None,
    };
    Settle {
        lease,
        must_be_due: matches!(failure, Failure::LeaseExpired | Failure::Outlived),
        disposition: decide(failure, lease.attempt, &queue.settings, rand::random()),
        outcome,
        error,
    }
}

/// Cuts a long list into pieces of the given lengths.
fn split<T>(results: Vec<T>, lengths: impl Iterator<Item = usize>) -> Vec<Vec<T>> {
    let mut results = results.into_iter();
    lengths
        .map(|length| results.by_ref().take(length).collect())
        .collect()
}
