//! Trace contexts as they travel: W3C `traceparent` and `tracestate`.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::domain::TraceParent;

/// What came with a request, or was kept with a message.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// `traceparent`; one that is not valid counts as none.
    pub parent: &'a str,
    /// `tracestate`.
    pub state: Option<&'a str>,
}

impl<'a> Carried<'a> {
    /// What was kept with a message, if anything was.
    #[must_use]
    pub fn kept(parent: Option<&'a str>, state: Option<&'a str>) -> Option<Self> {
        parent.map(|parent| Self { parent, state })
    }

    pub(super) fn context(self) -> Option<SpanContext> {
        let parent = TraceParent::parse(self.parent)?;
        // Section 3.3: a bad one is left out, and does not spoil the other.
        let state = self.state.and_then(|state| state.parse().ok());
        Some(SpanContext::new(
            TraceId::from_bytes(parent.trace_id.to_be_bytes()),
            SpanId::from_bytes(parent.span_id.to_be_bytes()),
            TraceFlags::new(parent.flags),
            true,
            state.unwrap_or(TraceState::NONE),
        ))
    }
}

/// The two headers.
pub(super) fn write(context: &SpanContext) -> (String, Option<String>) {
    // The flags that version 00 knows: sampled, and that the trace id is random.
    let flags = context.trace_flags().to_u8() & 0x03;
    let parent = format!(
        "00-{}-{}-{flags:02x}",
        context.trace_id(),
        context.span_id()
    );
    let state = context.trace_state().header();
    (parent, Some(state).filter(|state| !state.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        for (state, kept) in [
            (Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"), true),
            (Some("not a state"), false),
            (Some(""), false),
            (None, false),
        ] {
            let context = Carried { parent, state }.context().expect("valid");
            let state = state.filter(|_| kept).map(str::to_owned);
            assert_eq!(write(&context), (parent.to_owned(), state));
        }
        let (parent, state) = ("nonsense", None);
        assert!(Carried { parent, state }.context().is_none());
    }
}
