//! `POST /v1/queues/{queue}/messages`: publish.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::extract::{InQueue, NoParams, Query, is_json, parse, read_body, wrong_content_type};
use super::problem::Problem;
use super::{SharedGateway, reply};
use crate::domain::{self, Content, Headers, Invalid, Limits, Message, MessageId, Seconds};
use crate::store::{Publish, Refusal};

/// One message, or a batch of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Message, example = json!({"body": {"order": 42}, "headers": {"shop": "eu"}}))]
pub(crate) struct MessageInput<'a> {
    /// Any JSON value; kept and given back byte for byte.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<&'a RawValue>,
    /// Instead of `body`: bytes of any kind, in base64.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    body_base64: Option<Cow<'a, str>>,
    /// What kind of bytes; with `body_base64` only, by default
    /// application/octet-stream.
    content_type: Option<String>,
    /// At most 64, names and values strings.
    #[serde(default, deserialize_with = "unique_headers")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    headers: Headers,
    /// Ordering and partition key.
    key: Option<String>,
    /// 0 to 9, 9 is received first.
    #[serde(default)]
    priority: i64,
    /// Not before so many seconds from now; by default the queue's.
    #[schema(value_type = Option<f64>)]
    delay_seconds: Option<Seconds>,
    /// Or not before this time.
    deliver_at: Option<DateTime<Utc>>,
    /// How long it may wait once it is ready; by default the queue's.
    #[schema(value_type = Option<f64>)]
    ttl_seconds: Option<Seconds>,
    /// A second publish with the same id within the queue's window stores
    /// nothing and answers with the first one's id.
    dedup_id: Option<String>,
    /// For the application; given back as it came.
    correlation_id: Option<String>,
    /// For the application; given back as it came.
    reply_to: Option<String>,
    /// Instead of everything above: 1 to 1000 messages, stored all or none.
    #[serde(borrow)]
    #[schema(no_recursion)]
    messages: Option<Vec<MessageInput<'a>>>,
}

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

/// `null` is a body too.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

/// A map in which no name comes twice.
fn unique_headers<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Headers, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Headers;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of strings")
        }
        fn visit_unit<E>(self) -> Result<Headers, E> {
            Ok(Headers::new())
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
            let mut headers = Headers::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if headers.insert(name, value).is_some() {
                    return Err(serde::de::Error::custom("duplicate name"));
                }
            }
            Ok(headers)
        }
    }
    d.deserialize_any(Visitor)
}

/// Trace context of the request, kept with its messages.
#[derive(Debug, Clone, Default)]
struct Trace {
    parent: Option<String>,
    state: Option<String>,
}

impl Trace {
    /// W3C Trace Context, section 3.2: what is not valid is ignored.
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_valid = |parent: &&str| {
            let parts: Vec<&str> = parent.split('-').collect();
            let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            lengths.starts_with(&[2, 32, 16, 2])
                // Later versions may say more.
                && (parts.len() == 4 || parts[0] != "00")
                && parts[..4]
                    .concat()
                    .bytes()
                    .all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
                && parts[0] != "ff"
                && parts[1].bytes().any(|c| c != b'0')
                && parts[2].bytes().any(|c| c != b'0')
        };
        let parent = text("traceparent").filter(is_valid).map(str::to_owned);
        let state = text("tracestate")
            .filter(|state| parent.is_some() && state.len() <= 512)
            .map(str::to_owned);
        Self { parent, state }
    }
}

impl MessageInput<'_> {
    /// Whether no field says anything.
    fn is_empty(&self) -> bool {
        let Self {
            body: None,
            body_base64: None,
            content_type: None,
            headers,
            key: None,
            priority: 0,
            delay_seconds: None,
            deliver_at: None,
            ttl_seconds: None,
            dedup_id: None,
            correlation_id: None,
            reply_to: None,
            messages: None,
        } = self
        else {
            return false;
        };
        headers.is_empty()
    }

    /// The message that this describes, found at `at` in `bytes`.
    fn message(self, bytes: &Bytes, at: &str, trace: &Trace) -> Result<Message, domain::Error> {
        let content = match (self.body, self.body_base64, self.content_type) {
            (Some(_), Some(_), _) => {
                return Err(domain::Error::invalid(
                    format!("{at}/body_base64"),
                    "not together with body",
                ));
            }
            (Some(_), None, Some(_)) => {
                return Err(domain::Error::invalid(
                    format!("{at}/content_type"),
                    "only with body_base64: body is JSON",
                ));
            }
            (Some(body), None, None) => Content {
                body: bytes.slice_ref(body.get().as_bytes()),
                content_type: None,
            },
            (None, Some(base64), content_type) => Content {
                body: STANDARD
                    .decode(base64.as_bytes())
                    .map_err(|_| {
                        domain::Error::invalid(format!("{at}/body_base64"), "is not base64")
                    })?
                    .into(),
                content_type: Some(
                    content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
                ),
            },
            (None, None, _) => {
                return Err(domain::Error::invalid(
                    format!("{at}/body"),
                    "is missing: send body (any JSON value) or body_base64",
                ));
            }
        };
        Ok(Message {
            content,
            headers: self.headers,
            key: self.key,
            // Out of range either way, and checked with the rest.
            priority: i16::try_from(self.priority).unwrap_or(-1),
            delay: self.delay_seconds,
            deliver_at: self.deliver_at,
            ttl: self.ttl_seconds,
            dedup_id: self.dedup_id,
            correlation_id: self.correlation_id,
            reply_to: self.reply_to,
            traceparent: trace.parent.clone(),
            tracestate: trace.state.clone(),
        })
    }
}

