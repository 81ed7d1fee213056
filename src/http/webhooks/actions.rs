//! `POST .../webhook/rotate-secret`, `/pause`, `/resume`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::secret::NewSecret;
use super::view::{WebhookView, answer};
use super::webhook_not_found;
use crate::http::SharedGateway;
use crate::http::extract::{InQueue, NoParams, Query};
use crate::http::problem::Problem;

/// Rotate a webhook's secret
///
/// The answer has the new `secret`; it is never shown again. For 24 hours pushes
/// are signed with both, so that a receiver that knows either takes them. Another
/// rotation within that time ends the oldest at once.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/webhook/rotate-secret", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    responses(
        (status = 200, description = "The webhook, with its new secret", body = WebhookView),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 409, description = "`secret-key-missing`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn rotate_webhook_secret(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let secret = NewSecret::make(&gateway, queue.id)?;
    let webhook = gateway
        .broker
        .store()
        .rotate_webhook_secret(queue.id, secret.sealed())
        .await?
        .ok_or_else(|| webhook_not_found(&name))?;
    tracing::info!(queue = %name, "webhook secret rotated");
    Ok(answer(
        StatusCode::OK,
        &name,
        &webhook,
        Some(secret.reveal()),
    ))
}

/// Pause a webhook
///
/// Nothing more is pushed; what is on its way ends. Messages wait in their queue,
/// and their time to live runs. A disabled webhook stays disabled.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/webhook/pause", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    responses(
        (status = 200, description = "The webhook", body = WebhookView),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn pause_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let webhook = gateway
        .broker
        .store()
        .pause_webhook(queue.id)
        .await?
        .ok_or_else(|| webhook_not_found(&name))?;
    tracing::info!(queue = %name, "webhook paused");
    Ok(answer(StatusCode::OK, &name, &webhook, None))
}

/// Resume a webhook
///
/// Pushes again, whether it was paused or disabled, and closes the circuit
/// breaker.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/webhook/resume", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    responses(
        (status = 200, description = "The webhook", body = WebhookView),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn resume_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let webhook = gateway
        .broker
        .store()
        .resume_webhook(queue.id)
        .await?
        .ok_or_else(|| webhook_not_found(&name))?;
    tracing::info!(queue = %name, "webhook resumed");
    Ok(answer(StatusCode::OK, &name, &webhook, None))
}
