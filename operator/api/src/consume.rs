//! What pulls and copies have in common: the bounds of a request, and the event.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_core::event::{DeliveryKey, Event};
use zentra_worker::pull::{LONGEST_WAIT, MOST};

use crate::problem::Problem;
use crate::time::Time;

/// The wait of a request that names none, in seconds.
pub(super) fn default_wait() -> u32 {
    20
}

/// Checks `max` and `wait_seconds`, and returns the wait.
pub(super) fn bounded(max: usize, wait_seconds: u32) -> Result<Duration, Problem> {
    if !(1..=MOST).contains(&max) {
        return Err(Problem::invalid(format!("max must be from 1 to {MOST}")));
    }
    let wait = Duration::from_secs(wait_seconds.into());
    if wait > LONGEST_WAIT {
        let longest = LONGEST_WAIT.as_secs();
        return Err(Problem::invalid(format!("wait_seconds must be from 0 to {longest}")));
    }
    Ok(wait)
}

/// An event, as a consumer gets it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConsumedEvent {
    /// The same for each copy and delivery of the event: write under it.
    idempotency_key: String,
    source: String,
    /// The provider's event id.
    event_id: Option<String>,
    /// The provider's event type.
    event_type: Option<String>,
    received_at: Time,
    /// Name and value of each header that a destination with a `url` would get, without a
    /// signature.
    headers: Vec<[String; 2]>,
    /// The provider's body, in base64.
    #[schema(content_encoding = "base64")]
    body: String,
}

impl ConsumedEvent {
    pub(super) fn new(key: &DeliveryKey, event: Event, headers: Vec<(String, String)>) -> Self {
        let Event { envelope, body } = event;
        Self {
            idempotency_key: key.as_str().to_owned(),
            event_id: envelope.event_id().map(str::to_owned),
            source: envelope.source,
            event_type: envelope.event_type,
            received_at: envelope.received_at.into(),
            headers: headers.into_iter().map(|(name, value)| [name, value]).collect(),
            body: STANDARD.encode(&body),
        }
    }
}
