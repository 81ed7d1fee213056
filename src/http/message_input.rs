//! A message as requests describe it: JSON, one or a batch, or bytes whose
//! properties are in headers. The same for queues and topics.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::read_body;
use super::capacity::Capacity;
pub(crate) use super::extract::demand_content_type;
use super::extract::{is_json, parse};
use super::problem::Problem;
use super::shapes;
use super::told::Trace;
use super::whole::whole;
use crate::domain::{self, Content, Headers, Invalid, Limits, Message, Seconds};

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
    #[schema(
        value_type = Option<String>,
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
    )]
    body_base64: Option<Cow<'a, str>>,
    /// What kind of bytes; with `body_base64` only, by default
    /// application/octet-stream.
    #[schema(pattern = "^[ -~]{1,256}$")]
    content_type: Option<String>,
    /// At most 64, names and values strings.
    #[serde(default, deserialize_with = "unique_headers")]
    #[schema(schema_with = shapes::message_headers)]
    headers: Headers,
    /// Ordering and partition key.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    key: Option<String>,
    /// Whether its key takes turns with others, so that one with many messages does
    /// not make them wait; by default the queue's. Means nothing without a key, and
    /// in an ordered queue.
    fair: Option<bool>,
    /// 0 to 9, 9 is received first.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 9)]
    priority: i64,
    /// Not before so many seconds from now; by default the queue's.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 31_536_000)]
    delay_seconds: Option<Seconds>,
    /// Or not before this time.
    deliver_at: Option<DateTime<Utc>>,
    /// How long it may wait once it is ready; by default the queue's.
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 31_536_000)]
    ttl_seconds: Option<Seconds>,
    /// A second publish with the same id within the queue's window stores
    /// nothing and answers with the first one's id.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    dedup_id: Option<String>,
    /// For the application; given back as it came.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    correlation_id: Option<String>,
    /// For the application; given back as it came.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    reply_to: Option<String>,
    /// To a topic only: what its subscriptions choose by; words separated by
    /// dots, at most 255 bytes.
    #[schema(max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    routing_key: Option<String>,
    /// To a topic only: whether the publish is refused if no subscription
    /// matches.
    mandatory: Option<bool>,
    /// Of a request only: how long its reply is waited for.
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 3600)]
    timeout_seconds: Option<Seconds>,
    /// Instead of everything above: 1 to 1000 messages, stored all or none.
    #[serde(borrow)]
    #[schema(no_recursion)]
    messages: Option<Vec<MessageInput<'a>>>,
}

/// A message of a request.
pub(crate) struct Described {
    /// JSON pointer to it; empty if it is the whole.
    pub(crate) at: String,
    pub(crate) message: Message,
    pub(crate) routing: Routing,
    /// Whether its properties are in headers.
    in_headers: bool,
}

/// What only a topic or a request looks at.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    pub(crate) key: Option<String>,
    pub(crate) mandatory: Option<bool>,
    pub(crate) timeout: Option<Seconds>,
}

impl Described {
    /// Where a field of it stands in the request.
    pub(crate) fn place(&self, field: &str) -> String {
        if self.in_headers {
            format!("postrider-{}", field.replace('_', "-"))
        } else {
            format!("{}/{field}", self.at)
        }
    }

    /// A publish waits for no reply.
    pub(crate) fn refuse_timeout(&self) -> Result<(), domain::Error> {
        match self.routing.timeout {
            None => Ok(()),
            Some(_) => Err(domain::Error::invalid(
                self.place("timeout_seconds"),
                "only with a request: POST /v1/queues/{queue}/requests",
            )),
        }
    }

    /// A queue does not route.
    pub(crate) fn refuse_routing(&self) -> Result<(), domain::Error> {
        let field = match self.routing {
            Routing { key: Some(_), .. } => "routing_key",
            Routing {
                mandatory: Some(_), ..
            } => "mandatory",
            _ => return Ok(()),
        };
        Err(domain::Error::invalid(
            self.place(field),
            "only with a topic: publish to /v1/topics/{topic}/messages",
        ))
    }
}

