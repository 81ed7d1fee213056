//! One webhook's lane: claims no more than may be on its way, as fast as the
//! webhook's settings and its circuit breaker allow.
//!
//! Nothing is leased ahead of need: a lease begins when a place for its push is
//! free, so a slow endpoint holds as many messages as it is sent, and its lane
//! waits for it without touching another's.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::limit::{self, Limit};
use super::{Context, Target};
use crate::batch::Wait;
use crate::domain::{Breaker, Call, Failure, Seconds, WebhookSettings};
use crate::metrics;
use crate::store::{self, Delivery, Receiver};

/// How long a claim waits for messages before it asks again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a lease has over a push's whole deadline: for its turn under the rate
/// limit, and for its settling.
const MARGIN: Seconds = Seconds::new(10);

/// What a probe has over the deadline before it counts as lost.
const PROBE_MARGIN: i64 = 5_000;

/// After a claim that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Messages that one claim takes, however many may be on their way.
const CLAIM: u32 = 100;

/// What a lane does with its webhook.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) settings: WebhookSettings,
    /// Whether anything is pushed.
    pub(super) active: bool,
    /// Another gateway is to have the lane.
    pub(super) leaving: bool,
    /// `None`: its URL or its secrets are not usable here.
    pub(super) target: Option<Arc<Target>>,
}

/// The lane of one webhook.
pub(super) struct Lane {
    pub(super) context: Arc<Context>,
    pub(super) queue_id: i64,
    state: Mutex<State>,
    /// Counts the pushes, once there is one: they go by the queue's name.
    pub(super) metrics: OnceLock<Arc<metrics::Webhook>>,
    /// A push has ended, or something else that may let the next through.
    pub(super) freed: Notify,
}

pub(super) struct State {
    pub(super) breaker: Breaker,
    /// As of the last step: what waits for its turn goes by this one too.
    config: Option<Arc<Config>>,
    /// Messages leased and not settled.
    in_flight: u32,
    /// How many of them wait for their turn under the rate limit.
    in_line: u32,
    /// The endpoint asked to be left alone until then.
    pub(super) hold_until: Option<Instant>,
    pub(super) failing_since_ms: Option<i64>,
    /// What the breaker counted since it was saved.
    pub(super) counted: bool,
    pub(super) ownership: Ownership,
}

/// As of the last renewal.
#[derive(Clone, Copy)]
pub(super) struct Ownership {
    /// The database's time, milliseconds since 1970, when it was asked for.
    now_ms: i64,
    /// And this machine's.
    asked: Instant,
    /// When the lane is no longer this gateway's, unless it is renewed.
    until: Instant,
}

impl Ownership {
    fn new(owned: &store::Lane, asked: Instant) -> Self {
        Self {
            now_ms: owned.now_ms,
            asked,
            until: asked + super::OWNED,
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        let since = i64::try_from(self.asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.now_ms.saturating_add(since)
    }
}

/// What to do next.
enum Step {
    /// Claim up to so many messages.
    Claim(u32),
    /// Wait until something changes, or until then.
    Wait(Option<Instant>),
    /// Give the lane up.
    Leave,
}

/// A message's place in the lane, until it is settled.
pub(super) struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.freed.notify_one();
    }
}

impl Lane {
    pub(super) fn new(context: Arc<Context>, owned: &store::Lane, asked: Instant) -> Self {
        Self {
            context,
            queue_id: owned.webhook.queue_id,
            state: Mutex::new(State {
                breaker: owned.webhook.breaker.clone(),
                config: None,
                in_flight: 0,
                in_line: 0,
                hold_until: None,
                failing_since_ms: owned.failing_since_ms,
                counted: false,
                ownership: Ownership::new(owned, asked),
            }),
            metrics: OnceLock::new(),
            freed: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Goes on for another while, with the stored breaker if that is later than
    /// this one: somebody resumed the webhook, or gave it another URL.
    pub(super) fn renew(&self, owned: &store::Lane, asked: Instant) {
        let mut state = self.state();
        let had_run_out = state.ownership.until <= Instant::now();
        state.ownership = Ownership::new(owned, asked);
        let is_reset = owned.webhook.breaker.epoch() > state.breaker.epoch();
        if is_reset {
            state.breaker = owned.webhook.breaker.clone();
            state.failing_since_ms = owned.failing_since_ms;
            state.hold_until = None;
            state.counted = false;
        }
        drop(state);
        if had_run_out || is_reset {
            self.freed.notify_one();
        }
    }

    /// Whether pushes are on their way.
    pub(super) fn is_busy(&self) -> bool {
        self.state().in_flight > 0
    }

    /// The database's time, milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.state().ownership.now_ms()
    }

    /// Runs until `stop`, or until the lane is given up.
    pub(super) async fn run(
        self: Arc<Self>,
        mut config: watch::Receiver<Config>,
        stop: CancellationToken,
    ) {
        let mut limit = Limit::default();
        loop {
            let now = Arc::new(config.borrow_and_update().clone());
            self.state().config = Some(Arc::clone(&now));
            let waited = match self.step(&now) {
                Step::Leave => return self.leave().await,
                Step::Claim(most) => {
                    limit.follow(now.settings.rate_limit_per_second);
                    tokio::select! {
                        () = self.claim(most, &now, &mut limit) => continue,
                        () = stop.cancelled() => return,
                        changed = config.changed() => changed,
                    }
                }
                Step::Wait(until) => {
                    let slept = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = slept => continue,
                        () = self.freed.notified() => continue,
                        () = stop.cancelled() => return,
                        changed = config.changed() => changed,
                    }
                }
            };
            if waited.is_err() {
                return;
            }
        }
    }

