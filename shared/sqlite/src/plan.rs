//! What a start changes in the file, found without changing it.

use std::path::Path;

use zentra_store::plan::{Action, Change};

use super::open::{Form, SCHEMA, connect, form, none_planted, refusal};
use super::store::StoreError;

/// What a start of `zentra standalone` would change in the file. `None`: nothing.
///
/// # Errors
/// [`StoreError::Unusable`] if it cannot be read, or somebody else may have placed it there.
pub fn plan(path: &Path) -> Result<Option<Change>, StoreError> {
    let change = |action, note: String| {
        Ok(Some(Change { action, object: format!("file {}", path.display()), note }))
    };
    if path.symlink_metadata().is_err() {
        return change(Action::Create, String::new());
    }
    none_planted(path)?;
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    match form(&connection, path)? {
        Form::Current => Ok(None),
        Form::New => change(Action::Create, String::new()),
        Form::Older(older) => change(
            Action::Upgrade,
            format!(
                "tables of version {older} become version {SCHEMA}; older programs refuse the file then"
            ),
        ),
        refused => change(Action::Conflict, refusal(refused).0),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rusqlite::Connection;

    use super::*;
    use crate::{Export, Store};

    #[test]
    fn a_plan_says_what_a_start_does_and_leaves_no_trace() {
        let folder = std::env::temp_dir().join(format!("zentra-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        let made = |name: &str, sql: &str| {
            let path = folder.join(name);
            drop(Store::open(&path, 1 << 30).unwrap());
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            path
        };
        let foreign = folder.join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
        let empty = folder.join("empty.db");
        std::fs::write(&empty, "").unwrap();
        for path in [&foreign, &empty] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let older = "DROP TABLE incident; PRAGMA user_version = 7;";
        let moving = "CREATE TABLE moving (id);";
        let files = [
            (folder.join("none.db"), Some(Action::Create)),
            (empty, Some(Action::Create)),
            (made("current.db", ""), None),
            (made("older.db", older), Some(Action::Upgrade)),
            (made("newer.db", "PRAGMA user_version = 99"), Some(Action::Conflict)),
            (made("moved.db", moving), Some(Action::Conflict)),
            (made("older-moved.db", &format!("{older}{moving}")), Some(Action::Conflict)),
            (foreign, Some(Action::Conflict)),
        ];
        let before = names();
        for (path, action) in &files {
            let shown = plan(path).unwrap().map(|change| change.action);
            assert_eq!(shown, *action, "{}", path.display());
        }
        assert_eq!(names(), before);
        // A dry run of a migration upgrades no file either.
        for (path, opens) in
            [(3, false), (5, true), (6, false)].map(|(at, opens)| (&files[at].0, opens))
        {
            assert_eq!(Export::open(path, true).is_ok(), opens, "{}", path.display());
        }
        for (path, action) in &files {
            let opens = *action != Some(Action::Conflict);
            assert_eq!(Store::open(path, 1 << 30).is_ok(), opens, "{}", path.display());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
