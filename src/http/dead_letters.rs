//! `/v1/queues/{queue}/dead-letters`.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InDeadLetter, InQueue, NoParams, OptionalJson, Query};
use super::messages::write_page;
use super::page;
use super::problem::Problem;
use super::receive::{JSON, WrittenApart, write_with_body};
use super::{SharedGateway, json_bytes, reply};
use crate::domain::{DeadReason, Headers, MessageId};
use crate::store::{Cursor, DeadFilter, DeadLetter};

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// All attempts failed.
    MaxAttempts,
    /// Its consumer rejected it.
    Rejected,
    /// Its time to live passed.
    Expired,
    /// Its queue was full.
    Overflow,
    /// It followed a dead letter of its key.
    KeyBlocked,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::MaxAttempts => DeadReason::MaxAttempts,
            Self::Rejected => DeadReason::Rejected,
            Self::Expired => DeadReason::Expired,
            Self::Overflow => DeadReason::Overflow,
            Self::KeyBlocked => DeadReason::KeyBlocked,
        }
        .as_str()
    }
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct DeadLetterHead {
    /// The id it has always had.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// `max-attempts`, `rejected`, `expired` or `overflow`.
    reason: String,
    /// Attempts made.
    attempts: i32,
    /// How often the scheduled retry has put it back before.
    retry_rounds: i32,
    /// The reason that the last consumer gave.
    last_error: Option<String>,
    dead_at: DateTime<Utc>,
    /// When it is removed.
    expires_at: DateTime<Utc>,
    enqueued_at: DateTime<Utc>,
    content_type: String,
    headers: Headers,
    key: Option<String>,
    priority: i16,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// The topic it was published to; null for a publish to a queue.
    topic: Option<String>,
    /// What it was routed by; null for a publish to a queue.
    routing_key: Option<String>,
    /// The version of the schema that it was checked with, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<i32>,
    /// The JSON value, byte for byte as it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    body: WrittenApart,
    /// Or the bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    body_base64: WrittenApart,
}

impl DeadLetterHead {
    fn new(letter: &DeadLetter) -> Self {
        Self {
            id: MessageId(letter.message_id),
            reason: letter.reason.clone(),
            attempts: letter.attempts,
            retry_rounds: letter.rounds,
            last_error: letter.last_error.clone(),
            dead_at: letter.dead_at,
            expires_at: letter.expires_at,
            enqueued_at: letter.envelope.enqueued_at,
            content_type: letter
                .envelope
                .content_type
                .clone()
                .unwrap_or_else(|| JSON.to_owned()),
            headers: letter.envelope.headers.clone(),
            key: letter.envelope.key.clone(),
            priority: letter.priority,
            correlation_id: letter.envelope.correlation_id.clone(),
            reply_to: letter.envelope.reply_to.clone(),
            traceparent: letter.envelope.traceparent.clone(),
            tracestate: letter.envelope.tracestate.clone(),
            topic: letter.envelope.topic.clone(),
            routing_key: letter.envelope.routing_key.clone(),
            schema_version: letter.envelope.schema_version,
            body: None,
            body_base64: None,
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterList {
    dead_letters: Vec<DeadLetterHead>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Which dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterParams {
    /// Only those that died of this.
    #[param(inline)]
    reason: Option<Reason>,
    /// Only those that died at this time or later.
    since: Option<DateTime<Utc>>,
    /// Only those that died before this time.
    until: Option<DateTime<Utc>>,
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List dead letters
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/dead-letters", tag = "Dead letters",
    params(("queue" = String, Path, description = "Its name", example = "orders"),
        DeadLetterParams),
    responses(
        (status = 200, description = "A page of dead letters", body = DeadLetterList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`queue-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_dead_letters(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<DeadLetterParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = params.cursor.as_deref().map(page::cursor).transpose()?;
    if matches!(after, Some(Cursor::Ready { .. } | Cursor::Stream { .. })) {
        return Err(page::of_another_list());
    }
    let filter = Filter {
        reason: params.reason,
        since: params.since,
        until: params.until,
    };
    let filter = filter.into();
    let queue = gateway.queue(&name).await?;
    let (letters, next) = gateway
        .broker
        .store()
        .dead_letters(queue.id, filter, after, limit)
        .await?;
    let items = letters
        .into_iter()
        .map(|letter| (DeadLetterHead::new(&letter), letter.envelope));
    write_page("dead_letters", items, &uri, next)
}

/// Read one dead letter
#[utoipa::path(
    get, path = "/v1/queues/{queue}/dead-letters/{id}", tag = "Dead letters",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("id" = String, Path, description = "The message's id", example = "msg_000000000001a"),
    ),
    responses(
        (status = 200, description = "The dead letter", body = DeadLetterHead),
        (status = 404, description = "`queue-not-found`, `dead-letter-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_dead_letter(
    State(gateway): State<SharedGateway>,
    InDeadLetter(name, id): InDeadLetter,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let letter = gateway
        .broker
        .store()
        .dead_letter(queue.id, id.0)
        .await?
        .ok_or_else(Problem::dead_letter_not_found)?;
    let mut out = Vec::new();
    let head = DeadLetterHead::new(&letter);
    write_with_body(&mut out, &head, &letter.envelope)
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(json_bytes(StatusCode::OK, out))
}

/// Remove one dead letter
#[utoipa::path(
    delete, path = "/v1/queues/{queue}/dead-letters/{id}", tag = "Dead letters",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("id" = String, Path, description = "The message's id", example = "msg_000000000001a"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`queue-not-found`, `dead-letter-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_dead_letter(
    State(gateway): State<SharedGateway>,
    InDeadLetter(name, id): InDeadLetter,
    Query(NoParams {}): Query<NoParams>,
) -> Result<StatusCode, Problem> {
    let queue = gateway.queue(&name).await?;
    if gateway
        .broker
        .store()
        .delete_dead_letter(queue.id, id.0)
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::dead_letter_not_found())
    }
}

/// Which dead letters.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Only those that died of this.
    reason: Option<Reason>,
    /// Only those that died at this time or later.
    since: Option<DateTime<Utc>>,
    /// Only those that died before this time.
    until: Option<DateTime<Utc>>,
}

impl From<Filter> for DeadFilter {
    fn from(filter: Filter) -> Self {
        Self {
            reason: filter.reason.map(Reason::as_str),
            since: filter.since.map(page::within_reach),
            until: filter.until.map(page::within_reach),
        }
    }
}

/// Which dead letters to remove.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterPurge, example = json!({"filter": {"reason": "expired"}}))]
pub(crate) struct PurgeRequest {
    /// By default all.
    filter: Option<Filter>,
}

/// How many were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLettersPurged {
    dead_letters: i64,
}

/// Purge dead letters
#[utoipa::path(
    post, path = "/v1/queues/{queue}/dead-letters/purge", tag = "Dead letters",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body(content = PurgeRequest, description = "May be left out"),
    responses(
        (status = 200, description = "How many were removed", body = DeadLettersPurged),
        (status = 404, description = "`queue-not-found`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn purge_dead_letters(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    OptionalJson(request): OptionalJson<PurgeRequest>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let filter = request.filter.unwrap_or_default().into();
    let dead_letters = gateway.broker.store().purge_dead(queue.id, filter).await?;
    tracing::info!(queue = %name, dead_letters, "dead letters purged");
    Ok(reply(StatusCode::OK, &DeadLettersPurged { dead_letters }))
}
