//! `/v1/queues`: settings and counts.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::extract::{InQueue, NoParams, OptionalJson, Query};
use super::precondition;
use super::problem::Problem;
use super::queue_config::QueueConfig;
use super::resource::{ListParams, not_system, put_status};
use super::{Gateway, SharedGateway, reply};
use crate::domain::QueueName;
use crate::store::{self, Counts, DeletedQueue, Queue};

/// A queue with its settings and live counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// Its name.
    #[schema(value_type = String, example = "orders")]
    name: QueueName,
    #[serde(flatten)]
    config: QueueConfig,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When its settings were last changed.
    updated_at: DateTime<Utc>,
    #[serde(flatten)]
    counts: Option<CountsView>,
}

/// Live counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountsView {
    /// Messages that can be received now.
    ready: i64,
    /// Messages under a lease.
    leased: i64,
    /// Messages that wait for a time: delays and backoffs.
    delayed: i64,
    /// Dead letters.
    dead: i64,
    /// Since the publish of the oldest of the messages that come next; null if
    /// none is ready.
    oldest_ready_age_seconds: Option<f64>,
    /// Receivers that wait or hold leases now.
    consumers: i64,
    /// When this was so; at most 5 s ago.
    counted_at: DateTime<Utc>,
}

/// A page of queues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueList {
    queues: Vec<QueueView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl QueueView {
    fn new(queue: &Queue, counts: Option<CountsView>) -> Self {
        Self {
            name: queue.name.clone(),
            config: (&queue.settings).into(),
            created_at: queue.created_at,
            updated_at: queue.updated_at,
            counts,
        }
    }
}

impl Gateway {
    async fn counts(&self, queue: &Queue) -> Result<Option<CountsView>, store::Error> {
        let counts = self.broker.store().counts(queue.id, self.id).await?;
        let here = self.broker.waiting().get(&queue.id).copied().unwrap_or(0);
        Ok(counts.map(|c: Counts| CountsView {
            ready: c.ready,
            leased: c.leased,
            delayed: c.delayed,
            dead: c.dead,
            oldest_ready_age_seconds: c.oldest_ready_age_seconds,
            consumers: c.holding + c.waiting_elsewhere + i64::try_from(here).unwrap_or(i64::MAX),
            counted_at: c.counted_at,
        }))
    }
}

/// The `ETag` of a queue: of its settings, not of its counts.
fn etag(queue: &Queue) -> String {
    format!("\"{}-{}\"", queue.id, queue.version)
}

/// Whether the request's conditions let a change pass; `None` is a queue that is
/// not there.
fn check_preconditions(headers: &HeaderMap, queue: Option<&Queue>) -> Result<(), Problem> {
    precondition::check(headers, queue.map(etag).as_deref())
}

fn answer(status: StatusCode, queue: &Queue, counts: Option<CountsView>) -> Response {
    let response = reply(status, &QueueView::new(queue, counts));
    precondition::tagged(response, &etag(queue))
}

