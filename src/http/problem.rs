//! Every error that a client sees: RFC 9457 problem details with a stable code.
//!
//! Handlers return [`Problem`]; it travels to the outermost layer in the
//! response's extensions, which adds the request id and writes it out. That
//! layer also turns what axum itself refuses (unknown path, wrong method) into
//! a problem, so no other kind of error leaves the gateway.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain;
use crate::store;

/// RFC 9457 problem details.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// A URI that names the kind of problem; `about:blank#` and the code.
    #[serde(rename = "type")]
    #[schema(example = "about:blank#queue-not-found")]
    kind: String,
    /// What kind of problem it is, in words.
    #[schema(example = "Not Found")]
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What is wrong with this request, and what to do next.
    #[schema(example = "There is no queue \"orders\". PUT /v1/queues/orders creates it.")]
    detail: &'a str,
    /// Stable, for programs to match on.
    #[schema(example = "queue-not-found")]
    code: &'a str,
    /// The request's id, as in `X-Request-Id`.
    request_id: &'a str,
    /// The parts that are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Part],
}

/// One part of the request that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Part {
    /// JSON pointer into the body, or the name of a parameter.
    #[schema(example = "/lease_seconds")]
    pub(crate) pointer: String,
    /// What is wrong with it.
    #[schema(example = "must be from 1 ms to 43200 s")]
    pub(crate) detail: String,
}

/// An error on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Part>,
    retry_after: Option<u32>,
    /// More header fields.
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            fields: Vec::new(),
        }
    }

    /// 400: this is not even well-formed.
    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422: well-formed, but one part is not acceptable.
    pub(crate) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        domain::Error::invalid(pointer, detail).into()
    }

    /// One part of the request is the reason, by a code of its own.
    pub(crate) fn with_part(
        status: StatusCode,
        code: &'static str,
        pointer: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let mut problem = Self::new(status, code, format!("{pointer}: {detail}"));
        problem.errors = vec![Part { pointer, detail }];
        problem
    }

    pub(crate) fn queue_not_found(name: &domain::QueueName) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "queue-not-found",
            format!("There is no queue \"{name}\". PUT /v1/queues/{name} creates it."),
        )
    }

    pub(crate) fn topic_not_found(name: &domain::QueueName) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "topic-not-found",
            format!("There is no topic \"{name}\". PUT /v1/topics/{name} creates it."),
        )
    }

    pub(crate) fn message_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "message-not-found",
            "The queue has no such message: it was acked, expired or taken out, or never there.",
        )
    }

    pub(crate) fn dead_letter_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "dead-letter-not-found",
            "The queue has no such dead letter: it was put back or removed, or never there.",
        )
    }

    pub(crate) fn queue_full(name: &domain::QueueName, max_ready: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue-full",
            format!(
                "The queue \"{name}\" has no room under its max_ready of {max_ready}. Try again \
                 later."
            ),
        )
        .retry_after(1)
    }

    /// 401: there is no key.
    pub(crate) fn key_missing() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "key-missing",
            "Send an API key: Authorization: Bearer pr_...",
        )
    }

    /// 401: the key is not good. Why is not said.
    pub(crate) fn key_refused() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "key-refused",
            "The API key is not one that is good: unknown, revoked, expired or mistyped.",
        )
    }

    /// 403: the key is good for other things.
    pub(crate) fn scope_missing(scope: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "scope-missing",
            format!("The API key lacks the scope {scope}. An admin key can make one that has it."),
        )
    }

    pub(crate) fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "The resource is not the one that the condition names: GET it, and try again with its \
             ETag.",
        )
    }

    /// Names the parts of the request that it is about.
    pub(crate) fn at(mut self, pointers: Vec<String>, detail: &str) -> Self {
        self.errors = pointers
            .into_iter()
            .map(|pointer| Part {
                pointer,
                detail: detail.to_owned(),
            })
            .collect();
        self
    }

    /// The same of a part of the request that stands at `prefix`.
    pub(crate) fn under(mut self, prefix: &str) -> Self {
        if let [one] = &self.errors[..]
            && self.detail.starts_with(&format!("{}: ", one.pointer))
        {
            self.detail.insert_str(0, prefix);
        }
        for part in &mut self.errors {
            part.pointer.insert_str(0, prefix);
        }
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with another status.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same in other words.
    pub(crate) fn saying(mut self, words: impl FnOnce(String) -> String) -> Self {
        self.detail = words(self.detail);
        self
    }

    /// Puts another header field on the answer.
    pub(crate) fn with_field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Writes it out. `rest` is the response it came in, for its headers.
    pub(crate) fn render(&self, request_id: &str, rest: Response) -> Response {
        let body = ProblemBody {
            kind: format!("about:blank#{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            errors: &self.errors,
        };
        let mut json = serde_json::to_vec(&body).unwrap_or_default();
        json.push(b'\n');
        let (mut parts, _) = rest.into_parts();
        parts.status = self.status;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750: without a key no error is named.
            parts.headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(if self.code == "key-missing" {
                    "Bearer realm=\"postrider\""
                } else {
                    "Bearer realm=\"postrider\", error=\"invalid_token\""
                }),
            );
        }
        if let Some(seconds) = self.retry_after {
            parts.headers.insert(header::RETRY_AFTER, seconds.into());
        }
        for (name, value) in &self.fields {
            parts.headers.append(name, value.clone());
        }
        Response::from_parts(parts, Body::from(json))
    }

    /// What an answer without a problem of its own means: axum's refusals.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => (
                "not-found",
                "There is nothing at this path. GET /openapi.json lists all paths.",
            ),
            StatusCode::METHOD_NOT_ALLOWED => (
                "method-not-allowed",
                "The path does not take this method; Allow lists those.",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => ("body-too-large", "The request's body is too large."),
            StatusCode::BAD_REQUEST => ("bad-request", "The request is not well-formed."),
            status if status.is_client_error() => ("refused", "The request was refused."),
            _ => (
                "internal",
                "The gateway failed. The log has more, under this request id.",
            ),
        };
        Self::new(status, code, detail)
    }
}

