//! `POST /v1/queues/{queue}/messages`: publish.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::read_body;
use super::extract::{InQueue, NoParams, Query};
use super::idempotency::{Keyed, answer, answer_seen, has_key, unless_answered};
use super::message_input::{Described, MessageInput, demand_content_type, parsed, read_messages};
use super::problem::Problem;
use super::queue_limits::{described, publish_quota};
use super::schemas::check_schema;
use super::told::tell_messages;
use super::{Gateway, SharedGateway, reply, to_keep};
use crate::batch::{NotPublished, PublishOnce, PublishedOnce, To};
use crate::domain::{Message, MessageId, QueueName};
use crate::store::{Kept, Once, Publish, Published, Queue, Refusal, SchemaOf, Seen};

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishAnswer {
    messages: Vec<PublishedMessage>,
}

/// One stored message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishedMessage {
    /// Its id; sorts by publish order.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// Whether it was stored before under this `dedup_id`.
    duplicate: bool,
}

impl PublishAnswer {
    fn of(published: &[Published]) -> Self {
        let messages = published.iter().map(|m| PublishedMessage {
            id: MessageId(m.id),
            duplicate: m.duplicate,
        });
        Self {
            messages: messages.collect(),
        }
    }

    fn to_keep(_: &Publish, published: &[Published]) -> Kept {
        to_keep(StatusCode::CREATED, &Self::of(published))
    }
}

/// Refuses messages that are not for this queue.
fn check(gateway: &Gateway, queue: &Queue, read: &[Described]) -> Result<(), Problem> {
    let now = (gateway.clock)();
    let max_bytes = queue.settings.max_message_bytes;
    for one in read {
        one.refuse_routing()?;
        one.refuse_timeout()?;
        one.message.check(max_bytes, &one.at, now)?;
    }
    Ok(())
}

/// Publish messages
///
/// One message, or a batch as `{"messages": [...]}` that is stored whole or not
/// at all. The answer comes when Postgres has committed and flushed.
///
/// With any content type but `application/json` the body's bytes are stored as
/// they are; properties are then headers: `Postrider-Key`, `Postrider-Priority`,
/// `Postrider-Delay-Seconds`, `Postrider-Deliver-At`, `Postrider-Ttl-Seconds`,
/// `Postrider-Dedup-Id`, `Postrider-Correlation-Id`, `Postrider-Reply-To`, and
/// `Postrider-Header-NAME` for a header of the message.
///
/// `traceparent` and `tracestate` of the request are kept with the messages; those of
/// the publish's own span instead, if the gateway records one.
///
/// Where the queue has a `rate_limit`, answers say what is left of it, as
/// draft-ietf-httpapi-ratelimit-headers-11 has it: `RateLimit-Policy:
/// "publish";q=100;w=1` is 100 messages in 1 s, `RateLimit: "publish";r=40;t=1`
/// that 40 are left and all are there again in 1 s.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/messages", tag = "Messages",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
        ("tracestate" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(content(
        (MessageInput<'static> = "application/json", examples(
            ("one" = (summary = "One message", value = json!({
                "body": {"order": 42}, "key": "customer-7", "headers": {"shop": "eu"}, "priority": 5}))),
            ("batch" = (summary = "A batch", value = json!({
                "messages": [{"body": {"order": 43}}, {"body": {"order": 44}, "delay_seconds": 1}]}))),
        )),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 201, description = "Committed and flushed", body = PublishAnswer),
        (status = 404, description = "`queue-not-found`"),
        (status = 408, description = "`body-timeout`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `batch-over-burst`, `schema-violation`; nothing was \
            stored"),
        (status = 429, description = "`queue-full`, `rate-limited`; nothing was stored"),
    ),
)]
pub(crate) async fn publish(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    demand_content_type(&parts.headers)?;
    if has_key(&parts.headers) {
        // Not all have one, so the rest have no room for it.
        return Box::pin(publish_once(gateway, name, parts, body)).await;
    }
    let queue = gateway.queue(&name).await?;
    let mut read = read_messages(&gateway.capacity, &parts.headers, body).await?;
    check(&gateway, &queue, &read)?;
    if let Some(version) = queue.schema_version {
        // In a box, which only those have who need it.
        Box::pin(check_by_queue(&gateway, &queue, version, &mut read)).await?;
    }
    let quota = publish_quota(&queue.settings.rate_limit);
    let standing = gateway.limits.queues.publish(&queue, read.len())?;
    let messages = Arc::new(read.into_iter().map(|one| one.message).collect());

    let published = store(&gateway, &name, Publish { queue, messages }).await?;
    let answer = reply(StatusCode::CREATED, &PublishAnswer::of(&published));
    Ok(described(answer, quota, standing))
}

