//! Publishes with an idempotency key, many in one transaction: what is known of
//! their keys, the messages of those that are new, and the answers to these commit
//! together. One that is refused does not keep the others from it.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Batcher;
use super::after::After;
use super::requests::ONCE;
use crate::store::{
    Arrived, End, Error, Kept, Once, Publish, PublishTopic, Published, Refusal, Seen, Store,
    TopicPublished, TopicRefusal, Transaction,
};

/// A publish that is to have its effect once.
#[derive(Debug)]
pub struct PublishOnce {
    /// Its key, and what it asks for.
    pub once: Once,
    /// What it publishes.
    pub to: To,
}

/// Messages, where to, and how to write the answer that is kept.
#[derive(Debug)]
pub enum To {
    /// To a queue.
    Queue(Publish, fn(&Publish, &[Published]) -> Kept),
    /// To a topic.
    Topic(PublishTopic, fn(&[TopicPublished]) -> Kept),
}

/// One request's result.
pub type PublishOnceResult = Result<PublishedOnce, NotPublished>;

/// What was stored.
#[derive(Debug)]
pub struct PublishedOnce {
    /// The messages.
    pub ids: Vec<i64>,
    /// The answer, which is kept.
    pub kept: Kept,
}

/// Why nothing was stored.
#[derive(Debug)]
pub enum NotPublished {
    /// The key was seen before.
    Seen(Seen),
    /// The queue refused.
    Queue(Refusal),
    /// The topic refused.
    Topic(TopicRefusal),
}

/// What a transaction did.
#[derive(Debug, Default)]
struct Done {
    results: Vec<Option<PublishOnceResult>>,
    arrived: Arrived,
}

/// Starts them.
pub(super) fn start(
    store: &Store,
    after: &After,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<PublishOnce, PublishOnceResult> {
    let (store, after) = (store.clone(), after.clone());
    Batcher::start(tracker, stop, ONCE, move |items| {
        let (store, after) = (store.clone(), after.clone());
        async move { publish(&store, &after, items).await }
    })
}

/// Publishes all that are new in one transaction.
async fn publish(
    store: &Store,
    after: &After,
    items: Arc<Vec<PublishOnce>>,
) -> Result<Vec<PublishOnceResult>, Error> {
    let began = Instant::now();
    let done = store
        .transaction(move |transaction| {
            let items = Arc::clone(&items);
            Box::pin(async move { Ok(End::Commit(run(transaction, &items).await?)) })
        })
        .await?;
    store
        .metrics()
        .publish_once
        .record(done.results.len(), began);
    after.arrived(store, done.arrived).await;
    let missing = || Err(NotPublished::Seen(Seen::Running));
    let results = done.results.into_iter();
    Ok(results.map(|r| r.unwrap_or_else(missing)).collect())
}

async fn run(transaction: &mut Transaction, items: &[PublishOnce]) -> Result<Done, Error> {
    let keys: Vec<Once> = items.iter().map(|item| item.once).collect();
    let mut done = Done::default();
    let (mut queues, mut topics) = (Vec::new(), Vec::new());
    let (mut to_queues, mut to_topics) = (Vec::new(), Vec::new());
    for (at, (seen, item)) in transaction
        .take(&keys)
        .await?
        .into_iter()
        .zip(items)
        .enumerate()
    {
        match (&item.to, seen) {
            (To::Queue(publish, answer), Seen::New) => {
                queues.push((at, *answer));
                to_queues.push(publish.clone());
            }
            (To::Topic(publish, answer), Seen::New) => {
                topics.push((at, *answer));
                to_topics.push(publish.clone());
            }
            (_, seen) => {
                done.results.push(Some(Err(NotPublished::Seen(seen))));
                continue;
            }
        }
        done.results.push(None);
    }
    if !to_queues.is_empty() {
        let (results, bounds) = transaction.publish(&to_queues).await?;
        done.arrived.bounds.push(bounds);
        for (((at, answer), publish), result) in queues.into_iter().zip(&to_queues).zip(results) {
            done.results[at] = Some(match result {
                Ok(published) => {
                    let ids = published.iter().map(|m| m.id).collect();
                    let kept = answer(publish, &published);
                    done.arrived.queues.push((publish.clone(), published));
                    Ok(PublishedOnce { ids, kept })
                }
                Err(refusal) => Err(NotPublished::Queue(refusal)),
            });
        }
    }
    if !to_topics.is_empty() {
        let (fed, bounds) = transaction.publish_topic(&to_topics).await?;
        done.arrived.fed = fed.fed;
        done.arrived.turns = fed.turns;
        done.arrived.bounds.push(bounds);
        for ((at, answer), result) in topics.into_iter().zip(fed.results) {
            done.results[at] = Some(match result {
                Ok(published) => Ok(PublishedOnce {
                    ids: published.iter().map(|m| m.id).collect(),
                    kept: answer(&published),
                }),
                Err(refusal) => Err(NotPublished::Topic(refusal)),
            });
        }
    }
    let answers: Vec<(Once, &Kept)> = items
        .iter()
        .zip(&done.results)
        .filter_map(|(item, result)| match result {
            Some(Ok(published)) => Some((item.once, &published.kept)),
            _ => None,
        })
        .collect();
    transaction.keep(&answers).await?;
    Ok(done)
}
