//! The file: one SQLite database, one thread that writes it, another that reads it.
//!
//! A write returns when it is on the disk (WAL, full sync). Those that arrive while one commit
//! is under way share the next: the disk is waited for once for all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;
use zentra_core::clock::Timestamp;
use zentra_store::storage::StorageError;

use super::open::{connect, open};

/// Maximum number of writes in one commit.
const GROUP: usize = 256;
/// Maximum number of waiting writes.
const WAITING: usize = 4096;
/// What a worker may take beyond the bound, and has to find on the disk, so that what has been
/// accepted can be finished.
const RESERVE: u64 = 64 << 20;

/// Why the file didn't do what was asked. Nothing of it has taken effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be used as it is.
    #[error("{path}: {found}\n{what_to_do}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// And what to do.
        what_to_do: &'static str,
    },
    /// It has reached its bound.
    #[error("the file has reached its bound ([embedded] max_size)")]
    Full,
    /// The disk has no room, or only what it takes to finish what has been accepted.
    #[error("the disk is full, or has less than 64 MiB left")]
    DiskFull,
    /// More writes wait than may.
    #[error("too many writes wait for the disk")]
    Overloaded,
    /// The program is stopping.
    #[error("the file is closed")]
    Closed,
    /// Anything else that SQLite reports.
    #[error("the file can't be read or written: {0}")]
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
/// Tells whoever asked what became of it, once it is on the disk or isn't.
type Reply = Box<dyn FnOnce(Result<()>) + Send>;
/// Without a connection, it can't be tried.
type Write = Box<dyn FnOnce(Option<&Connection>) -> Reply + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A handle to the file; clones share it.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::SyncSender<Write>,
    reads: mpsc::SyncSender<Read>,
    room: Arc<Room>,
    max: u64,
    opening: u64,
}

/// What there is room for, as the last commit left it.
struct Room {
    /// Bytes of the file that hold something.
    used: AtomicU64,
    /// Bytes that the disk has left.
    left: AtomicU64,
    folder: PathBuf,
}

impl Room {
    fn look(&self, connection: &Connection) {
        if let Ok(used) = used(connection) {
            self.used.store(used, Ordering::Relaxed);
        }
        // Where that can't be told, SQLite will tell.
        let disk = rustix::fs::statvfs(&self.folder);
        let left = disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        self.left.store(left, Ordering::Relaxed);
    }
}

impl Store {
    /// Opens the file, or makes a new one where there is none. `max` bounds its size in bytes:
    /// beyond it no event is taken in any more ([`StoreError::Full`]).
    pub fn open(path: &Path, max: u64) -> Result<Self> {
        Self::open_as(path, max, false)
    }

    /// The same, of a file that is being moved elsewhere or is to be.
    pub(super) fn open_to_move(path: &Path, max: u64) -> Result<Self> {
        Self::open_as(path, max, true)
    }

    fn open_as(path: &Path, max: u64, to_move: bool) -> Result<Self> {
        let writing = open(path, to_move)?;
        let page = pragma(&writing, "page_size")?;
        // Whole pages, and room to finish what is in it.
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

    /// A random number of this opening of the file.
    pub(super) fn opening(&self) -> u64 {
        self.opening
    }

    /// Changes the file, and returns when that is on the disk. A failure undoes it all.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        self.send(work, |result| drop(tell.send(result)))?;
        told.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same, without waiting: `then` hears of it.
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

    /// Reads the file as it is on the disk.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let read: Read = Box::new(move |connection| drop(tell.send(at_once(connection, work))));
        self.reads.try_send(read).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        Ok(told.await.map_err(|_| StoreError::Closed)??)
    }

    /// Its bound, in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// How many bytes of it hold something, and how many the disk has left, as the last commit
    /// left them.
    pub fn sizes(&self) -> (u64, u64) {
        (self.room.used.load(Ordering::Relaxed), self.room.left.load(Ordering::Relaxed))
    }

    /// By how many bytes it is fuller than it had better be: the last tenth is for what comes.
    pub(super) fn crowding(&self) -> u64 {
        self.sizes().0.saturating_sub(self.max - self.max / 10)
    }

    /// What it can grow to on this disk, as it is now, in bytes.
    pub fn attainable(&self) -> u64 {
        let (used, left) = self.sizes();
        used.saturating_add(left.saturating_sub(RESERVE))
    }

    /// Whether a quarter of it is left, and as much again of the disk as what is accepted needs: for
    /// what may be dropped.
    pub fn room_to_spare(&self) -> Result<()> {
        match self.sizes() {
            (used, _) if used >= self.max / 4 * 3 => Err(StoreError::Full),
            (_, left) if left < 2 * RESERVE => Err(StoreError::DiskFull),
            _ => Ok(()),
        }
    }

    /// Whether there is room to write how an attempt ended. Half of the reserve is kept for those
    /// that are under way: an attempt whose outcome can't be written would be made again.
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

/// A time as a column has it.
pub(super) fn number(time: Timestamp) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(u64::try_from(value).unwrap_or_default())
}

/// Bytes that hold something.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pages =
        pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?);
    Ok(pages.saturating_mul(pragma(connection, "page_size")?))
}

/// The writing thread: until all handles are gone.
fn write(mut connection: Connection, asked: &mpsc::Receiver<Write>, room: &Room) {
    while let Ok(first) = asked.recv() {
        let mut told = Vec::new();
        let committed = group(&mut connection, first, asked, &mut told);
        room.look(&connection);
        let committed = committed.map_err(StoreError::from);
        for tell in told {
            tell(committed.clone());
        }
    }
}

/// One commit, of all that waits.
fn group(
    connection: &mut Connection,
    first: Write,
    asked: &mpsc::Receiver<Write>,
    told: &mut Vec<Reply>,
) -> rusqlite::Result<()> {
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            told.push(first(None));
            return Err(error);
        }
    };
    told.push(first(Some(&transaction)));
    // A full disk can end the whole transaction at once; the commit says so then.
    while told.len() < GROUP
        && !transaction.is_autocommit()
        && let Ok(next) = asked.try_recv()
    {
        told.push(next(Some(&transaction)));
    }
    transaction.commit()
}

/// Several statements see the same state, and lock the file once.
fn at_once<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.unchecked_transaction()?;
    let read = work(&transaction)?;
    transaction.commit()?;
    Ok(read)
}

/// One write of several: it takes effect wholly or not at all.
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
        // What only the commit finds wrong.
        let orphan = store.write(|file| file.execute("INSERT INTO two VALUES (9)", ()));
        assert!(orphan.await.is_err(), "a commit that failed was told as done");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// As SQLite says it of a full disk: at this bound it gets no further page.
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
        // Those that share a commit with one that has no room are there.
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
        // Before it is full, no more events are taken in: those that are can be finished.
        store.room.left.store(RESERVE - 1, Ordering::Relaxed);
        assert!(matches!(store.room(), Err(StoreError::DiskFull)));
        assert!(matches!(store.room_to_spare(), Err(StoreError::DiskFull)));
        assert!(store.room_to_settle().is_ok());
        // And before they can't be finished, no attempt is begun.
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
