//! `POST /v1/queues/{queue}/receive`: lease messages, waiting for them.

use std::io::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::Waited;
use super::extract::{InQueue, NoParams, OptionalJson, Query, in_range};
use super::problem::Problem;
use super::queue_limits::{described, receive_quota};
use super::whole::optional_whole;
use super::{SharedGateway, json_bytes};
use crate::batch;
use crate::batch::Wait;
use crate::domain::{Headers, MessageId, QueueSettings, ReceiptKey, RequestKey, Seconds};
use crate::spans::{Carried, Span};
use crate::store::{Delivery, Envelope, Queue, Receiver};

/// What to receive.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Receive, example = json!({"max_messages": 10, "wait_seconds": 1, "lease_seconds": 30}))]
pub(crate) struct ReceiveRequest {
    /// 1 to 1000, by default 1.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 1000)]
    max_messages: Option<i64>,
    /// How long to wait until at least one is there; 0 to 60, by default 0.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 60)]
    wait_seconds: Option<Seconds>,
    /// How long they are this consumer's alone; by default the queue's.
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 43_200)]
    lease_seconds: Option<Seconds>,
}

/// Leased messages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Received {
    messages: Vec<ReceivedMessage>,
}

/// A leased message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceivedMessage {
    /// Its id; the same in every attempt.
    #[schema(example = "msg_000000000001a")]
    id: String,
    /// Settles this lease; each attempt has its own.
    receipt: String,
    /// The JSON value, byte for byte as it was published.
    body: Option<serde_json::Value>,
    /// Or the bytes, in base64.
    body_base64: Option<String>,
    content_type: String,
    headers: Headers,
    key: Option<String>,
    priority: i16,
    /// 1 first.
    attempt: u32,
    enqueued_at: DateTime<Utc>,
    /// Until when the message is this consumer's alone, by the database's clock.
    lease_expires_at: DateTime<Utc>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    /// W3C Trace Context of the publish.
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// The topic it was published to; null for a publish to a queue.
    topic: Option<String>,
    /// What it was routed by; null for a publish to a queue.
    routing_key: Option<String>,
    /// Only of a request: until when it may be answered, with
    /// `POST /v1/queues/{queue}/reply`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_deadline: Option<DateTime<Utc>>,
    /// The version of the topic's or queue's schema that it was checked with; left out:
    /// there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<i32>,
}

/// The fields of a leased message around its body.
#[derive(Serialize)]
struct DeliveryHead<'a> {
    id: MessageId,
    receipt: String,
    content_type: &'a str,
    headers: &'a Headers,
    key: Option<&'a str>,
    priority: i16,
    attempt: u32,
    enqueued_at: DateTime<Utc>,
    lease_expires_at: DateTime<Utc>,
    correlation_id: Option<&'a str>,
    reply_to: Option<&'a str>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
    topic: Option<&'a str>,
    routing_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_deadline: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<i32>,
}

/// What a JSON value is published and given back as.
pub(crate) const JSON: &str = "application/json";

/// A field that is there for the document only, and never set:
/// [`write_with_body`] writes it.
pub(crate) type WrittenApart = Option<()>;

/// Writes an object with a body in it: the fields of `head`, then the stored
/// bytes, JSON as they are, others in base64. Parsing and printing the body
/// would change it.
pub(crate) fn write_with_body<T: Serialize>(
    out: &mut Vec<u8>,
    head: &T,
    envelope: &Envelope,
) -> std::io::Result<()> {
    write_around(out, head, &envelope.body, envelope.is_json())
}

/// The same with a body that is no message's.
pub(crate) fn write_around<T: Serialize>(
    out: &mut Vec<u8>,
    head: &T,
    body: &[u8],
    is_json: bool,
) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, head)?;
    let closing = out.pop();
    debug_assert_eq!(closing, Some(b'}'), "the head is an object");
    if is_json {
        out.extend_from_slice(b",\"body\":");
        out.extend_from_slice(body);
        out.push(b'}');
    } else {
        write!(out, ",\"body_base64\":\"{}\"}}", STANDARD.encode(body))?;
    }
    Ok(())
}

