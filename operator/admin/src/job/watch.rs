//! Results of letters that a job has requeued.

use std::collections::VecDeque;

use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::State;
use zentra_store::journal::{Delivery, DeliveryStore};

use crate::error::AdminError;

/// Maximum number of watched letters at a time.
const MOST: usize = 200;
/// Number of the last results that decide,
const RECENT: usize = 100;
/// and the minimum number of results.
const ENOUGH: usize = 20;

/// Watches letters until the result of their next attempt is known.
#[derive(Default)]
pub(super) struct Watch {
    waiting: Vec<(DeliveryKey, u32)>,
    /// Whether each of the last ones failed.
    recent: VecDeque<bool>,
    pub(super) delivered: u64,
    pub(super) failed: u64,
}

impl Watch {
    /// Watches a letter, if there is room.
    pub(super) fn add(&mut self, key: DeliveryKey, generation: u32) {
        if self.waiting.len() < MOST {
            self.waiting.push((key, generation));
        }
    }

    /// Number of letters without a result.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Reads the delivery store.
    pub(super) async fn look(&mut self, histories: &impl DeliveryStore) -> Result<(), AdminError> {
        for (key, generation) in std::mem::take(&mut self.waiting) {
            let known = histories.history(&key).await?;
            match known.and_then(|known| succeeded(&known, generation)) {
                Some(succeeded) => self.count(succeeded),
                None => self.waiting.push((key, generation)),
            }
        }
        Ok(())
    }

    fn count(&mut self, succeeded: bool) {
        match succeeded {
            true => self.delivered += 1,
            false => self.failed += 1,
        }
        self.recent.push_back(!succeeded);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// The number of recent results and failures, if more than this percentage failed. `all`:
    /// without a minimum number.
    pub(super) fn too_many(&self, percent: u8, all: bool) -> Option<(usize, usize)> {
        let (known, failed) = (self.recent.len(), self.recent.iter().filter(|one| **one).count());
        let judged = all || known >= ENOUGH;
        (judged && failed * 100 > known * usize::from(percent)).then_some((failed, known))
    }
}

/// Whether the first attempt of this generation succeeded. `None`: it is not finished.
fn succeeded(known: &Delivery, generation: u32) -> Option<bool> {
    let record = &known.record;
    match record.state {
        State::Delivered => Some(true),
        // No worker has claimed it.
        _ if record.generation < generation => None,
        State::InFlight | State::Waiting
            if record.generation == generation && record.attempt == 1 =>
        {
            None
        }
        State::InFlight | State::Waiting | State::Dead => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use zentra_core::clock::Timestamp;
    use zentra_core::event::Identity;
    use zentra_core::lifecycle::{Fingerprint, Record};
    use zentra_store::journal::Summary;

    use super::*;

    fn known(state: State, generation: u32, attempt: u32) -> Delivery {
        let (until, fingerprint) = (Timestamp::default(), Fingerprint::default());
        let record =
            Record { state, generation, attempt, expired: 0, fence: 1, until, fingerprint };
        let key = DeliveryKey::new("ledger", "acme", &Identity::from_text("evt_1"));
        Delivery { key, record, reason: None, event: Summary::default(), history: Vec::new() }
    }

    #[test]
    fn one_failed_attempt_is_a_failure_and_a_success_is_one_whenever_it_comes() {
        use State::{Dead, Delivered, InFlight, Waiting};
        for (state, generation, attempt, expected) in [
            (Dead, 0, 3, None),
            (InFlight, 1, 1, None),
            (Waiting, 1, 1, None),
            (Waiting, 1, 2, Some(false)),
            (InFlight, 1, 2, Some(false)),
            (Dead, 1, 1, Some(false)),
            (InFlight, 2, 1, Some(false)),
            (Delivered, 1, 1, Some(true)),
            (Delivered, 0, 3, Some(true)),
        ] {
            let known = known(state, generation, attempt);
            assert_eq!(succeeded(&known, 1), expected, "{state:?} {generation} {attempt}");
        }
    }

    #[test]
    fn too_much_is_judged_by_the_last_ones_and_not_by_few() {
        let mut watch = Watch::default();
        watch.count(false);
        assert_eq!(watch.too_many(10, false), None, "too few to tell");
        assert_eq!(watch.too_many(10, true), Some((1, 1)));
        for _ in 0..9 {
            watch.count(true);
        }
        assert_eq!(watch.too_many(10, true), None, "a tenth is allowed");
        assert_eq!(watch.too_many(9, true), Some((1, 10)));
        for _ in 0..RECENT {
            watch.count(false);
        }
        assert_eq!(watch.too_many(99, false), Some((RECENT, RECENT)), "what was long ago is gone");
        assert_eq!(watch.too_many(100, false), None, "all may fail");
        assert_eq!((watch.delivered, watch.failed), (9, 101));
    }
}
