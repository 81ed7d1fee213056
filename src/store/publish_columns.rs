//! Messages on their way to [`publish`](super::publish), a column each.

use chrono::{DateTime, Utc};

use super::Queue;
use super::publish::{Handover, push_rare};
use crate::domain::Message;

/// The messages turned into the statement's arrays.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) queue_id: Vec<i64>,
    pub(super) body: Vec<&'a [u8]>,
    pub(super) content_type: Vec<Option<&'a str>>,
    pub(super) headers: Vec<Option<sqlx::types::Json<&'a crate::domain::Headers>>>,
    pub(super) key: Vec<Option<&'a str>>,
    pub(super) priority: Vec<i16>,
    pub(super) delay_ms: Vec<i64>,
    pub(super) deliver_at: Vec<Option<DateTime<Utc>>>,
    pub(super) ttl_ms: Vec<i64>,
    pub(super) own_ttl: Vec<bool>,
    pub(super) dedup_id: Vec<Option<&'a str>>,
    pub(super) dedup_window_ms: Vec<i64>,
    pub(super) correlation_id: Vec<Option<&'a str>>,
    pub(super) reply_to: Vec<Option<&'a str>>,
    pub(super) traceparent: Vec<Option<&'a str>>,
    pub(super) tracestate: Vec<Option<&'a str>>,
    pub(super) fair: Vec<Option<bool>>,
    /// Whether any of them may have to wait for its key's turn.
    pub(super) line_up: bool,
    pub(super) schema_version: Vec<Option<i32>>,
    pub(super) token: Vec<Option<i64>>,
    pub(super) lease_ms: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    /// Whether the statement must know of dedup ids.
    pub(super) fn with_dedup(&self) -> bool {
        self.line_up || self.dedup_id.iter().any(Option::is_some)
    }

    pub(super) fn push(&mut self, queue: &Queue, message: &'a Message, handover: Option<Handover>) {
        let settings = &queue.settings;
        // An explicit time of delivery replaces the queue's delay.
        let delay = match (message.delay, message.deliver_at) {
            (Some(delay), _) => delay.as_millis(),
            (None, Some(_)) => 0,
            (None, None) => settings.delay.as_millis(),
        };
        self.queue_id.push(queue.id);
        self.body.push(&message.content.body);
        self.content_type
            .push(message.content.content_type.as_deref());
        self.headers
            .push((!message.headers.is_empty()).then_some(sqlx::types::Json(&message.headers)));
        self.key.push(message.key.as_deref());
        self.priority.push(message.priority);
        self.delay_ms.push(delay);
        // Long ago is now; Postgres cannot tell every time that a user can.
        self.deliver_at
            .push(message.deliver_at.map(|t| t.max(DateTime::UNIX_EPOCH)));
        self.ttl_ms
            .push(message.ttl.unwrap_or(settings.message_ttl).as_millis());
        self.own_ttl.push(message.ttl.is_some());
        self.dedup_id.push(message.dedup_id.as_deref());
        self.dedup_window_ms.push(settings.dedup_window.as_millis());
        self.correlation_id.push(message.correlation_id.as_deref());
        self.reply_to.push(message.reply_to.as_deref());
        self.traceparent.push(message.traceparent.as_deref());
        self.tracestate.push(message.tracestate.as_deref());
        let rows = self.queue_id.len();
        push_rare(&mut self.fair, rows, message.fair);
        push_rare(&mut self.schema_version, rows, message.schema_version);
        push_rare(&mut self.token, rows, handover.map(|to| to.token));
        let lease_ms = handover.map(|to| to.lease.as_millis());
        push_rare(&mut self.lease_ms, rows, lease_ms);
    }
}
