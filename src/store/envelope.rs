//! The wide half of a message, as it was published.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Error;
use crate::domain::{Headers, Message};

/// What was published, and when.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// When it was published.
    pub enqueued_at: DateTime<Utc>,
    /// The bytes.
    pub body: Vec<u8>,
    /// `None`: a JSON value.
    pub content_type: Option<String>,
    /// The publisher's headers.
    pub headers: Headers,
    /// Ordering and partition key.
    pub key: Option<String>,
    /// The publisher's own.
    pub correlation_id: Option<String>,
    /// Where the publisher wants the answer.
    pub reply_to: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// W3C Trace Context.
    pub tracestate: Option<String>,
    /// The version of the queue's or topic's schema that it was checked with; `None`: there
    /// was none.
    pub schema_version: Option<i32>,
    /// The topic it was published to; `None` for a publish to a queue.
    pub topic: Option<String>,
    /// What it was routed by; `None` for a publish to a queue.
    pub routing_key: Option<String>,
}

impl Envelope {
    /// From the columns that `messages`, `stragglers` and `dead_letters` share.
    pub(super) fn of(row: &PgRow) -> Result<Self, Error> {
        let headers: Option<sqlx::types::Json<Headers>> = row.try_get("headers")?;
        Ok(Self {
            enqueued_at: row.try_get("enqueued_at")?,
            body: row.try_get("body")?,
            content_type: row.try_get("content_type")?,
            headers: headers.map(|json| json.0).unwrap_or_default(),
            key: row.try_get("key")?,
            correlation_id: row.try_get("correlation_id")?,
            reply_to: row.try_get("reply_to")?,
            traceparent: row.try_get("traceparent")?,
            tracestate: row.try_get("tracestate")?,
            schema_version: row.try_get("schema_version")?,
            topic: row.try_get("topic")?,
            routing_key: row.try_get("routing_key")?,
        })
    }

    /// Of a message that was stored then by a publish to a queue.
    pub(super) fn published(message: &Message, enqueued_at: DateTime<Utc>) -> Self {
        Self {
            enqueued_at,
            body: message.content.body.to_vec(),
            content_type: message.content.content_type.clone(),
            headers: message.headers.clone(),
            key: message.key.clone(),
            correlation_id: message.correlation_id.clone(),
            reply_to: message.reply_to.clone(),
            traceparent: message.traceparent.clone(),
            tracestate: message.tracestate.clone(),
            schema_version: message.schema_version,
            topic: None,
            routing_key: None,
        }
    }

    /// Whether the body is a JSON value.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.content_type.is_none()
    }
}
