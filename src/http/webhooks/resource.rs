//! `PUT`, `PATCH`, `GET`, `DELETE /v1/queues/{queue}/webhook`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::config::WebhookConfig;
use super::secret::NewSecret;
use super::view::{WebhookView, answer, etag};
use super::webhook_not_found;
use crate::domain::QueueName;
use crate::http::SharedGateway;
use crate::http::extract::{InQueue, Json, NoParams, Query};
use crate::http::precondition;
use crate::http::problem::Problem;
use crate::store::{self, Webhook};

/// Create or replace a webhook
///
/// The gateway becomes a consumer of the queue: it pushes each message to the
/// URL, signed as Standard Webhooks 1.0.0 says, and acks it on a 2xx. Retries,
/// backoff, time to live and dead letters are the queue's.
///
/// The answer that made it has the `secret`; it is never shown again. Another PUT
/// replaces the settings and keeps the secret.
#[utoipa::path(
    put, path = "/v1/queues/{queue}/webhook", tag = "Webhooks",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body = WebhookConfig,
    responses(
        (status = 200, description = "It was there and has these settings now", body = WebhookView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "It was made", body = WebhookView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`queue-not-found`"),
        (status = 409, description = "`changed-meanwhile`, `secret-key-missing`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`, `url-forbidden`, `url-unresolvable`, `url-unusable`"),
    ),
)]
pub(crate) async fn put_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    Json(config): Json<WebhookConfig>,
) -> Result<Response, Problem> {
    let store = gateway.broker.store();
    let queue = gateway.queue(&name).await?;
    let settings = config.settings()?;
    // In need of no network, so before the URL is looked up.
    let old = store.webhook(queue.id).await?;
    precondition::check(&headers, old.as_ref().map(etag).as_deref())?;
    gateway.webhook_url(&settings).await?;
    if let Some(old) = old {
        let webhook = store.replace_webhook(old, &settings).await?;
        return Ok(answer(StatusCode::OK, &name, &webhook, None));
    }
    let secret = NewSecret::make(&gateway, queue.id)?;
    if precondition::is_conditional(&headers) {
        // What passed is If-None-Match: another put may come before this one.
        let webhook = store
            .create_webhook(queue.id, &settings, secret.sealed())
            .await?
            .ok_or_else(Problem::precondition_failed)?;
        return Ok(made(&name, &webhook, &secret));
    }
    let put = store
        .put_webhook(queue.id, &settings, secret.sealed())
        .await?
        .ok_or_else(|| Problem::queue_not_found(&name))?;
    if put.created {
        return Ok(made(&name, &put.webhook, &secret));
    }
    Ok(answer(StatusCode::OK, &name, &put.webhook, None))
}

fn made(name: &QueueName, webhook: &Webhook, secret: &NewSecret) -> Response {
    tracing::info!(queue = %name, "webhook created");
    answer(StatusCode::CREATED, name, webhook, Some(secret.reveal()))
}

/// Change some settings of a webhook
///
/// A JSON merge patch (RFC 7396): what is left out stays, null brings back the
/// default.
#[utoipa::path(
    patch, path = "/v1/queues/{queue}/webhook", tag = "Webhooks",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    request_body(content(
        (WebhookConfig = "application/merge-patch+json", example = json!({"max_in_flight": 20})),
        (WebhookConfig = "application/json", example = json!({"max_in_flight": 20})),
    )),
    responses(
        (status = 200, description = "Its settings now", body = WebhookView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `url-forbidden`, `url-unresolvable`, `url-unusable`"),
    ),
)]
pub(crate) async fn patch_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let patch = precondition::read_patch(&gateway.capacity, &headers, request.into_body()).await?;
    let store = gateway.broker.store();
    // Somebody else's change in between: read it and patch that.
    for _ in 0..10 {
        let (_, old) = gateway.webhook(&name).await?;
        precondition::check(&headers, Some(&etag(&old)))?;
        let config = precondition::patched(&WebhookConfig::from(&old.settings), &patch)?;
        let settings = config.settings()?;
        // One that has been taken is not looked up again: when names cannot be
        // resolved it must be possible to slow a webhook down.
        if settings.url != old.settings.url {
            gateway.webhook_url(&settings).await?;
        }
        match store.replace_webhook(old, &settings).await {
            Err(store::Error::Conflict) => {}
            other => return Ok(answer(StatusCode::OK, &name, &other?, None)),
        }
    }
    Err(store::Error::Conflict.into())
}

/// Read a webhook
///
/// Its settings, its status and what its circuit breaker does; never the secret.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/webhook", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    responses(
        (status = 200, description = "The webhook", body = WebhookView,
            headers(("ETag" = String, description = "Of the settings, for If-Match"))),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let (_, webhook) = gateway.webhook(&name).await?;
    Ok(answer(StatusCode::OK, &name, &webhook, None))
}

/// Delete a webhook
///
/// The queue and its messages stay, for other consumers. The secret is gone.
#[utoipa::path(
    delete, path = "/v1/queues/{queue}/webhook", tag = "Webhooks",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (queue, webhook) = gateway.webhook(&name).await?;
    precondition::check(&headers, Some(&etag(&webhook)))?;
    let version = precondition::is_conditional(&headers).then_some(webhook.version);
    let store = gateway.broker.store();
    if !store.delete_webhook(queue.id, version).await? {
        return Err(match version {
            Some(_) => Problem::precondition_failed(),
            None => webhook_not_found(&name),
        });
    }
    tracing::info!(queue = %name, "webhook deleted");
    Ok(StatusCode::NO_CONTENT)
}
