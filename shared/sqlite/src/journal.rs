//! The delivery store on the file. The pure lifecycle decides, and this module stores its
//! decision.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{
    Answer, DeadReason, Fingerprint, Input, Outcome, Record, State, step,
};
use zentra_store::journal::list::{Listed, Page, Query, SCAN};
use zentra_store::journal::{
    AttemptResult, COPIES, Claim, Delivery, DeliveryStore, Entry, First, HISTORY, HistoryEvent,
    Journal, JournalError, Settle, Summary, named,
};

use super::store::{Store, StoreError, number};

/// The file as a delivery store. Clones share it.
#[derive(Clone)]
pub struct EmbeddedJournal {
    pub(super) store: Store,
    /// How long an operator's change is remembered.
    retention: Duration,
}

/// A delivery as it is stored. New fields may be added at the end.
#[derive(Serialize, Deserialize)]
struct Stored {
    record: Record,
    body: [u8; 32],
    id: Option<[u8; 8]>,
    reason: Option<DeadReason>,
    /// [`Store::opening`] of the process that claimed it last.
    #[serde(default)]
    opening: u64,
}

/// What a transition is about.
struct Change {
    key: DeliveryKey,
    event: Input,
    by: String,
    /// What an operator did, for the history.
    noted: Option<HistoryEvent>,
    result: AttemptResult,
    summary: Summary,
    retention: Duration,
}

impl EmbeddedJournal {
    /// A delivery store on an open file.
    pub fn new(store: Store, retention: Duration) -> Self {
        Self { store, retention }
    }

