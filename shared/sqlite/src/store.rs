//! The file: one SQLite database, one thread that writes, and one that reads.
//!
//! A write returns when it is on the disk (WAL, full sync). Writes that arrive during a commit
//! share the next commit, so one sync of the disk serves all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;
use zentra_core::clock::Timestamp;
use zentra_store::storage::StorageError;

use super::open::{Purpose, connect, open};

/// Maximum number of writes in one commit.
const GROUP: usize = 256;
/// Maximum number of waiting writes.
const WAITING: usize = 4096;
/// What a worker may use beyond the bound, and what the disk must have free, so that accepted
/// events can be finished.
const RESERVE: u64 = 64 << 20;

/// Why a request to the file failed. None of it has taken effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used as it is.
    #[error("{path}: {found}\n{what_to_do}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What to do about it.
        what_to_do: &'static str,
    },
    /// The file has reached its bound.
    #[error("the file has reached its bound ([embedded] max_size)")]
    Full,
    /// The disk is full, or has only the room that accepted events need.
    #[error("the disk is full, or has less than 64 MiB free")]
    DiskFull,
    /// Too many writes are waiting.
    #[error("too many writes are waiting for the disk")]
    Overloaded,
    /// The program is stopping.
    #[error("the file is closed")]
    Closed,
    /// Anything else that SQLite reports.
    #[error("cannot read or write the file: {0}")]
    Sqlite(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Sqlite(error.to_string()),
        }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unusable { .. } => Self::Unusable(error.to_string()),
            StoreError::Full => Self::Full,
            StoreError::DiskFull => Self::DiskFull,
            StoreError::Overloaded => Self::Overloaded,
            StoreError::Closed => Self::Closed,
            StoreError::Sqlite(what) => Self::Failed(what),
        }
    }
}

type Result<T> = std::result::Result<T, StoreError>;
/// Answers the caller when the write is on the disk, or has failed.
type Reply = Box<dyn FnOnce(Result<()>) + Send>;
/// Without a connection the write cannot be tried.
type Write = Box<dyn FnOnce(Option<&Connection>) -> Reply + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A handle to the file. Clones share it.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::SyncSender<Write>,
    reads: mpsc::SyncSender<Read>,
    room: Arc<Room>,
    max: u64,
    opening: u64,
}

/// The free room after the last commit.
struct Room {
    /// Bytes of the file that are in use.
    used: AtomicU64,
    /// Free bytes on the disk.
    left: AtomicU64,
    folder: PathBuf,
}

impl Room {
    fn look(&self, connection: &Connection) {
        if let Ok(used) = used(connection) {
            self.used.store(used, Ordering::Relaxed);
        }
        // If the free room is unknown, SQLite reports a full disk.
        let disk = rustix::fs::statvfs(&self.folder);
        let left = disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        self.left.store(left, Ordering::Relaxed);
    }
}

impl Store {
    /// Opens the file, or creates it. `max` bounds its size in bytes: beyond it no event is
    /// accepted ([`StoreError::Full`]).
    pub fn open(path: &Path, max: u64) -> Result<Self> {
        Self::open_for(path, max, Purpose::Run)
    }

    /// Opens the file for an operator's command, which upgrades no file of an older version.
    pub fn open_to_look(path: &Path, max: u64) -> Result<Self> {
        Self::open_for(path, max, Purpose::Look)
    }

    /// Opens a file that is migrated, or is about to be. With `dry_run`, a file of an older version is refused.
    pub(super) fn open_to_move(path: &Path, max: u64, dry_run: bool) -> Result<Self> {
        Self::open_for(path, max, if dry_run { Purpose::LookToMove } else { Purpose::Move })
    }

