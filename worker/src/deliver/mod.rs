//! Delivering one event to its destination, once.

mod cloudevents;
pub(crate) mod handler;
pub(crate) mod http;
mod provider;
mod resolve;

use std::time::Duration;

use zentra_config::Destination;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::trace::Trace;
use zentra_store::journal::AttemptResult;

/// How events reach a destination.
pub(crate) enum Deliver {
    /// A POST request to its `url`.
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
