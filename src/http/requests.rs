//! `POST /v1/queues/{queue}/requests`: publish, and wait for the reply.
//!
//! A request is an ordinary message that has a time to live and a correlation id of
//! the gateway's making. What it takes to store it is given back before anybody
//! waits: ten thousand may.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::body::read_body;
use super::envelope::Waited;
use super::extract::{InQueue, NoParams, Query};
use super::idempotency::{Keyed, REPLAYED, answered_before, first_answer};
use super::message_input::{Described, MessageInput, demand_content_type, parsed};
use super::prefer;
use super::problem::Problem;
use super::publish::{store, store_once};
use super::queue_limits::{described, publish_quota};
use super::replies::{ReplyView, write_reply};
use super::schemas::check_schema;
use super::{Gateway, SharedGateway, reply, to_keep};
use crate::batch::Awaiting;
use crate::domain::{self, Asked, Invalid, Message, MessageId, QueueName, Seconds};
use crate::store::{self, Kept, Once, Publish, Queue, Reply, ReplyRead, ReplyTo, SchemaOf, Seen};

/// A request that has no reply yet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingRequest {
    /// Its message.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// Reads the reply: `GET /v1/replies/{correlation_id}`. Whoever has it can, so
    /// it is not to be shown around.
    correlation_id: String,
}

impl PendingRequest {
    /// What is kept under an idempotency key.
    fn to_keep(publish: &Publish, published: &[store::Published]) -> Kept {
        let message = publish.messages.first();
        let correlation_id = message.and_then(|message| message.correlation_id.clone());
        to_keep(
            StatusCode::ACCEPTED,
            &Self {
                id: MessageId(published.first().map_or(0, |stored| stored.id)),
                correlation_id: correlation_id.unwrap_or_default(),
            },
        )
    }

    /// What was kept under an idempotency key.
    fn read(kept: &Kept) -> Option<Self> {
        #[derive(Deserialize)]
        struct Before {
            id: String,
            correlation_id: String,
        }
        let before: Before = serde_json::from_slice(&kept.body).ok()?;
        Some(Self {
            id: MessageId::parse(&before.id)?,
            correlation_id: before.correlation_id,
        })
    }
}

/// What has been published, and who waits.
struct Published {
    id: i64,
    correlation_id: String,
    to: ReplyTo,
    timeout: Duration,
    deadline: Instant,
    awaiting: Option<Awaiting>,
    /// The reply, if it was there before.
    found: Option<Arc<Reply>>,
    /// What is on every answer.
    headers: HeaderMap,
}

impl Published {
    /// It has just been stored, which is when its time began: whoever is told that it is
    /// over knows that nobody receives it any more.
    fn now(mut self, id: Option<i64>) -> Self {
        self.id = id.unwrap_or_default();
        self.deadline = Instant::now() + self.timeout;
        self
    }
}

