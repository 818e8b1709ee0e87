//! Old names of keys, which are still accepted.

use toml::{Table, Value};

use super::section::Problems;

/// Pairs of an old name and the current name.
pub(super) const ALIASES: &[(&str, &str)] = &[("redis.retention", "store.retention")];

/// Moves each value from an old name to the current one. Using both names at once is an error.
pub(super) fn apply(table: &mut Table, problems: &Problems) {
    for (old, new) in ALIASES {
        let Some(value) = take(table, old) else { continue };
        let Some((section, key)) = new.split_once('.') else { continue };
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(section) = entry else { continue };
        if section.contains_key(key) {
            let problem = format!("{old}: is an old name of {new}, which is also set");
            problems.borrow_mut().push(problem);
        } else {
            section.insert(key.to_owned(), value);
        }
    }
}

fn take(table: &mut Table, path: &str) -> Option<Value> {
    let (section, key) = path.split_once('.')?;
    table.get_mut(section)?.as_table_mut()?.remove(key)
}
