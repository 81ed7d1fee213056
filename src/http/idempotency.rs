//! `Idempotency-Key`: a request that is sent again has its effect once, and gets the
//! first answer again.
//!
//! As draft-ietf-httpapi-idempotency-key-header-07 has it, with the key also taken
//! without quotes, as clients send it. A key is its API key's, and counts for one
//! operation on one name. Only answers of success are kept, for 24 hours; what was
//! refused had no effect, and may be sent again with another payload.
//!
//! What is refused for the state of things (a queue that was deleted, a limit) may
//! have been answered before: a refusal is looked up before it is given. A request
//! that goes well needs no look of its own.

use axum::extract::FromRequestParts as _;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::{Header, RefOr, Response as ApiResponse};

use super::access::Caller;
use super::extract::is_json;
use super::problem::Problem;
use super::{Gateway, SharedGateway, whole_json};
use crate::domain::{IdempotencyKey, fingerprint};
use crate::store::{Kept, Once, Seen};

/// The header that the client sends.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// On an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Whether a request has a key, good or not.
pub(crate) fn has_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

/// A request that has a key, before its body was read.
pub(crate) struct Keyed {
    key: IdempotencyKey,
    caller: Caller,
}

impl Keyed {
    /// Reads the key; `None` if there is none.
    ///
    /// # Errors
    /// 400 for what is no key.
    pub(crate) async fn of(
        parts: &mut Parts,
        gateway: &SharedGateway,
    ) -> Result<Option<Self>, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let key = match (IdempotencyKey::parse(value.as_bytes()), values.next()) {
            (Ok(key), None) => key,
            (_, Some(_)) => return Err(malformed("comes twice")),
            (Err(_), None) => return Err(malformed("must be 1 to 255 visible ASCII characters")),
        };
        let caller = Caller::from_request_parts(parts, gateway).await?;
        Ok(Some(Self { key, caller }))
    }

    /// What makes it the same request: the operation and the names in its path; its
    /// body, expanded, and what stands for the body's properties in headers.
    pub(crate) fn once(
        &self,
        operation: &str,
        names: &[&str],
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Once {
        let properties = headers
            .iter()
            .filter(|(name, _)| **name == CONTENT_TYPE || name.as_str().starts_with("postrider-"));
        let properties = properties.map(|(name, value)| (name.as_str(), value.as_bytes()));
        Once {
            digest: self.key.digest(self.caller.id(), operation, names),
            fingerprint: if is_json(headers) {
                // It says all by itself, however its type is spelled.
                fingerprint(body, [(CONTENT_TYPE.as_str(), &b"application/json"[..])])
            } else {
                fingerprint(body, properties)
            },
        }
    }
}

fn malformed(what: &str) -> Problem {
    Problem::bad_request(
        "invalid-idempotency-key",
        format!("The header Idempotency-Key {what}."),
    )
}

/// The first answer to a request.
pub(crate) fn answer(kept: Kept) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    whole_json(status, kept.body)
}

/// The first answer once more.
pub(crate) fn replay(kept: Kept) -> Response {
    let mut response = answer(kept);
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The answer to a request whose key was seen before.
pub(crate) fn answer_seen(seen: Seen) -> Result<Response, Problem> {
    first_answer(seen).map(replay)
}

/// What a request was answered whose key was seen before.
pub(crate) fn first_answer(seen: Seen) -> Result<Kept, Problem> {
    match seen {
        Seen::Answered(kept) => Ok(kept),
        Seen::Reused => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The Idempotency-Key was used for a request with another payload. Take a fresh one for \
             each request, and the same only to send that again.",
        )),
        Seen::New | Seen::Running => Err(Problem::new(
            StatusCode::CONFLICT,
            "idempotency-key-in-use",
            "A request with this Idempotency-Key is being done at this moment. Send it again.",
        )
        .retry_after(1)),
    }
}

/// Gives the refusal of a request, unless the request was answered before.
pub(crate) async fn unless_answered(
    gateway: &Gateway,
    once: impl Into<Option<Once>>,
    result: Result<Response, Problem>,
) -> Result<Response, Problem> {
    match (result, once.into()) {
        (Err(refusal), Some(once)) => answered_before(gateway, once, refusal).await.map(replay),
        (result, _) => result,
    }
}

/// What a request was answered that is refused now; the refusal if it was not.
pub(crate) async fn answered_before(
    gateway: &Gateway,
    once: Once,
    refusal: Problem,
) -> Result<Kept, Problem> {
    if !refusal.status().is_client_error() || is_about_key(&refusal) {
        return Err(refusal);
    }
    match gateway.broker.store().answered(once).await? {
        Some(seen) => first_answer(seen),
        None => Err(refusal),
    }
}

fn is_about_key(refusal: &Problem) -> bool {
    matches!(
        refusal.code(),
        "idempotency-key-reused" | "idempotency-key-in-use"
    )
}

/// Documents the key for an operation that takes one.
pub(super) fn describe(operation: &mut Operation) {
    let key = json!({
        "name": IDEMPOTENCY_KEY.as_str(), "in": "header", "required": false,
        "description": "A request that is sent again with the same key within 24 hours has its \
            effect once, and gets the first answer again, with `Idempotency-Replayed: true`. \
            1 to 255 visible ASCII characters; quotes around them, as in \
            draft-ietf-httpapi-idempotency-key-header-07, are not part of the key.",
        "schema": {"type": "string", "pattern": "^[!#-~][!-~]{0,254}$"},
    });
    let key: Parameter = serde_json::from_value(key).expect("it is written above");
    operation
        .parameters
        .get_or_insert_default()
        .push(RefOr::T(key));
    let responses = &mut operation.responses.responses;
    for (status, codes) in [
        (
            "409",
            "`idempotency-key-in-use`: the first request with it is being done; send it again",
        ),
        (
            "422",
            "`idempotency-key-reused`: it came with another payload before",
        ),
    ] {
        let response = responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ApiResponse::new("")));
        if let RefOr::T(response) = response {
            if !response.description.is_empty() {
                response.description += ", ";
            }
            response.description += codes;
        }
    }
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && status.starts_with('2')
        {
            let mut replayed = Header::default();
            replayed.description = Some("`true` on an answer that was given before".to_owned());
            response
                .headers
                .insert("Idempotency-Replayed".to_owned(), RefOr::T(replayed));
        }
    }
}