    async fn change(&self, change: Change) -> Result<Answer, JournalError> {
        let opening = self.store.opening();
        Ok(self.store.write(move |file| apply(file, &change, clock::now(), opening)).await?)
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// Excludes expired deliveries that are not swept yet. `?2` is the current time.
const KNOWN: &str = "AND (until IS NULL OR until > ?2)";

/// What is known about a delivery before a transition.
struct Known {
    row: i64,
    stored: Stored,
    history: Vec<u8>,
}

fn find(file: &Connection, key: &DeliveryKey, now: Timestamp) -> rusqlite::Result<Option<Known>> {
    let select = format!("SELECT id, record, history FROM delivery WHERE key = ?1 {KNOWN}");
    let mut select = file.prepare_cached(&select)?;
    select
        .query_row(params![key.as_str(), number(now)], |row| {
            let record: Vec<u8> = row.get(1)?;
            Ok(Known { row: row.get(0)?, stored: unpacked(1, &record)?, history: row.get(2)? })
        })
        .optional()
}

/// The state before a transition. If another process holds a lease that ends later than any lease
/// granted now could, the clock was set back since, and that process has ended. So its lease has
/// ended too.
fn before(stored: &Stored, event: &Input, now: Timestamp, opening: u64) -> Record {
    let record = record(stored);
    match event {
        Input::Claim { lease, .. }
            if record.state == State::InFlight
                && stored.opening != opening
                && record.until > now.plus(*lease * 2) =>
        {
            Record { until: now, ..record }
        }
        _ => record,
    }
}

fn apply(
    file: &Connection,
    change: &Change,
    now: Timestamp,
    opening: u64,
) -> rusqlite::Result<Answer> {
    let known = find(file, &change.key, now)?;
    let before = known.as_ref().map(|known| before(&known.stored, &change.event, now, opening));
    let (after, answer) = step(before.as_ref(), &change.event, now);
    // Nothing is known about this delivery, so there is no history to add a line to.
    let Some(after) = after else { return Ok(answer) };
    let changed = before.as_ref() != Some(&after);
    let mut history = known.as_ref().map(|known| known.history.clone()).unwrap_or_default();
    let line = line(change, before.as_ref(), &after, answer, now);
    let copy = !changed && matches!(change.event, Input::Claim { .. });
    let listed = !copy || history.len() < COPIES;
    if let Some(line) = line.filter(|_| listed) {
        append(&mut history, &line)?;
    }
    let reason = match (after.state, &change.event, &known) {
        (State::Dead, Input::Settle { outcome: Outcome::Dead(reason), .. }, _) => Some(*reason),
        (State::Dead, _, Some(known)) => known.stored.reason,
        _ => None,
    };
    // A dead letter stays one until an operator acts on it.
    let still_dead = !changed && after.state == State::Dead;
    let dead = (after.state == State::Dead).then_some(now);
    let until = dead.is_none().then(|| now.plus(change.retention));
    let fingerprint = after.fingerprint;
    let opening = match (answer, &known) {
        (Answer::Claimed { .. }, _) | (_, None) => opening,
        (_, Some(known)) => known.stored.opening,
    };
    let Fingerprint { body, id } = fingerprint;
    let record = packed(&Stored { record: after, body, id, reason, opening })?;
    match known {
        Some(known) => {
            let mut update = file.prepare_cached(
                "UPDATE delivery SET dead = iif(?2, dead, ?3), until = iif(?2, until, ?4), \
                 record = ?5, history = ?6 WHERE id = ?1",
            )?;
            let (dead, until) = (dead.map(number), until.map(number));
            update.execute(params![known.row, still_dead, dead, until, record, history])?;
        }
        None => {
            let Change { key, summary, .. } = change;
            let event = summary.event_id.as_deref().filter(|id| *id != key.identity());
            let mut insert = file.prepare_cached(
                "INSERT OR REPLACE INTO delivery (key, destination, event, dead, until, record, summary, \
                 history) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            insert.execute(params![
                key.as_str(),
                key.destination(),
                event,
                dead.map(number),
                until.map(number),
                record,
                packed(summary)?,
                history
            ])?;
        }
    }
    Ok(answer)
}

/// The history line of a transition. A renewal gets none.
fn line(
    change: &Change,
    before: Option<&Record>,
    after: &Record,
    answer: Answer,
    now: Timestamp,
) -> Option<Entry> {
    let result = || change.result.clone();
    let (generation, attempt) = match change.event {
        Input::Claim { generation, attempt, .. } | Input::Settle { generation, attempt, .. } => {
            (generation, attempt)
        }
        Input::Renew { .. } => return None,
        Input::Reopen => (after.generation, after.attempt),
    };
    let what = match (answer, &change.event) {
        (Answer::Reopened { .. }, _) => change.noted.clone()?,
        (Answer::Claimed { fence, expired }, _) => {
            HistoryEvent::Claimed { fence, reclaimed: expired > 0 }
        }
        (Answer::Busy { .. }, _) => HistoryEvent::Busy,
        (Answer::Done, _) => HistoryEvent::Duplicate,
        (Answer::Dead, _) => HistoryEvent::DuplicateDead,
        (Answer::Stale, _) => HistoryEvent::Stale,
        (Answer::Conflict, Input::Claim { fingerprint, .. }) => {
            HistoryEvent::Conflict { body_sha256: hex::encode(fingerprint.body) }
        }
        (Answer::Suspected, Input::Claim { fingerprint, .. }) => {
            let id = fingerprint.id.map(hex::encode).unwrap_or_default();
            HistoryEvent::Suspected { kept_as: format!("{}+{id}", change.key) }
        }
        (Answer::Superseded, _) => HistoryEvent::Superseded { result: result() },
        (Answer::SettledLate, _) => HistoryEvent::Delivered { late: true, result: result() },
        // Sent twice because the first answer was lost: the history has its line already.
        (Answer::Settled, _) if before == Some(after) => return None,
        (Answer::Settled, Input::Settle { outcome, .. }) => match *outcome {
            Outcome::Delivered => HistoryEvent::Delivered { late: false, result: result() },
            Outcome::Retry { next_at } => HistoryEvent::Failed { next_at, result: result() },
            Outcome::Dead(reason) => HistoryEvent::Dead { reason, result: result() },
        },
        _ => return None,
    };
    Some(Entry { at: now, generation, attempt, by: change.by.clone(), what })
}

/// A line is its length (u16, little-endian) and its JSON.
fn append(history: &mut Vec<u8>, line: &Entry) -> rusqlite::Result<()> {
    let json = serde_json::to_vec(line).map_err(unwritable)?;
    let length = u16::try_from(json.len()).map_err(unwritable)?;
    history.extend_from_slice(&length.to_le_bytes());
    history.extend_from_slice(&json);
    while history.len() > HISTORY {
        let first = history.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes).into());
        history.drain(..(2usize + first).min(history.len()));
    }
    Ok(())
}

