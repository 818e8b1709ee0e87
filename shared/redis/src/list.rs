//! Lists deliveries in the order of their first claims. The claim appends keys and types to the
//! stream of its partition. Each entry is looked up, and entries of forgotten deliveries are
//! skipped.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use futures_util::future::try_join_all;
use zentra_core::clock::{self, Timestamp, millis};
use zentra_core::event::DeliveryKey;
use zentra_store::journal::list::{Listed, Page, Query, SCAN};
use zentra_store::journal::{Delivery, JournalError, Summary};

use super::{RedisJournal, layout};
use crate::failed;

/// Number of entries per request.
const CHUNK: usize = 500;
/// Minimum number of entries per request and partition.
const LEAST_OF_PARTITION: usize = 16;
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
        let mut below = match (after, query.until) {
            (Some(cursor), _) => Below::Entry(Place::parse(cursor)?),
            (None, Some(until)) => Below::Time(until),
            (None, None) => Below::Top,
        };
        while looked < SCAN {
            let (entries, ended) = self.entries(below, query.since).await?;
            looked += entries.len();
            let last = entries.last().map(|last| last.place);
            let named = entries.into_iter().filter_map(Entry::read);
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
                        page.next = Some(entry.place.to_string());
                        return Ok(page);
                    }
                }
            }
            match last.filter(|_| !ended) {
                Some(last) => (below, page.next) = (Below::Entry(last), Some(last.to_string())),
                None => {
                    page.next = None;
                    break;
                }
            }
        }
        Ok(page)
    }

    /// The next entries of all partitions, newest first, and whether these are the last ones.
    /// Below the last entry of a partition that has more, nothing is in order yet.
    async fn entries(
        &self,
        below: Below,
        since: Option<Timestamp>,
    ) -> Result<(Vec<Stored>, bool), JournalError> {
        let count = (CHUNK / usize::from(self.partitions())).max(LEAST_OF_PARTITION);
        let ranges = (0..self.partitions()).map(|part| self.range(part, below, since, count));
        let mut ranges = try_join_all(ranges).await?;
        let more = ranges.iter().filter(|range| range.len() == count);
        let ordered_down_to = more.filter_map(|range| range.last()).map(|last| last.place).max();
        let mut entries: Vec<Stored> = ranges.drain(..).flatten().collect();
        entries.retain(|entry| ordered_down_to.is_none_or(|to| entry.place >= to));
        entries.sort_by_key(|entry| Reverse(entry.place));
        Ok((entries, ordered_down_to.is_none()))
    }

    async fn range(
        &self,
        partition: u8,
        below: Below,
        since: Option<Timestamp>,
        count: usize,
    ) -> Result<Vec<Stored>, JournalError> {
        let to = since.map_or_else(|| "-".into(), |since| since.millis().to_string());
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.taken(partition)).arg(below.in_partition(partition)).arg(to);
        range.arg("COUNT").arg(count);
        let found: Vec<(String, Vec<String>)> =
            range.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        Stored::all(found, partition)
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
            Some(raw) => layout::read(&entry.key, &raw).map(Some),
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
        add.arg(self.taken(self.partition(key))).arg("*").arg("k").arg(key.as_str());
        add.arg("t").arg(event.event_type.as_deref().unwrap_or_default());
        add.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    /// Trims entries that are older than everything that is remembered. If nobody writes to the
    /// stream any more, the whole stream expires.
    pub(super) async fn trim(&self, retention: Duration) -> Result<(), JournalError> {
        let oldest = clock::now().millis().saturating_sub(millis(retention));
        for partition in 0..self.partitions() {
            let (list, mut pipe) = (self.taken(partition), redis::pipe());
            let trim = pipe.cmd("XTRIM").arg(&list);
            trim.arg("MINID").arg("~").arg(oldest).arg("LIMIT").arg(TRIMMED).ignore();
            pipe.cmd("PEXPIRE").arg(&list).arg(millis(retention)).ignore();
            pipe.exec_async(&mut self.connection.clone()).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Where a list goes on.
#[derive(Clone, Copy)]
enum Below {
    Top,
    /// Before this time.
    Time(Timestamp),
    /// After this entry.
    Entry(Place),
}

impl Below {
    /// The start of a range of a partition's stream.
    fn in_partition(self, partition: u8) -> String {
        match self {
            Self::Top => "+".into(),
            // The last ID of the previous millisecond.
            Self::Time(until) => until.millis().saturating_sub(1).to_string(),
            Self::Entry(Place { ms, seq, partition: of }) => {
                format!("{}{ms}-{seq}", if partition < of { "" } else { "(" })
            }
        }
    }
}

/// The place of an entry in the order of all partitions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) ms: u64,
    pub(super) seq: u64,
    pub(super) partition: u8,
}

impl Place {
    fn read(id: &str, partition: u8) -> Option<Self> {
        let (ms, seq) = id.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()?, partition })
    }

    /// Reads a cursor.
    fn parse(cursor: &str) -> Result<Self, JournalError> {
        let (id, partition) = cursor.rsplit_once('.').unwrap_or((cursor, "0"));
        let place = partition.parse().ok().and_then(|partition| Self::read(id, partition));
        place.ok_or_else(|| JournalError::NoSuchPage(cursor.into()))
    }
}

/// The cursor of an entry.
impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)?;
        if self.partition > 0 { write!(f, ".{}", self.partition) } else { Ok(()) }
    }
}

/// An entry of a stream.
pub(super) struct Stored {
    pub(super) place: Place,
    /// Names and values alternately.
    pub(super) fields: Vec<String>,
}

impl Stored {
    /// Reads the entries of a partition.
    pub(super) fn all(
        found: Vec<(String, Vec<String>)>,
        partition: u8,
    ) -> Result<Vec<Self>, JournalError> {
        let stored = found.into_iter().map(|(id, fields)| {
            let place = Place::read(&id, partition);
            place.map(|place| Self { place, fields }).ok_or(JournalError::Unreadable(id))
        });
        stored.collect()
    }
}

/// The fields of the entry.
struct Entry {
    place: Place,
    at: Timestamp,
    key: DeliveryKey,
    kind: Option<String>,
}

impl Entry {
    fn read(Stored { place, fields }: Stored) -> Option<Self> {
        let [_, key, _, kind] = &fields[..] else { return None };
        Some(Self {
            place,
            at: Timestamp::from_millis(place.ms),
            key: DeliveryKey::parse(key)?,
            kind: (!kind.is_empty()).then(|| kind.clone()),
        })
    }
}