/// The messages of a request.
pub(crate) async fn read_messages(
    capacity: &Capacity,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<Described>, Problem> {
    // From here on the batcher has bounds of its own.
    let (bytes, _room) = read_body(capacity, headers, body).await?;
    parsed(headers, bytes)
}

/// The messages of a request whose body was read.
pub(crate) fn parsed(headers: &HeaderMap, bytes: Bytes) -> Result<Vec<Described>, Problem> {
    let trace = Trace::to_keep(headers);
    if is_json(headers) {
        from_json(&bytes, &trace)
    } else {
        Ok(vec![from_bytes(headers, bytes, trace)?])
    }
}

/// `null` is a body too.
pub(super) fn present<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

/// A map in which no name comes twice.
pub(crate) fn unique_headers<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Headers, D::Error> {
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

/// A body in one of its two forms, of a message that is found at `at`.
pub(super) fn content(
    at: &str,
    body: Option<Bytes>,
    body_base64: Option<&str>,
    content_type: Option<String>,
) -> Result<Content, domain::Error> {
    let wrong = |field: &str, detail| Err(domain::Error::invalid(format!("{at}/{field}"), detail));
    match (body, body_base64, content_type) {
        (Some(_), Some(_), _) => wrong("body_base64", "not together with body"),
        (Some(_), None, Some(_)) => wrong("content_type", "only with body_base64: body is JSON"),
        (Some(body), None, None) => Ok(Content {
            body,
            content_type: None,
        }),
        (None, Some(base64), content_type) => match STANDARD.decode(base64.as_bytes()) {
            Ok(decoded) => Ok(Content {
                body: decoded.into(),
                content_type: Some(
                    content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
                ),
            }),
            Err(_) => wrong("body_base64", "is not base64"),
        },
        (None, None, _) => wrong(
            "body",
            "is missing: send body (any JSON value) or body_base64",
        ),
    }
}

/// JSON in a request's body, which is not copied.
pub(super) fn part_of(bytes: &Bytes, json: &RawValue) -> Bytes {
    bytes.slice_ref(json.get().as_bytes())
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
            fair: None,
            priority: 0,
            delay_seconds: None,
            deliver_at: None,
            ttl_seconds: None,
            dedup_id: None,
            correlation_id: None,
            reply_to: None,
            routing_key: None,
            mandatory: None,
            timeout_seconds: None,
            messages: None,
        } = self
        else {
            return false;
        };
        headers.is_empty()
    }

    /// The message that this describes, found at `at` in `bytes`.
    pub(crate) fn message(
        self,
        bytes: &Bytes,
        at: String,
        trace: &Trace,
    ) -> Result<Described, domain::Error> {
        if self.messages.is_some() {
            return Err(domain::Error::invalid(
                format!("{at}/messages"),
                "holds no batch",
            ));
        }
        let body = self.body.map(|body| part_of(bytes, body));
        let content = content(&at, body, self.body_base64.as_deref(), self.content_type)?;
        Ok(Described {
            message: Message {
                content,
                headers: self.headers,
                key: self.key,
                fair: self.fair,
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
                schema_version: None,
            },
            routing: Routing {
                key: self.routing_key,
                mandatory: self.mandatory,
                timeout: self.timeout_seconds,
            },
            at,
            in_headers: false,
        })
    }
}

/// The messages of a JSON request.
fn from_json(bytes: &Bytes, trace: &Trace) -> Result<Vec<Described>, Problem> {
    let mut input: MessageInput<'_> = parse(bytes)?;
    let Some(batch) = input.messages.take() else {
        return Ok(vec![input.message(bytes, String::new(), trace)?]);
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
        messages.push(item.message(bytes, at, trace)?);
    }
    Ok(messages)
}

/// The message of a request of any other content type: its body as it is, its
/// properties in headers.
fn from_bytes(headers: &HeaderMap, body: Bytes, trace: Trace) -> Result<Described, Problem> {
    let mut routing = Routing::default();
    let content = Content {
        body,
        content_type: None,
    };
    let mut message = Message::new(content, Headers::new());
    (message.traceparent, message.tracestate) = (trace.parent, trace.state);
    let (mut wrong, mut previous) = (Vec::new(), "");
    for (name, value) in headers {
        let name = name.as_str();
        let property = name.strip_prefix("postrider-");
        let comes_again = std::mem::replace(&mut previous, name) == name;
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
            Some("routing-key") => routing.key = Some(value),
            Some("mandatory") => match value.parse() {
                Ok(mandatory) => routing.mandatory = Some(mandatory),
                Err(_) => refuse("must be true or false"),
            },
            Some("fair") => match value.parse() {
                Ok(fair) => message.fair = Some(fair),
                Err(_) => refuse("must be true or false"),
            },
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
            Some("timeout-seconds") => match seconds(&value) {
                Some(timeout) => routing.timeout = Some(timeout),
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
    if !wrong.is_empty() {
        return Err(domain::Error::Invalid(wrong).into());
    }
    Ok(Described {
        at: String::new(),
        message,
        routing,
        in_headers: true,
    })
}
