//! Reading a TOML table key by key: every problem is kept, each with its key, none with
//! a value, since a value could be a secret.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

/// What is wrong in the config: the key, and what it should be.
pub(super) type Problems = RefCell<Vec<String>>;

/// One table. What is taken from it is gone; what is left at the end is unknown.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, problems: &'a Problems) -> Self {
        Self { path: String::new(), table, problems }
    }

    /// The full name of a key in here.
    pub(super) fn at(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.into(),
            path => format!("{path}.{key}"),
        }
    }

    pub(super) fn problem(&self, key: &str, what: &str) {
        let at = self.at(key);
        self.problems.borrow_mut().push(format!("{at}: {what}"));
    }

    /// Takes a key and turns it into what is wanted, or notes what it should have been.
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
        self.read(key, "must be a text", |value| value.as_str().map(Into::into))
    }

    pub(super) fn address(&mut self, key: &str, default: &str) -> SocketAddr {
        let should = "must be an address like \"127.0.0.1:8080\"";
        let parse = |text: &str| {
            // ":0" is short for a free port on the loopback interface.
            let full = text.strip_prefix(':').map(|port| format!("127.0.0.1:{port}"));
            full.as_deref().unwrap_or(text).parse().ok()
        };
        self.read(key, should, |value| parse(value.as_str()?))
            .or_else(|| parse(default))
            .unwrap_or_else(|| ([127, 0, 0, 1], 0).into())
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let (least, most) = (show(range.start()), show(range.end()));
        let should = format!("must be a duration like \"10s\", from {least} to {most}");
        self.read(key, &should, |value| {
            let parsed = humantime::parse_duration(value.as_str()?).ok()?;
            range.contains(&parsed).then_some(parsed)
        })
        .unwrap_or(default)
    }

    pub(super) fn integer(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let should = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.read(key, &should, |value| {
            let number = u32::try_from(value.as_integer()?).ok()?;
            range.contains(&number).then_some(number)
        })
        .unwrap_or(default)
    }

    pub(super) fn float(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let should = format!("must be a number from {} to {}", range.start(), range.end());
        self.read(key, &should, |value| {
            let whole = value.as_integer().map(|number| number as f64);
            let number = value.as_float().or(whole)?;
            range.contains(&number).then_some(number)
        })
        .unwrap_or(default)
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.read(key, "must be a list of texts", |value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        })
        .unwrap_or_default()
    }

    /// A table in here; empty if it isn't there.
    pub(super) fn section(&mut self, key: &str) -> Section<'a> {
        let read = self.read(key, "must be a table", |value| match value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        self.child(key, read.unwrap_or_default())
    }

    /// The named tables of a table: `[source.NAME]`.
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
            let section = parent.section(&name);
            found.push((name, section));
        }
        found
    }

    /// The tables of a list: `[{ … }, { … }]`.
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
        tables.map(|(at, table)| self.child(&format!("{key}[{at}]"), table)).collect()
    }

    fn child(&self, key: &str, table: Table) -> Section<'a> {
        Section { path: self.at(key), table, problems: self.problems }
    }

    /// All that is left, for a part that reads itself.
    pub(super) fn rest(self) -> Table {
        self.table
    }

    /// Notes what nobody took.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.problem(key, "is not a setting");
        }
    }
}

/// Names of sources and destinations are parts of keys, queue names and routes.
pub(super) fn usable_name(name: &str) -> bool {
    let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(usable)
        && name.bytes().all(|byte| usable(byte) || byte == b'-' || byte == b'_')
}
