//! Which spans are recorded: what `OTEL_TRACES_SAMPLER` says, and one rule.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingResult, ShouldSample};

/// Decides about a span without a parent as about what it is linked to: a push
/// that is tried again is of interest exactly if the publish was.
#[derive(Debug, Clone)]
pub(super) struct AsLinked(pub(super) Box<dyn ShouldSample>);

impl ShouldSample for AsLinked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        let Some(link) = links.first().filter(|_| !has_parent) else {
            return (self.0).should_sample(parent, trace_id, name, kind, attributes, links);
        };
        let linked = Context::new().with_remote_span_context(link.span_context.clone());
        let trace_id = link.span_context.trace_id();
        let mut result =
            (self.0).should_sample(Some(&linked), trace_id, name, kind, attributes, links);
        // The other trace's state is not this one's.
        result.trace_state = opentelemetry::trace::TraceState::NONE;
        result
    }
}
