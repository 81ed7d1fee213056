//! Spans: what happened to a request or a message and how long it took, told to
//! whoever collects traces. The only place that knows OpenTelemetry.
//!
//! - A request is a span, named after its operation (`publish`, `ack`), a child
//!   of the `traceparent` that it came with.
//! - What a publish stores keeps the publish's span as its `traceparent`, so that
//!   consumers go on from there. A receive is linked to those of its messages.
//! - The first attempt of a push is a child of the publish. A later one may come
//!   days after, so it begins a trace of its own, linked to the publish.
//! - A statement that serves many requests at once (`store.publish`) is a child of
//!   one of them, and linked to the others.
//!
//! Names are those of OpenTelemetry's semantic conventions for HTTP, messaging and
//! databases. No attribute holds what is in a message, a header or a query.
//!
//! Nothing is done unless [`start`] found in the environment where to export to:
//! then each of these begins with one look at a static. With sampling, a span
//! that is not sampled costs its ids and one allocation, and leaves the message's
//! `traceparent` as the publisher sent it.

mod context;
mod export;
mod sampler;

use std::sync::OnceLock;

use futures_util::future::Either;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use crate::domain::MessageId;

pub use context::Carried;
pub use export::{Exporter, start};

/// Set once, by [`start`].
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Links of a span, at most: what the SDK keeps by default.
const LINKS: usize = 128;

/// Bytes of an attribute that a client wrote, at most.
const CLIPPED: usize = 256;

/// A span that has begun. It ends when it is told to, or with its last clone.
#[derive(Debug, Clone)]
pub struct Span(Context);

/// What a request's span says from its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The operation's id; `None` for what is not one.
    pub operation: Option<&'static str>,
    /// As it came.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
}

/// What a push's span says from its beginning. Not its URL, whose path and query
/// may be secrets.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Whose webhook.
    pub queue: &'a str,
    /// The message's id, as users see it.
    pub message: &'a str,
    /// 1 for the first.
    pub attempt: u32,
    /// The receiver's host, in the URL.
    pub host: &'a str,
    /// And port.
    pub port: u16,
    /// Whether over TLS.
    pub is_https: bool,
}

/// A request whose span is recorded, for the statement that serves it.
#[derive(Debug, Clone)]
pub struct Asking(SpanContext);

/// Where spans are made; `None` while tracing is off.
fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// Whether spans are made.
#[must_use]
pub fn is_on() -> bool {
    tracer().is_some()
}

/// Begins a span, a child of `parent` if there is one.
fn begin(tracer: &SdkTracer, builder: SpanBuilder, parent: Option<SpanContext>) -> Span {
    let parent = match parent {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    };
    let span = tracer.build_with_context(builder, &parent);
    Span(Context::new().with_span(span))
}

fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(CLIPPED)].to_owned()
}

/// What kind of messaging an operation is, by the conventions; `None` if it is
/// none.
fn messaging(operation: &str) -> Option<&'static str> {
    match operation {
        "publish" | "publish_topic" | "request" => Some("send"),
        "receive" => Some("receive"),
        // A transaction may publish as well, but that is what it is for.
        "ack" | "nack" | "extend" | "reply_to_request" | "transact" => Some("settle"),
        _ => None,
    }
}

/// The queue or topic that a path is about.
fn destination(path: &str) -> Option<&str> {
    let mut parts = path.split('/').skip(2);
    let is_of_one = matches!(parts.next(), Some("queues" | "topics"));
    parts.next().filter(|name| is_of_one && !name.is_empty())
}

