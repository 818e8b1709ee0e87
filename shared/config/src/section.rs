//! Reads a TOML table key by key. Every error is collected with its key, and never with a value,
//! because a value could be a secret.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::{Table, Value};

use super::keys::{self, Kind};

/// An error in the configuration: the key, and what it should be.
pub(super) type Problems = RefCell<Vec<String>>;

/// One table. Values that were read are removed from it, so what is left at the end is unknown.
pub(super) struct Section<'a> {
    path: String,
    /// The path as the list of keys has it, with `NAME` for names that the user chooses.
    known_as: String,
    table: Table,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, problems: &'a Problems) -> Self {
        Self { path: String::new(), known_as: String::new(), table, problems }
    }

    /// The full name of a key in this table.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The entry of a key in the list of keys.
    fn row(&self, key: &str) -> Option<&'static keys::Key> {
        let row = keys::find(&join(&self.known_as, key));
        if row.is_none() {
            self.problem(key, "is missing in the list of keys: this is a bug in Zentra");
        }
        row
    }

    /// A value within its bounds, or the default.
    fn bounded<T>(
        &mut self,
        key: &str,
        none: T,
        should: impl FnOnce(Kind) -> String,
        turn: impl Fn(Kind, &Value) -> Option<T>,
    ) -> T {
        let Some(row) = self.row(key) else {
            return none;
        };
        let read = self.read(key, &should(row.kind), |value| turn(row.kind, &value));
        let default = || turn(row.kind, &super::overrides::value(row.default));
        read.or_else(default).unwrap_or(none)
    }

    pub(super) fn problem(&self, key: &str, what: &str) {
        let at = self.at(key);
        self.problems.borrow_mut().push(format!("{at}: {what}"));
    }

    /// Removes a key and converts its value, or records what the value should have been.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Removes the errors that were recorded since then.
    pub(super) fn forget(&self, problem_count: usize) {
        self.problems.borrow_mut().truncate(problem_count);
    }

    pub(super) fn read<T>(
        &mut self,
        key: &str,
        should: &str,
        turn: impl FnOnce(Value) -> Option<T>,
    ) -> Option<T> {
        let turned = turn(self.table.remove(key)?);
        if turned.is_none() {
            self.problem(key, should);
        }
        turned
    }

    pub(super) fn missing(&self, key: &str) -> bool {
        !self.table.contains_key(key)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, "must be a string", |value| value.as_str().map(Into::into))
    }

    /// An optional text.
    pub(super) fn text_or_default(&mut self, key: &str) -> String {
        let default = self.row(key).map_or("", |row| row.default);
        self.text(key).unwrap_or_else(|| default.into())
    }

    pub(super) fn address(&mut self, key: &str) -> SocketAddr {
        let should = |_| "must be an address like \"127.0.0.1:8080\"".into();
        self.bounded(key, ([127, 0, 0, 1], 0).into(), should, |_, value| {
            let text = value.as_str()?;
            // ":0" means a free port on the loopback interface.
            let full = text.strip_prefix(':').map(|port| format!("127.0.0.1:{port}"));
            full.as_deref().unwrap_or(text).parse().ok()
        })
    }

    pub(super) fn duration(&mut self, key: &str) -> Duration {
        let should = |kind| match kind {
            Kind::Duration(from, to) => {
                format!("must be a duration like \"10s\", from {from} to {to}")
            }
            _ => "is not a duration in the list of keys".into(),
        };
        self.bounded(key, Duration::ZERO, should, |kind, value| {
            let Kind::Duration(from, to) = kind else {
                return None;
            };
            let parse = |text: &str| humantime::parse_duration(text).ok();
            let parsed = parse(value.as_str()?)?;
            (parse(from)?..=parse(to)?).contains(&parsed).then_some(parsed)
        })
    }

    /// Bytes: a number, or a text like "1MiB".
    pub(super) fn size(&mut self, key: &str) -> usize {
        let should = |kind| match kind {
            Kind::Size(from, to) => format!(
                "must be a size like \"1MiB\", from {} to {}",
                ByteSize(from).display().iec(),
                ByteSize(to).display().iec()
            ),
            _ => "is not a size in the list of keys".into(),
        };
        self.bounded(key, 0, should, |kind, value| {
            let Kind::Size(from, to) = kind else {
                return None;
            };
            let bytes = match value {
                Value::Integer(number) => u64::try_from(*number).ok()?,
                Value::String(text) => text.parse::<ByteSize>().ok()?.as_u64(),
                _ => return None,
            };
            (from..=to).contains(&bytes).then(|| usize::try_from(bytes).ok())?
        })
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        let should = |_| "must be true or false".into();
        self.bounded(key, false, should, |_, value| value.as_bool())
    }

    pub(super) fn integer(&mut self, key: &str) -> u32 {
        let should = |kind| match kind {
            Kind::Integer(from, to) => format!("must be an integer from {from} to {to}"),
            _ => "is not an integer in the list of keys".into(),
        };
        self.bounded(key, 0, should, |kind, value| {
            let Kind::Integer(from, to) = kind else {
                return None;
            };
            let number = u32::try_from(value.as_integer()?).ok()?;
            (from..=to).contains(&number).then_some(number)
        })
    }

    /// A list of integers.
    pub(super) fn integers(&mut self, key: &str) -> Vec<u32> {
        let should = |kind| match kind {
            Kind::Integers(from, to) => {
                format!("must be a list of integers from {from} to {to}")
            }
            _ => "is not a list of integers in the list of keys".into(),
        };
        self.bounded(key, Vec::new(), should, |kind, value| {
            let Kind::Integers(from, to) = kind else {
                return None;
            };
            let number = |item: &Value| u32::try_from(item.as_integer()?).ok();
            let numbers: Vec<u32> = value.as_array()?.iter().map(number).collect::<Option<_>>()?;
            numbers.iter().all(|number| (from..=to).contains(number)).then_some(numbers)
        })
    }

    pub(super) fn number(&mut self, key: &str) -> f64 {
        let should = |kind| match kind {
            Kind::Number(from, to) => format!("must be a number from {from} to {to}"),
            _ => "is not a number in the list of keys".into(),
        };
        self.bounded(key, 0.0, should, |kind, value| {
            let Kind::Number(from, to) = kind else {
                return None;
            };
            let whole = value.as_integer().map(|number| number as f64);
            let number = value.as_float().or(whole)?;
            (from..=to).contains(&number).then_some(number)
        })
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.read(key, "must be a list of strings", |value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        })
        .unwrap_or_default()
    }

    /// A subtable. Empty if it is missing.
    pub(super) fn section(&mut self, key: &str) -> Section<'a> {
        let read = self.read(key, "must be a table", |value| match value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        self.child(key, key, read.unwrap_or_default())
    }

    /// The named subtables: `[source.NAME]`.
    pub(super) fn named(&mut self, key: &str) -> Vec<(String, Section<'a>)> {
        let mut parent = self.section(key);
        let names: Vec<String> = parent.table.keys().cloned().collect();
        let mut found = Vec::new();
        for name in names {
            if !usable_name(&name) {
                parent.table.remove(&name);
                self.problem(
                    key,
                    "names are 1 to 64 of a-z, 0-9, - and _, and start with a letter or digit",
                );
                continue;
            }
            let table = parent.section(&name).table;
            found.push((name.clone(), parent.child(&name, "NAME", table)));
        }
        found
    }

    /// The texts of a table whose keys the user chooses.
    pub(super) fn texts_by_name(&mut self, key: &str) -> Vec<(String, String)> {
        self.read(key, "must be a table of strings", |value| match value {
            Value::Table(table) => table
                .into_iter()
                .map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .collect(),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// The tables of an array: `[{ … }, { … }]`.
    pub(super) fn list(&mut self, key: &str) -> Vec<Section<'a>> {
        let tables = self.read(key, "must be a list of tables", |value| match value {
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::Table(table) => Some(table),
                    _ => None,
                })
                .collect::<Option<Vec<Table>>>(),
            _ => None,
        });
        let tables = tables.unwrap_or_default().into_iter().enumerate();
        tables.map(|(at, table)| self.child(&format!("{key}[{at}]"), key, table)).collect()
    }

    fn child(&self, key: &str, known_as: &str, table: Table) -> Section<'a> {
        let known_as = join(&self.known_as, known_as);
        Section { path: self.at(key), known_as, table, problems: self.problems }
    }

    /// Everything that is left, for a part that reads itself.
    pub(super) fn rest(self) -> Table {
        self.table
    }

    /// Records an error for each key that nothing read.
    pub(super) fn finish(&self) {
        for key in self.table.keys() {
            self.problem(key, "is not a setting");
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.into(),
        path => format!("{path}.{key}"),
    }
}

/// Names of sources and destinations are parts of keys, queue names and routes.
pub(super) fn usable_name(name: &str) -> bool {
    let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(usable)
        && name.bytes().all(|byte| usable(byte) || byte == b'-' || byte == b'_')
}

/// A section that contains this one key, and the last part of the key.
#[cfg(test)]
pub(super) fn holding<'p>(path: &str, text: &str, problems: &'p Problems) -> (Section<'p>, String) {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let table = [(name.to_owned(), super::overrides::value(text))].into_iter().collect();
    let section = Section { path: parents.into(), known_as: parents.into(), table, problems };
    (section, name.into())
}