/// Publish a request
///
/// Publishes one message that is waited for an answer to, and with `Prefer: wait=10`
/// (RFC 7240; whole seconds, 60 at most) waits so long for the reply: 200 with it.
/// 202 if it has not come by then, or without the preference: `Location` says where
/// it will be.
///
/// The consumer answers with `POST /v1/queues/{queue}/reply`. `timeout_seconds`, by
/// default 30, is until when it may: the consumer sees it as `reply_deadline`, a
/// request that was not received by then never is, and an answer after it is
/// refused. If it passes while the client waits the answer is 504
/// `request-expired`.
///
/// The message is as for a publish, but for `delay_seconds`, `deliver_at`,
/// `ttl_seconds`, `dedup_id`, `correlation_id` and `reply_to`, which are the
/// gateway's; bytes that are no JSON have `Postrider-Timeout-Seconds`. A client that
/// hangs up cancels nothing. Requests share the `rate_limit` of publishes.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/requests", tag = "Requests",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("Prefer" = Option<String>, Header,
            description = "`wait=` and whole seconds: how long to wait for the reply"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
        ("tracestate" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(content(
        (MessageInput<'static> = "application/json",
            example = json!({"body": {"order": 42}, "timeout_seconds": 30})),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "The reply", body = ReplyView),
        (status = 202, description = "Committed and flushed; there is no reply yet",
            body = PendingRequest,
            headers(("Location" = String, description = "Where the reply will be"))),
        (status = 404, description = "`queue-not-found`"),
        (status = 408, description = "`body-timeout`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `schema-violation`; nothing was stored"),
        (status = 429, description = "`queue-full`, `rate-limited`; nothing was stored"),
        (status = 504, description = "`request-expired`: nobody answered by the deadline"),
    ),
)]
pub(crate) async fn request(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let wait = prefer::wait(request.headers());
    let time = prefer::time(wait);
    let waiting = (time > Duration::ZERO)
        .then(|| gateway.capacity.let_wait())
        .transpose()?;
    // In a box of its own, which is given back before anybody waits.
    let mut published = Box::pin(publish(&gateway, name, request, wait)).await?;

    let began = Instant::now();
    let mut found = published.found.take();
    if found.is_none()
        && let Some(awaiting) = &mut published.awaiting
    {
        let left = published.deadline.saturating_duration_since(began);
        found = awaiting.reply(time.min(left)).await;
        // Given in the last instant, or not heard of.
        if found.is_none()
            && !gateway.stop.is_cancelled()
            && let ReplyRead::There(reply) = gateway.broker.replies().read(published.to).await?
        {
            found = Some(reply);
        }
    }
    drop(waiting);
    let waited = began.elapsed();
    let is_over = published.awaiting.take().is_some() && Instant::now() >= published.deadline;
    let location = format!("/v1/replies/{}", published.correlation_id);
    let location = HeaderValue::try_from(location)
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let mut response = match found {
        Some(found) => write_reply(&published.correlation_id, &found)?,
        None if is_over => {
            let problem = Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "request-expired",
                "Nobody answered the request by its deadline. Nobody will receive it any more.",
            );
            let mut problem = problem.with_field(header::LOCATION, location);
            if let Some(replayed) = published.headers.remove(REPLAYED) {
                problem = problem.with_field(REPLAYED, replayed);
            }
            return Err(match prefer::applied(wait) {
                Some((name, value)) => problem.with_field(name, value),
                None => problem,
            });
        }
        None => {
            let pending = PendingRequest {
                id: MessageId(published.id),
                correlation_id: published.correlation_id,
            };
            let mut response = reply(StatusCode::ACCEPTED, &pending);
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
    };
    response.extensions_mut().insert(Waited(waited));
    response.headers_mut().extend(published.headers);
    Ok(prefer::with_applied(response, wait))
}

/// Publishes, with somebody who waits if there is to be one.
async fn publish(
    gateway: &SharedGateway,
    name: QueueName,
    request: Request,
    wait: Option<u64>,
) -> Result<Published, Problem> {
    let (mut parts, body) = request.into_parts();
    demand_content_type(&parts.headers)?;
    let Some(keyed) = Keyed::of(&mut parts, gateway).await? else {
        let queue = gateway.queue(&name).await?;
        let (bytes, _room) = read_body(&gateway.capacity, &parts.headers, body).await?;
        let (publish, published) = prepare(gateway, queue, &parts.headers, bytes, wait).await?;
        let stored = store(gateway, &name, publish).await?;
        return Ok(published.now(stored.first().map(|stored| stored.id)));
    };
    let (bytes, _room) = read_body(&gateway.capacity, &parts.headers, body).await?;
    let once = keyed.once("request", &[name.as_str()], &parts.headers, &bytes);
    let before = match publish_once(gateway, &name, once, &parts.headers, bytes, wait).await {
        Ok(Ok(published)) => return Ok(published),
        Ok(Err(seen)) => first_answer(seen)?,
        Err(refusal) => answered_before(gateway, once, refusal).await?,
    };
    asked_before(gateway, &before, wait).await
}

/// Publishes with an idempotency key; or what is known of the key.
async fn publish_once(
    gateway: &SharedGateway,
    name: &QueueName,
    once: Once,
    headers: &HeaderMap,
    bytes: Bytes,
    wait: Option<u64>,
) -> Result<Result<Published, Seen>, Problem> {
    let queue = gateway.queue(name).await?;
    let (publish, published) = prepare(gateway, queue, headers, bytes, wait).await?;
    let stored = store_once(gateway, name, once, publish, PendingRequest::to_keep).await?;
    Ok(stored.map(|stored| published.now(stored.ids.first().copied())))
}