/// Create or replace a queue
///
/// Settings that are left out have their defaults, also when the queue is there
/// already; PATCH changes some and keeps the rest. The same PUT twice changes
/// nothing.
#[utoipa::path(
    put, path = "/v1/queues/{queue}", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders",
            pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body(content(
        (QueueConfig = "application/json", examples(
            ("plain" = (summary = "A queue", value = json!({
                "lease_seconds": 30, "max_attempts": 5}))),
            ("ordered" = (summary = "Keys in their order", value = json!({
                "ordered": true, "on_blocked": "dead_letter_key"}))),
            ("fair" = (summary = "Keys take turns", value = json!({"fair": true}))),
        )),
    ), description = "May be left out"),
    responses(
        (status = 200, description = "It was there and has these settings now", body = QueueView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "It was made", body = QueueView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 409, description = "`changed-meanwhile`, `queue-not-empty`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn put_queue(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    OptionalJson(config): OptionalJson<QueueConfig>,
) -> Result<Response, Problem> {
    not_system(&name, "queue")?;
    let store = gateway.broker.store();
    let settings = config.settings()?;
    if precondition::is_conditional(&headers) {
        let old = store.queue_now(&name).await?;
        check_preconditions(&headers, old.as_deref())?;
        if let Some(old) = old {
            let queue = store.update_queue(&name, &settings, old.version).await?;
            let counts = gateway.counts(&queue).await?;
            return Ok(answer(StatusCode::OK, &queue, counts));
        }
        // What passed is If-None-Match: another put may come before this one.
        let queue = store
            .create_queue(&name, &settings)
            .await?
            .ok_or_else(Problem::precondition_failed)?;
        tracing::info!(queue = %name, "queue created");
        let counts = gateway.counts(&queue).await?;
        return Ok(answer(StatusCode::CREATED, &queue, counts));
    }
    let put = store.put_queue(&name, &settings).await?;
    if put.created {
        tracing::info!(queue = %name, "queue created");
    }
    // Its bound may be wider than before.
    gateway.broker.ready([put.queue.id]);
    let counts = gateway.counts(&put.queue).await?;
    Ok(answer(put_status(put.created), &put.queue, counts))
}

/// Change some settings of a queue
///
/// A JSON merge patch (RFC 7396): what is left out stays, null brings back the
/// default.
#[utoipa::path(
    patch, path = "/v1/queues/{queue}", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    request_body(content(
        (QueueConfig = "application/merge-patch+json", example = json!({"max_attempts": 8})),
        (QueueConfig = "application/json", example = json!({"max_attempts": 8})),
    )),
    responses(
        (status = 200, description = "Its settings now", body = QueueView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`queue-not-found`"),
        (status = 409, description = "`changed-meanwhile`, `queue-not-empty`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn patch_queue(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<Response, Problem> {
    let patch = precondition::read_patch(&gateway.capacity, &headers, request.into_body()).await?;
    let store = gateway.broker.store();
    // Somebody else's change in between: read it and patch that.
    for _ in 0..10 {
        let old = store
            .queue_now(&name)
            .await?
            .ok_or_else(|| Problem::queue_not_found(&name))?;
        check_preconditions(&headers, Some(&old))?;
        let config = precondition::patched(&QueueConfig::from(&old.settings), &patch)?;
        let settings = config.settings()?;
        match store.update_queue(&name, &settings, old.version).await {
            Err(store::Error::Conflict) => {}
            other => {
                let queue = other?;
                // Its bound may be wider now.
                gateway.broker.ready([queue.id]);
                let counts = gateway.counts(&queue).await?;
                return Ok(answer(StatusCode::OK, &queue, counts));
            }
        }
    }
    Err(store::Error::Conflict.into())
}

/// Read a queue's settings and counts
#[utoipa::path(
    get, path = "/v1/queues/{queue}", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    responses(
        (status = 200, description = "The queue", body = QueueView,
            headers(("ETag" = String, description = "Of the settings, for If-Match"))),
        (status = 404, description = "`queue-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_queue(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway
        .broker
        .store()
        .queue_now(&name)
        .await?
        .ok_or_else(|| Problem::queue_not_found(&name))?;
    let counts = gateway.counts(&queue).await?;
    Ok(answer(StatusCode::OK, &queue, counts))
}

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Also where subscriptions feed it: they go too.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
}

/// Delete a queue
///
/// With everything in it, dead letters too. A queue that subscriptions feed is
/// only deleted with `force=true`, and the subscriptions with it.
#[utoipa::path(
    delete, path = "/v1/queues/{queue}", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        DeleteParams,
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`queue-not-found`"),
        (status = 409, description = "`queue-in-use`, `changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_queue(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<DeleteParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let store = gateway.broker.store();
    let queue = store
        .queue_now(&name)
        .await?
        .ok_or_else(|| Problem::queue_not_found(&name))?;
    check_preconditions(&headers, Some(&queue))?;
    let version = precondition::is_conditional(&headers).then_some(queue.version);
    match store.delete_queue(&name, version, params.force).await? {
        DeletedQueue::Gone => {
            tracing::info!(queue = %name, "queue deleted");
            Ok(StatusCode::NO_CONTENT)
        }
        DeletedQueue::Missing if version.is_some() => Err(Problem::precondition_failed()),
        DeletedQueue::Missing => Err(Problem::queue_not_found(&name)),
        DeletedQueue::Fed(subscriptions) => Err(in_use(&subscriptions)),
    }
}

/// Names the first few.
fn in_use(subscriptions: &[String]) -> Problem {
    const SHOWN: usize = 3;
    let mut names: Vec<&str> = subscriptions
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect();
    let more = format!("{} more", subscriptions.len().saturating_sub(SHOWN));
    if subscriptions.len() > SHOWN {
        names.push(&more);
    }
    Problem::new(
        StatusCode::CONFLICT,
        "queue-in-use",
        format!(
            "Subscriptions feed it (topic/subscription): {}. Delete them first, or the queue with \
             ?force=true and them with it.",
            names.join(", ")
        ),
    )
}

/// List queues
///
/// In order of name, without counts; those that the key has a scope on.
#[utoipa::path(
    get, path = "/v1/queues", tag = "Queues",
    params(ListParams),
    responses(
        (status = 200, description = "A page of queues", body = QueueList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
    ),
)]
pub(crate) async fn list_queues(
    State(gateway): State<SharedGateway>,
    caller: Caller,
    Query(params): Query<ListParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = params.page()?;
    let seen = caller.patterns();
    let mut queues = gateway
        .broker
        .store()
        .list_queues(&page.prefix, &page.after, seen.as_deref(), page.ask())
        .await?;
    let (next_cursor, headers) = page.cut(&mut queues, |queue| queue.name.as_str(), &uri);
    let list = QueueList {
        queues: queues
            .iter()
            .map(|queue| QueueView::new(queue, None))
            .collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}
