//! Gateways side by side: each tells the others in which queues messages became
//! ready and which requests were answered, over NOTIFY on a connection of its own,
//! never in a publish's transaction (NOTIFY takes a lock of the whole server at
//! commit). What is told is a hint; a poll finds what was missed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Health, every, within_deadline};
use crate::batch::Broker;
use crate::store::{Error, Heard, News};

/// Hints of so much time go out together.
const COALESCE: Duration = Duration::from_millis(5);

/// The longest that a message is missed when a hint is lost.
const POLL: Duration = Duration::from_secs(2);

/// How often a gateway says that it lives; gone after ten seconds of silence.
const HEARTBEAT: Duration = Duration::from_secs(2);

pub(super) fn start(
    broker: &Arc<Broker>,
    gateway_id: i64,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    tracker.spawn(tell(Arc::clone(broker), gateway_id, stop.clone()));
    tracker.spawn(hear(Arc::clone(broker), gateway_id, stop.clone()));
    let beating = Arc::clone(broker);
    tracker.spawn(every(HEARTBEAT, "heartbeat", stop.clone(), move || {
        let broker = Arc::clone(&beating);
        async move {
            let beat = broker
                .store()
                .heartbeat(gateway_id, &broker.waiting())
                .await?;
            broker.hints().set_others(beat.others);
            if beat.door {
                broker.door().notify_one();
            }
            if let Some(next_run_in) = beat.next_run_in {
                broker.schedules().note(next_run_in);
            }
            Ok(())
        }
    }));
    let polling = Arc::clone(broker);
    tracker.spawn(every(POLL, "poll-ready", stop.clone(), move || {
        poll(Arc::clone(&polling))
    }));
}

async fn tell(broker: Arc<Broker>, gateway_id: i64, stop: CancellationToken) {
    let mut health = Health::new("tell");
    // The greeting: others are to tell this gateway from now on.
    health.note(within_deadline(broker.store().announce(gateway_id, &News::default())).await);
    loop {
        let news = tokio::select! {
            news = broker.hints().take() => news,
            () = stop.cancelled() => return,
        };
        health.note(within_deadline(broker.store().announce(gateway_id, &news)).await);
        tokio::time::sleep(COALESCE).await;
    }
}

async fn hear(broker: Arc<Broker>, gateway_id: i64, stop: CancellationToken) {
    let mut health = Health::new("hear");
    while !stop.is_cancelled() {
        let heard = tokio::select! {
            heard = listen(&broker, gateway_id) => heard,
            () = stop.cancelled() => return,
        };
        health.note(Some(heard));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Listens until the connection breaks.
async fn listen(broker: &Broker, gateway_id: i64) -> Result<(), Error> {
    let mut announcements = broker.store().announcements(gateway_id).await?;
    loop {
        match announcements.next().await? {
            Some(Heard::News(News { queues, replies })) => {
                broker.hints().set_others(true);
                broker.ready_elsewhere(queues);
                broker.replies().answered_elsewhere(&replies);
            }
            Some(Heard::Door) => broker.door().notify_one(),
            // Connected anew: ask for what was not heard meanwhile.
            None => {
                broker.ready_elsewhere(broker.waiting().into_keys());
                broker.replies().look();
                broker.door().notify_one();
            }
        }
    }
}

async fn poll(broker: Arc<Broker>) -> Result<(), Error> {
    let waiting: Vec<i64> = broker.waiting().into_keys().collect();
    if !waiting.is_empty() {
        let ready = broker.store().with_ready(&waiting).await?;
        broker.ready_elsewhere(ready);
    }
    broker.replies().look();
    Ok(())
}
