//! Reads the archive in the file.

use std::collections::VecDeque;

use rusqlite::{Connection, params};
use zentra_core::clock::Timestamp;
use zentra_core::seal::Sealed;
use zentra_store::queue::{Archived, QueueError};

use super::queue::{ARCHIVED, read_archived};
use super::store::{Store, number};

/// Number of rows per read.
const PAGE: i64 = 256;

/// Reads the archive. See [`Archived`].
pub struct EmbeddedArchived {
    store: Store,
    from: i64,
    behind: i64,
    page: VecDeque<(i64, Sealed)>,
}

impl EmbeddedArchived {
    pub(super) fn new(store: Store, from: Timestamp) -> Self {
        Self { store, from: number(from), behind: 0, page: VecDeque::new() }
    }

    pub(super) fn after(store: Store, position: &str) -> Result<Self, QueueError> {
        let unknown = |_| QueueError::NoSuchPosition(position.to_owned());
        let behind = position.parse::<u64>().map_err(unknown)?;
        let behind = i64::try_from(behind).unwrap_or(i64::MAX);
        Ok(Self { store, from: 0, behind, page: VecDeque::new() })
    }
}

impl Archived for EmbeddedArchived {
    async fn next(&mut self) -> Result<Option<Sealed>, QueueError> {
        if self.page.is_empty() {
            let (from, behind) = (self.from, self.behind);
            let read = move |file: &Connection| {
                let mut select = file.prepare_cached(&format!(
                    "SELECT {ARCHIVED} FROM archive WHERE id > ?1 AND at >= ?2 ORDER BY id LIMIT {PAGE}"
                ))?;
                let page = select.query_map(params![behind, from], read_archived)?;
                page.collect::<Result<VecDeque<_>, _>>()
            };
            self.page = self.store.read(read).await?;
        }
        Ok(self.page.pop_front().map(|(id, sealed)| {
            self.behind = id;
            sealed
        }))
    }

    fn position(&self) -> Option<String> {
        (self.behind > 0).then(|| self.behind.to_string())
    }
}