    fn open_for(path: &Path, max: u64, purpose: Purpose) -> Result<Self> {
        let writing = open(path, purpose)?;
        let page = pragma(&writing, "page_size")?;
        // Whole pages, and room to finish what the file contains.
        let pages = (max.saturating_add(RESERVE) / page.max(1)).min(u64::from(u32::MAX) - 1);
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        writing.pragma_update(None, "max_page_count", pages)?;
        let reading = connect(path)?;
        reading.pragma_update(None, "query_only", true)?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.into(),
            _ => PathBuf::from("."),
        };
        let room = Arc::new(Room { used: 0.into(), left: 0.into(), folder });
        room.look(&writing);
        let (writes, asked) = mpsc::sync_channel(WAITING);
        let (reads, questions) = mpsc::sync_channel::<Read>(WAITING);
        let looked = room.clone();
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let failed = |error: std::io::Error| StoreError::Sqlite(error.to_string());
        named("zentra-writes").spawn(move || write(writing, &asked, &looked)).map_err(failed)?;
        named("zentra-reads")
            .spawn(move || {
                while let Ok(read) = questions.recv() {
                    read(&reading);
                }
            })
            .map_err(failed)?;
        Ok(Self { writes, reads, room, max, opening: rand::random() })
    }

    /// A random number that identifies this opening of the file.
    pub(super) fn opening(&self) -> u64 {
        self.opening
    }

    /// Changes the file, and returns when the change is on the disk. A failure undoes the whole
    /// change.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(work, |result| drop(reply.send(result)))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Changes the file without waiting: `then` receives the outcome.
    pub fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        then: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Result<()> {
        let write = |connection: Option<&Connection>| -> Reply {
            let done = connection.map(|connection| savepoint(connection, work));
            Box::new(move |committed| {
                let done = done.unwrap_or(Err(rusqlite::Error::InvalidQuery));
                then(committed.and_then(|()| Ok(done?)));
            })
        };
        self.writes.try_send(Box::new(write)).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    /// Reads the state of the file that is on the disk.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| drop(reply.send(at_once(connection, work))));
        self.reads.try_send(read).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        Ok(answer.await.map_err(|_| StoreError::Closed)??)
    }

    /// The bound of the file, in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Bytes of the file that are in use, and free bytes on the disk, after the last commit.
    pub fn sizes(&self) -> (u64, u64) {
        (self.room.used.load(Ordering::Relaxed), self.room.left.load(Ordering::Relaxed))
    }

    /// Bytes by which the file exceeds nine tenths of its bound. The last tenth is kept for new
    /// events.
    pub(super) fn crowding(&self) -> u64 {
        self.sizes().0.saturating_sub(self.max - self.max / 10)
    }

    /// The size that the file can reach on this disk now, in bytes.
    pub fn attainable(&self) -> u64 {
        let (used, left) = self.sizes();
        used.saturating_add(left.saturating_sub(RESERVE))
    }

    /// Whether a quarter of the bound is free, and on the disk twice the room that accepted events
    /// need. Asked before storing what may be dropped.
    pub fn room_to_spare(&self) -> Result<()> {
        match self.sizes() {
            (used, _) if used >= self.max / 4 * 3 => Err(StoreError::Full),
            (_, left) if left < 2 * RESERVE => Err(StoreError::DiskFull),
            _ => Ok(()),
        }
    }

    /// Whether there is room to store the outcome of an attempt. Half of the reserve is for
    /// attempts in progress: an attempt whose outcome cannot be stored would be repeated.
    pub fn room_to_settle(&self) -> Result<()> {
        match self.sizes() {
            (used, _) if used >= self.max.saturating_add(RESERVE / 2) => Err(StoreError::Full),
            (_, left) if left < RESERVE / 4 => Err(StoreError::DiskFull),
            _ => Ok(()),
        }
    }

    /// Whether there is room for one more event.
    pub fn room(&self) -> Result<()> {
        match self.sizes() {
            (used, _) if used >= self.max => Err(StoreError::Full),
            (_, left) if left < RESERVE => Err(StoreError::DiskFull),
            _ => Ok(()),
        }
    }
}

/// A time as a column stores it.
pub(super) fn number(time: Timestamp) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(u64::try_from(value).unwrap_or_default())
}

/// Bytes in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pages =
        pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?);
    Ok(pages.saturating_mul(pragma(connection, "page_size")?))
}

/// The writing thread. It ends when all handles are gone.
fn write(mut connection: Connection, asked: &mpsc::Receiver<Write>, room: &Room) {
    while let Ok(first) = asked.recv() {
        let mut replies = Vec::new();
        let committed = group(&mut connection, first, asked, &mut replies);
        room.look(&connection);
        let committed = committed.map_err(StoreError::from);
        for reply in replies {
            reply(committed.clone());
        }
    }
}

/// One commit of all waiting writes.
fn group(
    connection: &mut Connection,
    first: Write,
    asked: &mpsc::Receiver<Write>,
    replies: &mut Vec<Reply>,
) -> rusqlite::Result<()> {
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            replies.push(first(None));
            return Err(error);
        }
    };
    replies.push(first(Some(&transaction)));
    // A full disk can end the whole transaction at once. The commit reports it then.
    while replies.len() < GROUP
        && !transaction.is_autocommit()
        && let Ok(next) = asked.try_recv()
    {
        replies.push(next(Some(&transaction)));
    }
    transaction.commit()
}

