//! What `zentra dev` shows: one row for each delivery, accepted event and refused callback.

use std::collections::VecDeque;

use bytes::Bytes;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::lifecycle::State;
use zentra_core::printable::printable;
use zentra_core::refused::RefusedRecord;
use zentra_store::journal::list::Listed;
use zentra_store::journal::{AttemptResult, Delivery, HistoryEvent};

use super::application::Received;
use super::feed::{News, SHOWN};
use crate::history;

/// The start of a header that is shown, in characters.
const MAX_HEADER: usize = 200;

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Delivery(DeliveryKey),
    /// Source and identity of an event that no worker has claimed.
    Accepted(String, String),
    /// ID of a refused callback.
    Refused(String),
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Open,
    Bad,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) subject: Subject,
    pub(super) standing: Standing,
    pub(super) at: Timestamp,
    pub(super) source: String,
    pub(super) kind: String,
    pub(super) event: String,
    pub(super) destination: String,
    pub(super) state: &'static str,
    pub(super) attempts: u32,
    /// The last answer, or why there is none.
    pub(super) answer: String,
}

/// All that is known, bounded by [`SHOWN`].
#[derive(Default)]
pub(super) struct Rows {
    /// Newest first.
    deliveries: Vec<Listed>,
    /// Newest last.
    accepted: VecDeque<Event>,
    refused: VecDeque<(RefusedRecord, Bytes)>,
    requests: VecDeque<Received>,
}

impl Rows {
    /// Takes what is new.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Accepted(event) => push(&mut self.accepted, *event),
            News::Refused(record, body) => push(&mut self.refused, (*record, body)),
            News::Received(request) => push(&mut self.requests, request),
            News::Deliveries(deliveries) => self.deliveries = deliveries,
            News::Note(_) => {}
        }
    }

    /// The rows, newest first.
    pub(super) fn rows(&self) -> Vec<Row> {
        let claimed = |event: &&Event| {
            let name = event.envelope.name();
            let is = |key: &DeliveryKey| {
                key.source() == event.envelope.source && key.identity() == name.as_str()
            };
            !self.deliveries.iter().any(|listed| is(&listed.delivery.key))
        };
        let deliveries = self.deliveries.iter().map(delivery);
        let accepted = self.accepted.iter().filter(claimed).map(accepted);
        let refused = self.refused.iter().map(|(record, _)| refused(record));
        let mut rows: Vec<Row> = deliveries.chain(accepted).chain(refused).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        rows.truncate(SHOWN);
        rows
    }

    /// The delivery with this key.
    pub(super) fn delivery(&self, key: &DeliveryKey) -> Option<&Delivery> {
        self.deliveries.iter().map(|listed| &listed.delivery).find(|one| one.key == *key)
    }

    /// The lines about a row: state, history, request, body. `options` are those of other commands.
    pub(super) fn details(&self, subject: &Subject, options: &str) -> Vec<String> {
        let mut text = Vec::new();
        match subject {
            Subject::Delivery(key) => {
                let Some(delivery) = self.delivery(key) else { return Vec::new() };
                // Writing to memory does not fail.
                let _ = history::deliveries(std::slice::from_ref(delivery), &mut text);
                match self.requests.iter().rev().find(|request| request.key() == key.as_str()) {
                    Some(request) => text.extend(request_text(request)),
                    None => text.extend(self.body(key.source(), key.identity())),
                }
            }
            Subject::Accepted(source, identity) => {
                text.extend(b"accepted, and no worker has claimed it yet\n");
                text.extend(self.body(source, identity));
            }
            Subject::Refused(id) => {
                let Some((record, body)) = self.refused.iter().find(|(one, _)| one.id == *id)
                else {
                    return Vec::new();
                };
                text.extend(format!("refused: {}\n", record.reason).into_bytes());
                for (name, value) in &record.headers {
                    text.extend(format!("{name}: {}\n", start(value)).into_bytes());
                }
                text.extend(shown_body(body));
                text.extend(format!("\nWhy: zentra refused show {id}{options}\n").into_bytes());
            }
        }
        String::from_utf8_lossy(&text).lines().map(printable).collect()
    }

    /// The body of an event that was accepted since the start.
    fn body(&self, source: &str, identity: &str) -> Vec<u8> {
        let is = |event: &&Event| {
            event.envelope.source == source && event.envelope.name().as_str() == identity
        };
        let event = self.accepted.iter().rev().find(is);
        event.map(|event| shown_body(&event.body)).unwrap_or_default()
    }
}

