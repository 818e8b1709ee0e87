//! How a delivery is stored: as one string, since each key, and each field, has its price.
//!
//! ```text
//! version u8 · state u8 · reason u8 · generation u32 · attempt u32 · fence u56 · until u56
//! · SHA-256 of the body [32] · print of the unsigned id, or zeros [8]
//! · length u16 · summary (MessagePack)
//! · history: for each line, length u16 · line (MessagePack)
//! ```
//!
//! Little-endian. The scripts change all but the summary, which they take as it is. A later
//! form has another version; fields can be added at the end of summary and line without.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::clock::Timestamp;
use crate::event::{Admitted, Context, DeliveryKey};
use crate::journal::{AttemptResult, Delivery, Entry, Summary, What};
use crate::lifecycle::{DeadReason, Print, Record, State};

const VERSION: u8 = 1;
/// As the scripts' `struct` library reads it.
const HEADER: &str = "<BBBI4I4I7I7c32c8I2";
/// Where `until` begins.
const TILL: usize = 18;
const NO_ID: [u8; 8] = [0; 8];
/// The longest summary; it comes from an envelope of at most one AMQP frame.
const SUMMARY: usize = u16::MAX as usize;

const STATES: [(&str, State); 4] = [
    ("IN_FLIGHT", State::InFlight),
    ("WAITING", State::Waiting),
    ("DELIVERED", State::Delivered),
    ("DEAD", State::Dead),
];

/// In this order for good.
const REASONS: [DeadReason; 7] = [
    DeadReason::Exhausted,
    DeadReason::Permanent,
    DeadReason::TooOld,
    DeadReason::SealBroken,
    DeadReason::NotOurs,
    DeadReason::SuspectedReplay,
    DeadReason::Crashed,
];

/// The kinds of a history's line, by number; `_LINE` where a state has the name.
const LINES: [&str; 14] = [
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
];

/// A script, after the numbers that it shares with this file.
pub(super) fn script(text: &str) -> String {
    let lines = LINES.iter().copied().zip(1..);
    let states = STATES.iter().map(|(name, _)| *name).zip(1..);
    let numbers: String =
        lines.chain(states).map(|(name, number)| format!("local {name} = {number}\n")).collect();
    let common = include_str!("common.lua");
    format!(
        "local VERSION, HEADER, TILL = {VERSION}, '{HEADER}', {TILL}\n{numbers}{common}\n{text}"
    )
}

/// A reason as the scripts write it.
pub(super) fn reason(reason: DeadReason) -> u64 {
    number(REASONS.iter().position(|known| *known == reason))
}

/// What an operator did, as a line's kind and its words.
pub(super) fn noted(what: &What) -> Option<(u64, &str)> {
    let kind = |name| number(LINES.iter().position(|known| *known == name));
    match what {
        What::Requeued => Some((kind("REQUEUED"), "")),
        What::Released { reason } => Some((kind("RELEASED"), reason)),
        What::Discarded { reason } => Some((kind("DISCARDED"), reason)),
        _ => None,
    }
}

/// From 1; 0 is none.
fn number(position: Option<usize>) -> u64 {
    position.map_or(0, |at| at as u64 + 1)
}

/// The print of the unsigned id.
pub(super) fn id(print: &Print) -> [u8; 8] {
    print.id.unwrap_or(NO_ID)
}

/// A summary without what the header has, in this order for good.
#[derive(Serialize, Deserialize)]
struct StoredSummary {
    source: String,
    provider: String,
    verified_with: String,
    event_id: Option<String>,
    event_type: Option<String>,
    received_at: Option<Timestamp>,
    provider_time: Option<Timestamp>,
    trace: Option<ByteBuf>,
    method: Option<String>,
    peer: Option<std::net::IpAddr>,
    headers: Vec<(String, String)>,
    provider_attempt: Option<String>,
    provider_reason: Option<String>,
    admitted: Option<(String, Timestamp, String)>,
}

/// A summary as the scripts take it; without the headers where it would be too long.
pub(super) fn summary(summary: &Summary) -> Option<Vec<u8>> {
    let Summary { context, admitted, .. } = summary.clone();
    let mut stored = StoredSummary {
        source: summary.source.clone(),
        provider: summary.provider.clone(),
        verified_with: summary.verified_with.clone(),
        event_id: summary.event_id.clone(),
        event_type: summary.event_type.clone(),
        received_at: summary.received_at,
        provider_time: summary.provider_time,
        trace: summary.trace.as_deref().and_then(|id| hex::decode(id).ok()).map(ByteBuf::from),
        method: context.method,
        peer: context.peer,
        headers: context.headers,
        provider_attempt: context.provider_attempt,
        provider_reason: context.provider_reason,
        admitted: admitted.map(|Admitted { by, at, refused_for }| (by, at, refused_for)),
    };
    let packed = rmp_serde::to_vec(&stored).ok()?;
    if packed.len() <= SUMMARY {
        return Some(packed);
    }
    stored.headers.clear();
    rmp_serde::to_vec(&stored).ok().filter(|packed| packed.len() <= SUMMARY)
}

