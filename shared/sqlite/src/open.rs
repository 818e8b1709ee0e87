//! Opens the file: it must be Zentra's, of this version, and used by no other program; or it is
//! created. A file that is refused stays unchanged, and the error says what to do.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::store::StoreError;

const WRITABLE: &str = "Its folder must exist, and this user must be able to write there.";
const MOVED: &str = "Run `zentra migrate --from FILE` again if it was broken off; then go on there, or \
                     name another file in [embedded] path.";
/// Marks the file as Zentra's (`PRAGMA application_id`): "ZNTR".
pub(super) const APPLICATION: i32 = 0x5a4e_5452;
/// The version of the tables (`PRAGMA user_version`).
pub(super) const SCHEMA: i32 = 8;
/// Version 1 to 2: who holds a dead letter.
const FROM_1: &str = "BEGIN IMMEDIATE;
    ALTER TABLE held ADD COLUMN pid INTEGER NOT NULL DEFAULT 0;
    PRAGMA user_version = 2;
    COMMIT;";
/// Version 2 to 3: workers and operators. To 4: jobs. To 5: first types. To 6: when the file was
/// last worked on. To 8: incidents.
const CONTROL: &str = include_str!("control.sql");
/// To version 7: the proof of a message's attempt.
const TO_7: &str = "ALTER TABLE message ADD COLUMN countersignature TEXT;";
/// How long another process (an operator's command) may lock the file.
const BUSY: Duration = Duration::from_secs(5);
/// Pause before the mode of the file is changed again.
const PAUSE: Duration = Duration::from_millis(5);

type Result<T> = std::result::Result<T, StoreError>;

/// Why the file is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To process events. A file of an older version is upgraded.
    Run,
    /// For an operator's command. A file of an older version stays as it is: looking changes nothing, and an older
    /// program may be running.
    Look,
    /// To migrate its content. Only then a file opens whose migration has begun.
    Move,
}

/// Opens the file, or creates it.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection> {
    private(path)?;
    for beside in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        not_planted(Path::new(&name))?;
    }
    let connection = connect(path)?;
    prepare(&connection, path, purpose)?;
    if moving(&connection)? && purpose != Purpose::Move {
        return Err(StoreError::Unusable {
            path: path.into(),
            found: "its contents were migrated, or are being migrated, to RabbitMQ and Redis"
                .into(),
            what_to_do: MOVED,
        });
    }
    Ok(connection)
}

/// Creates a file that only its owner can read, because it holds the providers' bytes. SQLite
/// gives its companion files the same mode.
fn private(path: &Path) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(StoreError::Unusable {
            path: path.into(),
            found: error.to_string(),
            what_to_do: WRITABLE,
        }),
        _ => Ok(()),
    }
}

/// Refuses a file that somebody else may have placed there: a link, a file of another user (root
/// may use anyone's, as an operator does), or one that everybody can read or write.
pub(super) fn not_planted(path: &Path) -> Result<()> {
    let Ok(about) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let user = rustix::process::geteuid();
    let (found, what_to_do) = match () {
        () if !about.is_file() => (
            "it is a link, or not a regular file".to_owned(),
            "Name the file itself in [embedded] path.",
        ),
        () if about.uid() != user.as_raw() && !user.is_root() => (
            format!("it belongs to the user with ID {}", about.uid()),
            "Run Zentra as its owner, or name another file in [embedded] path.",
        ),
        () if about.mode() & 0o007 != 0 => (
            format!("everybody can read or write it (mode {:03o})", about.mode() & 0o777),
            "Check who changed it. Then run: chmod o= FILE",
        ),
        () => return Ok(()),
    };
    Err(StoreError::Unusable { path: path.into(), found, what_to_do })
}

/// Opens one more connection to the file.
pub(super) fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| unusable(path, &error))?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Accepts a file of this version, or an empty one. A file of an older version is upgraded, if that is the purpose. Any
/// other file stays unchanged.
fn prepare(connection: &Connection, path: &Path, purpose: Purpose) -> Result<()> {
    let read = |name: &str| -> Result<i32> {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(|error| unusable(path, &error))
    };
    // In one look: another process may be making the file.
    let look = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let tables: i64 = look
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(|error| unusable(path, &error))?;
    let (application, version) = (read("application_id")?, read("user_version")?);
    drop(look);
    let (found, what_to_do) = match (application, version, tables) {
        (APPLICATION, SCHEMA, _) => return settle(connection),
        (APPLICATION, older @ 1..SCHEMA, _) if purpose == Purpose::Look => (
            format!(
                "its tables have version {older}, and this program works with version {SCHEMA}"
            ),
            "Start `zentra standalone` of this version: it upgrades the file. `zentra plan` shows the change.",
        ),
        (APPLICATION, 1..SCHEMA, _) => {
            settle(connection)?;
            if version == 1 {
                connection.execute_batch(FROM_1)?;
            }
            // Another process may have done it in between.
            let work = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            if read("user_version")? < SCHEMA {
                let to_7 = if read("user_version")? < 7 { TO_7 } else { "" };
                let new = format!("{CONTROL}\n{to_7}\nPRAGMA user_version = {SCHEMA};");
                work.execute_batch(&new)?;
            }
            work.commit()?;
            tracing::info!(from = version, to = SCHEMA, "the tables of the file were upgraded");
            return Ok(());
        }
        (0, 0, 0) => return make(connection),
        (APPLICATION, newer, _) if newer > SCHEMA => (
            format!("its tables have version {newer}, and this program supports up to {SCHEMA}"),
            "A newer Zentra wrote it: run that version.",
        ),
        (APPLICATION, other, _) => (
            format!("its tables have version {other}, and this program supports up to {SCHEMA}"),
            "Restore it from a backup, or name another file in [embedded] path.",
        ),
        _ => (
            "it is the database of another program".to_owned(),
            "Name another file in [embedded] path.",
        ),
    };
    Err(StoreError::Unusable { path: path.into(), found, what_to_do })
}

