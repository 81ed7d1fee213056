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
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::body::read_body;
use super::envelope::Waited;
use super::extract::{InQueue, NoParams, Query};
use super::idempotency::{Keyed, REPLAYED, answer_seen};
use super::message_input::{Described, MessageInput, demand_content_type, parsed};
use super::prefer;
use super::problem::Problem;
use super::publish::store;
use super::queue_limits::{described, publish_quota};
use super::replies::{ReplyView, write_reply};
use super::schemas::check_schema;
use super::told::tell_messages;
use super::{Gateway, SharedGateway, reply, to_keep};
use crate::batch::{Awaiting, NotPublished, PublishOnce, To};
use crate::domain::{self, Asked, Invalid, Message, MessageId, QueueName, Seconds};
use crate::store::{Kept, Once, Publish, Refusal, ReplyRead, ReplyTo, SchemaOf, Seen};

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
    deadline: Instant,
    awaiting: Option<Awaiting>,
    rest: Rest,
}

/// What is on every answer.
struct Rest {
    headers: HeaderMap,
}

impl Rest {
    fn on(self, mut response: Response) -> Response {
        response.headers_mut().extend(self.headers);
        response
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
    let mut found = None;
    if let Some(awaiting) = &mut published.awaiting {
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
            let problem = problem.with_field(header::LOCATION, location);
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
    Ok(prefer::with_applied(published.rest.on(response), wait))
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
    let keyed = Keyed::of(&mut parts, gateway).await?;
    let queue = gateway.queue(&name).await?;
    let (bytes, _room) = read_body(&gateway.capacity, &parts.headers, body).await?;
    let kept_as =
        keyed.map(|keyed| keyed.once("request", &[name.as_str()], &parts.headers, &bytes));
    let mut read = parsed(&parts.headers, bytes)?;
    let (Some(one), true) = (read.pop(), read.is_empty()) else {
        return Err(Problem::invalid(
            "/messages",
            "one request at a time: send its fields",
        ));
    };
    one.routing.refuse()?;
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
    let asked = Asked::new(rand::random(), name.clone(), timeout, now);
    let correlation_id = gateway.requests.seal(&asked);
    message.correlation_id = Some(correlation_id.clone());
    message.ttl = Some(timeout);
    // The queue's delay is for jobs: it would use the time up.
    message.delay = Some(Seconds::ZERO);

    let quota = publish_quota(&queue.settings.rate_limit);
    let standing = gateway.limits.queues.publish(&queue, 1)?;
    let to = ReplyTo::from(&asked);
    // Before anybody can answer.
    let awaiting =
        (prefer::time(wait) > Duration::ZERO).then(|| gateway.broker.replies().await_reply(to));
    let messages = Arc::new(vec![message]);
    let publish = Publish { queue, messages };
    let rest = described(Response::default(), quota, standing);
    let stored = match kept_as {
        None => {
            let stored = store(gateway, &name, publish).await?;
            stored.iter().map(|stored| stored.id).collect()
        }
        Some(kept_as) => match store_once(gateway, &name, kept_as, publish).await? {
            Ok(id) => vec![id],
            Err(before) => return asked_before(gateway, &before, rest, wait).await,
        },
    };
    Ok(Published {
        id: stored.first().copied().unwrap_or(0),
        correlation_id,
        to,
        deadline: Instant::now() + timeout.to_duration(),
        awaiting,
        rest: Rest {
            headers: rest.into_parts().0.headers,
        },
    })
}

/// Publishes a request with an idempotency key: its id, or what was answered before.
async fn store_once(
    gateway: &Gateway,
    name: &QueueName,
    once: Once,
    publish: Publish,
) -> Result<Result<i64, PendingRequest>, Problem> {
    let to = To::Queue(publish, |publish, published| {
        let message = publish.messages.first();
        to_keep(
            StatusCode::ACCEPTED,
            &PendingRequest {
                id: MessageId(published.first().map_or(0, |stored| stored.id)),
                correlation_id: message
                    .and_then(|message| message.correlation_id.clone())
                    .unwrap_or_default(),
            },
        )
    });
    match gateway
        .broker
        .publish_once(PublishOnce { once, to })
        .await?
    {
        Ok(published) => {
            tell_messages(published.ids.iter().copied());
            Ok(Ok(published.ids.first().copied().unwrap_or(0)))
        }
        Err(NotPublished::Seen(Seen::Answered(kept))) => {
            let before = PendingRequest::read(&kept);
            let before =
                before.ok_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
            Ok(Err(before))
        }
        Err(NotPublished::Seen(seen)) => Err(answer_seen(seen)
            .err()
            .unwrap_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))),
        Err(NotPublished::Queue(Refusal::Full { max_ready })) => {
            Err(Problem::queue_full(name, max_ready))
        }
        Err(_) => Err(Problem::queue_not_found(name)),
    }
}

/// A request that was published before, under the same idempotency key: who sends it
/// again waits for the reply to the first.
async fn asked_before(
    gateway: &Gateway,
    before: &PendingRequest,
    rest: Response,
    wait: Option<u64>,
) -> Result<Published, Problem> {
    let asked = gateway.requests.open(&before.correlation_id);
    let asked = asked.ok_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let to = ReplyTo::from(&asked);
    let awaiting =
        (prefer::time(wait) > Duration::ZERO).then(|| gateway.broker.replies().await_reply(to));
    let left = asked.over_at - gateway.broker.store().now().await?;
    let mut headers = rest.into_parts().0.headers;
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Published {
        id: before.id.0,
        correlation_id: before.correlation_id.clone(),
        to,
        deadline: Instant::now() + left.to_std().unwrap_or_default(),
        awaiting,
        rest: Rest { headers },
    })
}

fn check_timeout(one: &Described) -> Result<Seconds, Problem> {
    let timeout = one.routing.timeout.unwrap_or(Asked::TIMEOUT);
    if (Seconds::from_millis(1)..=Asked::LONGEST_TIMEOUT).contains(&timeout) {
        Ok(timeout)
    } else {
        Err(Problem::invalid(
            &one.routing.timeout_at,
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
