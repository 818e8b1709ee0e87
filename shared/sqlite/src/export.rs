//! Exports a file's contents to RabbitMQ and Redis.
//!
//! Once a migration has begun, nobody else can change the file, and an interrupted migration
//! resumes where it stopped. A message is deleted only after its new holder confirmed it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row, params};
use zentra_core::clock::{self, Timestamp};
use zentra_core::seal::Sealed;
use zentra_store::control::OperatorControl;
use zentra_store::job::Jobs;
use zentra_store::journal::Remembered;
use zentra_store::queue::Message;

use super::journal::{self, EmbeddedJournal, delivery};
use super::queue::{self, read};
use super::store::{Store, StoreError, number};

/// Number of rows per read. It bounds the memory of a migration.
const PAGE: i64 = 256;

/// Where a message was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueLocation {
    /// A destination's work queue, and the time before which the message must not be delivered.
    Work(String, Timestamp),
    /// A destination's dead letters, with the last error.
    Dead(String, Option<String>),
    /// No destination subscribed to it.
    Unrouted,
    /// A refused callback.
    Refused,
}

/// A message to export.
#[derive(Clone, Debug)]
pub struct ExportedMessage {
    /// Its row in the file.
    pub id: i64,
    /// Where it was stored.
    pub spot: QueueLocation,
    /// The message.
    pub message: Message,
}

/// How much there is to export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Number of remembered deliveries.
    pub deliveries: u64,
    /// Number of messages per queue: `work/<destination>`, `dead/<destination>`, `unrouted`,
    /// `refused`.
    pub queues: BTreeMap<String, u64>,
    /// Number of events in the archive.
    pub archived: u64,
}

/// A file to export. The program that works on it must have stopped.
pub struct Export {
    store: Store,
}

impl Export {
    /// Opens the file, even if a migration of it has begun. A file of an older version is upgraded, or refused for a
    /// dry run.
    pub fn open(path: &Path, dry_run: bool) -> Result<Self, StoreError> {
        // Size 0: no event is accepted any more.
        Ok(Self { store: Store::open_to_move(path, u64::MAX, dry_run)? })
    }

    /// Control actions, tokens and the audit log.
    pub fn control(&self) -> impl OperatorControl + Jobs + use<> {
        EmbeddedJournal::new(self.store.clone(), Duration::ZERO)
    }

    /// Counts what the file contains.
    pub async fn load(&self) -> Result<Inventory, StoreError> {
        let read = |file: &Connection| {
            let count = |of: &str| -> rusqlite::Result<u64> {
                let count: i64 =
                    file.query_row(&format!("SELECT count(*) FROM {of}"), (), |row| row.get(0))?;
                Ok(count.unsigned_abs())
            };
            let mut queues = file.prepare("SELECT queue, count(*) FROM message GROUP BY queue")?;
            let queues = queues.query_map((), |row| {
                let count: i64 = row.get(1)?;
                Ok((row.get(0)?, count.unsigned_abs()))
            })?;
            Ok(Inventory {
                deliveries: count("delivery")?,
                queues: queues.collect::<Result<_, _>>()?,
                archived: count("archive")?,
            })
        };
        self.store.read(read).await
    }

    /// Begins the migration. This is final: a process that still has the file open cannot add to
    /// it any more.
    pub async fn begin(&self) -> Result<(), StoreError> {
        let begin = |file: &Connection| {
            file.execute_batch(
                "CREATE TABLE IF NOT EXISTS moving (since INTEGER NOT NULL) STRICT;
                 CREATE TRIGGER IF NOT EXISTS moving_message BEFORE INSERT ON message
                 BEGIN SELECT RAISE(ABORT, 'it is being migrated to RabbitMQ and Redis'); END;
                 CREATE TRIGGER IF NOT EXISTS moving_delivery BEFORE UPDATE ON delivery
                 BEGIN SELECT RAISE(ABORT, 'it is being migrated to RabbitMQ and Redis'); END;",
            )?;
            let since = number(clock::now());
            file.execute(
                "INSERT INTO moving SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM moving)",
                [since],
            )
        };
        self.store.write(begin).await.map(drop)
    }

