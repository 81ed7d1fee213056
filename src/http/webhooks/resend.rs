//! `POST .../webhook/resend`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Limits, MessageId};
use crate::http::extract::{InQueue, Json, NoParams, Query};
use crate::http::problem::Problem;
use crate::http::{SharedGateway, reply};
use crate::store::Resent;

/// What to push again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Resend, example = json!({"message_ids": ["msg_000000000001a"]}))]
pub(crate) struct ResendRequest {
    /// 1 to 1000.
    #[schema(min_items = 1, max_items = 1000)]
    message_ids: Vec<String>,
}

/// One result for each message, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendResults {
    results: Vec<ResendResult>,
}

/// What became of one message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendResult {
    /// Whether it was put back into the queue by this.
    ok: bool,
    /// Why not: `already-queued` (it waits or is on its way: it needs no
    /// resending) or `message-gone` (its body has been removed, or the webhook
    /// has never pushed it).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "already-queued")]
    code: Option<&'static str>,
    /// Whether it was a dead letter, and is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    was_dead: Option<bool>,
}

impl From<Resent> for ResendResult {
    fn from(resent: Resent) -> Self {
        let refused = |code| Self {
            ok: false,
            code: Some(code),
            was_dead: None,
        };
        let done = |was_dead| Self {
            ok: true,
            code: None,
            was_dead: Some(was_dead),
        };
        match resent {
            Resent::Redriven => done(true),
            Resent::Sent => done(false),
            Resent::AlreadyQueued => refused("already-queued"),
            Resent::Gone => refused("message-gone"),
        }
    }
}

/// Resend messages
///
/// Puts messages back into the queue, with the ids they have: dead letters, and
/// messages that this webhook has pushed before and whose body is still there (it
/// goes some time after all messages of its time are settled). Attempts are
/// counted anew.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/webhook/resend", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    request_body = ResendRequest,
    responses(
        (status = 200, description = "A result for each", body = ResendResults),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn resend_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<ResendRequest>,
) -> Result<Response, Problem> {
    let wanted = request.message_ids;
    if wanted.is_empty() || wanted.len() > Limits::BATCH {
        return Err(Problem::invalid("/message_ids", "must be 1 to 1000 ids"));
    }
    let (queue, _) = gateway.webhook(&name).await?;
    // No other text has ever been an id.
    let parsed: Vec<Option<i64>> = wanted
        .iter()
        .map(|id| MessageId::parse(id).map(|id| id.0))
        .collect();
    let known: Vec<i64> = parsed.iter().copied().flatten().collect();
    let (resent, turns) = gateway.broker.store().resend(queue.id, &known).await?;
    gateway.broker.pass(turns, &queue).await;
    let mut resent = resent.into_iter();
    let results: Vec<Resent> = parsed
        .iter()
        .map(|id| id.and_then(|_| resent.next()).unwrap_or(Resent::Gone))
        .collect();
    if results
        .iter()
        .any(|resent| matches!(resent, Resent::Redriven | Resent::Sent))
    {
        gateway.broker.ready([queue.id]);
    }
    let results = results.into_iter().map(Into::into).collect();
    Ok(reply(StatusCode::OK, &ResendResults { results }))
}
