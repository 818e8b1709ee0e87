//! What a start changes in the file, found without changing it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use zentra_store::plan::{Action, Change};

use super::open::{APPLICATION, SCHEMA, not_planted, unusable};
use super::store::StoreError;

/// What a start of `zentra standalone` would change in the file.
///
/// # Errors
/// [`StoreError::Unusable`] if it cannot be read, or is not Zentra's.
pub fn plan(path: &Path) -> Result<Option<Change>, StoreError> {
    let change = |action, note: String| {
        Ok(Some(Change { action, object: format!("file {}", path.display()), note }))
    };
    if !path.exists() {
        return change(Action::Create, String::new());
    }
    not_planted(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = |name: &str| -> rusqlite::Result<i32> {
        Connection::open_with_flags(path, flags)?.pragma_query_value(None, name, |row| row.get(0))
    };
    let read = |name| read(name).map_err(|error| unusable(path, &error));
    match (read("application_id")?, read("user_version")?) {
        (APPLICATION, SCHEMA) => Ok(None),
        (0, 0) => change(Action::Create, String::new()),
        (APPLICATION, older @ 1..SCHEMA) => change(
            Action::Upgrade,
            format!(
                "tables of version {older} become version {SCHEMA}; older programs refuse the file then"
            ),
        ),
        (APPLICATION, newer) => change(
            Action::Conflict,
            format!("its tables have version {newer}, and this program supports up to {SCHEMA}"),
        ),
        _ => change(Action::Conflict, "it is the database of another program".into()),
    }
}
