//! `/v1/queues/{queue}/messages`: looking without taking, and taking out.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InMessage, InQueue, NoParams, Query};
use super::page;
use super::problem::Problem;
use super::receive::{JSON, WrittenApart, write_with_body};
use super::{SharedGateway, json_bytes};
use crate::domain::{Headers, MessageId};
use crate::store::{Attempt, Cursor, Envelope, Peek, State as MessageState, Stored, Turn};

/// Where a message is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateName {
    /// It can be received.
    Ready,
    /// A consumer has it.
    Leased,
    /// It waits for a time: a delay or a backoff.
    Delayed,
}

/// A stored message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredMessage)]
pub(crate) struct StoredHead {
    /// Its id.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// `ready`, `leased`, `delayed` or `dead`.
    #[schema(value_type = String, example = "ready")]
    state: &'static str,
    content_type: String,
    headers: Headers,
    key: Option<String>,
    priority: i16,
    /// Attempts made, a running one included.
    attempts: i32,
    enqueued_at: DateTime<Utc>,
    /// When it is ready, if it is delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_at: Option<DateTime<Utc>>,
    /// When its lease ends, if it is leased.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<DateTime<Utc>>,
    /// When its time to live ends; of a dead letter, when it is removed.
    expires_at: DateTime<Utc>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// The topic it was published to; null for a publish to a queue.
    topic: Option<String>,
    /// What it was routed by; null for a publish to a queue.
    routing_key: Option<String>,
    /// The version of the topic's or queue's schema that it was checked with; left out:
    /// there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<i32>,
    /// Its attempts so far, oldest first; where one message is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<AttemptView>>,
    /// The JSON value, byte for byte as it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    body: WrittenApart,
    /// Or the bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    body_base64: WrittenApart,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptView {
    /// 1 first.
    attempt: i32,
    leased_at: DateTime<Utc>,
    /// Null while it runs.
    ended_at: Option<DateTime<Utc>>,
    /// `running`, `nacked`, `rejected`, `lease-expired`, or `returned`: an earlier message of
    /// its key failed that was received with it, and no attempt is used up.
    outcome: String,
    /// The reason its consumer gave.
    error: Option<String>,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageList {
    messages: Vec<StoredHead>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl StoredHead {
    fn new(stored: &Stored, history: Option<Vec<Attempt>>) -> Self {
        let wake_at_if = |state| stored.wake_at.filter(|_| stored.state == state);
        Self {
            id: MessageId(stored.message_id),
            state: match stored.state {
                MessageState::Ready => "ready",
                MessageState::Leased => "leased",
                MessageState::Delayed => "delayed",
                MessageState::Dead => "dead",
            },
            content_type: stored
                .envelope
                .content_type
                .clone()
                .unwrap_or_else(|| JSON.to_owned()),
            headers: stored.envelope.headers.clone(),
            key: stored.envelope.key.clone(),
            priority: stored.priority,
            attempts: stored.attempts,
            enqueued_at: stored.envelope.enqueued_at,
            ready_at: wake_at_if(MessageState::Delayed),
            lease_expires_at: wake_at_if(MessageState::Leased),
            expires_at: stored.expires_at,
            correlation_id: stored.envelope.correlation_id.clone(),
            reply_to: stored.envelope.reply_to.clone(),
            traceparent: stored.envelope.traceparent.clone(),
            tracestate: stored.envelope.tracestate.clone(),
            topic: stored.envelope.topic.clone(),
            routing_key: stored.envelope.routing_key.clone(),
            schema_version: stored.envelope.schema_version,
            history: history.map(|attempts| {
                attempts
                    .into_iter()
                    .map(|a| AttemptView {
                        attempt: a.attempt,
                        leased_at: a.leased_at,
                        ended_at: a.ended_at,
                        outcome: a.outcome,
                        error: a.error,
                    })
                    .collect()
            }),
            body: None,
            body_base64: None,
        }
    }
}

/// Writes a page: a list of objects with bodies, and where the next begins.
pub(crate) fn write_page<T: Serialize>(
    name: &str,
    items: impl IntoIterator<Item = (T, Envelope)>,
    uri: &Uri,
    next: Option<Cursor>,
) -> Result<Response, Problem> {
    let failed = |_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    let next_cursor = next.map(page::write_cursor);
    let mut out = format!("{{\"{name}\":[").into_bytes();
    for (index, (head, envelope)) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_with_body(&mut out, &head, &envelope).map_err(failed)?;
    }
    out.extend_from_slice(b"],\"next_cursor\":");
    serde_json::to_writer(&mut out, &next_cursor).map_err(|e| failed(e.into()))?;
    out.push(b'}');
    Ok((
        page::link(uri, next_cursor.as_deref()),
        json_bytes(StatusCode::OK, out),
    )
        .into_response())
}

/// Which messages to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PeekParams {
    /// By default `ready`.
    #[param(inline)]
    state: Option<StateName>,
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Look at messages
///
/// Without taking them. Ready ones in the order they will be received; leased
/// and delayed ones in the order of the time that ends.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/messages", tag = "Messages",
    params(("queue" = String, Path, description = "Its name", example = "orders"), PeekParams),
    responses(
        (status = 200, description = "A page of messages", body = MessageList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`queue-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_messages(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<PeekParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let peek = Peek {
        state: match params.state.unwrap_or(StateName::Ready) {
            StateName::Ready => MessageState::Ready,
            StateName::Leased => MessageState::Leased,
            StateName::Delayed => MessageState::Delayed,
        },
        after: params.cursor.as_deref().map(page::cursor).transpose()?,
        limit: page::limit(params.limit)?,
    };
    let is_of_state = match peek.after {
        None => true,
        Some(Cursor::Ready { .. }) => peek.state == MessageState::Ready,
        Some(Cursor::Timed { .. }) => peek.state != MessageState::Ready,
        Some(Cursor::Stream { .. }) => false,
    };
    if !is_of_state {
        return Err(page::of_another_list());
    }
    let queue = gateway.queue(&name).await?;
    let (messages, next) = gateway.broker.store().peek(queue.id, peek).await?;
    let items = messages
        .into_iter()
        .map(|m| (StoredHead::new(&m, None), m.envelope));
    write_page("messages", items, &uri, next)
}

/// Read one message
///
/// With its state, attempts and history, wherever in the queue it is, dead or
/// alive. A message that was acked is gone.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/messages/{id}", tag = "Messages",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("id" = String, Path, description = "The message's id", example = "msg_000000000001a"),
    ),
    responses(
        (status = 200, description = "The message", body = StoredHead),
        (status = 404, description = "`queue-not-found`, `message-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_message(
    State(gateway): State<SharedGateway>,
    InMessage(name, id): InMessage,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let queue = gateway.queue(&name).await?;
    let (stored, history) = gateway
        .broker
        .store()
        .message(queue.id, id.0)
        .await?
        .ok_or_else(Problem::message_not_found)?;
    let mut out = Vec::new();
    let head = StoredHead::new(&stored, Some(history));
    write_with_body(&mut out, &head, &stored.envelope)
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(json_bytes(StatusCode::OK, out))
}

/// Take one message out
///
/// Wherever in the queue it is. A consumer that has it leased may still ack it.
#[utoipa::path(
    delete, path = "/v1/queues/{queue}/messages/{id}", tag = "Messages",
    params(
        ("queue" = String, Path, description = "The queue's name", example = "orders"),
        ("id" = String, Path, description = "The message's id", example = "msg_000000000001a"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`queue-not-found`, `message-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_message(
    State(gateway): State<SharedGateway>,
    InMessage(name, id): InMessage,
    Query(NoParams {}): Query<NoParams>,
) -> Result<StatusCode, Problem> {
    let queue = gateway.queue(&name).await?;
    if gateway.broker.store().cancel(&queue, id.0).await? {
        gateway.broker.freed(&queue);
        gateway
            .broker
            .pass(vec![Turn::message(queue.id, id.0)], &queue)
            .await;
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::message_not_found())
    }
}
