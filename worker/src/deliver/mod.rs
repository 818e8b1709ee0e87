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

/// How a destination is delivered to.
pub(crate) enum Deliver {
    /// A POST to its url.
    Http(Box<http::HttpDelivery>),
    /// A call in this process.
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

/// What is to be delivered.
pub(crate) struct AttemptRequest<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) key: &'a DeliveryKey,
    pub(crate) event: &'a Event,
    pub(crate) attempt: u32,
    pub(crate) trace: Trace,
    pub(crate) now: Timestamp,
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) struct Attempted {
    /// How it is to be judged.
    pub(crate) verdict: Verdict,
    /// What is kept of it.
    pub(crate) result: AttemptResult,
}

/// How an attempt is judged: by status and kind of failure, never by text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The destination took it.
    Delivered,
    /// It may work later, not before the time that the destination asks for.
    Failed {
        /// The destination's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The destination judged this very request, and will judge it the same again.
    Permanent,
}