fn lines(mut history: &[u8]) -> rusqlite::Result<Vec<Entry>> {
    let mut lines = Vec::new();
    while let Some((length, rest)) = history.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length));
        let (line, rest) = rest.split_at_checked(length).ok_or_else(cut_off)?;
        lines.push(serde_json::from_slice(line).map_err(|error| unreadable(2, error))?);
        history = rest;
    }
    Ok(lines)
}

fn record(stored: &Stored) -> Record {
    Record {
        fingerprint: Fingerprint { body: stored.body, id: stored.id },
        ..stored.record.clone()
    }
}

fn packed(value: &impl Serialize) -> rusqlite::Result<Vec<u8>> {
    // Stored by field name, so that omitted fields and fields of later versions shift nothing.
    rmp_serde::to_vec_named(value).map_err(unwritable)
}

fn unpacked<'a, T: Deserialize<'a>>(column: usize, bytes: &'a [u8]) -> rusqlite::Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| unreadable(column, error))
}

pub(super) fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

pub(super) fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}

fn cut_off() -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(2, "history".into(), rusqlite::types::Type::Blob)
}

impl Journal for EmbeddedJournal {
    const SYSTEM: &'static str = "sqlite";

    async fn claim(&self, claim: &Claim<'_>) -> Result<Answer, JournalError> {
        self.store.room_to_settle()?;
        let Claim { generation, attempt, lease, retention, .. } = *claim;
        self.change(Change {
            key: claim.key.clone(),
            event: Input::Claim { generation, attempt, lease, fingerprint: *claim.fingerprint },
            by: claim.worker.into(),
            noted: None,
            result: AttemptResult::default(),
            summary: claim.summary.clone(),
            retention,
        })
        .await
    }

    async fn known(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        self.history(key).await
    }

    async fn first(
        &self,
        of: First<'_>,
        value: &str,
        retention: Duration,
    ) -> Result<String, JournalError> {
        let key = match of.name() {
            ("type", name) => name,
            (kind, name) => format!("{kind}:{name}"),
        };
        let value = value.to_owned();
        let write = move |file: &Connection| {
            let now = clock::now();
            let until = number(now.plus(retention));
            let mut insert = file.prepare_cached(
                "INSERT INTO first_type (key, type, until) VALUES (?1, ?2, ?3) ON CONFLICT (key) \
                 DO UPDATE SET type = excluded.type, until = excluded.until WHERE until <= ?4",
            )?;
            insert.execute(params![key, value, until, number(now)])?;
            let mut first = file.prepare_cached("SELECT type FROM first_type WHERE key = ?1")?;
            first.query_row([key], |row| row.get(0))
        };
        Ok(self.store.write(write).await?)
    }

    async fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> Result<Answer, JournalError> {
        self.change(Change {
            key: key.clone(),
            event: Input::Renew { fence, lease },
            by: String::new(),
            noted: None,
            result: AttemptResult::default(),
            summary: Summary::default(),
            retention: self.retention,
        })
        .await
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Answer, JournalError> {
        let Settle { fence, generation, attempt, outcome, retention, .. } = *settle;
        let fingerprint = *settle.fingerprint;
        self.change(Change {
            key: settle.key.clone(),
            event: Input::Settle { fence, generation, attempt, outcome, fingerprint },
            by: settle.worker.into(),
            noted: None,
            result: settle.result.clone(),
            summary: settle.summary.clone(),
            retention,
        })
        .await
    }

    async fn oldest_dead(&self, destination: &str) -> Result<Option<Timestamp>, JournalError> {
        let destination = destination.to_owned();
        let read = move |file: &Connection| -> rusqlite::Result<Option<i64>> {
            file.prepare_cached(
                "SELECT min(dead) FROM delivery WHERE destination = ?1 AND dead IS NOT NULL",
            )?
            .query_row([destination], |row| row.get(0))
        };
        let oldest = self.store.read(read).await?;
        Ok(oldest.and_then(|at| u64::try_from(at).ok()).map(Timestamp::from_millis))
    }

    /// The store sweeps expired rows by itself.
    async fn tidy(&self, _retention: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), JournalError> {
        self.store.read(|file| file.query_row("SELECT 1", (), |_| Ok(()))).await?;
        Ok(self.store.room_to_settle()?)
    }
}

/// The columns that [`delivery`] reads, in this order, and the row.
pub(super) const COLUMNS: &str = "key, record, summary, history, id";

pub(super) fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let key: String = row.get(0)?;
    let (stored, summary, history): (Vec<u8>, Vec<u8>, Vec<u8>) =
        (row.get(1)?, row.get(2)?, row.get(3)?);
    let stored: Stored = unpacked(1, &stored)?;
    Ok(Delivery {
        key: DeliveryKey::parse(&key).ok_or_else(cut_off)?,
        record: record(&stored),
        reason: stored.reason,
        event: unpacked(2, &summary)?,
        history: lines(&history)?,
    })
}