    fn step(&self, config: &Config) -> Step {
        let state = self.state();
        let now = Instant::now();
        if config.leaving && state.in_flight == 0 {
            return Step::Leave;
        }
        if config.leaving
            || !config.active
            || config.target.is_none()
            || state.ownership.until <= now
        {
            return Step::Wait(None);
        }
        if let Some(until) = state.hold_until.filter(|until| *until > now) {
            return Step::Wait(Some(until));
        }
        let (settings, now_ms) = (&config.settings, state.ownership.now_ms());
        let breaker = &settings.circuit_breaker;
        let allowed = state
            .breaker
            .allowance(breaker, now_ms, settings.max_in_flight);
        // What waits for its turn does so within its lease.
        let turns = limit::a_second(settings.rate_limit_per_second).saturating_sub(state.in_line);
        let free = allowed.saturating_sub(state.in_flight).min(turns);
        if free > 0 {
            return Step::Claim(free.min(CLAIM));
        }
        let probe_at = state.breaker.probe_at(breaker).filter(|_| allowed == 0);
        Step::Wait(probe_at.and_then(|at| {
            now.checked_add(Duration::from_millis(
                at.saturating_sub(now_ms).try_into().unwrap_or(0),
            ))
        }))
    }

    async fn leave(&self) {
        let store = self.context.broker.store();
        let released = store.release_lane(self.queue_id, self.context.gateway_id);
        if let Err(error) = released.await {
            tracing::debug!(%error, "a lane was not given up and must run out");
        }
    }

    /// Claims and starts the pushes. May be dropped at any await: what is leased
    /// to nobody is released.
    async fn claim(self: &Arc<Self>, most: u32, config: &Arc<Config>, limit: &mut Limit) {
        limit.take_turn().await;
        let lease = config.settings.timeout.as_millis() + MARGIN.as_millis();
        let wish = Receiver {
            max_messages: most,
            lease: Seconds::from_millis(lease),
        };
        let broker = &self.context.broker;
        match broker
            .receive(self.queue_id, wish, Wait::UpTo(PATIENCE))
            .await
        {
            Ok(received) if received.deliveries.is_empty() => {}
            Ok(received) => {
                limit.use_turn();
                self.send(received.deliveries, limit);
            }
            Err(error) => {
                tracing::debug!(queue_id = self.queue_id, %error, "nothing was leased to push");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Starts a task for each push. From the claim to here nothing waits.
    fn send(self: &Arc<Self>, deliveries: Vec<Delivery>, limit: &Limit) {
        let count = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
        {
            let mut state = self.state();
            state.in_flight += count;
            state.in_line += if limit.is_set() { count - 1 } else { 0 };
        }
        for (index, delivery) in deliveries.into_iter().enumerate() {
            let lane = Arc::clone(self);
            let place = Place(Arc::clone(self));
            // The first one's turn has come.
            let limit = (index > 0 && limit.is_set()).then(|| limit.clone());
            self.context.pushes.spawn(async move {
                let _place = place;
                if let Some(mut limit) = limit {
                    limit.take_turn().await;
                    lane.state().in_line -= 1;
                    lane.freed.notify_one();
                }
                match lane.let_through().await {
                    Some((config, call)) => lane.deliver(&config, delivery, call).await,
                    None => {
                        lane.settle(delivery.lease, Failure::Undelivered, None)
                            .await;
                    }
                }
            });
        }
    }

    /// Whether a push may begin now, and by which settings: since the message was
    /// claimed the breaker may have opened, the endpoint have asked to be left
    /// alone, the webhook have been paused, or the lane have been lost. A probe is
    /// begun in the database first, which lets one through in the whole cluster.
    async fn let_through(&self) -> Option<(Arc<Config>, Call)> {
        let (config, mut probing, now_ms) = {
            let state = self.state();
            let now = Instant::now();
            let config = state.config.clone()?;
            if !config.active
                || state.ownership.until <= now
                || state.hold_until.is_some_and(|until| until > now)
            {
                return None;
            }
            let now_ms = state.ownership.now_ms();
            let settings = &config.settings.circuit_breaker;
            if !state.breaker.wants_probe(settings, now_ms) {
                let most = config.settings.max_in_flight;
                let allowed = state.breaker.allowance(settings, now_ms, most);
                return (allowed > 0).then(|| (config, state.breaker.call()));
            }
            (config, state.breaker.clone(), now_ms)
        };
        let until = now_ms + config.settings.timeout.as_millis() + PROBE_MARGIN;
        probing.begin_probe(&config.settings.circuit_breaker, now_ms, until)?;
        let store = self.context.broker.store();
        let begun = store.begin_probe(self.queue_id, self.context.gateway_id, &probing);
        match begun.await {
            Ok(true) => {
                let call = probing.call();
                let mut state = self.state();
                // Unless somebody reset it meanwhile.
                if state.breaker.epoch() < probing.epoch() {
                    state.breaker = probing;
                }
                drop(state);
                Some((config, call))
            }
            Ok(false) => {
                // Lost, stopped or reset; the next renewal tells. Until then
                // another try would end alike.
                self.hold(PAUSE);
                self.context.broker.webhooks_changed().notify_one();
                None
            }
            Err(error) => {
                tracing::debug!(queue_id = self.queue_id, %error, "no probe was begun");
                self.hold(PAUSE);
                None
            }
        }
    }
}