/// The beginning of a pointer, which holds names that the client chose.
fn shortened(pointer: &str) -> String {
    match pointer.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &pointer[..end]),
        None => pointer.to_owned(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<domain::Error> for Problem {
    fn from(error: domain::Error) -> Self {
        match error {
            domain::Error::Invalid(parts) => {
                let mut problem = Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    match parts.as_slice() {
                        // The detail may hold 100 characters of the request already.
                        [one] if one.pointer.is_empty() || one.pointer.len() > 60 => {
                            one.detail.clone()
                        }
                        [one] => format!("{}: {}", one.pointer, one.detail),
                        many => format!("{} parts of the request are not valid.", many.len()),
                    },
                );
                problem.errors = parts
                    .into_iter()
                    .map(|part| Part {
                        pointer: shortened(&part.pointer),
                        detail: part.detail,
                    })
                    .collect();
                problem
            }
            domain::Error::TooLarge {
                pointer,
                size,
                limit,
            } => {
                let detail = format!("{size} bytes, over the max_message_bytes of {limit}");
                Self::with_part(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "message-too-large",
                    pointer,
                    detail,
                )
            }
            domain::Error::ReceiptMalformed => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "receipt-malformed",
                "This is not a receipt that a receive of this gateway's database gave out.",
            ),
        }
    }
}

impl domain::Error {
    /// The problem that it is, by a code of its own.
    pub(crate) fn into_problem_of(self, code: &'static str) -> Problem {
        let mut problem = Problem::from(self);
        problem.code = code;
        problem
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        // The one place where the source of a store's error is logged.
        match &error {
            store::Error::Unavailable(source) => {
                tracing::warn!(error = %source, "the database is unavailable");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database-unavailable",
                    "The database is away or busy. Try again; if this was a write, whether it took \
                     effect is not known.",
                )
                .retry_after(1)
            }
            store::Error::ReadOnly => {
                tracing::warn!("the database is read-only");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database-unavailable",
                    "The database is read-only: a standby, or set so. Try again.",
                )
                .retry_after(1)
            }
            store::Error::Retry(source) => {
                tracing::warn!(error = %source, "the database gave a statement up");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database-unavailable",
                    "The database is busy with the same thing. Nothing was changed: try again.",
                )
                .retry_after(1)
            }
            store::Error::StorageFull(source) => {
                tracing::error!(error = %source, "the database's disk is full");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "storage-full",
                    "The database's disk is full. Consume or purge messages, or give it more room.",
                )
                .retry_after(30)
            }
            store::Error::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "The gateway has more requests in hand than it may keep. Try again.",
            )
            .retry_after(1),
            store::Error::Conflict => Self::new(
                StatusCode::CONFLICT,
                "changed-meanwhile",
                "The resource was changed at the same time. GET it and try again.",
            ),
            store::Error::NotEmpty => Self::with_part(
                StatusCode::CONFLICT,
                "queue-not-empty",
                "/ordered",
                "changes only while the queue has no messages: receive or purge them first",
            ),
            store::Error::Inconsistent(source) => {
                tracing::error!(error = %store::Logged(source), "the database refused a statement");
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
            store::Error::Panicked => {
                // The panic itself is in the log.
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
            store::Error::Migrate(_) | store::Error::TooOld(_) => {
                tracing::error!(%error, "the database does not fit this version");
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}
