//! What is told of a request: its line in the log, its span to the collector of
//! traces. Also the trace context that it came with.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use futures_util::future::Either;

use super::access::Known;
use super::operations::Operation;
use super::problem::Problem;
use crate::domain::TraceParent;
use crate::spans::{self, Carried, Incoming, Span};
use crate::telemetry::{Answered, RequestLine, RequestLog};

/// A request of which something may be told. Small while there is nothing: every
/// waiting receiver has one.
pub(super) struct Told {
    operation: Option<&'static Operation>,
    line: Option<Box<RequestLine>>,
    /// Whose key it came with.
    caller: Option<Arc<Known>>,
    pub(super) span: Option<Box<Span>>,
}

impl Told {
    pub(super) fn of<B>(
        log: &Arc<RequestLog>,
        request: &Request<B>,
        operation: Option<&'static Operation>,
    ) -> Self {
        let method = request.method().as_str();
        let path = shown(request.uri().path());
        let context = TraceContext::of(request.headers());
        let incoming = Incoming {
            operation: operation.map(|operation| operation.id),
            method,
            path,
        };
        // Nobody wants a trace of each look at one's health.
        let is_about_health = operation.is_some_and(|operation| operation.is_about_health);
        let span = if is_about_health || !spans::is_on() {
            None
        } else {
            let state = context.as_ref().and_then(TraceContext::state);
            let carried = context.as_ref().map(|context| Carried {
                parent: context.parent,
                state: state.as_deref(),
            });
            Span::of_request(incoming, carried)
        };
        let sent = || context.as_ref().map(|context| context.trace_id);
        let trace_id = span.as_ref().and_then(Span::trace_id).or_else(sent);
        Self {
            operation,
            line: RequestLine::of(log, method, path, trace_id).map(Box::new),
            caller: None,
            span: span.map(Box::new),
        }
    }

    /// Of a request of which nothing is told.
    pub(super) fn nothing() -> Self {
        Self {
            operation: None,
            line: None,
            caller: None,
            span: None,
        }
    }

    /// The request came with this key.
    pub(super) fn is_by(&mut self, caller: &Arc<Known>) {
        if self.line.is_some() {
            self.caller = Some(Arc::clone(caller));
        }
    }

    /// Runs what answers the request under its span.
    pub(super) fn scope<F: Future>(&self, answer: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.span {
            Some(span) => Either::Left(span.scope(answer)),
            None => Either::Right(answer),
        }
    }

    /// Tells how it ended.
    pub(super) fn end(self, response: &Response<Body>, problem: Option<&Problem>, id: &str) {
        let (status, code) = (response.status().as_u16(), problem.map(Problem::code));
        if let Some(line) = self.line {
            line.write(Answered {
                status,
                code,
                operation: self.operation.map(|operation| operation.id),
                is_about_health: self
                    .operation
                    .is_some_and(|operation| operation.is_about_health),
                request_id: id,
                key: self.caller.as_deref().map(Known::id),
            });
        }
        if let Some(span) = self.span {
            span.answered(status, code);
        }
    }
}

/// A path as it is told. Names of queues and topics are no secret; what somebody calls
/// a claim is as much theirs as a message's key, and whoever has a reply's id may
/// read it.
fn shown(path: &str) -> &str {
    if let Some(key) = path.strip_prefix("/v1/claims/") {
        return if key.ends_with("/complete") {
            "/v1/claims/{key}/complete"
        } else {
            "/v1/claims/{key}"
        };
    }
    if path.starts_with("/v1/replies/") {
        return "/v1/replies/{correlation_id}";
    }
    path
}

/// The trace context that a request came with.
#[derive(Debug, Clone)]
pub(super) struct TraceContext<'a> {
    trace_id: u128,
    parent: &'a str,
    headers: &'a HeaderMap,
}

impl<'a> TraceContext<'a> {
    /// Bytes of a `tracestate`, at most: the standard asks for so many.
    const STATE: usize = 512;

    /// W3C Trace Context, section 3: what is not valid is ignored.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all("traceparent").iter();
        let parent = parents.next()?.to_str().ok()?;
        let trace_id = TraceParent::parse(parent)?.trace_id;
        if parents.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id,
            parent,
            headers,
        })
    }

    /// `tracestate`; several headers of the name are one list.
    fn state(&self) -> Option<Cow<'a, str>> {
        let mut whole: Option<Cow<'a, str>> = None;
        for value in self.headers.get_all("tracestate") {
            let value = value.to_str().ok()?;
            let joined = match whole {
                None => Cow::Borrowed(value),
                Some(before) => Cow::Owned(format!("{before},{value}")),
            };
            if joined.len() > Self::STATE {
                return None;
            }
            whole = Some(joined);
        }
        whole
    }
}

/// The trace context that messages keep.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Trace {
    pub(super) parent: Option<String>,
    pub(super) state: Option<String>,
}

impl Trace {
    /// What messages that are published now keep: the span of this request if it
    /// is recorded, else what the request came with.
    pub(super) fn to_keep(headers: &HeaderMap) -> Self {
        if let Some((parent, state)) = Span::current().and_then(|span| span.carried()) {
            return Self {
                parent: Some(parent),
                state,
            };
        }
        let Some(sent) = TraceContext::of(headers) else {
            return Self::default();
        };
        Self {
            parent: Some(sent.parent.to_owned()),
            state: sent.state().map(Cow::into_owned),
        }
    }
}

/// Tells which messages a request is about.
pub(super) fn tell_messages(ids: impl IntoIterator<Item = i64>) {
    if let Some(span) = Span::current() {
        span.messages(&ids.into_iter().collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn kept(headers: &[(&'static str, &'static str)]) -> (Option<String>, Option<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let kept = Trace::to_keep(&map);
        (kept.parent, kept.state)
    }

    #[test]
    fn neither_a_claims_key_nor_a_replys_id_is_told() {
        for (path, told) in [
            ("/v1/claims/orders:42", "/v1/claims/{key}"),
            ("/v1/claims/orders:42/complete", "/v1/claims/{key}/complete"),
            ("/v1/claims/orders:42/nonsense", "/v1/claims/{key}"),
            ("/v1/replies/req_AQ", "/v1/replies/{correlation_id}"),
            ("/v1/queues/orders/ack", "/v1/queues/orders/ack"),
        ] {
            assert_eq!(shown(path), told);
        }
    }

    #[test]
    fn states_in_several_headers_are_one_and_two_parents_are_none() {
        let parent = Some(GOOD.to_owned());
        let (one, two) = (("tracestate", "a=1"), ("tracestate", "b=2,c=3"));
        assert_eq!(
            kept(&[("traceparent", GOOD), one, two]),
            (parent, Some("a=1,b=2,c=3".to_owned()))
        );
        assert_eq!(kept(&[one, two]), (None, None));
        let twice = [("traceparent", GOOD), ("traceparent", GOOD), one];
        assert_eq!(kept(&twice), (None, None));
    }
}
