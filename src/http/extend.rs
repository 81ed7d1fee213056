//! `POST /v1/queues/{queue}/extend`.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::SharedGateway;
use super::extract::{InQueue, Json, NoParams, Query};
use super::problem::Problem;
use super::receive::check_lease;
use super::settle::{Receipts, Results, extended};
use crate::domain::Seconds;

/// Which leases to extend.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Extend, example = json!({"receipts": ["RECEIPT"], "lease_seconds": 60}))]
pub(crate) struct ExtendRequest {
    /// 1 to 1000 receipts of this queue.
    #[schema(min_items = 1, max_items = 1000)]
    receipts: Vec<String>,
    /// How long each lease lasts from now; by default the queue's.
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 43_200)]
    lease_seconds: Option<Seconds>,
}

/// Extend leases
///
/// Moves the end of each lease to `lease_seconds` from now. A lease that has run
/// out cannot be extended.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/extend", tag = "Messages",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body = ExtendRequest,
    responses(
        (status = 200, description = "A result for each receipt, in order", body = Results),
        (status = 404, description = "`queue-not-found`, `receipt-not-found`"),
        (status = 409, description = "`lease-lost`, `lease-expired`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `receipt-malformed`"),
    ),
)]
pub(crate) async fn extend(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<ExtendRequest>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let lease = check_lease(request.lease_seconds, &queue)?;
    let mut receipts = Receipts::open(&gateway, &queue, &request.receipts)?;
    let items = std::mem::take(&mut receipts.leases)
        .into_iter()
        .map(|l| (l, lease))
        .collect();
    let results = gateway.broker.extend(items).await?;
    receipts.answer(results.into_iter().map(extended))
}
