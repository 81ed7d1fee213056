//! A webhook as it is shown.

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::config::WebhookConfig;
use crate::domain::{BreakerState, QueueName};
use crate::http::{precondition, reply};
use crate::store::Webhook;

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    /// The queue that it consumes.
    #[schema(value_type = String, example = "orders")]
    queue: QueueName,
    #[serde(flatten)]
    config: WebhookConfig,
    /// `active`, `paused` or `disabled`.
    #[schema(example = "active")]
    status: &'static str,
    /// Why it is disabled: `gone` (the endpoint answered 410) or `failing` (for
    /// `disable_after_seconds`); null if it is not.
    status_reason: Option<&'static str>,
    /// Since when.
    status_since: DateTime<Utc>,
    /// What the circuit breaker does.
    breaker: BreakerView,
    /// When the first failure was after which there was no success; null if the
    /// last push was one.
    failing_since: Option<DateTime<Utc>>,
    /// After a rotation: until when the secret before signs along.
    old_secret_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    /// When its settings were last changed.
    updated_at: DateTime<Utc>,
    /// The new secret that pushes are signed with. Only in the answer that made
    /// it: keep it, it is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrs=")]
    secret: Option<String>,
}

/// What a circuit breaker does; at most a second old.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Breaker)]
pub(crate) struct BreakerView {
    /// `closed`: pushes go out; `open`: none does; `half-open`: one probe is on
    /// its way; `recovering`: the probe succeeded, more and more go out.
    #[schema(example = "closed")]
    state: &'static str,
    /// Since when; null while it is closed.
    since: Option<DateTime<Utc>>,
    /// When the next probe may go out; null if there is nothing to probe.
    next_probe_at: Option<DateTime<Utc>>,
}

impl BreakerView {
    fn new(webhook: &Webhook) -> Self {
        let state = webhook.breaker.state();
        let since = match state {
            BreakerState::Closed => None,
            BreakerState::Open { since }
            | BreakerState::HalfOpen { since }
            | BreakerState::Recovering { since, .. } => Some(since),
        };
        Self {
            state: state.as_str(),
            since: since.and_then(DateTime::from_timestamp_millis),
            next_probe_at: webhook
                .breaker
                .probe_at(&webhook.settings.circuit_breaker)
                .and_then(DateTime::from_timestamp_millis),
        }
    }
}

/// The `ETag` of a webhook: of its settings, not of its state. One that was made
/// anew has another.
pub(super) fn etag(webhook: &Webhook) -> String {
    format!(
        "\"{}-{}-{}\"",
        webhook.queue_id,
        webhook.created_at.timestamp_micros(),
        webhook.version
    )
}

/// The answer that shows a webhook, with the secret that was made for it.
pub(super) fn answer(
    status: StatusCode,
    queue: &QueueName,
    webhook: &Webhook,
    secret: Option<String>,
) -> Response {
    let view = WebhookView::new(queue, webhook, secret);
    precondition::tagged(reply(status, &view), &etag(webhook))
}

impl WebhookView {
    pub(super) fn new(queue: &QueueName, webhook: &Webhook, secret: Option<String>) -> Self {
        Self {
            queue: queue.clone(),
            config: (&webhook.settings).into(),
            status: webhook.status.as_str(),
            status_reason: webhook.reason.map(crate::domain::DisableReason::as_str),
            status_since: webhook.status_since,
            breaker: BreakerView::new(webhook),
            failing_since: webhook.failing_since,
            old_secret_until: webhook.old_secret_until,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            secret,
        }
    }
}
