//! `POST /v1/queues/{queue}/nack`.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::SharedGateway;
use super::extract::{InQueue, Json, NoParams, Query};
use super::problem::Problem;
use super::settle::{Receipts, Results, nacked};
use crate::batch::Settling;
use crate::domain::{Failure, Seconds};

/// What to give back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Nack, example = json!({"receipts": ["RECEIPT"], "delay_seconds": 5, "reason": "shop is closed"}))]
pub(crate) struct NackRequest {
    /// 1 to 1000 receipts of this queue.
    #[schema(min_items = 1, max_items = 1000)]
    receipts: Vec<String>,
    /// When it may be received again; by default the queue's backoff says.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 31_536_000)]
    delay_seconds: Option<Seconds>,
    /// What went wrong, at most 1000 characters; kept in the message's history.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    reason: Option<String>,
    /// Make it a dead letter at once.
    #[serde(default)]
    dead_letter: bool,
}

/// Nack messages
///
/// Gives messages back: each is ready again after `delay_seconds` or the queue's
/// backoff, or a dead letter if its attempts are used up. In an ordered queue those of
/// its key that were received with it and come behind go back too: their receipts are
/// lost, and no attempt is used up.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/nack", tag = "Messages",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body = NackRequest,
    responses(
        (status = 200, description = "A result for each receipt, in order", body = Results),
        (status = 404, description = "`queue-not-found`, `receipt-not-found`"),
        (status = 409, description = "`lease-lost`, `lease-expired`, `out-of-order`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `receipt-malformed`"),
    ),
)]
pub(crate) async fn nack(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<NackRequest>,
) -> Result<Response, Problem> {
    check_nack(
        request.delay_seconds,
        request.reason.as_deref(),
        request.dead_letter,
    )?;
    let queue = gateway.queue(&name).await?;
    let mut receipts = Receipts::open(&gateway, &queue, &request.receipts)?;
    let failure = if request.dead_letter {
        Failure::Rejected
    } else {
        Failure::Nacked {
            delay: request.delay_seconds,
        }
    };
    let items = std::mem::take(&mut receipts.leases)
        .into_iter()
        .map(|lease| Settling {
            lease,
            failure,
            error: request.reason.clone(),
        })
        .collect();
    let settled = gateway.broker.settle(&queue, items).await?;
    receipts.answer(settled.into_iter().map(nacked))
}

/// Refuses what cannot be said of a nack.
pub(crate) fn check_nack(
    delay: Option<Seconds>,
    reason: Option<&str>,
    dead_letter: bool,
) -> Result<(), Problem> {
    if let Some(delay) = delay {
        if !(Seconds::ZERO..=Seconds::YEAR).contains(&delay) {
            return Err(Problem::invalid(
                "/delay_seconds",
                "must be from 0 to 31536000",
            ));
        }
        if dead_letter {
            return Err(Problem::invalid(
                "/delay_seconds",
                "not together with dead_letter",
            ));
        }
    }
    if let Some(reason) = reason
        && (reason.chars().count() > 1000 || reason.contains('\0'))
    {
        return Err(Problem::invalid(
            "/reason",
            "must be at most 1000 characters without NUL",
        ));
    }
    Ok(())
}
