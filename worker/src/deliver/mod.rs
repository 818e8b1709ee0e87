//! Delivering one event to its destination, once.

mod cloudevents;
pub(crate) mod http;
mod resolve;

use std::time::Duration;

use zentra_shared::journal::AttemptResult;

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
