//! The stored form of a delivery: one string, because every key and every field costs memory and
//! time.
//!
//! ```text
//! version u8 · state u8 · reason u8 · expired u8 · generation u32 · attempt u32 · fence u56 · until u56
//! · SHA-256 of the body [32] · fingerprint of the unsigned ID, or zeros [8]
//! · length u16 · summary (MessagePack)
//! · history: for each line, length u16 · at u56 · kind u8 · generation u32 · attempt u32
//!   · number u56 · flag u8 · length u8 · operator or worker · text, to the line's end
//! ```
//!
//! Little-endian. The scripts change the header (the first line), append to the history, and leave
//! the rest unchanged. Another form gets another version. Fields may be added at the end of the
//! summary without one.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zentra_core::clock::Timestamp;
use zentra_core::event::{Admitted, Batch, Context, DeliveryKey, Weakness};
use zentra_core::lifecycle::{DeadReason, Fingerprint, Record, State};
use zentra_store::journal::{
    AttemptResult, COPIES, Delivery, Entry, ErrorClass, HISTORY, HistoryEvent, JournalError,
    Summary,
};

const VERSION: u8 = 2;
/// The header, in the notation of the scripts' `struct` library.
const HEADER: &str = "<BBBBI4I4I7I7";
/// Offset of `until`, counted from 0.
const TILL: usize = 19;
/// Where the header ends, counted from 1 as in Lua.
const REST: usize = 27;
/// What follows the header, up to the summary.
const PRINTS: &str = "c32c8I2";
const NO_ID: [u8; 8] = [0; 8];
/// A history line up to the operator's name, and the length of that part without the length field.
const LINE: &str = "<I2I7BI4I4I7BB";
const LINE_BYTES: usize = 25;
/// Maximum length of a summary. It comes from an envelope of at most one AMQP frame.
const SUMMARY: usize = u16::MAX as usize;

const STATES: [(&str, State); 4] = [
    ("IN_FLIGHT", State::InFlight),
    ("WAITING", State::Waiting),
    ("DELIVERED", State::Delivered),
    ("DEAD", State::Dead),
];

/// The order is part of the stored form.
const REASONS: [DeadReason; 10] = [
    DeadReason::Exhausted,
    DeadReason::Permanent,
    DeadReason::TooOld,
    DeadReason::SealBroken,
    DeadReason::NotOurs,
    DeadReason::SuspectedReplay,
    DeadReason::Crashed,
    DeadReason::Ended,
    DeadReason::Conflict,
    DeadReason::NotSubscribed,
];

/// The kinds of history lines, by number. The suffix `_LINE` marks those that share a state's
/// name.
const LINES: [&str; 15] = [
    "CLAIMED",
    "BUSY",
    "DUPLICATE",
    "DUPLICATE_DEAD",
    "STALE",
    "CONFLICT",
    "SUSPECTED",
    "DELIVERED_LINE",
    "FAILED",
    "DEAD_LINE",
    "SUPERSEDED",
    "REQUEUED",
    "RELEASED",
    "DISCARDED",
    "REPLAYED",
];

/// A complete script: first the constants that it shares with this file and the time, then, if it
/// asks for it, the part that all transitions share.
pub(super) fn script(text: &str) -> String {
    let lines = LINES.iter().copied().zip(1..);
    let states = STATES.iter().map(|(name, _)| *name).zip(1..);
    let numbers: String =
        lines.chain(states).map(|(name, number)| format!("local {name} = {number}\n")).collect();
    let clock = include_str!("clock.lua");
    let text = text.replacen("--@delivery.lua\n", include_str!("delivery.lua"), 1);
    let no_id = "\\0".repeat(NO_ID.len());
    let no_body = "\\0".repeat(Fingerprint::UNKNOWN.len());
    format!(
        "local VERSION, HEADER, TILL, REST = {VERSION}, '{HEADER}', {TILL}, {REST}\n\
         local PRINTS, NO_ID, NO_BODY = '{PRINTS}', '{no_id}', '{no_body}'\n\
         local LINE, LINE_BYTES = '{LINE}', {LINE_BYTES}\n\
         local HISTORY, COPIES = {HISTORY}, {COPIES}\n{numbers}{clock}\n{text}"
    )
}