/// What the destination said, as a line holds it.
type StoredResult = (u64, Option<u16>, Option<String>, Option<String>);

/// A result as the scripts take it.
pub(super) fn result(result: &AttemptResult) -> Option<Vec<u8>> {
    let AttemptResult { duration_ms, status, error, response } = result;
    rmp_serde::to_vec(&(duration_ms, status, error, response)).ok()
}

/// When, kind, generation, attempt, who, a number, a flag, more.
type StoredLine = (Timestamp, usize, u32, u32, String, u64, u64, ByteBuf);

/// Reads a delivery. `None` if it isn't one of this version.
pub(super) fn read(key: &DeliveryKey, raw: &[u8]) -> Option<Delivery> {
    let mut rest = Bytes(raw);
    if rest.number(1)? != u64::from(VERSION) {
        return None;
    }
    let (_, state) = STATES.get(usize::try_from(rest.number(1)?).ok()?.checked_sub(1)?)?;
    let reason = match usize::try_from(rest.number(1)?).ok()? {
        0 => None,
        number => Some(*REASONS.get(number - 1)?),
    };
    let (generation, attempt) = (rest.number(4)?, rest.number(4)?);
    let (fence, until) = (rest.number(7)?, rest.number(7)?);
    let body: [u8; 32] = rest.take(32)?.try_into().ok()?;
    let id: [u8; 8] = rest.take(8)?.try_into().ok()?;
    let length = usize::try_from(rest.number(2)?).ok()?;
    let stored: StoredSummary = rmp_serde::from_slice(rest.take(length)?).ok()?;
    let mut history = Vec::new();
    while !rest.0.is_empty() {
        let length = usize::try_from(rest.number(2)?).ok()?;
        history.push(line(key, rmp_serde::from_slice(rest.take(length)?).ok()?)?);
    }
    Some(Delivery {
        key: key.clone(),
        record: Record {
            state: *state,
            generation: u32::try_from(generation).ok()?,
            attempt: u32::try_from(attempt).ok()?,
            fence,
            until: Timestamp::from_millis(until),
            print: Print { body, id: (id != NO_ID).then_some(id) },
        },
        reason,
        event: shown(stored, &body),
        history,
    })
}

fn shown(stored: StoredSummary, body: &[u8]) -> Summary {
    Summary {
        source: stored.source,
        provider: stored.provider,
        verified_with: stored.verified_with,
        event_id: stored.event_id,
        event_type: stored.event_type,
        received_at: stored.received_at,
        provider_time: stored.provider_time,
        body_sha256: hex::encode(body),
        trace: stored.trace.map(hex::encode),
        context: Context {
            method: stored.method,
            peer: stored.peer,
            headers: stored.headers,
            provider_attempt: stored.provider_attempt,
            provider_reason: stored.provider_reason,
        },
        admitted: stored.admitted.map(|(by, at, refused_for)| Admitted { by, at, refused_for }),
    }
}

fn line(key: &DeliveryKey, stored: StoredLine) -> Option<Entry> {
    let (at, kind, generation, attempt, by, number, flag, more) = stored;
    let result = || {
        let (duration_ms, status, error, response): StoredResult =
            rmp_serde::from_slice(&more).ok()?;
        Some(AttemptResult { duration_ms, status, error, response })
    };
    let what = match *LINES.get(kind.checked_sub(1)?)? {
        "CLAIMED" => What::Claimed { fence: number, reclaimed: flag == 1 },
        "BUSY" => What::Busy,
        "DUPLICATE" => What::Duplicate,
        "DUPLICATE_DEAD" => What::DuplicateDead,
        "STALE" => What::Stale,
        "CONFLICT" => What::Conflict { body_sha256: hex::encode(&more) },
        "SUSPECTED" => What::Suspected { kept_as: format!("{key}+{}", hex::encode(&more)) },
        "DELIVERED_LINE" => What::Delivered { late: flag == 1, result: result()? },
        "FAILED" => What::Failed { next_at: Timestamp::from_millis(number), result: result()? },
        "DEAD_LINE" => {
            let reason = REASONS.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
            What::Dead { reason: *reason, result: result()? }
        }
        "SUPERSEDED" => What::Superseded { result: result()? },
        "REQUEUED" => What::Requeued,
        "RELEASED" => What::Released { reason: String::from_utf8(more.into_vec()).ok()? },
        "DISCARDED" => What::Discarded { reason: String::from_utf8(more.into_vec()).ok()? },
        _ => return None,
    };
    Some(Entry { at, generation, attempt, by, what })
}

/// What is left to be read.
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
