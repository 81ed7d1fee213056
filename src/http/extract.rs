//! Extractors whose refusals are problems.

use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::{self, DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::SharedGateway;
use super::body::read_body;
use super::capacity::{BodyRoom, Capacity};
use super::problem::Problem;
use crate::domain::{self, ClaimKey, MessageId, QueueName, quoted};

/// A path's parameters, as text.
pub(crate) struct Path<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send + AsRef<[String]>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = || Problem::bad_request("invalid-path", "The path is not valid UTF-8 text.");
        let AxumPath(params) = AxumPath::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| refuse())?;
        if params.as_ref().iter().any(|param| param.contains('\0')) {
            return Err(refuse());
        }
        Ok(Self(params))
    }
}

/// The queue that a path names.
pub(crate) struct InQueue(pub(crate) QueueName);

impl<S: Send + Sync> FromRequestParts<S> for InQueue {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([queue]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(QueueName::parse(&queue, "queue")?))
    }
}

/// The topic that a path names.
pub(crate) struct InTopic(pub(crate) QueueName);

impl<S: Send + Sync> FromRequestParts<S> for InTopic {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([topic]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(QueueName::parse(&topic, "topic")?))
    }
}

/// The schedule that a path names.
pub(crate) struct InSchedule(pub(crate) QueueName);

impl<S: Send + Sync> FromRequestParts<S> for InSchedule {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([schedule]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(QueueName::parse(&schedule, "schedule")?))
    }
}

/// The subscription of a topic that a path names.
pub(crate) struct InSubscription(pub(crate) QueueName, pub(crate) QueueName);

impl<S: Send + Sync> FromRequestParts<S> for InSubscription {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([topic, subscription]) =
            Path::<[String; 2]>::from_request_parts(parts, state).await?;
        Ok(Self(
            QueueName::parse(&topic, "topic")?,
            QueueName::parse(&subscription, "subscription")?,
        ))
    }
}

/// The API key that a path names, by its id.
pub(crate) struct InKey(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for InKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([id]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

/// The request that a path names, by its correlation id.
pub(crate) struct InReply(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for InReply {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([id]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

/// The consumer claim that a path names.
pub(crate) struct InClaim(pub(crate) ClaimKey);

impl<S: Send + Sync> FromRequestParts<S> for InClaim {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([key]) = Path::<[String; 1]>::from_request_parts(parts, state).await?;
        Ok(Self(ClaimKey::parse(&key, "key")?))
    }
}

/// The message of a queue that a path names.
pub(crate) struct InMessage(pub(crate) QueueName, pub(crate) MessageId);

impl<S: Send + Sync> FromRequestParts<S> for InMessage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (queue, id) = queue_and_id(parts, state).await?;
        // No other text has ever been an id, so there is no such message.
        Ok(Self(queue, id.ok_or_else(Problem::message_not_found)?))
    }
}

/// The dead letter of a queue that a path names.
pub(crate) struct InDeadLetter(pub(crate) QueueName, pub(crate) MessageId);

impl<S: Send + Sync> FromRequestParts<S> for InDeadLetter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (queue, id) = queue_and_id(parts, state).await?;
        Ok(Self(queue, id.ok_or_else(Problem::dead_letter_not_found)?))
    }
}

async fn queue_and_id<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<(QueueName, Option<MessageId>), Problem> {
    let Path([queue, id]) = Path::<[String; 2]>::from_request_parts(parts, state).await?;
    Ok((QueueName::parse(&queue, "queue")?, MessageId::parse(&id)))
}

/// The query parameters; unknown ones are refused by name.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        serde_urlencoded::from_str(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(|error| Problem::bad_request("invalid-query", clipped(&error.to_string())))
    }
}

/// No query parameter at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}

/// Whether a content type is JSON: `application/json`, with or without
/// parameters.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let media_type = value.split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case("application/json")
        })
}

pub(crate) fn wrong_content_type(expected: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        format!("Send the body with Content-Type: {expected}."),
    )
}