/// A reason as the scripts write it.
pub(super) fn reason(reason: DeadReason) -> u64 {
    number(REASONS.iter().position(|known| *known == reason))
}

/// Separates a job's name from the reason (ASCII unit separator).
const JOB: char = '\u{1f}';

/// What an operator did, as the kind of a line and its text.
pub(super) fn noted(what: &HistoryEvent) -> Option<(u64, Cow<'_, str>)> {
    let kind = |name| number(LINES.iter().position(|known| *known == name));
    match what {
        HistoryEvent::Requeued { reason, job: Some(job) } => {
            Some((kind("REQUEUED"), format!("{job}{JOB}{reason}").into()))
        }
        HistoryEvent::Requeued { reason, job: None } => Some((kind("REQUEUED"), reason.into())),
        HistoryEvent::Replayed { reason, job } => {
            Some((kind("REPLAYED"), format!("{job}{JOB}{reason}").into()))
        }
        HistoryEvent::Released { reason } => Some((kind("RELEASED"), reason.into())),
        HistoryEvent::Discarded { reason } => Some((kind("DISCARDED"), reason.into())),
        _ => None,
    }
}

/// The texts of a requeue.
fn requeued(words: String) -> HistoryEvent {
    match words.split_once(JOB) {
        Some((job, reason)) => {
            HistoryEvent::Requeued { reason: reason.into(), job: Some(job.into()) }
        }
        None => HistoryEvent::Requeued { reason: words, job: None },
    }
}

/// Counted from 1. 0 means none.
fn number(position: Option<usize>) -> u64 {
    position.map_or(0, |at| at as u64 + 1)
}

/// The fingerprint of the unsigned ID.
pub(super) fn id(fingerprint: &Fingerprint) -> [u8; 8] {
    fingerprint.id.unwrap_or(NO_ID)
}

/// The part of a summary that the header does not hold. The order is part of the stored form.
#[derive(Serialize, Deserialize)]
struct StoredSummary<'a> {
    source: Cow<'a, str>,
    provider: Cow<'a, str>,
    verified_with: Cow<'a, str>,
    event_id: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    received_at: Option<Timestamp>,
    provider_time: Option<Timestamp>,
    trace: Option<ByteBuf>,
    method: Option<Cow<'a, str>>,
    peer: Option<IpAddr>,
    headers: Cow<'a, [(String, String)]>,
    provider_attempt: Option<Cow<'a, str>>,
    provider_reason: Option<Cow<'a, str>>,
    admitted: Option<(Cow<'a, str>, Timestamp, Cow<'a, str>)>,
    #[serde(default)]
    weakness: Option<Weakness>,
    #[serde(default)]
    batch: Option<(ByteBuf, u32, u32)>,
    #[serde(default)]
    type_unsigned: bool,
    #[serde(default)]
    query: Option<Cow<'a, str>>,
    #[serde(default)]
    signed: Cow<'a, [String]>,
}

/// A summary as the scripts take it. Without the headers if it would be too long.
pub(super) fn summary(summary: &Summary) -> Option<Vec<u8>> {
    fn text(text: &Option<String>) -> Option<Cow<'_, str>> {
        text.as_deref().map(Cow::Borrowed)
    }
    let Summary { context, admitted, .. } = summary;
    let mut stored = StoredSummary {
        source: Cow::Borrowed(&summary.source),
        provider: Cow::Borrowed(&summary.provider),
        verified_with: Cow::Borrowed(&summary.verified_with),
        event_id: text(&summary.event_id),
        event_type: text(&summary.event_type),
        received_at: summary.received_at,
        provider_time: summary.provider_time,
        trace: summary.trace.as_deref().and_then(|id| hex::decode(id).ok()).map(ByteBuf::from),
        method: text(&context.method),
        peer: context.peer,
        headers: Cow::Borrowed(&context.headers),
        provider_attempt: text(&context.provider_attempt),
        provider_reason: text(&context.provider_reason),
        admitted: admitted
            .as_ref()
            .map(|Admitted { by, at, refused_for }| (by.into(), *at, refused_for.into())),
        weakness: context.weakness,
        batch: context.batch.as_ref().and_then(|Batch { body_sha256, item, of }| {
            Some((ByteBuf::from(hex::decode(body_sha256).ok()?), *item, *of))
        }),
        type_unsigned: context.type_unsigned,
        query: text(&context.query),
        signed: Cow::Borrowed(&context.signed),
    };
    let packed = rmp_serde::to_vec(&stored).ok()?;
    if packed.len() <= SUMMARY {
        return Some(packed);
    }
    stored.headers = Cow::Borrowed(&[]);
    rmp_serde::to_vec(&stored).ok().filter(|packed| packed.len() <= SUMMARY)
}