impl DeliveryStore for EmbeddedJournal {
    async fn refuses_claims(&self) -> Result<Option<String>, JournalError> {
        Ok(self.store.room_to_settle().err().map(|error| error.to_string()))
    }

    async fn find(
        &self,
        id: &str,
        pairs: &[(&str, &str)],
    ) -> Result<Vec<DeliveryKey>, JournalError> {
        let (named, id) = (named(id, pairs), id.to_owned());
        let read = move |file: &Connection| {
            let now = number(clock::now());
            let mut known =
                file.prepare_cached(&format!("SELECT key FROM delivery WHERE key = ?1 {KNOWN}"))?;
            let mut found = Vec::new();
            for key in &named {
                let key: Option<String> =
                    known.query_row(params![key.as_str(), now], |row| row.get(0)).optional()?;
                found.extend(key);
            }
            let mut of_event =
                file.prepare_cached(&format!("SELECT key FROM delivery WHERE event = ?1 {KNOWN}"))?;
            for key in of_event.query_map(params![id, now], |row| row.get(0))? {
                found.push(key?);
            }
            Ok(found)
        };
        let found = self.store.read(read).await?;
        let mut found: Vec<_> = found.iter().filter_map(|key| DeliveryKey::parse(key)).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn history(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        let key = key.clone();
        let read = move |file: &Connection| {
            let select = format!("SELECT {COLUMNS} FROM delivery WHERE key = ?1 {KNOWN}");
            file.prepare_cached(&select)?
                .query_row(params![key.as_str(), number(clock::now())], delivery)
                .optional()
        };
        Ok(self.store.read(read).await?)
    }

    async fn list(
        &self,
        query: &Query,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, JournalError> {
        const CHUNK: i64 = 500;
        let no_such = |cursor: &str| JournalError::NoSuchPage(cursor.into());
        let after = after.map(|text| text.parse::<i64>().map_err(|_| no_such(text))).transpose()?;
        let (mut last, mut looked, mut page) = (after.unwrap_or(i64::MAX), 0, Page::default());
        while looked < SCAN {
            let before = last;
            let read = move |file: &Connection| {
                let mut select = file.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM delivery WHERE id < ?1 {KNOWN} ORDER BY id DESC LIMIT ?3"
                ))?;
                let chunk = select
                    .query_map(params![before, number(clock::now()), CHUNK], |row| {
                        Ok((row.get(4)?, delivery(row)?))
                    })?;
                chunk.collect::<Result<Vec<(i64, Delivery)>, _>>()
            };
            let chunk = self.store.read(read).await?;
            let ended = i64::try_from(chunk.len()).unwrap_or(CHUNK) < CHUNK;
            looked += 2 * chunk.len();
            for (id, delivery) in chunk {
                last = id;
                let first_claimed_at =
                    delivery.history.first().map(|entry| entry.at).unwrap_or_default();
                if query.since.is_some_and(|since| first_claimed_at < since) {
                    page.next = None;
                    return Ok(page);
                }
                let listed = Listed { first_claimed_at, delivery };
                if !query.takes(&listed) {
                    continue;
                }
                page.items.push(listed);
                if page.items.len() == limit {
                    page.next = Some(id.to_string());
                    return Ok(page);
                }
            }
            page.next = (!ended).then(|| last.to_string());
            if ended {
                break;
            }
        }
        Ok(page)
    }

