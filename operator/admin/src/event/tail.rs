//! Live changes. It polls the newest deliveries and reports new entries of their histories. It
//! costs workers nothing, and doesn't see changes of older deliveries.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use zentra_core::clock::Timestamp;
use zentra_core::event::DeliveryKey;
use zentra_store::journal::list::{Listed, Query};
use zentra_store::journal::{Delivery, DeliveryStore, Entry};

use crate::backend::Backend;
use crate::error::AdminError;

/// Poll interval.
const ASK: Duration = Duration::from_millis(500);
/// Number of deliveries that are polled, the newest ones.
const LOOK: usize = 1000;

/// Position in a history: the time of its last entry, and the number of entries with that time.
type Mark = (Timestamp, usize);

/// A new entry of a history.
#[derive(Serialize)]
pub struct Change<'a> {
    pub delivery: &'a DeliveryKey,
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
    #[serde(flatten)]
    pub entry: &'a Entry,
}

/// Gives the sink all that happens from now on, until nobody reads any more.
///
/// # Errors
/// Those of the store.
pub async fn tail<S: Sink>(
    backend: &impl Backend,
    query: &Query,
    id: Option<&str>,
    sink: &mut S,
) -> Result<(), AdminError> {
    let histories = backend.histories();
    let mut seen: Option<HashMap<DeliveryKey, Mark>> = None;
    let mut tick = tokio::time::interval(ASK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let page = histories.list(query, None, LOOK).await?;
        let mut now = HashMap::new();
        // Oldest first, as it happened.
        for Listed { delivery, .. } in page.items.iter().rev() {
            if id.is_some_and(|id| !is(delivery, id)) {
                continue;
            }
            if let Some(seen) = &seen {
                for entry in new(&delivery.history, seen.get(&delivery.key).copied()) {
                    let kind = delivery.event.event_type.as_deref();
                    if !sink.change(&Change { delivery: &delivery.key, kind, entry }) {
                        return Ok(());
                    }
                }
            }
            now.extend(mark(&delivery.history).map(|mark| (delivery.key.clone(), mark)));
        }
        if !sink.looked() {
            return Ok(());
        }
        seen = Some(now);
    }
}

/// A reader of changes.
pub trait Sink {
    /// Takes one change. `false`: nobody reads any more.
    fn change(&mut self, change: &Change<'_>) -> bool;

    /// Called after all changes of one poll. `false`: nobody reads any more.
    fn looked(&mut self) -> bool;
}

fn is(delivery: &Delivery, id: &str) -> bool {
    let key = &delivery.key;
    delivery.event.event_id.as_deref() == Some(id) || key.identity() == id || key.as_str() == id
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
