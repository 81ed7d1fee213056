//! `POST /v1/queues/{queue}/purge`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{InQueue, NoParams, OptionalJson, Query};
use super::problem::Problem;
use super::{SharedGateway, reply};
use crate::store::DeadFilter;

/// What to purge.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"dead_letters": false}))]
pub(crate) struct PurgeRequest {
    /// Dead letters too.
    #[serde(default)]
    dead_letters: bool,
}

/// What a purge removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Purged {
    /// Messages: ready, leased and delayed.
    messages: i64,
    /// Dead letters.
    dead_letters: i64,
}

/// Purge a queue
///
/// Removes all messages that are in it now, leased and delayed ones too. A deep
/// queue takes a while; if the client goes away the purge goes on.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/purge", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body(content = PurgeRequest, description = "May be left out"),
    responses(
        (status = 200, description = "What was removed", body = Purged),
        (status = 404, description = "`queue-not-found`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn purge_queue(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    OptionalJson(request): OptionalJson<PurgeRequest>,
) -> Result<Response, Problem> {
    let store = gateway.broker.store();
    let queue = gateway.queue(&name).await?;
    let messages = store.purge(&queue).await?;
    gateway.broker.freed(&queue);
    gateway.broker.sweep(&queue).await?;
    let dead_letters = if request.dead_letters {
        store.purge_dead(queue.id, DeadFilter::default()).await?
    } else {
        0
    };
    tracing::info!(queue = %name, messages, dead_letters, "queue purged");
    Ok(reply(
        StatusCode::OK,
        &Purged {
            messages,
            dead_letters,
        },
    ))
}