    /// The remembered deliveries after this row (0 for the first page), each with its row. Empty
    /// at the end. They stay in the file.
    pub async fn deliveries(&self, behind: i64) -> Result<Vec<(i64, Remembered)>, StoreError> {
        let columns = journal::COLUMNS;
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached(&format!(
                "SELECT {columns}, dead, until FROM delivery WHERE id > ?1 AND \
                 (until IS NULL OR until > ?2) ORDER BY id LIMIT {PAGE}"
            ))?;
            let page = select.query_map(params![behind, number(clock::now())], |row| {
                let remembered = Remembered {
                    delivery: delivery(row)?,
                    dead: time(row, 5)?,
                    until: time(row, 6)?,
                };
                Ok((row.get::<_, i64>(4)?, remembered))
            })?;
            page.collect::<Result<Vec<_>, _>>()
        };
        self.store.read(read).await
    }

    /// The first messages of a queue, in its order. Empty at the end.
    pub async fn messages(&self, queue: &str) -> Result<Vec<ExportedMessage>, StoreError> {
        let (queue, columns) = (queue.to_owned(), queue::COLUMNS);
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached(&format!(
                "SELECT {columns}, error FROM message WHERE queue = ?1 ORDER BY due, id LIMIT {PAGE}"
            ))?;
            let page = select.query_map([&queue], |row| {
                let (id, due, message) = read(row)?;
                let due = Timestamp::from_millis(due.unsigned_abs());
                let spot = match queue.split_once('/') {
                    Some(("work", destination)) => QueueLocation::Work(destination.into(), due),
                    Some((_, destination)) => {
                        QueueLocation::Dead(destination.into(), row.get("error")?)
                    }
                    None if queue == queue::UNROUTED => QueueLocation::Unrouted,
                    None => QueueLocation::Refused,
                };
                Ok(ExportedMessage { id, spot, message })
            })?;
            page.collect::<Result<Vec<_>, _>>()
        };
        self.store.read(read).await
    }

    /// Deletes messages whose new holder confirmed them.
    pub async fn arrived(&self, messages: Vec<i64>) -> Result<(), StoreError> {
        self.delete("DELETE FROM message WHERE id = ?1", messages).await
    }

    /// The archived events after this row (0 for the first page), oldest first. Empty at the end.
    pub async fn archived(&self, behind: i64) -> Result<Vec<(i64, Sealed)>, StoreError> {
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached(&format!(
                "SELECT {} FROM archive WHERE id > ?1 ORDER BY id LIMIT {PAGE}",
                queue::ARCHIVED
            ))?;
            let page = select.query_map([behind], queue::read_archived)?;
            page.collect::<Result<Vec<_>, _>>()
        };
        self.store.read(read).await
    }

    /// Deletes archived events whose new holder confirmed them.
    pub async fn archive_arrived(&self, events: Vec<i64>) -> Result<(), StoreError> {
        self.delete("DELETE FROM archive WHERE id = ?1", events).await
    }

    async fn delete(&self, statement: &'static str, ids: Vec<i64>) -> Result<(), StoreError> {
        let write = move |file: &Connection| {
            let mut delete = file.prepare_cached(statement)?;
            ids.iter().try_for_each(|id| delete.execute([id]).map(drop))
        };
        self.store.write(write).await
    }
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let time: Option<i64> = row.get(column)?;
    Ok(time.map(|time| Timestamp::from_millis(time.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddedQueue;
    use std::time::Duration;
    use zentra_store::queue::RefusedBounds;
    use zentra_store::queue::{Archive, Operate, Routes};

    #[tokio::test]
    async fn from_its_beginning_on_nobody_can_add_to_the_file() {
        let folder = std::env::temp_dir().join(format!("zentra-export-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("zentra.db");
        let hour = Duration::from_secs(3600);
        let archive = Archive { sources: Vec::new(), bytes: 1 << 20, age: hour };
        let refused = RefusedBounds { count: 1, bytes: 1, age: hour };
        let routes = Routes { subscribers: Vec::new(), archive };
        // An operator's command that had the file open before.
        let other = EmbeddedQueue::new(Store::open(&path, 1 << 30).unwrap(), routes, refused);
        let message = Message::new(Sealed {
            envelope: "{}".into(),
            seal: String::new(),
            body: "its bytes".into(),
            route: String::new(),
            id: String::new(),
            trace: None,
        });
        other.requeue("ledger", &message).await.unwrap();
        let export = Export::open(&path, false).unwrap();
        for _ in 0..2 {
            export.begin().await.unwrap();
            let refused = other.requeue("ledger", &message).await.unwrap_err().to_string();
            assert!(refused.contains("being migrated to RabbitMQ and Redis"), "{refused}");
        }
        let opened = Store::open(&path, 1 << 30).err().unwrap().to_string();
        assert!(opened.contains("zentra migrate"), "{opened}");
        let there = export.messages("work/ledger").await.unwrap();
        assert_eq!(there.len(), 1);
        export.arrived(vec![there[0].id]).await.unwrap();
        assert!(export.messages("work/ledger").await.unwrap().is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