/// The destination's answer as a line holds it. The order is part of the stored form.
#[derive(Serialize, Deserialize)]
struct StoredResult<'a> {
    duration_ms: u64,
    status: Option<u16>,
    error: Option<Cow<'a, str>>,
    response: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<ErrorClass>,
}

/// A result as the scripts take it.
pub(super) fn result(result: &AttemptResult) -> Option<Vec<u8>> {
    let AttemptResult { duration_ms, status, class, .. } = *result;
    let [error, response] =
        [&result.error, &result.response].map(|text| text.as_deref().map(Cow::Borrowed));
    rmp_serde::to_vec(&StoredResult { duration_ms, status, error, response, class }).ok()
}

/// A delivery as the scripts would have written it.
pub(super) fn written(delivery: &Delivery) -> Option<Vec<u8>> {
    let Delivery { key, record, reason: dead, event, history } = delivery;
    let state = number(STATES.iter().position(|(_, state)| *state == record.state));
    let mut raw = Vec::new();
    let mut put = |number: u64, bytes| raw.extend_from_slice(&number.to_le_bytes()[..bytes]);
    put(VERSION.into(), 1);
    put(state, 1);
    put(dead.map_or(0, reason), 1);
    put(record.expired.into(), 1);
    put(record.generation.into(), 4);
    put(record.attempt.into(), 4);
    put(record.fence, 7);
    put(record.until.millis(), 7);
    raw.extend(record.fingerprint.body);
    raw.extend(id(&record.fingerprint));
    let summary = summary(event)?;
    raw.extend(u16::try_from(summary.len()).ok()?.to_le_bytes());
    raw.extend(summary);
    let lines: Vec<Vec<u8>> =
        history.iter().map(|entry| line_of(key, entry)).collect::<Option<_>>()?;
    let mut length = lines.iter().map(Vec::len).sum::<usize>();
    for line in lines {
        if length <= HISTORY {
            raw.extend(&line);
        } else {
            length -= line.len();
        }
    }
    Some(raw)
}