    async fn dead(
        &self,
        destination: &str,
        limit: usize,
        wanted: &(dyn Fn(&Delivery) -> bool + Sync),
    ) -> Result<Vec<Delivery>, JournalError> {
        const PAGE: i64 = 256;
        let (mut found, mut last) = (Vec::new(), (i64::MIN, i64::MIN));
        loop {
            let (destination, (at, id)) = (destination.to_owned(), last);
            let read = move |file: &Connection| {
                let mut select = file.prepare_cached(&format!(
                    "SELECT {COLUMNS}, dead FROM delivery WHERE destination = ?1 AND \
                     dead IS NOT NULL AND (dead, id) > (?2, ?3) ORDER BY dead, id LIMIT ?4"
                ))?;
                let page = select.query_map(params![destination, at, id, PAGE], |row| {
                    Ok((row.get(5)?, row.get(4)?, delivery(row)?))
                })?;
                page.collect::<Result<Vec<(i64, i64, Delivery)>, _>>()
            };
            let page = self.store.read(read).await?;
            let Some((at, id, _)) = page.last() else { return Ok(found) };
            last = (*at, *id);
            for (_, _, delivery) in page {
                if found.len() == limit {
                    return Ok(found);
                }
                if wanted(&delivery) {
                    found.push(delivery);
                }
            }
        }
    }

    async fn reopen(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<Option<u32>, JournalError> {
        let change = Change {
            key: key.clone(),
            event: Input::Reopen,
            by: by.into(),
            noted: Some(what.clone()),
            result: AttemptResult::default(),
            summary: Summary::default(),
            retention: self.retention,
        };
        match self.change(change).await? {
            Answer::Reopened { generation } => Ok(Some(generation)),
            _ => Ok(None),
        }
    }

    async fn note(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<bool, JournalError> {
        let (key, by, what) = (key.clone(), by.to_owned(), what.clone());
        let retention = self.retention;
        let write = move |file: &Connection| {
            let now = clock::now();
            let Some(mut known) = find(file, &key, now)? else { return Ok(false) };
            let discarded = matches!(what, HistoryEvent::Discarded { .. });
            let entry = Entry { at: now, generation, attempt: 1, by, what };
            append(&mut known.history, &entry)?;
            let mut update = file.prepare_cached(
                "UPDATE delivery SET history = ?2, dead = CASE WHEN ?3 THEN NULL ELSE dead END, \
                 until = CASE WHEN ?3 OR until IS NOT NULL THEN ?4 END WHERE id = ?1",
            )?;
            let until = number(now.plus(retention));
            update.execute(params![known.row, known.history, discarded, until])?;
            Ok(true)
        };
        Ok(self.store.write(write).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const START: u64 = 1_700_000_000_000;

    fn claim() -> Change {
        let fingerprint = Fingerprint { body: [1; 32], id: None };
        Change {
            key: DeliveryKey::parse("d/s/e").unwrap(),
            event: Input::Claim { generation: 0, attempt: 1, lease: LEASE, fingerprint },
            by: "w".into(),
            noted: None,
            result: AttemptResult::default(),
            summary: Summary::default(),
            retention: LEASE * 1000,
        }
    }

    #[tokio::test]
    async fn a_lease_of_a_clock_that_went_back_has_ended_only_if_its_program_has() {
        let path = std::env::temp_dir().join(format!("zentra-lease-{}.db", std::process::id()));
        let store = Store::open(&path, 1 << 30).unwrap();
        let claimed = |opening: u64, at: u64| {
            let at = Timestamp::from_millis(at);
            store.write(move |file| apply(file, &claim(), at, opening))
        };
        let granted = |answer: Answer| matches!(answer, Answer::Claimed { .. });
        assert!(granted(claimed(1, START).await.unwrap()));
        // Another process may have another lease in its configuration.
        assert!(!granted(claimed(2, START + 1_000).await.unwrap()));
        let back = START - 24 * 3_600_000;
        assert!(!granted(claimed(1, back).await.unwrap()), "it is running");
        assert!(granted(claimed(2, back).await.unwrap()), "it has ended");
        assert!(!granted(claimed(1, back).await.unwrap()), "held by the new one");
        let _ = std::fs::remove_file(&path);
    }
}