fn write(
    deliveries: &[Delivery],
    receipts: &ReceiptKey,
    requests: &RequestKey,
) -> std::io::Result<Vec<u8>> {
    let size: usize = deliveries
        .iter()
        .map(|d| d.envelope.body.len() * 4 / 3 + 600)
        .sum();
    let mut out = Vec::with_capacity(size + 20);
    out.extend_from_slice(b"{\"messages\":[");
    for (index, delivery) in deliveries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let envelope = &delivery.envelope;
        let head = DeliveryHead {
            id: MessageId(delivery.lease.message_id),
            receipt: receipts.seal(&delivery.lease),
            content_type: envelope.content_type.as_deref().unwrap_or(JSON),
            headers: &envelope.headers,
            key: envelope.key.as_deref(),
            priority: delivery.priority,
            attempt: delivery.lease.attempt,
            enqueued_at: envelope.enqueued_at,
            lease_expires_at: delivery.lease_expires_at,
            correlation_id: envelope.correlation_id.as_deref(),
            reply_to: envelope.reply_to.as_deref(),
            traceparent: envelope.traceparent.as_deref(),
            tracestate: envelope.tracestate.as_deref(),
            topic: envelope.topic.as_deref(),
            routing_key: envelope.routing_key.as_deref(),
            reply_deadline: envelope
                .correlation_id
                .as_deref()
                .and_then(|id| requests.open(id))
                .map(|asked| asked.deadline(envelope.enqueued_at)),
            schema_version: envelope.schema_version,
        };
        write_with_body(&mut out, &head, envelope)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn published(envelope: &Envelope) -> Option<Carried<'_>> {
    Carried::kept(
        envelope.traceparent.as_deref(),
        envelope.tracestate.as_deref(),
    )
}

/// Tells what was received: the span is linked to those of the publishes.
fn tell(deliveries: &[Delivery]) {
    if let Some(span) = Span::current() {
        span.link(deliveries.iter().filter_map(|d| published(&d.envelope)));
        let ids: Vec<i64> = deliveries.iter().map(|d| d.lease.message_id).collect();
        span.messages(&ids);
    }
}

/// A lease's length: the queue's if the request does not say.
pub(crate) fn check_lease(lease: Option<Seconds>, queue: &Queue) -> Result<Seconds, Problem> {
    let lease = lease.unwrap_or(queue.settings.lease);
    if (Seconds::from_millis(1)..=QueueSettings::MAX_LEASE).contains(&lease) {
        Ok(lease)
    } else {
        Err(Problem::invalid(
            "/lease_seconds",
            "must be from 0.001 to 43200 (12 hours)",
        ))
    }
}

/// Receive messages
///
/// Leases up to `max_messages`: nobody else gets them until the lease ends. With
/// `wait_seconds` the call waits until at least one is there; without messages
/// the answer is an empty list.
///
/// A queue at its `max_in_flight` is as good as empty until a lease ends. Where
/// the queue has a `rate_limit`, each call costs one, whatever it brings, and
/// answers say what was left when the call came, as those of a publish do:
/// `RateLimit-Policy: "receive";q=100;w=1`, `RateLimit: "receive";r=40;t=1`.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/receive", tag = "Messages",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body(content = ReceiveRequest, description = "May be left out"),
    responses(
        (status = 200, description = "The messages, oldest of the highest priority first",
            body = Received),
        (status = 404, description = "`queue-not-found`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
        (status = 429, description = "`rate-limited`"),
    ),
)]
pub(crate) async fn receive(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    OptionalJson(request): OptionalJson<ReceiveRequest>,
) -> Result<Response, Problem> {
    let max_messages = in_range(request.max_messages, 1, 1..=1000, "/max_messages")?;
    let wait = request.wait_seconds.unwrap_or(Seconds::ZERO);
    if !(Seconds::ZERO..=Seconds::new(60)).contains(&wait) {
        return Err(Problem::invalid("/wait_seconds", "must be from 0 to 60"));
    }
    let queue = gateway.queue(&name).await?;
    let wish = Receiver {
        max_messages: u32::try_from(max_messages).unwrap_or(1),
        lease: check_lease(request.lease_seconds, &queue)?,
    };
    let (wait, waiting) = if wait > Seconds::ZERO {
        let waiting = gateway.capacity.let_wait()?;
        (Wait::UpTo(wait.to_duration()), Some(waiting))
    } else {
        (Wait::No, None)
    };
    let standing = gateway.limits.queues.receive(&queue)?;
    // From here to the return nothing waits (but in ordered queues, for what stands
    // behind): a client that is still there when the leases arrive is sent them.
    let batch::Received { deliveries, waited } =
        gateway.broker.receive(queue.id, wish, wait).await?;
    drop(waiting);
    let deliveries = if queue.has_runs() && (1..max_messages).contains(&len(&deliveries)) {
        let following = gateway
            .broker
            .follow(queue.id, deliveries, wish.max_messages, wish.lease);
        Box::pin(following).await
    } else {
        deliveries
    };
    tell(&deliveries);
    let json = write(&deliveries, &gateway.receipts, &gateway.requests)
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let mut response = json_bytes(StatusCode::OK, json);
    if waited > Duration::ZERO {
        let metrics = gateway.broker.store().metrics();
        metrics.receive_wait.record_time(waited);
        response.extensions_mut().insert(Waited(waited));
    }
    let quota = receive_quota(&queue.settings.rate_limit);
    Ok(described(response, quota, standing))
}

fn len(deliveries: &[Delivery]) -> i64 {
    i64::try_from(deliveries.len()).unwrap_or(i64::MAX)
}
