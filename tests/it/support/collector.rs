//! A collector of traces: takes OTLP over HTTP and keeps the spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::{Receiver, Reply, eventually};

pub(crate) struct Collector(Receiver);

/// A span as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: i32,
    /// `TRACE-SPAN`, in hex, as in a `traceparent`.
    pub(crate) context: String,
    /// The same of its parent, if it has one.
    pub(crate) parent: Option<String>,
    pub(crate) links: Vec<String>,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) resource: Map<String, Value>,
    pub(crate) is_error: bool,
}

impl Span {
    pub(crate) fn trace(&self) -> &str {
        &self.context[..32]
    }

    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-01", self.context)
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let receiver = Receiver::start().await;
        receiver.usually(Reply::status(200));
        Self(receiver)
    }

    /// What exporters are told.
    pub(crate) fn endpoint(&self) -> String {
        self.0.url("")
    }

    /// What it answers next.
    pub(crate) fn next(&self, reply: Reply) {
        self.0.next(reply);
    }

    /// Every batch so far, as it came.
    pub(crate) fn batches(&self) -> Vec<super::Received> {
        self.0.requests()
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let batches = self.batches();
        batches
            .iter()
            .flat_map(|batch| spans(&batch.body))
            .collect()
    }

    /// Waits until there are spans of these names, and gives the first of each.
    pub(crate) async fn wait_for<const N: usize>(&self, names: [&str; N]) -> [Span; N] {
        let find = |name: &str| self.spans().into_iter().find(|span| span.name == name);
        for name in names {
            eventually(name, async || find(name).is_some()).await;
        }
        names.map(|name| find(name).unwrap())
    }
}

fn spans(batch: &[u8]) -> Vec<Span> {
    let batch = ExportTraceServiceRequest::decode(batch).unwrap();
    let mut found = Vec::new();
    for of_resource in batch.resource_spans {
        let resource = attributes(&of_resource.resource.unwrap().attributes);
        for sent in of_resource.scope_spans.into_iter().flat_map(|s| s.spans) {
            found.push(span(&sent, &resource));
        }
    }
    found
}

fn span(sent: &Sent, resource: &Map<String, Value>) -> Span {
    let trace = hex(&sent.trace_id);
    let parent = hex(&sent.parent_span_id);
    Span {
        name: sent.name.clone(),
        kind: sent.kind,
        context: format!("{trace}-{}", hex(&sent.span_id)),
        parent: (!parent.is_empty()).then(|| format!("{trace}-{parent}")),
        links: sent
            .links
            .iter()
            .map(|link| format!("{}-{}", hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        attributes: attributes(&sent.attributes),
        resource: resource.clone(),
        is_error: sent.status.as_ref().is_some_and(|status| status.code == 2),
    }
}

fn attributes(of: &[KeyValue]) -> Map<String, Value> {
    let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        other => panic!("{other:?}"),
    };
    of.iter()
        .map(|pair| (pair.key.clone(), value(&pair.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
