//! Pushes messages to webhooks.
//!
//! A webhook is a consumer that the gateway runs: it leases from its queue, sends,
//! and settles as any other consumer does. The [`lane`] of a webhook, all that is
//! on its way to its endpoint, is run by one gateway at a time; [`supervise`]
//! takes this gateway's share of them and renews it. What one push is, and what
//! follows from its answer, is in [`delivery`] and [`endpoint`].

mod delivery;
mod endpoint;
mod lane;
mod limit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::lane::{Config, Lane};
use super::{Health, within_deadline};
use crate::batch::Broker;
use crate::domain::{SealingKey, WebhookStatus, WebhookUrl, secret_context};
use crate::store::{self, Webhook};
use crate::webhook::Pusher;

/// How often lanes are renewed. A change that another gateway's user made is
/// seen as soon.
const RENEW: Duration = Duration::from_secs(2);

/// How long after a renewal pushes may begin; the database gives ten seconds.
/// What lies between is for the answer of a renewal that was slow.
const OWNED: Duration = Duration::from_secs(7);

/// How often breakers that have only counted are saved; those that have changed
/// are at once.
const SAVE: Duration = Duration::from_secs(1);

/// Lanes that one gateway runs, at most: each is a task and a line of receivers.
const MOST: u32 = 10_000;

/// What pushing takes besides the broker.
#[derive(Debug)]
pub struct Outbound {
    /// Sends.
    pub pusher: Arc<Pusher>,
    /// Opens the secrets.
    pub key: SealingKey,
}

/// What all lanes of a gateway share.
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    pub(super) outbound: Outbound,
    pub(super) gateway_id: i64,
    /// Pushes on their way.
    pub(super) pushes: TaskTracker,
}

/// A lane that runs.
struct Running {
    lane: Arc<Lane>,
    config: watch::Sender<Config>,
    /// What that was made from.
    seen: store::Lane,
    stop: CancellationToken,
}

/// Starts pushing. `pushes` has what is on its way: no more is added once `stop`
/// is cancelled.
pub(super) fn start(
    broker: &Arc<Broker>,
    outbound: Outbound,
    gateway_id: i64,
    tracker: &TaskTracker,
    pushes: &TaskTracker,
    stop: &CancellationToken,
) {
    let context = Arc::new(Context {
        broker: Arc::clone(broker),
        outbound,
        gateway_id,
        pushes: pushes.clone(),
    });
    tracker.spawn(supervise(context, tracker.clone(), stop.clone()));
}

async fn supervise(context: Arc<Context>, tracker: TaskTracker, stop: CancellationToken) {
    let mut health = Health::new("lanes");
    let mut lanes: HashMap<i64, Running> = HashMap::new();
    let mut renew = tokio::time::interval(RENEW);
    let mut save = tokio::time::interval(SAVE);
    renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = renew.tick() => {}
            // A user of this gateway changed something.
            () = context.broker.webhooks_changed().notified() => {}
            _ = save.tick() => {
                save_all(&lanes).await;
                continue;
            }
            () = stop.cancelled() => break,
        }
        let asked = Instant::now();
        let store = context.broker.store();
        let busy: Vec<i64> = lanes
            .iter()
            .filter(|(_, running)| running.lane.is_busy())
            .map(|(queue_id, _)| *queue_id)
            .collect();
        let owned = within_deadline(store.own_lanes(context.gateway_id, MOST, &busy));
        // While the database is away no lane is renewed, and none pushes.
        if let Some(owned) = health.note(owned.await) {
            assign(&context, &mut lanes, owned, asked, &tracker, &stop);
        }
    }
    // The others need not wait until it runs out.
    context.pushes.wait().await;
    save_all(&lanes).await;
    if let Err(error) = context
        .broker
        .store()
        .release_lanes(context.gateway_id)
        .await
    {
        tracing::debug!(%error, "lanes were not given up and must run out");
    }
}

/// Saves what breakers have counted. All at once: one after the other, thousands
/// would hold up the renewal until the lanes are lost.
async fn save_all(lanes: &HashMap<i64, Running>) {
    let saves = lanes.values().map(|running| running.lane.save_if_counted());
    futures_util::future::join_all(saves).await;
}

/// Starts the lanes that are new, tells the others what has changed, and ends
/// those that are lost.
fn assign(
    context: &Arc<Context>,
    lanes: &mut HashMap<i64, Running>,
    owned: Vec<store::Lane>,
    asked: Instant,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    let mut lost = std::mem::take(lanes);
    for owned in owned {
        let queue_id = owned.webhook.queue_id;
        let running = match lost.remove(&queue_id) {
            // Not one whose task has ended: it gave the lane up, and it came back.
            // Nor that of a webhook deleted since: a new one has nothing of it.
            Some(mut running) if running.goes_on(&owned) => {
                running.lane.renew(&owned, asked);
                // A claim that waits is not disturbed for nothing.
                if running.is_outdated(&owned) {
                    running.config.send_replace(config(context, &owned));
                    running.seen = owned;
                }
                running
            }
            ended => {
                if let Some(ended) = ended {
                    ended.stop.cancel();
                }
                let lane = Arc::new(Lane::new(Arc::clone(context), &owned, asked));
                let (sender, receiver) = watch::channel(config(context, &owned));
                let stop = stop.child_token();
                tracker.spawn(Arc::clone(&lane).run(receiver, stop.clone()));
                Running {
                    lane,
                    config: sender,
                    seen: owned,
                    stop,
                }
            }
        };
        lanes.insert(queue_id, running);
    }
    for running in lost.into_values() {
        running.stop.cancel();
    }
}

impl Running {
    fn goes_on(&self, owned: &store::Lane) -> bool {
        !self.config.is_closed() && self.seen.webhook.created_at == owned.webhook.created_at
    }

    fn is_outdated(&self, owned: &store::Lane) -> bool {
        let (seen, now) = (&self.seen.webhook, &owned.webhook);
        seen.version != now.version
            || seen.status != now.status
            || seen.secrets != now.secrets
            || self.seen.leaving != owned.leaving
    }
}

/// What a lane does with its webhook. What is not usable is said in the log, and
/// nothing is pushed.
fn config(context: &Context, owned: &store::Lane) -> Config {
    let webhook = &owned.webhook;
    let target = match target(context, webhook) {
        Ok(target) => Some(Arc::new(target)),
        Err(error) => {
            let queue_id = webhook.queue_id;
            tracing::error!(queue_id, "a webhook cannot be used: {error}");
            None
        }
    };
    Config {
        settings: webhook.settings.clone(),
        active: webhook.status == WebhookStatus::Active,
        leaving: owned.leaving,
        target,
    }
}

/// Where to push, and with which secrets.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: WebhookUrl,
    pub(super) secrets: Vec<Vec<u8>>,
}

fn target(context: &Context, webhook: &Webhook) -> Result<Target, String> {
    let key = &context.outbound.key;
    // Whether it is allowed here is asked at each push, which fails if it is not,
    // and so says where users look what is wrong.
    let url = WebhookUrl::stored(&webhook.settings.url).map_err(|e| e.to_string())?;
    let secret_context = secret_context(webhook.queue_id);
    let secrets = webhook
        .secrets
        .iter()
        .map(|sealed| key.open(sealed, &secret_context).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    Ok(Target { url, secrets })
}
