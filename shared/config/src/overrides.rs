//! Overrides of keys: `ZENTRA__INGRESS__LISTEN`, or `--listen` on a command line.

use toml::{Table, Value};

use super::Environment;

const PREFIX: &str = "ZENTRA__";

/// Applies overrides from the environment. `__` separates the parts of a key. Case is ignored, and
/// `_` also matches `-` where the file has such a key.
pub(super) fn apply(table: &mut Table, environment: &Environment) {
    let mut names: Vec<&String> =
        environment.keys().filter(|name| name.starts_with(PREFIX)).collect();
    names.sort();
    for name in names {
        let path: Vec<String> =
            name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        set(table, &path, &environment[name]);
    }
}

/// Sets one key. A text that parses as a TOML value is one. Any other text is a string.
pub(super) fn set(table: &mut Table, path: &[String], text: &str) {
    let [parents @ .., last] = path else {
        return;
    };
    let mut table = table;
    for parent in parents {
        let key = existing(table, parent);
        let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = entry else {
            return;
        };
        table = next;
    }
    let key = existing(table, last);
    table.insert(key, value(text));
}

fn existing(table: &Table, key: &str) -> String {
    let same = |known: &&String| known.replace('-', "_").eq_ignore_ascii_case(key);
    table.keys().find(same).cloned().unwrap_or_else(|| key.into())
}

/// The value that a text would be in the file.
pub(super) fn value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    let value = parsed.and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.into()))
}