/// Refuses a request that does not say what its body is.
pub(crate) fn demand_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_TYPE) {
        Ok(())
    } else {
        Err(wrong_content_type(
            "application/json, or what the bytes are",
        ))
    }
}

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<SharedGateway> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &SharedGateway) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let (bytes, _room) = read_json(&gateway.capacity, &parts.headers, body).await?;
        parse(&bytes).map(Self)
    }
}

/// Reads a body that has to be JSON; the room that it takes is had until the second
/// is dropped.
pub(crate) async fn read_json<'a>(
    capacity: &'a Capacity,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, BodyRoom<'a>), Problem> {
    if !is_json(headers) {
        return Err(wrong_content_type("application/json"));
    }
    read_body(capacity, headers, body).await
}

/// A JSON body that may be left out.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<SharedGateway> for OptionalJson<T> {
    type Rejection = Problem;

    fn from_request(
        request: Request,
        gateway: &SharedGateway,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        let (parts, body) = request.into_parts();
        // In a box of its own, which is given back before a receiver waits: the
        // room for reading is larger than that for waiting.
        Box::pin(async move {
            let (bytes, _room) = read_body(&gateway.capacity, &parts.headers, body).await?;
            parse_optional(&parts.headers, &bytes).map(Self)
        })
    }
}

/// Parses a JSON object that may be left out.
pub(crate) fn parse_optional<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    if !is_json(headers) {
        return Err(wrong_content_type("application/json"));
    }
    parse(bytes)
}

/// Parses a JSON object. Not JSON is 400; JSON of another shape is 422 with a
/// pointer.
pub(crate) fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Problem> {
    check_depth(bytes)?;
    serde_json::from_slice(bytes)
        .map(|Object(value)| value)
        .map_err(|_| refusal::<T>(bytes))
}

/// Says what is wrong with what [`parse`] did not take, and where: looks for
/// mistakes in the JSON first, then parses once more, with paths.
fn refusal<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Problem {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return malformed(&error),
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return malformed(&error);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
        Err(error) => {
            let pointer = error.path().iter().fold(String::new(), |pointer, segment| {
                use serde_path_to_error::Segment;
                match segment {
                    Segment::Seq { index } => format!("{pointer}/{index}"),
                    Segment::Map { key } => {
                        format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
                    }
                    Segment::Enum { .. } | Segment::Unknown => pointer,
                }
            });
            Problem::invalid(pointer, clipped(&error.inner().to_string()))
        }
        Ok(_) => Problem::invalid("", "has another shape than it should"),
    }
}

/// A `T` that is written as an object. Alone, serde's derived types also take
/// arrays of their fields.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// For fields: takes an object only.
pub(crate) fn object<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Visitor<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = T;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Visitor(PhantomData))
}

/// For fields: takes an object, or null for none.
pub(crate) fn object_or_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let some = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(some.map(|Object(value)| value))
}

fn malformed(error: &dyn std::error::Error) -> Problem {
    Problem::bad_request(
        "malformed-json",
        format!("The body is not JSON: {}", clipped(&error.to_string())),
    )
}

/// serde's messages repeat what was sent; no more than 100 characters of it.
fn clipped(text: &str) -> String {
    let shown = quoted(text);
    let shown = shown[1..shown.len() - 1]
        .replace("\\\"", "\"")
        .replace("\\'", "'");
    if text.chars().count() > 100 {
        format!("{shown}...")
    } else {
        shown
    }
}

/// Refuses JSON nested so deeply that parsers elsewhere choke on it; `serde_json`
/// does not count in the values that it only passes over.
fn check_depth(bytes: &[u8]) -> Result<(), Problem> {
    const MAX_DEPTH: usize = 128;
    // Few documents have so many brackets that it needs to be looked at.
    if memchr::memchr2_iter(b'[', b'{', bytes)
        .take(MAX_DEPTH + 1)
        .count()
        <= MAX_DEPTH
    {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Problem::bad_request(
                "malformed-json",
                format!("The body is nested more than {MAX_DEPTH} deep."),
            ));
        }
    }
    Ok(())
}

/// A number of messages or the like, within bounds.
pub(crate) fn in_range(
    value: Option<i64>,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
    pointer: &str,
) -> Result<i64, domain::Error> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(domain::Error::invalid(
            pointer,
            format!("must be from {} to {}", range.start(), range.end()),
        ))
    }
}
