//! Deliveries by name: a provider's event id, an identity, or a delivery key.

use zentra_core::lifecycle::State;
use zentra_store::journal::{Delivery, DeliveryStore};

use crate::error::{AdminError, ErrorCode};

/// Every delivery of this name that the store knows, oldest key first.
///
/// # Errors
/// Those of the store.
pub async fn known(
    histories: &impl DeliveryStore,
    pairs: &[(&str, &str)],
    id: &str,
) -> Result<Vec<Delivery>, AdminError> {
    let mut found = Vec::new();
    for key in histories.find(id, pairs).await? {
        found.extend(histories.history(&key).await?);
    }
    Ok(found)
}

/// Every known delivery of an event, oldest key first; at least one.
pub async fn find(
    histories: &impl DeliveryStore,
    pairs: &[(&str, &str)],
    id: &str,
) -> Result<Vec<Delivery>, AdminError> {
    let found = known(histories, pairs, id).await?;
    if found.is_empty() { Err(unknown(id)) } else { Ok(found) }
}

pub(crate) fn unknown(id: &str) -> AdminError {
    AdminError::new(ErrorCode::EventNotFound, format!("event {id} is unknown."))
        .hint(
            "Give a provider's event ID, or a delivery key (destination/source/id). Refused callbacks, \
             and events that wait in a work queue of a source without an archive, have no history.",
        )
        .about(id)
}

/// The state in words.
pub fn status(delivery: &Delivery) -> String {
    let record = &delivery.record;
    match (record.state, delivery.reason) {
        (State::InFlight, _) => format!("in flight (claimed until {})", record.until),
        (State::Waiting, _) => format!("waiting (next attempt at {})", record.until),
        (State::Delivered, _) => "delivered".into(),
        (State::Dead, Some(reason)) => format!("dead ({})", reason.as_str()),
        (State::Dead, None) => "dead".into(),
    }
}