fn line_of(key: &DeliveryKey, entry: &Entry) -> Option<Vec<u8>> {
    let bytes = |text: &str| hex::decode(text).ok();
    let (kind, number, flag, more) = match &entry.what {
        HistoryEvent::Claimed { fence, reclaimed } => ("CLAIMED", *fence, *reclaimed, Vec::new()),
        HistoryEvent::Busy => ("BUSY", 0, false, Vec::new()),
        HistoryEvent::Duplicate => ("DUPLICATE", 0, false, Vec::new()),
        HistoryEvent::DuplicateDead => ("DUPLICATE_DEAD", 0, false, Vec::new()),
        HistoryEvent::Stale => ("STALE", 0, false, Vec::new()),
        HistoryEvent::Conflict { body_sha256 } => ("CONFLICT", 0, false, bytes(body_sha256)?),
        HistoryEvent::Suspected { kept_as } => {
            let id = kept_as.strip_prefix(key.as_str())?.strip_prefix('+')?;
            ("SUSPECTED", 0, false, bytes(id)?)
        }
        HistoryEvent::Delivered { late, result: of } => ("DELIVERED_LINE", 0, *late, result(of)?),
        HistoryEvent::Failed { next_at, result: of } => {
            ("FAILED", next_at.millis(), false, result(of)?)
        }
        HistoryEvent::Dead { reason: why, result: of } => {
            ("DEAD_LINE", reason(*why), false, result(of)?)
        }
        HistoryEvent::Superseded { result: of } => ("SUPERSEDED", 0, false, result(of)?),
        HistoryEvent::Requeued { .. }
        | HistoryEvent::Replayed { .. }
        | HistoryEvent::Released { .. }
        | HistoryEvent::Discarded { .. } => ("", 0, false, Vec::new()),
        // Nobody writes such a line; a copy leaves it out.
        HistoryEvent::Newer => return Some(Vec::new()),
    };
    let (kind, more) = match noted(&entry.what) {
        Some((kind, words)) => (kind, words.as_bytes().to_vec()),
        None => (self::number(LINES.iter().position(|known| *known == kind)), more),
    };
    let by = &entry.by.as_bytes()[..entry.by.len().min(usize::from(u8::MAX))];
    let mut raw = u16::try_from(LINE_BYTES + by.len() + more.len()).ok()?.to_le_bytes().to_vec();
    let mut put = |number: u64, bytes| raw.extend_from_slice(&number.to_le_bytes()[..bytes]);
    put(entry.at.millis(), 7);
    put(kind, 1);
    put(entry.generation.into(), 4);
    put(entry.attempt.into(), 4);
    put(number, 7);
    put(flag.into(), 1);
    put(by.len() as u64, 1);
    raw.extend(by);
    raw.extend(more);
    Some(raw)
}

/// Parses a delivery.
///
/// # Errors
/// [`JournalError::Newer`] if a newer version of Zentra wrote it; [`JournalError::Unreadable`].
pub(super) fn read(key: &DeliveryKey, raw: &[u8]) -> Result<Delivery, JournalError> {
    match raw.first() {
        Some(&version) if version > VERSION => Err(JournalError::Newer {
            what: format!("delivery {key}"),
            version: version.into(),
            newest: VERSION.into(),
        }),
        _ => parse(key, raw).ok_or_else(|| JournalError::Unreadable(key.to_string())),
    }
}

/// `None` if it is not a delivery of this version.
fn parse(key: &DeliveryKey, raw: &[u8]) -> Option<Delivery> {
    let mut rest = Bytes(raw);
    if rest.number(1)? != u64::from(VERSION) {
        return None;
    }
    let (_, state) = STATES.get(usize::try_from(rest.number(1)?).ok()?.checked_sub(1)?)?;
    let reason = match usize::try_from(rest.number(1)?).ok()? {
        0 => None,
        number => Some(*REASONS.get(number - 1)?),
    };
    let expired = u8::try_from(rest.number(1)?).ok()?;
    let (generation, attempt) = (rest.number(4)?, rest.number(4)?);
    let (fence, until) = (rest.number(7)?, rest.number(7)?);
    let body: [u8; 32] = rest.take(32)?.try_into().ok()?;
    let id: [u8; 8] = rest.take(8)?.try_into().ok()?;
    let length = usize::try_from(rest.number(2)?).ok()?;
    let stored: StoredSummary = rmp_serde::from_slice(rest.take(length)?).ok()?;
    let mut history = Vec::new();
    while !rest.0.is_empty() {
        let length = usize::try_from(rest.number(2)?).ok()?;
        history.push(line(key, Bytes(rest.take(length)?))?);
    }
    Some(Delivery {
        key: key.clone(),
        record: Record {
            state: *state,
            generation: u32::try_from(generation).ok()?,
            attempt: u32::try_from(attempt).ok()?,
            expired,
            fence,
            until: Timestamp::from_millis(until),
            fingerprint: Fingerprint { body, id: (id != NO_ID).then_some(id) },
        },
        reason,
        event: shown(stored, &body),
        history,
    })
}

