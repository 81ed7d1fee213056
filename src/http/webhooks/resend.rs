//! `POST .../webhook/resend`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Limits, MessageId, QueueName};
use crate::http::extract::{InQueue, NoParams, Query, parse, read_json};
use crate::http::idempotency::{Keyed, answer, answer_seen, unless_answered};
use crate::http::problem::Problem;
use crate::http::{Gateway, SharedGateway, to_keep};
use crate::store::{Effect, Kept, Once, Resent, Turn};

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
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let headers = &parts.headers;
    let (bytes, _room) = read_json(&gateway.capacity, headers, body).await?;
    let Some(keyed) = keyed else {
        return resend(&gateway, &name, &bytes, None).await;
    };
    let once = keyed.once("resend_webhook", &[name.as_str()], headers, &bytes);
    let result = resend(&gateway, &name, &bytes, Some(once)).await;
    unless_answered(&gateway, once, result).await
}

async fn resend(
    gateway: &Gateway,
    name: &QueueName,
    bytes: &[u8],
    once: Option<Once>,
) -> Result<Response, Problem> {
    let ResendRequest { message_ids } = parse(bytes)?;
    if message_ids.is_empty() || message_ids.len() > Limits::BATCH {
        return Err(Problem::invalid("/message_ids", "must be 1 to 1000 ids"));
    }
    let (queue, _) = gateway.webhook(name).await?;
    // No other text has ever been an id.
    let parsed = message_ids
        .iter()
        .map(|id| MessageId::parse(id).map(|id| id.0));
    let wanted = Arc::new(parsed.collect::<Vec<Option<i64>>>());
    let (store, queue_id) = (gateway.broker.store(), queue.id);
    let ((any, turns), kept) = match once {
        None => write(&wanted, store.resend(queue_id, &known(&wanted)).await?),
        Some(once) => {
            let done = store.once(once, move |transaction| {
                let wanted = Arc::clone(&wanted);
                Box::pin(async move {
                    let resent = transaction.resend(queue_id, &known(&wanted)).await?;
                    let (done, kept) = write(&wanted, resent);
                    Ok(Effect::<_, Infallible>::Done(done, kept))
                })
            });
            match done.await? {
                Ok(Effect::Done(done, kept)) => (done, kept),
                Ok(Effect::Refused(never)) => match never {},
                Err(seen) => return answer_seen(seen),
            }
        }
    };
    gateway.broker.pass(turns, &queue).await;
    if any {
        gateway.broker.ready([queue_id]);
    }
    Ok(answer(kept))
}

fn known(wanted: &[Option<i64>]) -> Vec<i64> {
    wanted.iter().copied().flatten().collect()
}

/// Whether any message was put back and whose turns may have come, and the answer.
fn write(
    wanted: &[Option<i64>],
    (resent, turns): (Vec<Resent>, Vec<Turn>),
) -> ((bool, Vec<Turn>), Kept) {
    let mut resent = resent.into_iter();
    let results: Vec<Resent> = wanted
        .iter()
        .map(|id| id.and_then(|_| resent.next()).unwrap_or(Resent::Gone))
        .collect();
    let any = results
        .iter()
        .any(|resent| matches!(resent, Resent::Redriven | Resent::Sent));
    let results = results.into_iter().map(Into::into).collect();
    (
        (any, turns),
        to_keep(StatusCode::OK, &ResendResults { results }),
    )
}
