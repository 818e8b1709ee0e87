//! Delivering one event to its destination, once.

mod cloudevents;
pub(crate) mod handler;
pub(crate) mod http;
mod provider;
mod resolve;
mod secrets;

use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use zentra_config::Destination;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::trace::Trace;
use zentra_store::journal::AttemptResult;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ATTEMPT: HeaderName = HeaderName::from_static("zentra-attempt");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How events reach a destination.
pub(crate) enum Deliver {
    /// A request to its `url`.
    Http(Box<http::HttpDelivery>),
    /// A handler in this process.
    Handler(handler::HandlerDelivery),
}

impl Deliver {
    /// One attempt.
    pub(crate) async fn deliver(&self, request: &AttemptRequest<'_>) -> Attempted {
        match self {
            Self::Http(http) => http.deliver(request).await,
            Self::Handler(handler) => handler.deliver(request).await,
        }
    }
}

/// An attempt to make.
pub(crate) struct AttemptRequest<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) key: &'a DeliveryKey,
    pub(crate) event: &'a Event,
    pub(crate) attempt: u32,
    pub(crate) trace: Trace,
    pub(crate) now: Timestamp,
}

/// Result of an attempt.
#[derive(Debug)]
pub(crate) struct Attempted {
    /// Verdict.
    pub(crate) verdict: Verdict,
    /// Result for the history.
    pub(crate) result: AttemptResult,
}

/// Verdict on an attempt, by status and kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The destination took it.
    Delivered,
    /// It can succeed later.
    Failed {
        /// The destination's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No retry can help.
    Permanent,
}

/// Headers of an attempt, without a signature.
///
/// # Errors
/// If HTTP does not allow the idempotency key as a value.
pub(crate) fn headers(
    key: &DeliveryKey,
    event: &Event,
    attempt: u32,
    trace: Trace,
) -> Result<Vec<(HeaderName, HeaderValue)>, ::http::Error> {
    let envelope = &event.envelope;
    let mut headers = vec![
        (USER_AGENT, HeaderValue::from_static(concat!("zentra/", env!("CARGO_PKG_VERSION")))),
        (IDEMPOTENCY_KEY, HeaderValue::try_from(key.as_str())?),
        (ATTEMPT, attempt.into()),
        (TRACEPARENT, HeaderValue::try_from(trace.to_string())?),
    ];
    headers.extend(provider::headers(&envelope.context));
    let content_type = envelope.content_type.as_deref();
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));
    headers.extend(cloudevents::attributes(envelope));
    Ok(headers)
}
