//! `GET /v1/topics/{topic}/messages`: read what a topic retains.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InTopic, Query};
use super::page;
use super::problem::Problem;
use super::receive::{JSON, WrittenApart, write_with_body};
use super::{SharedGateway, json_bytes};
use crate::domain::{Headers, MessageId};
use crate::store::{Cursor, Retained};

/// A message of a topic's stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetainedMessage)]
pub(crate) struct RetainedHead {
    /// Its id, the same as in the queues that got it.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    routing_key: Option<String>,
    content_type: String,
    headers: Headers,
    key: Option<String>,
    published_at: DateTime<Utc>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// The version of the topic's or queue's schema that it was checked with; left out:
    /// there was none.
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

/// A page of a topic's stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamPage {
    messages: Vec<RetainedHead>,
    /// Where to go on, as `after`; never null: what is published later is behind
    /// it.
    next_cursor: String,
}

impl RetainedHead {
    fn new(retained: &Retained) -> Self {
        let envelope = &retained.envelope;
        Self {
            id: MessageId(retained.message_id),
            routing_key: envelope.routing_key.clone(),
            content_type: envelope
                .content_type
                .clone()
                .unwrap_or_else(|| JSON.to_owned()),
            headers: envelope.headers.clone(),
            key: envelope.key.clone(),
            published_at: envelope.enqueued_at,
            correlation_id: envelope.correlation_id.clone(),
            reply_to: envelope.reply_to.clone(),
            traceparent: envelope.traceparent.clone(),
            tracestate: envelope.tracestate.clone(),
            schema_version: envelope.schema_version,
            body: None,
            body_base64: None,
        }
    }
}

/// Which part of the stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// `next_cursor` of the page before; without, from the oldest that is
    /// retained.
    after: Option<String>,
    /// Only those published at this time or later.
    since: Option<DateTime<Utc>>,
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// Read a topic's stream
///
/// The messages that the topic retains, in commit order, without taking them.
/// Whoever goes on from `next_cursor` skips none, whatever happens at the same
/// time. A message appears when every transaction that was running in the
/// database when it was stored has ended: at once, as a rule.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/messages", tag = "Topics",
    params(("topic" = String, Path, description = "Its name", example = "shop"), StreamParams),
    responses(
        (status = 200, description = "A page of messages", body = StreamPage,
            headers(("Link" = String, description = "What follows, rel=\"next\""))),
        (status = 404, description = "`topic-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn read_stream(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(params): Query<StreamParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = params.after.as_deref().map(page::cursor).transpose()?;
    if !matches!(after, None | Some(Cursor::Stream { .. })) {
        return Err(page::of_another_list());
    }
    let topic = gateway.topic_now(&name).await?;
    let since = params.since.map(page::within_reach);
    let (messages, next) = gateway
        .broker
        .store()
        .stream(topic.id, after, since, limit)
        .await?;
    let failed = |_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    let next_cursor = page::write_cursor(next);
    let mut out = b"{\"messages\":[".to_vec();
    for (index, retained) in messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_with_body(&mut out, &RetainedHead::new(retained), &retained.envelope)
            .map_err(failed)?;
    }
    out.extend_from_slice(b"],\"next_cursor\":\"");
    out.extend_from_slice(next_cursor.as_bytes());
    out.extend_from_slice(b"\"}");
    Ok((
        page::link_by("after", &uri, &next_cursor),
        json_bytes(StatusCode::OK, out),
    )
        .into_response())
}
