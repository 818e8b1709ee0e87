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
    seen: Option<HashMap<DeliveryKey, Mark>>,
}

impl Watch {
    /// When to look.
    pub fn interval() -> Interval {
        let mut interval = interval(POLL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// What is new since the last look, oldest delivery first. The first look finds nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn look(
        &mut self,
        store: &impl DeliveryStore,
        query: &Query,
    ) -> Result<Vec<Change>, AdminError> {
        let page = store.list(query, None, NEWEST).await?;
        let (mut now, mut changes) = (HashMap::new(), Vec::new());
        for listed in page.items.iter().rev() {
            let delivery = &listed.delivery;
            if let Some(seen) = &self.seen {
                let new = new(&delivery.history, seen.get(&delivery.key).copied());
                changes.extend(new.map(|entry| Change::new(listed, entry)));
            }
            now.extend(mark(&delivery.history).map(|mark| (delivery.key.clone(), mark)));
        }
        self.seen = Some(now);
        Ok(changes)
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
        let mut changes = watch.look(&store, query).await?;
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
fn new(history: &[Entry], mark: Option<Mark>) -> impl Iterator<Item = &Entry> {
    let (last, count) = mark.unwrap_or_default();
    let mut same = 0;
    history.iter().filter(move |entry| {
        same += usize::from(entry.at == last);
        entry.at > last || (entry.at == last && same > count)
    })
}

#[cfg(test)]
mod tests {
    use zentra_store::journal::HistoryEvent;

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
            new(&after, mark).map(|entry| entry.at.millis()).collect::<Vec<_>>()
        };
        assert_eq!(added(&[], &[1, 1]), [1, 1]);
        assert_eq!(added(&[1], &[1, 1, 2]), [1, 2]);
        assert_eq!(added(&[1, 2, 2], &[2, 2, 2, 3]), [2, 3]);
        assert!(added(&[1, 2], &[1, 2]).is_empty());
    }
}
