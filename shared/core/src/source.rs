//! A source: one provider's endpoint, and what is done with its events.

use std::time::Duration;

use webhook_verify::{Endpoint, Success};

use crate::redact::Redact;

/// A source, as configured.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the config, and in `POST /in/{source}`.
    pub name: String,
    /// The provider's endpoint: how its callbacks are verified.
    pub endpoint: Endpoint,
    /// How long its deliveries are remembered after their last change.
    pub retention: Duration,
    /// Environment of its events, in the user's words. No rehearsal runs in `production`.
    pub environment: String,
    /// Whether its accepted events are also archived.
    pub archive: bool,
    /// What operators don't see of its callbacks.
    pub redact: Redact,
    /// The answer to an accepted callback.
    pub success: Success,
}