fn shown(stored: StoredSummary<'_>, body: &[u8]) -> Summary {
    let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    Summary {
        source: stored.source.into_owned(),
        provider: stored.provider.into_owned(),
        verified_with: stored.verified_with.into_owned(),
        event_id: text(stored.event_id),
        event_type: text(stored.event_type),
        received_at: stored.received_at,
        provider_time: stored.provider_time,
        body_sha256: hex::encode(body),
        trace: stored.trace.map(hex::encode),
        context: Context {
            method: text(stored.method),
            peer: stored.peer,
            headers: stored.headers.into_owned(),
            query: text(stored.query),
            signed: stored.signed.into_owned(),
            provider_attempt: text(stored.provider_attempt),
            provider_reason: text(stored.provider_reason),
            weakness: stored.weakness,
            batch: stored.batch.map(|(body, item, of)| Batch {
                body_sha256: hex::encode(body),
                item,
                of,
            }),
            type_unsigned: stored.type_unsigned,
        },
        admitted: stored.admitted.map(|(by, at, refused_for)| Admitted {
            by: by.into_owned(),
            at,
            refused_for: refused_for.into_owned(),
        }),
    }
}

fn line(key: &DeliveryKey, mut stored: Bytes<'_>) -> Option<Entry> {
    let at = Timestamp::from_millis(stored.number(7)?);
    let kind = usize::try_from(stored.number(1)?).ok()?;
    let generation = u32::try_from(stored.number(4)?).ok()?;
    let attempt = u32::try_from(stored.number(4)?).ok()?;
    let (number, flag) = (stored.number(7)?, stored.number(1)?);
    let who = usize::try_from(stored.number(1)?).ok()?;
    let by = String::from_utf8_lossy(stored.take(who)?).into_owned();
    let more = stored.0;
    let result = || {
        let stored: StoredResult<'_> = rmp_serde::from_slice(more).ok()?;
        let StoredResult { duration_ms, status, error, response, class } = stored;
        let [error, response] = [error, response].map(|text| text.map(Cow::into_owned));
        Some(AttemptResult { duration_ms, status, error, response, class })
    };
    let words = || String::from_utf8(more.to_vec()).ok();
    let what = match LINES.get(kind.checked_sub(1)?).copied().unwrap_or_default() {
        "" => HistoryEvent::Newer,
        "CLAIMED" => HistoryEvent::Claimed { fence: number, reclaimed: flag > 0 },
        "BUSY" => HistoryEvent::Busy,
        "DUPLICATE" => HistoryEvent::Duplicate,
        "DUPLICATE_DEAD" => HistoryEvent::DuplicateDead,
        "STALE" => HistoryEvent::Stale,
        "CONFLICT" => HistoryEvent::Conflict { body_sha256: hex::encode(more) },
        "SUSPECTED" => HistoryEvent::Suspected { kept_as: format!("{key}+{}", hex::encode(more)) },
        "DELIVERED_LINE" => HistoryEvent::Delivered { late: flag == 1, result: result()? },
        "FAILED" => {
            HistoryEvent::Failed { next_at: Timestamp::from_millis(number), result: result()? }
        }
        "DEAD_LINE" => {
            let reason = REASONS.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
            HistoryEvent::Dead { reason: *reason, result: result()? }
        }
        "SUPERSEDED" => HistoryEvent::Superseded { result: result()? },
        "REQUEUED" => requeued(words()?),
        "REPLAYED" => {
            let words = words()?;
            let (job, reason) = words.split_once(JOB)?;
            HistoryEvent::Replayed { reason: reason.into(), job: job.into() }
        }
        "RELEASED" => HistoryEvent::Released { reason: words()? },
        "DISCARDED" => HistoryEvent::Discarded { reason: words()? },
        _ => return None,
    };
    Some(Entry { at, generation, attempt, by, what })
}