impl Span {
    /// Begins the span of a request; `None` while tracing is off.
    #[must_use]
    pub fn of_request(incoming: Incoming<'_>, parent: Option<Carried<'_>>) -> Option<Self> {
        let tracer = tracer()?;
        let method = match incoming.method {
            "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS" | "TRACE"
            | "CONNECT" => incoming.method.to_owned(),
            _ => "_OTHER".to_owned(),
        };
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("url.path", clipped(incoming.path)),
            KeyValue::new("url.scheme", "http"),
        ];
        if let Some(operation) = incoming.operation {
            attributes.push(KeyValue::new("messaging.system", "postrider"));
            attributes.push(KeyValue::new("messaging.operation.name", operation));
            if let Some(kind) = messaging(operation) {
                attributes.push(KeyValue::new("messaging.operation.type", kind));
            }
            if let Some(name) = destination(incoming.path) {
                attributes.push(KeyValue::new("messaging.destination.name", clipped(name)));
            }
        }
        let builder = match incoming.operation {
            Some(operation) => SpanBuilder::from_name(operation),
            None => SpanBuilder::from_name(method),
        };
        let builder = builder
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        Some(begin(tracer, builder, parent.and_then(Carried::context)))
    }

    /// Begins the span of an attempt to push a message that was published with
    /// this; `None` while tracing is off.
    #[must_use]
    pub fn of_push(outgoing: Outgoing<'_>, published: Option<Carried<'_>>) -> Option<Self> {
        let tracer = tracer()?;
        let published = published.and_then(Carried::context);
        let is_first = outgoing.attempt == 1;
        let mut builder = SpanBuilder::from_name("push")
            // The receiver's own span is a child of this one.
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("messaging.system", "postrider"),
                KeyValue::new("messaging.operation.name", "push"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", outgoing.queue.to_owned()),
                KeyValue::new("messaging.message.id", outgoing.message.to_owned()),
                KeyValue::new("postrider.attempt", i64::from(outgoing.attempt)),
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("server.address", outgoing.host.to_owned()),
                KeyValue::new("server.port", i64::from(outgoing.port)),
                KeyValue::new(
                    "url.scheme",
                    if outgoing.is_https { "https" } else { "http" },
                ),
            ]);
        if !is_first && let Some(published) = &published {
            builder = builder.with_links(vec![Link::with_context(published.clone())]);
        }
        Some(begin(tracer, builder, published.filter(|_| is_first)))
    }

    /// Begins the span of a statement that serves these requests and touches so
    /// many rows; `None` if none of them is recorded.
    #[must_use]
    pub fn of_statement<'a>(
        name: &'static str,
        asking: impl IntoIterator<Item = &'a Asking>,
        rows: usize,
    ) -> Option<Self> {
        let mut asking = asking.into_iter();
        let Asking(first) = asking.next()?;
        let links: Vec<Link> = asking
            .take(LINKS)
            .map(|Asking(other)| Link::with_context(other.clone()))
            .collect();
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.batch.size", rows),
            ])
            .with_links(links);
        Some(begin(tracer()?, builder, Some(first.clone())))
    }

    /// The span that this code runs under, if it is recorded.
    #[must_use]
    pub fn current() -> Option<Self> {
        tracer()?;
        let context = Context::current();
        context.span().is_recording().then_some(Self(context))
    }

    /// Runs a future under it.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.with_context(self.0.clone())
    }

    /// What is to be sent along, or kept with a message, so that others go on
    /// from here: `traceparent` and `tracestate`. `None` if the span is not
    /// recorded: they would look for a parent that nobody has.
    #[must_use]
    pub fn carried(&self) -> Option<(String, Option<String>)> {
        let span = self.0.span();
        let context = span.span_context();
        context.is_sampled().then(|| context::write(context))
    }

    /// Names the trace, if the span is recorded.
    #[must_use]
    pub fn trace_id(&self) -> Option<u128> {
        let span = self.0.span();
        let context = span.span_context();
        let id = || u128::from_be_bytes(context.trace_id().to_bytes());
        context.is_sampled().then(id)
    }

    /// Says which messages it is about: the id of one, the number of several.
    pub fn messages(&self, ids: &[i64]) {
        let attribute = match ids {
            [id] => KeyValue::new("messaging.message.id", MessageId(*id).to_string()),
            ids => {
                let count = i64::try_from(ids.len()).unwrap_or(i64::MAX);
                KeyValue::new("messaging.batch.message_count", count)
            }
        };
        self.0.span().set_attribute(attribute);
    }

    /// Links it to what these messages were published by.
    pub fn link<'a>(&self, published: impl IntoIterator<Item = Carried<'a>>) {
        let span = self.0.span();
        let contexts = published.into_iter().filter_map(Carried::context);
        for context in contexts.take(LINKS) {
            span.add_link(context, Vec::new());
        }
    }

    /// Ends the span of a request with its answer.
    pub fn answered(&self, status: u16, problem: Option<&'static str>) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        if let Some(code) = problem {
            span.set_attribute(KeyValue::new("postrider.problem", code));
        }
        // What the client did wrong is no error of a server's span.
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", problem.unwrap_or("internal")));
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Ends the span of a push with what came back.
    pub fn pushed(&self, status: Option<u16>, was_delivered: bool) {
        let span = self.0.span();
        if let Some(status) = status {
            span.set_attribute(KeyValue::new(
                "http.response.status_code",
                i64::from(status),
            ));
        }
        if !was_delivered {
            let kind = status.map_or_else(|| "no_answer".to_owned(), |status| status.to_string());
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Ends the span of a statement.
    pub fn ran(&self, has_failed: bool) {
        let span = self.0.span();
        if has_failed {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl Asking {
    /// The request that this code runs for, if its span is recorded. In a box,
    /// since it waits with every request, and mostly there is none.
    #[must_use]
    pub fn current() -> Option<Box<Self>> {
        let Span(context) = Span::current()?;
        let asking = Self(context.span().span_context().clone());
        Some(Box::new(asking))
    }
}

/// Takes the span of this code along into a task of its own.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    match tracer() {
        Some(_) => Either::Left(future.with_current_context()),
        None => Either::Right(future),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_queue_or_topic() {
        for (path, name) in [
            ("/v1/queues/orders/messages", Some("orders")),
            ("/v1/topics/shop", Some("shop")),
            ("/v1/queues", None),
            ("/v1/queues/", None),
            ("/v1/keys/abc", None),
            ("/livez", None),
            ("", None),
        ] {
            assert_eq!(destination(path), name, "{path}");
        }
    }

    #[test]
    fn nothing_is_done_while_tracing_is_off() {
        let incoming = Incoming {
            operation: Some("ack"),
            method: "POST",
            path: "/",
        };
        assert!(Span::of_request(incoming, None).is_none());
        assert!(Span::current().is_none());
        assert!(Asking::current().is_none());
    }
}
