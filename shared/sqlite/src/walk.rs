//! Looks through a queue in the file.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::{Connection, params};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use zentra_core::clock::{self, Timestamp};
use zentra_store::queue::{Message, QueueError, Receipt, Walk};

use super::queue::{COLUMNS, read};
use super::store::{Store, StoreError, number};

/// Number of messages that are read and held at a time.
const PAGE: usize = 64;
/// Maximum time that a page is hidden from other walks.
const HELD: Duration = Duration::from_secs(120);

/// One look through one queue. See [`Walk`]. It holds one page at a time.
pub struct EmbeddedWalk {
    store: Store,
    queue: String,
    /// Its position: due time and row.
    last: (i64, i64),
    page: VecDeque<(i64, i64, Message)>,
    /// The rows of the page.
    held: Vec<i64>,
}

impl EmbeddedWalk {
    pub(super) fn new(store: Store, queue: String) -> Self {
        let last = (i64::MIN, i64::MIN);
        Self { store, queue, last, page: VecDeque::new(), held: Vec::new() }
    }

    /// Releases the last page, and holds the next.
    async fn turn(&mut self) -> Result<(), StoreError> {
        let (queue, (due, id)) = (self.queue.clone(), self.last);
        let old = std::mem::take(&mut self.held);
        let now = clock::now();
        let write = move |file: &Connection| {
            give_back(file, &old)?;
            release(file, now)?;
            let mut select = file.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM message WHERE queue = ?1 AND (due, id) > (?2, ?3) \
                 AND id NOT IN (SELECT id FROM held) ORDER BY due, id LIMIT ?4"
            ))?;
            let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
            let found = select.query_map(params![queue, due, id, page], read)?;
            let found = found.collect::<Result<VecDeque<_>, _>>()?;
            let mut hold =
                file.prepare_cached("INSERT INTO held (id, until, pid) VALUES (?1, ?2, ?3)")?;
            for (id, ..) in &found {
                hold.execute(params![id, number(now.plus(HELD)), std::process::id()])?;
            }
            Ok(found)
        };
        self.page = self.store.write(write).await?;
        self.held = self.page.iter().map(|(id, ..)| *id).collect();
        Ok(())
    }
}

/// Releases what was held for too long, or by a walk whose process has ended.
pub(super) fn release(file: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    file.prepare_cached("DELETE FROM held WHERE until <= ?1")?.execute([number(now)])?;
    let mut holders = file.prepare_cached("SELECT DISTINCT pid FROM held")?;
    let holders = holders.query_map((), |row| row.get(0))?.collect::<Result<Vec<i32>, _>>()?;
    for pid in holders.into_iter().filter(|pid| !lives(*pid)) {
        file.prepare_cached("DELETE FROM held WHERE pid = ?1")?.execute([pid])?;
    }
    Ok(())
}

/// Whether a process with this ID exists, of any user.
fn lives(pid: i32) -> bool {
    let asked = Pid::from_raw(pid).map(test_kill_process);
    asked.is_some_and(|asked| asked != Err(Errno::SRCH))
}

fn give_back(file: &Connection, held: &[i64]) -> rusqlite::Result<()> {
    let mut delete = file.prepare_cached("DELETE FROM held WHERE id = ?1")?;
    for id in held {
        delete.execute([id])?;
    }
    Ok(())
}

impl Walk for EmbeddedWalk {
    type Receipt = WalkReceipt;

    async fn next(&mut self) -> Result<Option<(Message, WalkReceipt)>, QueueError> {
        if self.page.is_empty() {
            self.turn().await?;
        }
        Ok(self.page.pop_front().map(|(id, due, message)| {
            self.last = (due, id);
            (message, WalkReceipt { id, store: self.store.clone() })
        }))
    }

    async fn finish(self) -> Result<(), QueueError> {
        let held = self.held;
        Ok(self.store.write(move |file| give_back(file, &held)).await?)
    }
}

/// The right to remove one message from a queue that is looked through.
pub struct WalkReceipt {
    id: i64,
    store: Store,
}

impl Receipt for WalkReceipt {
    async fn ack(self) {
        let id = self.id;
        let delete = move |file: &Connection| {
            give_back(file, &[id])?;
            file.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])
        };
        if let Err(error) = self.store.write(delete).await {
            tracing::debug!(%error, "the acknowledgement failed; the message stays");
        }
    }

    async fn give_back(self) {}
}
