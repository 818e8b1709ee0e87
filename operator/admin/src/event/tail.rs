//! Live changes. It polls the newest deliveries and reports new entries of their histories. It
//! costs workers nothing, and doesn't see changes of older deliveries.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_store::journal::list::{Listed, Query};
use zentra_store::journal::{DeliveryStore, Entry};

use crate::backend::Backend;
use crate::error::AdminError;

/// Poll interval.
const POLL: Duration = Duration::from_millis(500);
/// Number of deliveries that are polled, the newest ones.
const NEWEST: usize = 1000;

/// Position in a history: the time of its last entry, and the number of entries with that time.
type Mark = (Timestamp, usize);

/// A new entry of a history.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub delivery: DeliveryKey,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(flatten)]
    pub entry: Entry,
    /// The provider's id.
    #[serde(skip)]
    pub event_id: Option<String>,
    /// The delivery's state when the entry was found.
    #[serde(skip)]
    pub state: State,
    /// Its dead-letter reason then.
    #[serde(skip)]
    pub reason: Option<DeadReason>,
}

impl Change {
    fn new(listed: &Listed, entry: &Entry) -> Self {
        let Listed { delivery, .. } = listed;
        Self {
            delivery: delivery.key.clone(),
            kind: delivery.event.event_type.clone(),
            entry: entry.clone(),
            event_id: delivery.event.event_id.clone(),
            state: delivery.record.state,
            reason: delivery.reason,
        }
    }

    /// Whether it is of this event: the provider's id, the identity, or a delivery key.
    pub fn is_of(&self, id: &str) -> bool {
        let key = &self.delivery;
        self.event_id.as_deref() == Some(id) || key.identity() == id || key.as_str() == id
    }

    /// Whether its delivery matches, apart from the times of the query.
    pub fn fits(&self, query: &Query) -> bool {
        query.may_take(&self.delivery, self.kind.as_deref())
            && query.state.is_none_or(|wanted| wanted == self.state)
            && query.reason.is_none_or(|wanted| self.reason == Some(wanted))
    }
}

/// Finds new entries in the histories of the newest deliveries.
#[derive(Default)]
pub struct Watch {
    seen: Option<Seen>,
}

/// What the last look found.
struct Seen {
    marks: HashMap<DeliveryKey, Mark>,
    /// When the oldest delivery of the look was taken up, if there may be older ones.
    oldest: Option<Timestamp>,
}

/// What is new.
#[derive(Debug, Default)]
pub struct New {
    /// Oldest delivery first.
    pub changes: Vec<Change>,
    /// Whether changes are missing: since the last look, more deliveries were taken up than are looked at.
    pub missed: bool,
}

impl Watch {
    /// When to look.
    pub fn interval() -> Interval {
        let mut interval = interval(POLL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// What is new since the last look. The first look finds nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn look(
        &mut self,
        store: &impl DeliveryStore,
        query: &Query,
    ) -> Result<New, AdminError> {
        let page = store.list(query, None, NEWEST).await?;
        Ok(self.compare(&page.items, page.items.len() >= NEWEST))
    }

    /// Compares what is there now, newest first, with the last look. `is_full`: there may be older ones.
    fn compare(&mut self, items: &[Listed], is_full: bool) -> New {
        let mut new = New::default();
        if let Some(seen) = &self.seen {
            for listed in items.iter().rev() {
                let delivery = &listed.delivery;
                let mark = seen.marks.get(&delivery.key).copied();
                // It was there before, and was not looked at: newer ones are forgotten by now.
                let is_back = seen.oldest.is_some_and(|oldest| listed.first_claimed_at < oldest);
                if mark.is_some() || !is_back {
                    let entries = entries_after(&delivery.history, mark);
                    new.changes.extend(entries.map(|entry| Change::new(listed, entry)));
                }
            }
            let is_known = |listed: &Listed| seen.marks.contains_key(&listed.delivery.key);
            new.missed = is_full && !items.iter().any(is_known);
        }
        let marks = items.iter().filter_map(|listed| {
            Some((listed.delivery.key.clone(), mark(&listed.delivery.history)?))
        });
        let oldest = items.last().filter(|_| is_full).map(|listed| listed.first_claimed_at);
        self.seen = Some(Seen { marks: marks.collect(), oldest });
        new
    }
}

/// Gives the reader what is new at each look, until it returns `false`: nobody reads any more.
///
/// # Errors
/// Those of the store.
pub async fn tail(
    backend: &impl Backend,
    query: &Query,
    id: Option<&str>,
    mut reader: impl FnMut(&[Change]) -> bool,
) -> Result<(), AdminError> {
    let (store, mut watch, mut interval) =
        (backend.histories(), Watch::default(), Watch::interval());
    loop {
        interval.tick().await;
        let mut changes = watch.look(&store, query).await?.changes;
        changes.retain(|change| id.is_none_or(|id| change.is_of(id)));
        if !reader(&changes) {
            return Ok(());
        }
    }
}

fn mark(history: &[Entry]) -> Option<Mark> {
    let last = history.last()?.at;
    Some((last, history.iter().rev().take_while(|entry| entry.at == last).count()))
}

/// Entries after the mark. A long history loses its oldest entries, so they can't be counted.
fn entries_after(history: &[Entry], mark: Option<Mark>) -> impl Iterator<Item = &Entry> {
    let (last, count) = mark.unwrap_or_default();
    let mut same = 0;
    history.iter().filter(move |entry| {
        same += usize::from(entry.at == last);
        entry.at > last || (entry.at == last && same > count)
    })
}

#[cfg(test)]
mod tests {
    use zentra_core::event::Identity;
    use zentra_core::lifecycle::{Fingerprint, Record};
    use zentra_store::journal::{Delivery, HistoryEvent, Summary};

