//! Messages on their way to [`publish_topic`](super::publish_topic), a column each.

use chrono::{DateTime, Utc};

use super::Topology;
use super::publish::push_rare;
use super::publish_topic::Routed;
use crate::domain::{Headers, Seconds};

/// The messages turned into the statement's arrays.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) topic_id: Vec<i64>,
    pub(super) topic: Vec<&'a str>,
    pub(super) routing_key: Vec<&'a str>,
    pub(super) body: Vec<&'a [u8]>,
    pub(super) content_type: Vec<Option<&'a str>>,
    pub(super) headers: Vec<Option<sqlx::types::Json<&'a Headers>>>,
    pub(super) key: Vec<Option<&'a str>>,
    pub(super) delay_ms: Vec<Option<i64>>,
    pub(super) deliver_at: Vec<Option<DateTime<Utc>>>,
    pub(super) ttl_ms: Vec<Option<i64>>,
    pub(super) priority: Vec<i16>,
    pub(super) correlation_id: Vec<Option<&'a str>>,
    pub(super) reply_to: Vec<Option<&'a str>>,
    pub(super) traceparent: Vec<Option<&'a str>>,
    pub(super) tracestate: Vec<Option<&'a str>>,
    pub(super) schema_version: Vec<Option<i32>>,
    pub(super) dedup_id: Vec<Option<&'a str>>,
    pub(super) dedup_window_ms: Vec<i64>,
    pub(super) queues_to: Vec<i64>,
    pub(super) queues_from: Vec<i64>,
    /// Of all messages, one after the other.
    pub(super) queues: Vec<i64>,
    pub(super) fair: Vec<Option<bool>>,
    /// Whether any copy may have to wait for its key's turn.
    pub(super) line_up: bool,
}

impl<'a> Columns<'a> {
    pub(super) fn push(&mut self, topology: &'a Topology, routed: &'a Routed) {
        let Topology {
            topic,
            subscriptions,
        } = topology;
        let message = &routed.message;
        self.topic_id.push(topic.id);
        self.topic.push(topic.name.as_str());
        self.routing_key.push(routed.routing_key.as_str());
        self.body.push(&message.content.body);
        self.content_type
            .push(message.content.content_type.as_deref());
        self.headers
            .push((!message.headers.is_empty()).then_some(sqlx::types::Json(&message.headers)));
        self.key.push(message.key.as_deref());
        self.delay_ms.push(message.delay.map(Seconds::as_millis));
        self.deliver_at
            .push(message.deliver_at.map(|t| t.max(DateTime::UNIX_EPOCH)));
        self.ttl_ms.push(message.ttl.map(Seconds::as_millis));
        self.priority.push(message.priority);
        self.correlation_id.push(message.correlation_id.as_deref());
        self.reply_to.push(message.reply_to.as_deref());
        self.traceparent.push(message.traceparent.as_deref());
        self.tracestate.push(message.tracestate.as_deref());
        let rows = self.topic_id.len();
        push_rare(&mut self.schema_version, rows, message.schema_version);
        self.dedup_id.push(message.dedup_id.as_deref());
        self.dedup_window_ms
            .push(topic.settings.dedup_window.as_millis());
        let count = |queues: &Vec<i64>| i64::try_from(queues.len()).unwrap_or(i64::MAX);
        self.queues_from.push(count(&self.queues));
        let places = routed.route.queues.iter();
        self.queues
            .extend(places.map(|place| subscriptions[*place].queue_id));
        self.queues_to.push(count(&self.queues));
        push_rare(&mut self.fair, self.topic_id.len(), message.fair);
        self.line_up |= routed.route.queues.iter().any(|place| {
            let binding = &subscriptions[*place];
            // An ordered queue wants it even where there is no key.
            binding.ordered || message.key.is_some() && message.fair.unwrap_or(binding.fair)
        });
    }
}
