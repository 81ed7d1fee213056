//! What the batchers of publishes do besides storing: turns of keys, and dead letters
//! for want of room, are told.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::requests::{PUBLISHES, TO_TOPICS};
use super::turns::{Told, Turns};
use super::{Batcher, Events};
use crate::domain::{DeadReason, Event};
use crate::store::{
    Fed, Overflowed, Publish, PublishResult, PublishTopic, PublishTopicResult, Store, TopicsFed,
};

/// Publishes to queues with lines.
pub(super) fn lined(
    store: &Store,
    turns: &Arc<Turns>,
    events: &Arc<Events>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<Publish, PublishResult> {
    let (store, turns, events) = (store.clone(), Arc::clone(turns), Arc::clone(events));
    Batcher::start(tracker, stop, PUBLISHES, move |items: Arc<Vec<_>>| {
        let (store, turns, events) = (store.clone(), Arc::clone(&turns), Arc::clone(&events));
        async move {
            let (results, overflowed) = store.publish(&items).await?;
            tell_of(&overflowed, &events);
            let dropped = overflowed.iter().flat_map(Overflowed::turns);
            turns.pass(dropped.collect()).await;
            Ok(results)
        }
    })
}

/// Publishes to topics, which wake the receivers of all queues that they feed.
pub(super) fn to_topics(
    store: &Store,
    turns: &Arc<Turns>,
    told: &Told,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Batcher<PublishTopic, PublishTopicResult> {
    let (store, turns, told) = (store.clone(), Arc::clone(turns), told.clone());
    Batcher::start(tracker, stop, TO_TOPICS, move |items: Arc<Vec<_>>| {
        let (store, turns, told) = (store.clone(), Arc::clone(&turns), told.clone());
        async move {
            let TopicsFed {
                results,
                fed,
                overflowed,
                turns: longer,
            } = store.publish_topic(&items).await?;
            turns.pass(longer).await;
            tell_of(&overflowed, &told.events);
            // Once for all requests, which may have queues in common.
            for Fed {
                queue_id,
                any_ready,
                wakes_in_ms,
            } in fed
            {
                if let Some(ms) = wakes_in_ms.and_then(|ms| u64::try_from(ms).ok()) {
                    told.due.note(queue_id, Duration::from_millis(ms));
                }
                if any_ready {
                    told.receivers.ready(queue_id);
                }
            }
            Ok(results)
        }
    })
}

/// Dead letters for want of room.
pub(super) fn tell_of(overflowed: &[Overflowed], events: &Events) {
    for queue in overflowed.iter().filter(|queue| !queue.dead.is_empty()) {
        let reason = DeadReason::Overflow.as_str();
        events.add(queue.queue_id, Event::dead_lettered(reason, &queue.dead));
    }
}