    use super::*;

    #[test]
    fn each_line_is_told_once_also_of_one_moment() {
        let entry = |at: u64| Entry {
            at: Timestamp::from_millis(at),
            generation: 0,
            attempt: 1,
            by: "w".into(),
            what: HistoryEvent::Busy,
        };
        let history = |times: &[u64]| times.iter().copied().map(entry).collect::<Vec<_>>();
        let added = |before: &[u64], after: &[u64]| {
            let (mark, after) = (mark(&history(before)), history(after));
            entries_after(&after, mark).map(|entry| entry.at.millis()).collect::<Vec<_>>()
        };
        assert_eq!(added(&[], &[1, 1]), [1, 1]);
        assert_eq!(added(&[1], &[1, 1, 2]), [1, 2]);
        assert_eq!(added(&[1, 2, 2], &[2, 2, 2, 3]), [2, 3]);
        assert!(added(&[1, 2], &[1, 2]).is_empty());
    }

    fn listed(id: &str, taken: u64, times: &[u64]) -> Listed {
        let history = times.iter().map(|at| Entry {
            at: Timestamp::from_millis(*at),
            generation: 0,
            attempt: 1,
            by: "w".into(),
            what: HistoryEvent::Busy,
        });
        let delivery = Delivery {
            key: DeliveryKey::new("ledger", "acme", &Identity::from_id(id).unwrap()),
            record: Record {
                state: State::Waiting,
                generation: 0,
                attempt: 1,
                expired: 0,
                fence: 1,
                until: Timestamp::default(),
                fingerprint: Fingerprint { body: [0; 32], id: None },
            },
            reason: None,
            event: Summary::default(),
            history: history.collect(),
        };
        Listed { first_claimed_at: Timestamp::from_millis(taken), delivery }
    }

    #[test]
    fn what_leaves_the_newest_and_comes_back_is_not_new_and_a_gap_is_reported() {
        let mut watch = Watch::default();
        let mut look = |items: &[Listed]| {
            let New { changes, missed } = watch.compare(items, true);
            let keys = changes.iter().map(|change| change.delivery.identity().to_owned());
            (keys.collect::<Vec<_>>(), missed)
        };
        assert_eq!(look(&[listed("b", 20, &[20]), listed("a", 10, &[10])]), (vec![], false));
        let newer = [listed("c", 30, &[30]), listed("b", 20, &[20, 25])];
        assert_eq!(look(&newer), (vec!["b".to_owned(), "c".to_owned()], false));
        // c is forgotten, and the older one is seen again.
        assert_eq!(look(&[listed("b", 20, &[20, 25]), listed("a", 10, &[10])]), (vec![], false));
        let all_new = [listed("f", 60, &[60]), listed("e", 50, &[50])];
        assert_eq!(look(&all_new), (vec!["e".to_owned(), "f".to_owned()], true));
    }
}
