//! Lists deliveries in the order of their first claims. The claim appends keys and types to a
//! stream. Each entry is looked up, and entries of forgotten deliveries are skipped.

use std::collections::HashSet;
use std::time::Duration;

use zentra_core::clock::{self, Timestamp, millis};
use zentra_core::event::DeliveryKey;
use zentra_store::journal::list::{Listed, Page, Query, SCAN};
use zentra_store::journal::{Delivery, JournalError, Summary};

use super::{RedisJournal, layout};
use crate::failed;

/// Number of entries per request.
const CHUNK: usize = 500;
/// Minimum number of lookups per request.
const LEAST: usize = 50;
/// Redis trims whole nodes of a stream, and not all at once.
const TRIMMED: usize = 100_000;

impl RedisJournal {
    /// See [`zentra_store::journal::DeliveryStore::list`].
    pub(super) async fn page(
        &self,
        query: &Query,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, JournalError> {
        let mut page = Page::default();
        let (mut seen, mut looked) = (HashSet::new(), 0);
        let mut from = match (after, query.until) {
            (Some(id), _) => format!("({}", known(id)?),
            // The last ID of the previous millisecond.
            (None, Some(until)) => until.millis().saturating_sub(1).to_string(),
            (None, None) => "+".into(),
        };
        let to = query.since.map_or_else(|| "-".into(), |since| since.millis().to_string());
        while looked < SCAN {
            let entries = self.range(&from, &to).await?;
            let ended = entries.len() < CHUNK;
            looked += entries.len();
            let named = entries.iter().filter_map(Entry::read);
            let wanted: Vec<Entry> =
                named.filter(|entry| query.may_take(&entry.key, entry.kind.as_deref())).collect();
            looked += wanted.len();
            for some in wanted.chunks(limit.clamp(LEAST, CHUNK)) {
                for (entry, delivery) in some.iter().zip(self.all(some).await?) {
                    let listed =
                        delivery.map(|delivery| Listed { first_claimed_at: entry.at, delivery });
                    // A delivery that was forgotten and claimed again is listed once.
                    let fits =
                        |listed: &Listed| query.takes(listed) && seen.insert(entry.key.clone());
                    let Some(listed) = listed.filter(fits) else { continue };
                    page.items.push(listed);
                    if page.items.len() == limit {
                        page.next = Some(entry.id.clone());
                        return Ok(page);
                    }
                }
            }
            page.next = entries.last().filter(|_| !ended).map(|last| last.0.clone());
            match &page.next {
                Some(last) => from = format!("({last}"),
                None => break,
            }
        }
        Ok(page)
    }

    async fn range(&self, from: &str, to: &str) -> Result<Vec<Stored>, JournalError> {
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.taken()).arg(from).arg(to).arg("COUNT").arg(CHUNK);
        range.query_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn all(&self, entries: &[Entry]) -> Result<Vec<Option<Delivery>>, JournalError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = redis::cmd("MGET");
        for entry in entries {
            get.arg(self.delivery_key(&entry.key));
        }
        let found: Vec<Option<Vec<u8>>> =
            get.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        let read = entries.iter().zip(found).map(|(entry, raw)| match raw {
            None => Ok(None),
            Some(raw) => {
                let unreadable = || JournalError::Unreadable(entry.key.to_string());
                layout::read(&entry.key, &raw).ok_or_else(unreadable).map(Some)
            }
        });
        read.collect()
    }

    /// Lists a delivery that was imported from another store.
    pub(super) async fn list_anew(
        &self,
        key: &DeliveryKey,
        event: &Summary,
    ) -> Result<(), JournalError> {
        let mut add = redis::cmd("XADD");
        add.arg(self.taken()).arg("*").arg("k").arg(key.as_str());
        add.arg("t").arg(event.event_type.as_deref().unwrap_or_default());
        add.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    /// Trims entries that are older than everything that is remembered. If nobody writes to the
    /// stream any more, the whole stream expires.
    pub(super) async fn trim(&self, retention: Duration) -> Result<(), JournalError> {
        let oldest = clock::now().millis().saturating_sub(millis(retention));
        let mut pipe = redis::pipe();
        let trim = pipe.cmd("XTRIM").arg(self.taken());
        trim.arg("MINID").arg("~").arg(oldest).arg("LIMIT").arg(TRIMMED).ignore();
        pipe.cmd("PEXPIRE").arg(self.taken()).arg(millis(retention)).ignore();
        pipe.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }
}

/// An entry of the stream: its ID, then names and values alternately.
type Stored = (String, Vec<String>);

/// The fields of the entry.
struct Entry {
    id: String,
    at: Timestamp,
    key: DeliveryKey,
    kind: Option<String>,
}

impl Entry {
    fn read((id, fields): &Stored) -> Option<Self> {
        let [_, key, _, kind] = &fields[..] else { return None };
        let (ms, _) = id.split_once('-')?;
        Some(Self {
            id: id.clone(),
            at: Timestamp::from_millis(ms.parse().ok()?),
            key: DeliveryKey::parse(key)?,
            kind: (!kind.is_empty()).then(|| kind.clone()),
        })
    }
}

/// A cursor that may be sent to Redis.
fn known(cursor: &str) -> Result<&str, JournalError> {
    let number = |text: &str| text.parse::<u64>().is_ok();
    let fits = cursor.split_once('-').is_some_and(|(ms, seq)| number(ms) && number(seq));
    if fits { Ok(cursor) } else { Err(JournalError::NoSuchPage(cursor.into())) }
}