/// The statements of one read see the same state, and lock the file once.
fn at_once<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.unchecked_transaction()?;
    let read = work(&transaction)?;
    transaction.commit()?;
    Ok(read)
}

/// One of several writes. It takes effect completely or not at all.
fn savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute(())?;
    let done = work(connection);
    if done.is_err() {
        connection.prepare_cached("ROLLBACK TO one")?.execute(())?;
    }
    connection.prepare_cached("RELEASE one")?.execute(())?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_and_a_commit_that_fails_is_told_to_all() {
        let folder = std::env::temp_dir().join(format!("zentra-commit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(&folder.join("zentra.db"), 1 << 30).unwrap();
        let made = store.write(|file| {
            file.execute_batch(
                "CREATE TABLE one (id INTEGER PRIMARY KEY) STRICT;
                 CREATE TABLE two (one INTEGER REFERENCES one (id)
                                   DEFERRABLE INITIALLY DEFERRED) STRICT;",
            )
        });
        made.await.unwrap();
        let half = store.write(|file| {
            file.execute("INSERT INTO one VALUES (1)", ())?;
            file.execute("INSERT INTO one VALUES (1)", ())
        });
        assert!(half.await.is_err());
        let count = |file: &Connection| {
            file.query_row("SELECT count(*) FROM one", (), |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.read(count).await.unwrap(), 0, "half of a write is there");
        // Only the commit fails.
        let orphan = store.write(|file| file.execute("INSERT INTO two VALUES (9)", ()));
        assert!(orphan.await.is_err(), "a commit that failed was told as done");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// How SQLite reports a full disk: at this bound it gets no further page.
    const ROOM: u64 = 8 << 20;

    #[tokio::test]
    async fn a_full_disk_undoes_what_it_had_no_room_for_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("zentra-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(&folder.join("zentra.db"), 1 << 30).unwrap();
        let bound = store.write(|file| {
            let page: i64 = file.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = i64::try_from(ROOM).unwrap_or(0) / page;
            file.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))
        });
        bound.await.unwrap();
        let insert = |at: i64, bytes: i64| {
            store.write(move |file| {
                file.execute(
                    "INSERT INTO archive (at, route, event, seal, envelope, body) \
                     VALUES (0, '', ?1, '', x'', zeroblob(?2))",
                    (at, bytes),
                )
            })
        };
        // Writes that share a commit with one that had no room are stored.
        let (mut confirmed, mut refused) = (0, 0);
        for at in (0..60).step_by(3) {
            let three = tokio::join!(insert(at, 10), insert(at + 1, 600_000), insert(at + 2, 10));
            for done in [three.0, three.1, three.2] {
                match done {
                    Ok(_) => confirmed += 1,
                    Err(StoreError::DiskFull) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(refused > 5 && confirmed > 40, "{confirmed} confirmed, {refused} refused");
        let count = |file: &Connection| {
            file.query_row("SELECT count(*) FROM archive", (), |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.read(count).await.unwrap(), confirmed);
        store.write(|file| file.execute("DELETE FROM archive", ())).await.unwrap();
        insert(99, 600_000).await.unwrap();
        // Before the file is full, no more events are accepted, so those that were accepted can be
        // finished.
        store.room.left.store(RESERVE - 1, Ordering::Relaxed);
        assert!(matches!(store.room(), Err(StoreError::DiskFull)));
        assert!(matches!(store.room_to_spare(), Err(StoreError::DiskFull)));
        assert!(store.room_to_settle().is_ok());
        // Before their outcomes cannot be stored, no attempt is begun.
        store.room.left.store(RESERVE / 4 - 1, Ordering::Relaxed);
        assert!(matches!(store.room_to_settle(), Err(StoreError::DiskFull)));
        store.room.left.store(u64::MAX, Ordering::Relaxed);
        store.room.used.store((1 << 30) + RESERVE / 2, Ordering::Relaxed);
        assert!(matches!(store.room_to_settle(), Err(StoreError::Full)));
        insert(100, 10).await.unwrap();
        assert!(store.room().is_ok(), "the disk is looked at again after each commit");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