/// The messages of a JSON request, each with its place.
fn from_json(bytes: &Bytes, trace: &Trace) -> Result<Vec<(String, Message)>, Problem> {
    let mut input: MessageInput<'_> = parse(bytes)?;
    let Some(batch) = input.messages.take() else {
        return Ok(vec![(String::new(), input.message(bytes, "", trace)?)]);
    };
    if !input.is_empty() {
        return Err(Problem::invalid(
            "/messages",
            "not together with the fields of one message",
        ));
    }
    if batch.is_empty() || batch.len() > Limits::BATCH {
        return Err(Problem::invalid(
            "/messages",
            format!(
                "must be 1 to {} messages, not {}",
                Limits::BATCH,
                batch.len()
            ),
        ));
    }
    let mut messages = Vec::with_capacity(batch.len());
    for (index, item) in batch.into_iter().enumerate() {
        let at = format!("/messages/{index}");
        if item.messages.is_some() {
            return Err(Problem::invalid(
                format!("{at}/messages"),
                "a batch holds no batches",
            ));
        }
        let message = item.message(bytes, &at, trace)?;
        messages.push((at, message));
    }
    Ok(messages)
}

/// The message of a request of any other content type: its body as it is, its
/// properties in headers.
fn from_bytes(headers: &HeaderMap, body: Bytes, trace: Trace) -> Result<Message, Problem> {
    let mut message = Message {
        content: Content {
            body,
            content_type: None,
        },
        headers: Headers::new(),
        key: None,
        priority: 0,
        delay: None,
        deliver_at: None,
        ttl: None,
        dedup_id: None,
        correlation_id: None,
        reply_to: None,
        traceparent: trace.parent,
        tracestate: trace.state,
    };
    let mut wrong = Vec::new();
    let mut previous = "";
    for (name, value) in headers {
        let name = name.as_str();
        let comes_again = std::mem::replace(&mut previous, name) == name;
        let property = name.strip_prefix("postrider-");
        if property.is_none() && name != header::CONTENT_TYPE.as_str() {
            continue;
        }
        let mut refuse = |detail: &str| {
            wrong.push(Invalid {
                pointer: name.to_owned(),
                detail: detail.to_owned(),
            });
        };
        if comes_again {
            refuse("comes twice");
            continue;
        }
        let Ok(value) = value.to_str().map(str::to_owned) else {
            refuse("must be visible ASCII characters");
            continue;
        };
        let seconds = |value: &str| value.parse().ok().and_then(Seconds::from_f64);
        match property {
            None => message.content.content_type = Some(value),
            Some("key") => message.key = Some(value),
            Some("dedup-id") => message.dedup_id = Some(value),
            Some("correlation-id") => message.correlation_id = Some(value),
            Some("reply-to") => message.reply_to = Some(value),
            Some("priority") => match value.parse() {
                Ok(priority) => message.priority = priority,
                Err(_) => refuse("must be a number from 0 to 9"),
            },
            Some("delay-seconds") => match seconds(&value) {
                Some(delay) => message.delay = Some(delay),
                None => refuse("must be a number of seconds"),
            },
            Some("ttl-seconds") => match seconds(&value) {
                Some(ttl) => message.ttl = Some(ttl),
                None => refuse("must be a number of seconds"),
            },
            Some("deliver-at") => match DateTime::parse_from_rfc3339(&value) {
                Ok(time) => message.deliver_at = Some(time.to_utc()),
                Err(_) => refuse("must be an RFC 3339 time"),
            },
            Some(other) => match other.strip_prefix("header-") {
                Some(header) => {
                    message.headers.insert(header.to_owned(), value);
                }
                None => refuse("is not a property of a message"),
            },
        }
    }
    if wrong.is_empty() {
        Ok(message)
    } else {
        Err(domain::Error::Invalid(wrong).into())
    }
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
/// `traceparent` and `tracestate` of the request are kept with the messages.
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
                "body": {"order": 42}, "headers": {"shop": "eu"}, "priority": 5}))),
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
        (status = 422, description = "`invalid`; nothing was stored"),
        (status = 429, description = "`queue-full`; nothing was stored"),
    ),
)]
pub(crate) async fn publish(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !parts.headers.contains_key(header::CONTENT_TYPE) {
        return Err(wrong_content_type(
            "application/json, or what the bytes are",
        ));
    }
    let queue = gateway.queue(&name).await?;
    let bytes = read_body(&parts.headers, body).await?;
    let trace = Trace::of(&parts.headers);
    let messages = if is_json(&parts.headers) {
        from_json(&bytes, &trace)?
    } else {
        vec![(String::new(), from_bytes(&parts.headers, bytes, trace)?)]
    };
    let now = (gateway.clock)();
    for (at, message) in &messages {
        message.check(&queue.settings, at, now)?;
    }
    let messages = Arc::new(messages.into_iter().map(|(_, message)| message).collect());

    let mut request = Publish { queue, messages };
    let mut result = gateway.broker.publish(request.clone()).await?;
    if result == Err(Refusal::NoQueue) {
        // Deleted since it was cached; it may be there anew.
        request.queue = gateway
            .broker
            .store()
            .queue_now(&name)
            .await?
            .ok_or_else(|| Problem::queue_not_found(&name))?;
        result = gateway.broker.publish(request).await?;
    }
    match result {
        Ok(published) => {
            let messages = published
                .into_iter()
                .map(|m| PublishedMessage {
                    id: MessageId(m.id),
                    duplicate: m.duplicate,
                })
                .collect();
            Ok(reply(StatusCode::CREATED, &PublishAnswer { messages }))
        }
        Err(Refusal::NoQueue) => Err(Problem::queue_not_found(&name)),
        Err(Refusal::Full { max_ready }) => Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue-full",
            format!("The queue has no room under its max_ready of {max_ready}. Try again later."),
        )
        .retry_after(1)),
    }
}