/// Reads and checks a request: what is to be published, and what is known of it
/// before.
async fn prepare(
    gateway: &SharedGateway,
    queue: Arc<Queue>,
    headers: &HeaderMap,
    bytes: Bytes,
    wait: Option<u64>,
) -> Result<(Publish, Published), Problem> {
    let mut read = parsed(headers, bytes)?;
    let (Some(one), true) = (read.pop(), read.is_empty()) else {
        return Err(Problem::invalid(
            "/messages",
            "one request at a time: send its fields",
        ));
    };
    one.refuse_routing()?;
    let timeout = check_timeout(&one)?;
    let mut message = one.message;
    refuse_what_is_the_gateways(&message)?;
    message.check(queue.settings.max_message_bytes, &one.at, (gateway.clock)())?;
    if let Some(version) = queue.schema_version {
        let one = std::iter::once((&*one.at, &mut message));
        let of = SchemaOf::Queue(queue.id);
        Box::pin(check_schema(gateway, of, version, one)).await?;
    }
    let now = gateway.broker.store().now().await?;
    let asked = Asked::new(rand::random(), queue.name.clone(), timeout, now);
    let correlation_id = gateway.requests.seal(&asked);
    message.correlation_id = Some(correlation_id.clone());
    message.ttl = Some(timeout);
    // The queue's delay is for jobs: it would use the time up.
    message.delay = Some(Seconds::ZERO);

    let quota = publish_quota(&queue.settings.rate_limit);
    let standing = gateway.limits.queues.publish(&queue, 1)?;
    let to = ReplyTo::from(&asked);
    let published = Published {
        id: 0,
        correlation_id,
        to,
        deadline: Instant::now(),
        timeout: timeout.to_duration(),
        // Before anybody can answer.
        awaiting: awaiting(gateway, to, wait),
        found: None,
        headers: described(Response::default(), quota, standing)
            .into_parts()
            .0
            .headers,
    };
    let messages = Arc::new(vec![message]);
    Ok((Publish { queue, messages }, published))
}

fn awaiting(gateway: &Gateway, to: ReplyTo, wait: Option<u64>) -> Option<Awaiting> {
    (prefer::time(wait) > Duration::ZERO).then(|| gateway.broker.replies().await_reply(to))
}

/// A request that was published before, under the same idempotency key: who sends it
/// again waits for the reply to the first.
async fn asked_before(
    gateway: &Gateway,
    before: &Kept,
    wait: Option<u64>,
) -> Result<Published, Problem> {
    let unreadable = || Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    let before = PendingRequest::read(before).ok_or_else(unreadable)?;
    let asked = gateway.requests.open(&before.correlation_id);
    let asked = asked.ok_or_else(unreadable)?;
    let to = ReplyTo::from(&asked);
    let awaiting = awaiting(gateway, to, wait);
    // It may have come long ago, and nobody tells of it again.
    let found = match &awaiting {
        Some(_) => match gateway.broker.replies().read(to).await? {
            ReplyRead::There(reply) => Some(reply),
            ReplyRead::Pending | ReplyRead::Over => None,
        },
        None => None,
    };
    let left = asked.over_at - gateway.broker.store().now().await?;
    Ok(Published {
        id: before.id.0,
        correlation_id: before.correlation_id,
        to,
        deadline: Instant::now() + left.to_std().unwrap_or_default(),
        timeout: asked.timeout.to_duration(),
        awaiting,
        found,
        headers: HeaderMap::from_iter([(REPLAYED, HeaderValue::from_static("true"))]),
    })
}

fn check_timeout(one: &Described) -> Result<Seconds, Problem> {
    let timeout = one.routing.timeout.unwrap_or(Asked::TIMEOUT);
    if (Seconds::from_millis(1)..=Asked::LONGEST_TIMEOUT).contains(&timeout) {
        Ok(timeout)
    } else {
        Err(Problem::invalid(
            one.place("timeout_seconds"),
            "must be from 0.001 to 3600 (an hour)",
        ))
    }
}

/// A request is delivered at once or not at all, once, and its reply finds the way
/// by the gateway's correlation id.
fn refuse_what_is_the_gateways(message: &Message) -> Result<(), domain::Error> {
    let wrong: Vec<Invalid> = [
        (message.delay.is_some(), "delay_seconds"),
        (message.deliver_at.is_some(), "deliver_at"),
        (message.ttl.is_some(), "ttl_seconds"),
        (message.dedup_id.is_some(), "dedup_id"),
        (message.correlation_id.is_some(), "correlation_id"),
        (message.reply_to.is_some(), "reply_to"),
    ]
    .into_iter()
    .filter(|(is_there, _)| *is_there)
    .map(|(_, field)| Invalid {
        pointer: format!("/{field}"),
        detail: "not with a request".to_owned(),
    })
    .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(domain::Error::Invalid(wrong))
    }
}
