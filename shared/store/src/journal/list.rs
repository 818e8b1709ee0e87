//! Lists of deliveries, page by page, newest first.

use serde::Serialize;

use super::Delivery;
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{DeadReason, State};

/// Maximum cost of a page: one for each entry of the list, and one for each delivery that is looked
/// up. It bounds time and memory even if few deliveries match. A page with fewer items than
/// requested can have a next page.
pub const SCAN: usize = 2000;

/// A filter for deliveries. `None` matches everything.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The source's name.
    pub source: Option<String>,
    /// The destination's name.
    pub destination: Option<String>,
    /// The provider's event type.
    pub kind: Option<String>,
    /// State.
    pub state: Option<State>,
    /// Dead-letter reason.
    pub reason: Option<DeadReason>,
    /// Requeued or replayed by this job.
    pub job: Option<String>,
    /// Taken up at this time or later.
    pub since: Option<Timestamp>,
    /// Taken up before this time.
    pub until: Option<Timestamp>,
}

impl Query {
    /// Whether a delivery with this key and type can match.
    pub fn may_take(&self, key: &DeliveryKey, kind: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, given: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == given)
        };
        is(&self.destination, key.destination())
            && is(&self.source, key.source())
            && self.kind.as_deref().is_none_or(|wanted| kind == Some(wanted))
    }

    /// Whether it matches.
    pub fn takes(&self, listed: &Listed) -> bool {
        let Listed { first_claimed_at, delivery } = listed;
        self.since.is_none_or(|since| *first_claimed_at >= since)
            && self.until.is_none_or(|until| *first_claimed_at < until)
            && self.may_take(&delivery.key, delivery.event.event_type.as_deref())
            && self.state.is_none_or(|wanted| wanted == delivery.record.state)
            && self.reason.is_none_or(|wanted| delivery.reason == Some(wanted))
            && self.job.as_ref().is_none_or(|job| delivery.is_touched_by(job))
    }
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// Deliveries, newest first.
    pub items: Vec<Listed>,
    /// Cursor of the next page of the same query; `None` at the end.
    pub next: Option<String>,
}

/// One item of a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// When a worker first took it up.
    pub first_claimed_at: Timestamp,
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
}
