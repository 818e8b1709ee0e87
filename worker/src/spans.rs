//! The spans of a message: process → claim → attempt → publish → settle. docs/tracing.md has the table.

use http::Method;
use zentra_config::Destination;
use zentra_store::journal::{AttemptResult, ErrorClass, Journal};
use zentra_store::queue::{Message, Process};
use zentra_telemetry::trace::{Span, SpanKind};

use crate::deliver::{Attempted, Verdict};

/// From taking a message to its acknowledgement. It follows the publication in the trace of the event, in retries
/// and requeued events too.
pub(crate) fn process_span<Q: Process>(destination: &str, message: &Message) -> Span {
    let Message { sealed, attempt, generation, .. } = message;
    let mut span = Span::after(sealed.trace, SpanKind::Consumer, "process");
    span.rename(|| format!("process {destination}"));
    span.set("messaging.system", || Q::SYSTEM);
    span.set("messaging.operation.name", || "process");
    span.set("messaging.operation.type", || "process");
    span.set("messaging.destination.name", || destination.to_owned());
    span.set("messaging.message.id", || sealed.id.clone());
    span.set("zentra.attempt", || i64::from(*attempt));
    span.set("zentra.generation", || i64::from(*generation));
    span
}

/// A request of the delivery store.
pub(crate) fn store_span<J: Journal>(name: &'static str) -> Span {
    let mut span = Span::start(SpanKind::Client, name);
    span.set("db.system.name", || J::SYSTEM);
    span.set("db.operation.name", || name);
    span
}

/// From the request of an attempt to its verdict.
pub(crate) fn attempt_span(destination: &Destination, attempt: u32) -> Span {
    let mut span = match &destination.url {
        Some(_) => Span::start(SpanKind::Client, method(destination)),
        None => Span::start(SpanKind::Internal, "attempt"),
    };
    if let Some(url) = &destination.url {
        span.set("http.request.method", || method(destination));
        span.set("http.request.resend_count", || i64::from(attempt) - 1);
        span.set("server.address", || url.host().unwrap_or_default().to_owned());
        span.set("server.port", || i64::from(port(url)));
    }
    span.set("zentra.destination", || destination.name.clone());
    span.set("zentra.attempt", || i64::from(attempt));
    span
}

/// As a constant: the configuration allows no other.
fn method(destination: &Destination) -> &'static str {
    match destination.method {
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "POST",
    }
}

fn port(url: &http::Uri) -> u16 {
    let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
    url.port_u16().unwrap_or(default)
}

/// Adds the result of an attempt. What the destination responded is in the history only.
pub(crate) fn describe(span: &mut Span, attempted: &Attempted) {
    if let Some(status) = attempted.result.status {
        span.set("http.response.status_code", || i64::from(status));
    }
    let AttemptResult { class, error, .. } = &attempted.result;
    if attempted.verdict != Verdict::Delivered {
        // What a handler or a consumer says may quote the event.
        let error = error
            .as_ref()
            .filter(|_| !matches!(class, Some(ErrorClass::Handler | ErrorClass::Panic)));
        span.fail(class.map_or("status", ErrorClass::as_str), || {
            error.cloned().unwrap_or_default()
        });
    }
}

/// From the publication of a retry, a deferred message or a dead letter to its confirm.
pub(crate) fn send_span<Q: Process>(step: &'static str, message: &Message) -> Span {
    let place = if step == "dead-letter" { "dead" } else { "retry" };
    let name = if step == "dead-letter" { "publish dead" } else { "publish retry" };
    let mut span = Span::start(SpanKind::Producer, name);
    span.set("messaging.system", || Q::SYSTEM);
    span.set("messaging.operation.name", || "publish");
    span.set("messaging.operation.type", || "send");
    span.set("messaging.destination.name", || place);
    span.set("messaging.message.id", || message.sealed.id.clone());
    span
}