/// Stores messages in the queue of this name, all or none.
pub(crate) async fn store(
    gateway: &Gateway,
    name: &QueueName,
    mut request: Publish,
) -> Result<Vec<Published>, Problem> {
    let with_schema = request.queue.schema_version.is_some();
    let mut result = gateway.broker.publish(request.clone()).await?;
    if result == Err(Refusal::NoQueue) {
        // Deleted since it was cached; it may be there anew.
        request.queue = gateway
            .broker
            .store()
            .queue_now(name)
            .await?
            .ok_or_else(|| Problem::queue_not_found(name))?;
        if with_schema || request.queue.schema_version.is_some() {
            request.messages =
                Box::pin(checked_anew(gateway, &request.queue, &request.messages)).await?;
        }
        result = gateway.broker.publish(request).await?;
    }
    match result {
        Ok(published) => {
            tell_messages(published.iter().map(|m| m.id));
            Ok(published)
        }
        Err(Refusal::NoQueue) => Err(Problem::queue_not_found(name)),
        Err(Refusal::Full { max_ready }) => Err(Problem::queue_full(name, max_ready)),
    }
}

/// A request's messages, checked by the schema of another queue of the same name.
async fn checked_anew(
    gateway: &Gateway,
    queue: &Queue,
    messages: &[Message],
) -> Result<Arc<Vec<Message>>, Problem> {
    let mut messages = messages.to_vec();
    let places: Vec<String> = match messages.len() {
        1 => vec![String::new()],
        many => (0..many)
            .map(|place| format!("/messages/{place}"))
            .collect(),
    };
    for message in &mut messages {
        message.schema_version = None;
    }
    if let Some(version) = queue.schema_version {
        let of = SchemaOf::Queue(queue.id);
        let messages = places.iter().map(String::as_str).zip(&mut messages);
        check_schema(gateway, of, version, messages).await?;
    }
    Ok(Arc::new(messages))
}

/// Checks messages by the queue's schema.
async fn check_by_queue(
    gateway: &Gateway,
    queue: &Queue,
    version: i32,
    read: &mut [Described],
) -> Result<(), Problem> {
    let messages = read.iter_mut().map(|one| (&*one.at, &mut one.message));
    check_schema(gateway, SchemaOf::Queue(queue.id), version, messages).await
}

/// A publish with an idempotency key.
async fn publish_once(
    gateway: SharedGateway,
    name: QueueName,
    mut parts: Parts,
    body: Body,
) -> Result<Response, Problem> {
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let keyed = keyed.ok_or_else(|| Problem::of_status(StatusCode::BAD_REQUEST))?;
    let headers = &parts.headers;
    let (bytes, _room) = read_body(&gateway.capacity, headers, body).await?;
    let once = keyed.once("publish", &[name.as_str()], headers, &bytes);
    let result = read_and_store(&gateway, &name, once, headers, bytes).await;
    unless_answered(&gateway, once, result).await
}

async fn read_and_store(
    gateway: &Gateway,
    name: &QueueName,
    once: Once,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let queue = gateway.queue(name).await?;
    let mut read = parsed(headers, bytes)?;
    check(gateway, &queue, &read)?;
    if let Some(version) = queue.schema_version {
        check_by_queue(gateway, &queue, version, &mut read).await?;
    }
    let quota = publish_quota(&queue.settings.rate_limit);
    let standing = gateway.limits.queues.publish(&queue, read.len())?;
    let messages = Arc::new(read.into_iter().map(|one| one.message).collect());
    let publish = Publish { queue, messages };
    match store_once(gateway, name, once, publish, PublishAnswer::to_keep).await? {
        Ok(published) => Ok(described(answer(published.kept), quota, standing)),
        Err(seen) => answer_seen(seen),
    }
}

/// Stores messages in the queue of this name, all or none, under an idempotency key;
/// or what is known of the key.
pub(crate) async fn store_once(
    gateway: &Gateway,
    name: &QueueName,
    once: Once,
    mut publish: Publish,
    to_keep: fn(&Publish, &[Published]) -> Kept,
) -> Result<Result<PublishedOnce, Seen>, Problem> {
    let mut tried_anew = false;
    loop {
        let to = To::Queue(publish.clone(), to_keep);
        match gateway
            .broker
            .publish_once(PublishOnce { once, to })
            .await?
        {
            Ok(published) => {
                tell_messages(published.ids.iter().copied());
                return Ok(Ok(published));
            }
            Err(NotPublished::Seen(seen)) => return Ok(Err(seen)),
            Err(NotPublished::Queue(Refusal::Full { max_ready })) => {
                return Err(Problem::queue_full(name, max_ready));
            }
            Err(_) if tried_anew => return Err(Problem::queue_not_found(name)),
            Err(_) => {
                // Deleted since it was cached; it may be there anew.
                tried_anew = true;
                let now = gateway.broker.store().queue_now(name).await?;
                publish.queue = now.ok_or_else(|| Problem::queue_not_found(name))?;
                publish.messages = checked_anew(gateway, &publish.queue, &publish.messages).await?;
            }
        }
    }
}