/// Whether a migration has begun. See `export`.
fn moving(connection: &Connection) -> rusqlite::Result<bool> {
    let named = "SELECT count(*) FROM sqlite_schema WHERE name = 'moving'";
    connection.query_row(named, (), |row| row.get::<_, i64>(0)).map(|found| found > 0)
}

pub(super) fn unusable(path: &Path, error: &rusqlite::Error) -> StoreError {
    let what_to_do = match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => WRITABLE,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "Nothing was changed. Restore the file from a backup, or try `sqlite3 FILE .recover`; \
             naming another file in [embedded] path begins anew, without what this one holds."
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "Another program has locked it: stop that program."
        }
        _ => "Check the disk and the system log.",
    };
    StoreError::Unusable { path: path.into(), found: error.to_string(), what_to_do }
}

/// Switches to WAL mode. SQLite does not wait for programs that use the file while the mode changes, as it does for
/// other locks (https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode).
fn to_wal(connection: &Connection) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < end => std::thread::sleep(PAUSE),
            switched => return Ok(switched?),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Settings of a connection. Only the journal mode is stored in the file.
fn settle(connection: &Connection) -> Result<()> {
    to_wal(connection)?;
    // Each commit is on the disk before it returns: a 2xx survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(())
}

fn make(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    settle(connection)?;
    let work = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have done it in between.
    let version: i32 = work.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        work.execute_batch(&format!(
            "{}\n{CONTROL}\nPRAGMA application_id = {APPLICATION};\n\
             PRAGMA user_version = {SCHEMA};",
            include_str!("schema.sql")
        ))?;
    }
    Ok(work.commit()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use zentra_store::plan::Action;

    use super::*;
    use crate::Store;

    #[test]
    fn a_file_that_somebody_else_may_have_put_there_is_not_opened() {
        let folder = std::env::temp_dir().join(format!("zentra-planted-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let refusal = |path: &Path| Store::open(path, 1 << 30).err().unwrap().to_string();
        // An empty file counts as a new one.
        let file = |name: &str, mode| {
            let path = folder.join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let linked = folder.join("linked.db");
        std::os::unix::fs::symlink(file("real.db", 0o600), &linked).unwrap();
        assert!(refusal(&linked).contains("it is a link"), "{}", refusal(&linked));
        let path = file("beside.db", 0o600);
        std::os::unix::fs::symlink(&linked, folder.join("beside.db-wal")).unwrap();
        assert!(refusal(&path).contains("beside.db-wal: it is a link"), "{}", refusal(&path));
        for (mode, opens) in [(0o604, false), (0o602, false), (0o660, true), (0o600, true)] {
            let opened = Store::open(&file(&format!("{mode:o}.db"), mode), 1 << 30);
            assert_eq!(opened.is_ok(), opens, "{mode:o}: {:?}", opened.err());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn programs_that_start_at_the_same_time_make_one_file() {
        let folder = std::env::temp_dir().join(format!("zentra-together-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for round in 0..10 {
            let path = folder.join(format!("{round}.db"));
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                let opened = [(); 4].map(|()| {
                    scope.spawn(|| {
                        start.wait();
                        Store::open(&path, 1 << 30).map(drop)
                    })
                });
                for opened in opened {
                    opened.join().unwrap().unwrap();
                }
            });
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_file_of_the_first_form_is_brought_to_this_one() {
        let folder = std::env::temp_dir().join(format!("zentra-first-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("zentra.db");
        drop(Store::open(&path, 1 << 30).unwrap());
        let file = Connection::open(&path).unwrap();
        let undo = "ALTER TABLE held DROP COLUMN pid; DROP TABLE worker; DROP TABLE wish; \
                    DROP TABLE audit; DROP TABLE token; DROP TABLE job; \
                    DROP TABLE desk; DROP TABLE last_seen; DROP TABLE incident; \
                    ALTER TABLE message DROP COLUMN countersignature; PRAGMA user_version = 1";
        file.execute_batch(undo).unwrap();
        drop(file);
        for _ in 0..2 {
            let store = Store::open(&path, 1 << 30).unwrap();
            let hold = "INSERT OR REPLACE INTO held (id, until, pid) VALUES (1, 1, 1)";
            store.write(|file| file.execute(hold, ())).await.unwrap();
            let acts = "INSERT INTO audit (act) VALUES (x'00')";
            store.write(|file| file.execute(acts, ())).await.unwrap();
        }
        // The form before incidents. A look leaves it as it is.
        let file = Connection::open(&path).unwrap();
        file.execute_batch("DROP TABLE incident; PRAGMA user_version = 7").unwrap();
        drop(file);
        let look = Store::open_to_look(&path, 1 << 30).err().unwrap().to_string();
        assert!(look.contains("its tables have version 7"), "{look}");
        assert_eq!(crate::plan(&path).unwrap().unwrap().action, Action::Upgrade);
        let store = Store::open(&path, 1 << 30).unwrap();
        let look = |file: &Connection| {
            file.query_row("SELECT count(*) FROM incident", (), |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.read(look).await.unwrap(), 0);
        assert_eq!(crate::plan(&path).unwrap(), None);
        assert!(Store::open_to_look(&path, 1 << 30).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
