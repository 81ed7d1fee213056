//! Publishes what the gateway tells of itself to `system.events`, by the same way
//! as every other message.
//!
//! No event causes a storm: they are published once a second, those that say the
//! same as one; and what befalls the queues that events go to is not told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Health, every, within_deadline};
use crate::batch::Broker;
use crate::domain::{Content, EVENTS_TOPIC, Event, Message, QueueName, RoutingKey, Seconds};
use crate::store::{Backlog, Error, PublishTopic, Routed, Topology};

/// Between two publishes: what happens meanwhile is told together.
const GATHER: Duration = Duration::from_secs(1);

/// How often queues are looked at for what waits in them, and the storage for who
/// holds a snapshot.
const LOOK: Duration = Duration::from_secs(10);

/// Events of one publish.
const BATCH: usize = 500;

pub(super) fn start(
    broker: &Arc<Broker>,
    backlog_high: i64,
    snapshot_age: u32,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    tracker.spawn(tell(Arc::clone(broker), stop.clone()));
    let backlogs = Arc::clone(broker);
    tracker.spawn(every(LOOK, "backlogs", stop.clone(), move || {
        look(Arc::clone(&backlogs), backlog_high)
    }));
    let storage = Arc::clone(broker);
    tracker.spawn(every(LOOK, "storage", stop.clone(), move || {
        look_at_storage(Arc::clone(&storage), snapshot_age)
    }));
}

async fn tell(broker: Arc<Broker>, stop: CancellationToken) {
    let mut health = Health::new("events");
    loop {
        let events = tokio::select! {
            events = broker.events().take() => events,
            () = stop.cancelled() => return,
        };
        let published = within_deadline(publish(&broker, &events)).await;
        if health.note(published).is_none() {
            for (queue_id, events) in events {
                for event in events {
                    broker.events().add(queue_id, event);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn publish(broker: &Broker, events: &HashMap<Option<i64>, Vec<Event>>) -> Result<(), Error> {
    let store = broker.store();
    let Ok(topic) = QueueName::parse(EVENTS_TOPIC, "topic") else {
        return Ok(());
    };
    let Some(topology) = store.topology(&topic).await? else {
        return Ok(());
    };
    let nobody_reads = topology.topic.settings.retention == Seconds::ZERO;
    if nobody_reads && topology.subscriptions.is_empty() {
        return Ok(());
    }
    let own: HashSet<i64> = topology.subscriptions.iter().map(|s| s.queue_id).collect();
    let mut messages = Vec::new();
    for (queue_id, events) in events {
        let queue = match queue_id {
            Some(id) if own.contains(id) => continue,
            Some(id) => match store.queue_by_id(*id).await? {
                Some(queue) => Some(queue),
                // A queue that is gone has nothing to tell.
                None => continue,
            },
            None => None,
        };
        let name = queue.as_ref().map(|queue| &queue.name);
        messages.extend(events.iter().filter_map(|e| message(&topology, e, name)));
    }
    for batch in messages.chunks(BATCH) {
        let request = PublishTopic {
            topology: Arc::clone(&topology),
            messages: Arc::new(batch.to_vec()),
        };
        if let Err(refusal) = broker.publish_topic(request).await? {
            tracing::warn!(?refusal, events = batch.len(), "events were not taken");
        }
    }
    Ok(())
}

fn message(topology: &Topology, event: &Event, queue: Option<&QueueName>) -> Option<Routed> {
    let body = event.body(queue).ok()?;
    let mut headers = BTreeMap::from([("event".to_owned(), event.name().to_owned())]);
    if let Some(queue) = queue {
        headers.insert("queue".to_owned(), queue.as_str().to_owned());
    }
    let routing_key = RoutingKey::parse(event.name(), "routing_key").ok()?;
    let content = Content {
        body: body.into(),
        content_type: None,
    };
    Some(topology.routed(Message::new(content, headers), routing_key))
}

async fn look(broker: Arc<Broker>, threshold: i64) -> Result<(), Error> {
    for backlog in broker.store().backlogs(threshold).await? {
        let Backlog {
            queue_id,
            ready,
            threshold,
            high,
        } = backlog;
        let event = if high {
            Event::BacklogHigh { ready, threshold }
        } else {
            Event::BacklogCleared { ready, threshold }
        };
        broker.events().add(queue_id, event);
    }
    Ok(())
}

async fn look_at_storage(broker: Arc<Broker>, threshold_seconds: u32) -> Result<(), Error> {
    let storage = broker.store().storage().await?;
    let news = broker.store().snapshot_news(&storage, threshold_seconds);
    let event = match (news.await?, storage.oldest()) {
        (Some(true), Some(holder)) => {
            let what_to_do = holder.remedy();
            tracing::warn!(
                kind = holder.kind,
                pid = holder.pid,
                application = holder.application,
                name = holder.name,
                age_seconds = holder.age_seconds,
                "a snapshot is held: dead rows pile up. {what_to_do}"
            );
            Event::SnapshotHeld {
                kind: holder.kind.clone(),
                pid: holder.pid,
                application: holder.application.clone(),
                role: holder.role.clone(),
                state: holder.state.clone(),
                name: holder.name.clone(),
                age_seconds: Duration::try_from_secs_f64(storage.oldest_snapshot_seconds())
                    .unwrap_or_default()
                    .as_secs(),
                threshold_seconds,
                what_to_do,
            }
        }
        (Some(false), _) => Event::SnapshotReleased { threshold_seconds },
        _ => return Ok(()),
    };
    broker.events().add(None, event);
    Ok(())
}
