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
const APPLICATION: i32 = 0x5a4e_5452;
/// The version of the tables (`PRAGMA user_version`).
pub(super) const SCHEMA: i32 = 8;
/// Version 1 to 2: who holds a dead letter.
const FROM_1: &str = "ALTER TABLE held ADD COLUMN pid INTEGER NOT NULL DEFAULT 0;";
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
    /// To migrate its content. A file opens even if its migration has begun, and is upgraded.
    Move,
    /// To see what a migration would do. A file of an older version stays as it is.
    LookToMove,
}

/// Opens the file, or creates it.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection> {
    private(path)?;
    none_planted(path)?;
    let connection = connect(path)?;
    prepare(&connection, path, purpose)?;
    Ok(connection)
}

/// That the file and the files that SQLite has beside it are not somebody else's.
pub(super) fn none_planted(path: &Path) -> Result<()> {
    for beside in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        not_planted(Path::new(&name))?;
    }
    Ok(())
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
fn not_planted(path: &Path) -> Result<()> {
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

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Empty.
    New,
    /// Of this version.
    Current,
    /// Of this version or an older one, and its content was migrated or is being migrated.
    Moved(i32),
    /// Of an older version.
    Older(i32),
    /// Of a newer version.
    Newer(i32),
    /// Zentra's, with a version that no Zentra wrote.
    Damaged(i32),
    /// The database of another program.
    Foreign,
}

/// Reads what a file is.
pub(super) fn form(connection: &Connection, path: &Path) -> Result<Form> {
    // In one look: another process may be making the file.
    let look = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    let number = |sql: &str| -> Result<i64> {
        look.query_row(sql, (), |row| row.get(0)).map_err(|error| unusable(path, &error))
    };
    let read = |name: &str| -> Result<i32> {
        look.pragma_query_value(None, name, |row| row.get(0))
            .map_err(|error| unusable(path, &error))
    };
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let is_moving = number(MOVING)? > 0;
    Ok(match (read("application_id")?, read("user_version")?) {
        (APPLICATION, version @ 1..=SCHEMA) if is_moving => Form::Moved(version),
        (APPLICATION, SCHEMA) => Form::Current,
        (APPLICATION, older @ 1..SCHEMA) => Form::Older(older),
        (APPLICATION, newer) if newer > SCHEMA => Form::Newer(newer),
        (APPLICATION, other) => Form::Damaged(other),
        (0, 0) if tables == 0 => Form::New,
        _ => Form::Foreign,
    })
}

/// Why a file of this form cannot be opened, and what to do.
pub(super) fn refusal(form: Form) -> (String, &'static str) {
    let version = |version, what| {
        format!("its tables have version {version}, and this program {what} {SCHEMA}")
    };
    match form {
        Form::Older(older) => (
            version(older, "works with version"),
            "Start `zentra standalone` of this version: it upgrades the file. `zentra plan` shows the change.",
        ),
        Form::Newer(newer) => {
            (version(newer, "supports up to"), "A newer Zentra wrote it: run that version.")
        }
        Form::Damaged(other) => (
            version(other, "supports up to"),
            "Restore it from a backup, or name another file in [embedded] path.",
        ),
        Form::Moved(_) => (
            "its contents were migrated, or are being migrated, to RabbitMQ and Redis".to_owned(),
            MOVED,
        ),
        Form::New | Form::Current | Form::Foreign => (
            "it is the database of another program".to_owned(),
            "Name another file in [embedded] path.",
        ),
    }
}

/// Accepts a file of this version, or an empty one. A file of an older version is upgraded, if that is the purpose. Any
/// other file stays unchanged.
fn prepare(connection: &Connection, path: &Path, purpose: Purpose) -> Result<()> {
    match (form(connection, path)?, purpose) {
        (Form::New, _) => make(connection),
        (Form::Current, _) | (Form::Moved(SCHEMA), Purpose::LookToMove) => settle(connection),
        (Form::Moved(_), Purpose::Move) | (Form::Older(_), Purpose::Run | Purpose::Move) => {
            upgrade(connection)
        }
        (refused, _) => {
            let (found, what_to_do) = refusal(refused);
            Err(StoreError::Unusable { path: path.into(), found, what_to_do })
        }
    }
}

/// Brings the tables to this version.
fn upgrade(connection: &Connection) -> Result<()> {
    settle(connection)?;
    // Another process may have done it before.
    let work = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let from: i32 = work.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if from < SCHEMA {
        let from_1 = if from < 2 { FROM_1 } else { "" };
        let to_7 = if from < 7 { TO_7 } else { "" };
        let new = format!("{from_1}\n{CONTROL}\n{to_7}\nPRAGMA user_version = {SCHEMA};");
        work.execute_batch(&new)?;
        tracing::info!(from, to = SCHEMA, "the tables of the file are upgraded");
    }
    Ok(work.commit()?)
}

/// Counts the mark of a migration that has begun. See `export`.
const MOVING: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'moving'";

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
