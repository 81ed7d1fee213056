//! What a lane knows of its endpoint, and what follows from that: the breaker
//! counts, the webhook is disabled, messages are given back.

use std::time::{Duration, Instant};

use super::lane::{Config, Lane};
use crate::batch::Settling;
use crate::domain::{Call, DisableReason, Event, Failure, Lease, Transition};
use crate::store;

impl Lane {
    /// The endpoint took a message, or failed to.
    pub(super) async fn note(&self, config: &Config, call: Call, failure: Option<&str>) {
        let (transition, failing_for) = {
            let mut state = self.state();
            let now_ms = state.ownership.now_ms();
            let settings = &config.settings;
            let transition = state.breaker.record(
                &settings.circuit_breaker,
                call,
                failure.is_none(),
                now_ms,
                settings.max_in_flight,
            );
            state.failing_since_ms = match failure {
                Some(_) => state.failing_since_ms.or(Some(now_ms)),
                None => None,
            };
            state.counted = true;
            let failing_for = state.failing_since_ms.map(|since| now_ms - since);
            (transition, failing_for)
        };
        let events = self.context.broker.events();
        match (transition, failure) {
            (Some(Transition::Opened), Some(error)) => events.add(
                self.queue_id,
                Event::BreakerOpened {
                    error: error.to_owned(),
                },
            ),
            (Some(Transition::Closed), _) => events.add(self.queue_id, Event::BreakerClosed {}),
            _ => {}
        }
        if let Some(transition) = transition {
            tracing::info!(queue_id = self.queue_id, ?transition, "circuit breaker");
            self.freed.notify_one();
            self.save().await;
        }
        if failing_for.is_some_and(|ms| ms >= config.settings.disable_after.as_millis()) {
            self.disable(DisableReason::Failing).await;
        }
    }

    /// The endpoint said nothing of whether it works.
    pub(super) fn give_back(&self, call: Call) {
        let mut state = self.state();
        let now_ms = state.ownership.now_ms();
        state.breaker.give_back(call, now_ms);
    }

    /// Leaves the endpoint alone for a while.
    pub(super) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        state.hold_until = state.hold_until.max(Some(until));
    }

    /// Ends the webhook, until somebody resumes it. Nothing is pushed from here
    /// on, though the next renewal has yet to say so; if this fails it is done
    /// again at the next failure.
    pub(super) async fn disable(&self, reason: DisableReason) {
        self.hold(super::OWNED);
        let broker = &self.context.broker;
        match broker.store().disable_webhook(self.queue_id, reason).await {
            Ok(true) => {
                tracing::warn!(
                    queue_id = self.queue_id,
                    reason = reason.as_str(),
                    "webhook disabled"
                );
                let reason = reason.as_str().to_owned();
                broker
                    .events()
                    .add(self.queue_id, Event::WebhookDisabled { reason });
                broker.webhooks_changed().notify_one();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(queue_id = self.queue_id, %error, "not disabled yet"),
        }
    }

    /// Gives a message back, as [`decide`](crate::domain::decide) says.
    pub(super) async fn settle(&self, lease: Lease, failure: Failure, error: Option<String>) {
        let broker = &self.context.broker;
        let settled = async {
            // A queue that is gone has nothing to decide.
            if let Some(queue) = broker.store().queue_by_id(self.queue_id).await? {
                let settling = Settling {
                    lease,
                    failure,
                    error,
                };
                broker.settle(&queue, vec![settling]).await?;
            }
            Ok::<_, store::Error>(())
        };
        if let Err(error) = settled.await {
            tracing::debug!(queue_id = self.queue_id, %error, "a lease must run out");
        }
    }

    /// Saves what the breaker has counted, if it has.
    pub(super) async fn save_if_counted(&self) {
        if self.state().counted {
            self.save().await;
        }
    }

    async fn save(&self) {
        let (breaker, failing_since_ms) = {
            let mut state = self.state();
            state.counted = false;
            (state.breaker.clone(), state.failing_since_ms)
        };
        let store = self.context.broker.store();
        let gateway_id = self.context.gateway_id;
        let saved = store.save_breaker(self.queue_id, gateway_id, &breaker, failing_since_ms);
        if let Err(error) = saved.await {
            tracing::debug!(queue_id = self.queue_id, %error, "a breaker was not saved yet");
            self.state().counted = true;
        }
    }
}
