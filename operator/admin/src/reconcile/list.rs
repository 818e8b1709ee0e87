//! A provider's list of events from a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use webhook_verify::texts_at;
use zentra_core::clock::Timestamp;

use crate::error::{AdminError, ErrorCode};

/// Maximum length of a line, in bytes.
const LONGEST: u64 = 4 << 20;

/// An event of the provider's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Id.
    pub id: String,
    /// Type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Time, by the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The complete event, if the list has it.
    #[serde(skip)]
    pub(super) body: Option<Bytes>,
    /// What the provider's API calls the delivery, to ask for another one.
    #[serde(skip)]
    pub(super) delivery: Option<String>,
}

/// How a file is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// An event in JSON on each line, as the provider sends it.
    #[default]
    Jsonl,
    /// A table with names in its first line.
    Csv,
}

/// Where id and type are: JSON pointers, or the names of columns.
pub(super) struct Fields<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    /// Whether the event's bytes are kept, which only an ingest needs.
    pub(super) bodies: bool,
}

/// Reads a file, `-` for the standard input, of at most `limit` events.
pub(super) fn read(
    path: &Path,
    format: Format,
    fields: &Fields<'_>,
    limit: usize,
) -> Result<Vec<Listed>, AdminError> {
    let input: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(path).map_err(|error| wrong(path, &error.to_string()))?),
    };
    let read = match format {
        Format::Jsonl => jsonl(input, fields, limit),
        Format::Csv => csv(input, fields, limit),
    };
    read.map_err(|what| wrong(path, &what))
}

fn wrong(path: &Path, what: &str) -> AdminError {
    AdminError::new(ErrorCode::InvalidList, format!("{}: {what}.", path.display()))
        .hint("Give an export of the provider's events: JSON, JSON lines, or CSV.")
}

fn full(limit: usize) -> String {
    format!("it has more than {limit} events: split it, or raise the limit")
}

fn jsonl(input: impl Read, fields: &Fields<'_>, limit: usize) -> Result<Vec<Listed>, String> {
    let (mut input, mut all, mut line) = (BufReader::new(input), Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        let read = input.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        let length = read.map_err(|error| format!("line {number}: {error}"))?;
        if length as u64 == LONGEST {
            return Err(format!("line {number} is longer than {LONGEST} bytes"));
        }
        if length == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if all.len() == limit {
            return Err(full(limit));
        }
        serde_json::from_slice::<&RawValue>(text)
            .map_err(|error| format!("line {number}: {error}"))?;
        let event = event(text, fields);
        let no_id = || format!("line {number} has no id at {}", fields.id);
        all.push(event.ok_or_else(no_id)?);
    }
    Ok(all)
}

/// An event in JSON. `None` without an id.
pub(super) fn event(json: &[u8], fields: &Fields<'_>) -> Option<Listed> {
    let found = texts_at(json, &[fields.id, fields.kind]);
    let mut found = found.into_iter().map(|text| text.filter(|text| !text.is_empty()));
    let id = found.next()??;
    let kind = found.next()?;
    let body = fields.bodies.then(|| Bytes::copy_from_slice(json));
    Some(Listed { id, kind, at: None, body, delivery: None })
}

fn csv(input: impl Read, fields: &Fields<'_>, limit: usize) -> Result<Vec<Listed>, String> {
    let mut table = csv::Reader::from_reader(input);
    let names = table.headers().map_err(|error| error.to_string())?;
    let column = |name: &str| names.iter().position(|known| known == name);
    let (Some(id), kind) = (column(fields.id), column(fields.kind)) else {
        let known = names.iter().collect::<Vec<_>>().join(", ");
        return Err(format!("it has no column {}: it has {known}", fields.id));
    };
    let mut all = Vec::new();
    for row in table.records() {
        let row = row.map_err(|error| error.to_string())?;
        if all.len() == limit {
            return Err(full(limit));
        }
        let at = |column: usize| row.get(column).filter(|text| !text.is_empty()).map(str::to_owned);
        let line = row.position().map_or(0, csv::Position::line);
        let id = at(id).ok_or_else(|| format!("line {line} has no id"))?;
        all.push(Listed { id, kind: kind.and_then(at), at: None, body: None, delivery: None });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields<'_> = Fields { id: "/data/id", kind: "/type", bodies: true };

    #[test]
    fn lines_of_json_are_events_and_what_is_wrong_is_told_with_its_line() {
        let text = b"{\"data\":{\"id\":7},\"type\":\"paid\"}\r\n\n {\"data\":{\"id\":\"b\"}}";
        let all = jsonl(&text[..], &FIELDS, 2).unwrap();
        let seen: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.kind.as_deref())).collect();
        assert_eq!(seen, [("7", Some("paid")), ("b", None)]);
        assert_eq!(all[1].body.as_deref(), Some(&b"{\"data\":{\"id\":\"b\"}}"[..]));
        assert!(jsonl(&text[..], &FIELDS, 1).unwrap_err().contains("more than 1"));
        for (wrong, message) in [
            (&b"{\"data\":{}}"[..], "line 1 has no id at /data/id"),
            (b"\n{\"data\":{\"id\":\"\"}}", "line 2 has no id"),
            (b"{\"data\":{\"id\":1}}\nnot JSON", "line 2: "),
        ] {
            assert!(jsonl(wrong, &FIELDS, 9).unwrap_err().contains(message), "{message}");
        }
        let long = vec![b' '; usize::try_from(LONGEST).unwrap()];
        assert!(jsonl(&long[..], &FIELDS, 9).unwrap_err().contains("longer than"));
    }

    #[test]
    fn a_table_is_read_by_the_names_of_its_columns() {
        let fields = Fields { id: "Event ID", kind: "type", bodies: false };
        let all = csv(&b"type,Event ID\npaid,\"evt,1\"\n,evt_2\n"[..], &fields, 9).unwrap();
        let seen: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.kind.as_deref())).collect();
        assert_eq!(seen, [("evt,1", Some("paid")), ("evt_2", None)]);
        assert!(csv(&b"a,b\n1,2\n"[..], &fields, 9).unwrap_err().contains("it has a, b"));
        assert!(csv(&b"Event ID\n\"\"\n"[..], &fields, 9).unwrap_err().contains("has no id"));
        assert!(csv(&b"Event ID\n1\n2\n"[..], &fields, 1).is_err());
    }
}
