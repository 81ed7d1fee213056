//! Atomic steps, each request's in a transaction of its own; a few run at a time,
//! the others wait in line.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::after::After;
use super::once::PublishedOnce;
use super::requests::TRANSACTIONS;
use super::{Batcher, Settling, plan};
use crate::store::{
    Arrived, End, Error, Kept, Once, Queue, Refused, Seen, Steps, Store, Transacted, Transaction,
};

/// Steps to be done together, or not at all.
pub struct Transact {
    /// Acks, claims and publishes; nacks are [`Self::nacks`].
    pub steps: Steps,
    /// Leases to end otherwise than by an ack, and the queues that they are of.
    pub nacks: Vec<(Arc<Queue>, Settling)>,
    /// The queues of the acks.
    pub acked: Vec<Arc<Queue>>,
    /// Its idempotency key, if it has one.
    pub once: Option<Once>,
    /// Writes the answer.
    pub answer: Box<dyn Fn(&Transacted) -> Kept + Send + Sync>,
}

impl std::fmt::Debug for Transact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transact")
            .field("steps", &self.steps)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}

/// One request's result.
pub type TransactResult = Result<PublishedOnce, NotDone>;

/// Why nothing was done.
#[derive(Debug)]
pub enum NotDone {
    /// The key was seen before.
    Seen(Seen),
    /// A step could not be done.
    Refused(Refused),
}

/// With what was decided for each nack.
pub(super) fn planned(mut request: Transact) -> Transact {
    let nacks = request
        .nacks
        .iter()
        .map(|(queue, item)| plan(queue, item.clone()));
    request.steps.nacks = nacks.collect();
    request.steps.ordered = request.acked.iter().any(|queue| queue.settings.ordered)
        || (request.nacks.iter()).any(|(queue, _)| queue.settings.ordered);
    request
}

/// Starts them.
pub(super) fn start(
    store: &Store,
    after: &After,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<Transact, TransactResult> {
    let (store, after) = (store.clone(), after.clone());
    Batcher::start(tracker, stop, TRANSACTIONS, move |items| {
        let (store, after) = (store.clone(), after.clone());
        async move { transact(&store, &after, items).await }
    })
}

/// Does the steps of one request.
async fn transact(
    store: &Store,
    after: &After,
    items: Arc<Vec<Transact>>,
) -> Result<Vec<TransactResult>, Error> {
    let mut results = Vec::with_capacity(items.len());
    // Always one: see the batcher's bounds.
    for at in 0..items.len() {
        results.push(one(store, after, &items, at).await?);
    }
    Ok(results)
}

async fn one(
    store: &Store,
    after: &After,
    items: &Arc<Vec<Transact>>,
    at: usize,
) -> Result<TransactResult, Error> {
    let began = Instant::now();
    let shared = Arc::clone(items);
    let done = store
        .transaction(move |transaction| {
            let items = Arc::clone(&shared);
            Box::pin(async move {
                let result = run(transaction, &items[at]).await?;
                Ok(match result {
                    Ok(done) => End::Commit(Ok(done)),
                    Err(not_done) => End::Rollback(Err(not_done)),
                })
            })
        })
        .await?;
    let request = &items[at];
    let steps = &request.steps;
    let published = steps.to_queues.len() + steps.to_topics.len();
    let parts = steps.acks.len() + steps.nacks.len() + steps.claims.len() + published;
    store.metrics().transact.record(parts, began);
    match done {
        Ok((done, kept)) => {
            let to_queues = done.to_queues.iter().map(|m| m.id);
            let to_topics = done.to_topics.iter().map(|m| m.id);
            let ids = to_queues.chain(to_topics).collect();
            follow(store, after, request, done).await;
            Ok(Ok(PublishedOnce { ids, kept }))
        }
        Err(not_done) => Ok(Err(not_done)),
    }
}

async fn run(
    transaction: &mut Transaction,
    request: &Transact,
) -> Result<Result<(Transacted, Kept), NotDone>, Error> {
    if let Some(once) = request.once {
        match transaction.take(&[once]).await?.pop() {
            Some(Seen::New) => {}
            seen => return Ok(Err(NotDone::Seen(seen.unwrap_or(Seen::Running)))),
        }
    }
    let done = match transaction.transact(&request.steps).await? {
        Ok(done) => done,
        Err(refused) => return Ok(Err(NotDone::Refused(refused))),
    };
    let kept = (request.answer)(&done);
    if let Some(once) = request.once {
        transaction.keep(&[(once, &kept)]).await?;
    }
    Ok(Ok((done, kept)))
}

/// What follows the commit of a transaction.
async fn follow(store: &Store, after: &After, request: &Transact, done: Transacted) {
    let steps = &request.steps;
    let mut turns = done.turns;
    for queue in &request.acked {
        let acks = steps.acks.iter().filter(|lease| lease.queue_id == queue.id);
        turns.extend(queue.turns_of(acks.map(|lease| lease.message_id)));
        after.freed(queue);
    }
    for ((queue, _), nack) in request.nacks.iter().zip(&steps.nacks) {
        let ended = (nack.lease.message_id, nack.disposition);
        turns.extend(after.settled(queue, std::iter::once(ended)));
    }
    let published = done.to_queues.into_iter().map(|message| vec![message]);
    let arrived = Arrived {
        queues: steps.to_queues.iter().cloned().zip(published).collect(),
        fed: done.fed,
        turns,
        bounds: done.bounds,
    };
    after.arrived(store, arrived).await;
}
