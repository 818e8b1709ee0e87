//! Spans: the steps of a trace. They are exported if OpenTelemetry is on (see [`crate::otlp`]). Otherwise they only
//! carry the trace, without an allocation.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use tokio::task::futures::TaskLocalFuture;
use zentra_core::trace::Trace;

use crate::otlp::count_recorded;

pub use opentelemetry::trace::SpanKind;

/// Set by [`crate::otlp::start`].
pub(crate) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace and span of the running task, if there is one. Log lines have both.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// Runs a future as a part of this span. It is taken by reference (`std::pin::pin!`), because the futures of a callback and
/// of a message are large: moving them costs more than the rest of a span.
pub fn within<F: Future>(trace: Trace, future: Pin<&mut F>) -> TaskLocalFuture<Trace, Pin<&mut F>> {
    CURRENT.scope(trace, future)
}

/// A step, from now until it is dropped.
///
/// Attributes have the names of OpenTelemetry's semantic conventions (HTTP 1.27, messaging, database), or begin with
/// `zentra.`. They hold no payload, header, query or secret.
pub struct Span {
    trace: Trace,
    /// `None` if it is not exported. Boxed, because it is large and lives in futures.
    recorded: Option<Box<opentelemetry_sdk::trace::Span>>,
}

impl Span {
    /// The next step of the current trace. Without one, it is the first step of a new trace.
    pub fn start(kind: SpanKind, name: &'static str) -> Self {
        Self::new(current(), false, kind, name)
    }

    /// The next step of a trace of this program.
    pub fn child(parent: Trace, kind: SpanKind, name: &'static str) -> Self {
        Self::new(Some(parent), false, kind, name)
    }

    /// The next step of a trace of another program. With `None` it is the first step of a new trace.
    pub fn after(parent: Option<Trace>, kind: SpanKind, name: &'static str) -> Self {
        Self::new(parent, true, kind, name)
    }

    fn new(parent: Option<Trace>, is_remote: bool, kind: SpanKind, name: &'static str) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::unrecorded(parent) };
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(span_context(parent, is_remote))
        });
        let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &context);
        // The program ends.
        let Some(trace) = trace_of(span.span_context()) else { return Self::unrecorded(parent) };
        Self { trace, recorded: span.is_recording().then(|| Box::new(span)) }
    }

    fn unrecorded(parent: Option<Trace>) -> Self {
        let chance = &mut rand::rng();
        let trace = match parent {
            Some(parent) => parent.next(chance),
            None => Trace::new(chance),
        };
        Self { trace, recorded: None }
    }

    /// The trace with this step.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Gives it a name that is not known at compile time.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(span) = &mut self.recorded {
            span.update_name(name());
        }
    }

    /// Sets an attribute. The value is made only if the span is exported.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Marks the step as failed. `kind` is a stable name, for the attribute `error.type`.
    pub fn fail(&mut self, kind: &'static str, error: impl FnOnce() -> String) {
        if let Some(span) = &mut self.recorded {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(error()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.recorded.is_some() {
            count_recorded();
        }
    }
}

fn span_context(trace: Trace, is_remote: bool) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(trace.is_sampled());
    let (id, span) = trace.ids();
    SpanContext::new(TraceId::from(id), SpanId::from(span), flags, is_remote, TraceState::NONE)
}

fn trace_of(context: &SpanContext) -> Option<Trace> {
    let id = u128::from_be_bytes(context.trace_id().to_bytes());
    let span = u64::from_be_bytes(context.span_id().to_bytes());
    Trace::from_ids(id, span, context.is_sampled())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn steps_follow_the_current_trace_of_their_task() {
        assert_eq!(current(), None);
        let span = Span::start(SpanKind::Server, "receive");
        let trace = span.trace();
        let step = pin!(async { Span::start(SpanKind::Internal, "verify").trace() });
        let child = within(trace, step).await;
        assert_eq!(child.id(), trace.id());
        assert_ne!(child, trace);
        let other = Span::start(SpanKind::Server, "receive").trace();
        assert_ne!(other.id(), trace.id());
    }

    #[test]
    fn without_an_endpoint_nothing_is_allocated() {
        // The random numbers of this thread are set up once.
        drop(Span::start(SpanKind::Server, "receive"));
        let counted = allocation_counter::measure(|| {
            let mut span = Span::start(SpanKind::Server, "receive");
            span.rename(|| "process ledger".to_owned());
            span.set("zentra.source", || "acme".to_owned());
            span.fail("timeout", || "no answer".to_owned());
            std::hint::black_box(span.trace());
        });
        assert_eq!(counted.count_total, 0);
    }

    #[test]
    fn a_trace_keeps_its_ids_and_its_sampling() {
        for text in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        ] {
            let trace: Trace = text.parse().unwrap();
            assert_eq!(trace_of(&span_context(trace, true)), Some(trace));
        }
    }
}