/// The bytes that are not parsed yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let bytes = self.take(bytes)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zentra_core::event::Identity;

    fn all() -> Vec<HistoryEvent> {
        let result = AttemptResult {
            duration_ms: 7,
            status: Some(500),
            error: Some("no".into()),
            response: Some("busy".into()),
            class: Some(ErrorClass::Timeout),
        };
        let (key, at) = (key(), Timestamp::from_millis(1_700_000_000_123));
        let mut all = vec![
            HistoryEvent::Claimed { fence: at.millis(), reclaimed: false },
            HistoryEvent::Claimed { fence: at.millis() + 1, reclaimed: true },
            HistoryEvent::Busy,
            HistoryEvent::Duplicate,
            HistoryEvent::DuplicateDead,
            HistoryEvent::Stale,
            HistoryEvent::Conflict { body_sha256: "ab".repeat(32) },
            HistoryEvent::Suspected { kept_as: format!("{key}+0102030405060708") },
            HistoryEvent::Delivered { late: true, result: result.clone() },
            HistoryEvent::Delivered { late: false, result: AttemptResult::default() },
            HistoryEvent::Failed { next_at: at, result: result.clone() },
            HistoryEvent::Superseded { result: result.clone() },
            HistoryEvent::Requeued { reason: String::new(), job: None },
            HistoryEvent::Requeued { reason: "mended".into(), job: Some("0a1b".into()) },
            HistoryEvent::Replayed { reason: "lost".into(), job: "0a1b/1".into() },
            HistoryEvent::Released { reason: "meant so".into() },
            HistoryEvent::Discarded { reason: "a test".into() },
        ];
        let dead = |reason| HistoryEvent::Dead { reason, result: result.clone() };
        all.extend(REASONS.map(dead));
        all
    }

    fn key() -> DeliveryKey {
        DeliveryKey::new("ledger", "acme", &Identity::from_id("evt_1").unwrap())
    }

    fn delivery(history: Vec<Entry>) -> Delivery {
        let body = [0xcd; 32];
        Delivery {
            key: key(),
            record: Record {
                state: State::Dead,
                generation: 2,
                attempt: 70_000,
                expired: 3,
                fence: 1_700_000_000_123,
                until: Timestamp::from_millis(1_700_000_009_000),
                fingerprint: Fingerprint { body, id: Some([7; 8]) },
            },
            reason: Some(DeadReason::TooOld),
            event: Summary {
                source: "acme".into(),
                event_id: Some("evt_1".into()),
                body_sha256: hex::encode(body),
                trace: Some("0af7651916cd43dd8448eb211c80319c".into()),
                ..Summary::default()
            },
            history,
        }
    }

    fn entry(what: HistoryEvent) -> Entry {
        let at = Timestamp::from_millis(1_700_000_000_500);
        Entry { at, generation: 1, attempt: 2, by: "ada".into(), what }
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let of = delivery(all().into_iter().map(entry).collect());
        assert_eq!(read(&of.key, &written(&of).unwrap()).unwrap(), of);
    }

    #[test]
    fn a_newer_form_is_told_from_damage_and_a_newer_line_hides_no_other() {
        let of = delivery(vec![entry(HistoryEvent::Busy), entry(HistoryEvent::Stale)]);
        let raw = written(&of).unwrap();
        let with = |at: usize, byte: u8| {
            let mut raw = raw.clone();
            raw[at] = byte;
            read(&of.key, &raw)
        };
        let newer = with(0, VERSION + 1).unwrap_err();
        assert!(matches!(newer, JournalError::Newer { version: 3, newest: 2, .. }), "{newer}");
        for damaged in [with(0, VERSION - 1), with(1, 9), read(&of.key, &raw[..raw.len() - 1])] {
            assert!(matches!(damaged, Err(JournalError::Unreadable(_))), "{damaged:?}");
        }
        // The kind of the first of two lines that are equally long.
        let kind = raw.len() - 2 * (2 + LINE_BYTES + "ada".len()) + 2 + 7;
        let history = with(kind, 200).unwrap().history;
        let what: Vec<HistoryEvent> = history.into_iter().map(|entry| entry.what).collect();
        assert_eq!(what, [HistoryEvent::Newer, HistoryEvent::Stale]);
    }

    #[test]
    fn of_a_history_that_is_too_long_the_newest_lines_are_written() {
        let words = |at: usize| HistoryEvent::Requeued { reason: format!("{at:900}"), job: None };
        let of = delivery((0..60).map(|at| entry(words(at))).collect());
        let raw = written(&of).unwrap();
        let kept = read(&of.key, &raw).unwrap().history;
        assert_eq!(kept, of.history[60 - kept.len()..]);
        assert!((30..40).contains(&kept.len()) && raw.len() < HISTORY + 300, "{}", kept.len());
    }
}