/// Adds one, and drops the oldest beyond the bound.
fn push<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() >= SHOWN {
        all.pop_front();
    }
    all.push_back(one);
}

fn delivery(Listed { first_claimed_at, delivery }: &Listed) -> Row {
    let Delivery { key, record, event, history, .. } = delivery;
    let (state, standing) = match record.state {
        State::InFlight => ("in flight", Standing::Open),
        State::Waiting => ("waiting", Standing::Open),
        State::Delivered => ("delivered", Standing::Good),
        State::Dead => ("dead", Standing::Bad),
    };
    Row {
        subject: Subject::Delivery(key.clone()),
        standing,
        at: event.received_at.unwrap_or(*first_claimed_at),
        source: shown(&event.source),
        kind: event.event_type.as_deref().map(shown).unwrap_or_default(),
        event: shown(event.event_id.as_deref().unwrap_or_else(|| key.identity())),
        destination: key.destination().to_owned(),
        state,
        attempts: record.attempt,
        answer: history.iter().rev().find_map(|entry| answer(&entry.what)).unwrap_or_default(),
    }
}

fn answer(what: &HistoryEvent) -> Option<String> {
    let result = match what {
        HistoryEvent::Delivered { result, .. }
        | HistoryEvent::Failed { result, .. }
        | HistoryEvent::Dead { result, .. } => result,
        _ => return None,
    };
    let AttemptResult { status, error, duration_ms, .. } = result;
    Some(match (status, error) {
        (Some(status), _) => format!("{status} in {duration_ms} ms"),
        (None, Some(error)) => shown(error),
        (None, None) => String::new(),
    })
}

fn accepted(event: &Event) -> Row {
    let envelope = &event.envelope;
    let name = envelope.name();
    let id = envelope.event_id().unwrap_or_else(|| name.as_str());
    Row {
        subject: Subject::Accepted(envelope.source.clone(), name.as_str().to_owned()),
        standing: Standing::Open,
        at: envelope.received_at,
        source: shown(&envelope.source),
        kind: envelope.event_type.as_deref().map(shown).unwrap_or_default(),
        event: shown(id),
        destination: String::new(),
        state: "accepted",
        attempts: 0,
        answer: String::new(),
    }
}

fn refused(record: &RefusedRecord) -> Row {
    Row {
        subject: Subject::Refused(record.id.clone()),
        standing: Standing::Bad,
        at: record.received_at,
        source: shown(&record.source),
        kind: String::new(),
        event: record.id.clone(),
        destination: String::new(),
        state: "refused",
        attempts: 0,
        answer: record.reason.clone(),
    }
}

/// The request as the application gets it.
pub(super) fn request_text(request: &Received) -> Vec<u8> {
    let mut text = Vec::from(*b"\nrequest    POST (the built-in application answered 200)\n");
    for (name, value) in &request.headers {
        text.extend(
            format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())).into_bytes(),
        );
    }
    text.extend(shown_body(&request.body));
    text
}

/// A body, with an empty line before it.
fn shown_body(body: &Bytes) -> Vec<u8> {
    [b"\n", &body[..], b"\n"].concat()
}

/// The start of a header's value. A long one would push everything else out of sight.
fn start(value: &str) -> &str {
    let end = value.char_indices().nth(MAX_HEADER).map_or(value.len(), |(at, _)| at);
    &value[..end]
}

/// Without control characters: a stranger can have written it.
fn shown(text: &str) -> String {
    printable(text)
}
