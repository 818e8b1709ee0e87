//! Looking through what is remembered, page by page, newest first.

use serde::Serialize;

use super::Delivery;
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{DeadReason, State};

/// What a page may cost, so that its time and memory are bounded however few deliveries are wanted:
/// an entry of the list is one, and a delivery that is looked up another one. A page with less than
/// was asked for may have a next one.
pub const SCAN: usize = 2000;

/// Which deliveries are wanted. What is `None` is any.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The source's name.
    pub source: Option<String>,
    /// The destination's name.
    pub destination: Option<String>,
    /// The provider's event type.
    pub kind: Option<String>,
    /// Where they stand.
    pub state: Option<State>,
    /// Why they are dead.
    pub reason: Option<DeadReason>,
    /// Taken up at this time or later.
    pub since: Option<Timestamp>,
    /// Taken up before this time.
    pub until: Option<Timestamp>,
}

impl Query {
    /// Whether a delivery of this key and type may be wanted.
    pub fn may_take(&self, key: &DeliveryKey, kind: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, given: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == given)
        };
        is(&self.destination, key.destination())
            && is(&self.source, key.source())
            && self.kind.as_deref().is_none_or(|wanted| kind == Some(wanted))
    }

    /// Whether it is wanted.
    pub fn takes(&self, listed: &Listed) -> bool {
        let Listed { taken_up, delivery } = listed;
        self.since.is_none_or(|since| *taken_up >= since)
            && self.until.is_none_or(|until| *taken_up < until)
            && self.may_take(&delivery.key, delivery.event.event_type.as_deref())
            && self.state.is_none_or(|wanted| wanted == delivery.record.state)
            && self.reason.is_none_or(|wanted| delivery.reason == Some(wanted))
    }
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page {
    /// The deliveries, those that were taken up last first.
    pub items: Vec<Listed>,
    /// Where the next page begins; `None` at the end. Of the same query only.
    pub next: Option<String>,
}

/// One of a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Listed {
    /// When a worker took it up for the first time.
    pub taken_up: Timestamp,
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
}
