//! `POST /v1/queues/{queue}/ack`.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::SharedGateway;
use super::extract::{InQueue, Json, NoParams, Query};
use super::problem::Problem;
use super::settle::{Receipts, Results, acked};

/// What to ack.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Ack, example = json!({"receipts": ["RECEIPT"]}))]
pub(crate) struct AckRequest {
    /// 1 to 1000 receipts of this queue.
    #[schema(min_items = 1, max_items = 1000)]
    receipts: Vec<String>,
}

/// Ack messages
///
/// Done with these, for good. The same ack twice is fine twice; a receipt of an
/// older lease is `lease-lost` and changes nothing. In an ordered queue messages of
/// one key that were received together are acked in their order, or in one request;
/// else it is `out-of-order`. A lease that has run out may
/// still be acked while nobody else has had the message.
///
/// With one receipt its failure is the answer's; with several the answer is 200
/// and each has its result.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/ack", tag = "Messages",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body = AckRequest,
    responses(
        (status = 200, description = "A result for each receipt, in order", body = Results),
        (status = 404, description = "`queue-not-found`, `receipt-not-found`"),
        (status = 409, description = "`lease-lost`, `out-of-order`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `receipt-malformed`"),
    ),
)]
pub(crate) async fn ack(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<AckRequest>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let mut receipts = Receipts::open(&gateway, &queue, &request.receipts)?;
    let leases = std::mem::take(&mut receipts.leases);
    let turns = queue.turns_of(leases.iter().map(|lease| lease.message_id));
    let settled = gateway.broker.ack_in(&queue, leases).await?;
    gateway.broker.freed(&queue);
    gateway.broker.pass(turns, &queue).await;
    receipts.answer(settled.into_iter().map(acked))
}
