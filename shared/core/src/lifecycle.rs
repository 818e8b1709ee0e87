//! The life of one delivery as a pure function: no I/O, no clock, no randomness.
//!
//! A delivery is one event on its way to one destination. Its record changes only by
//! [`step`]; the Redis scripts say the same in Lua and are checked against it.
//!
//! ```text
//!           claim             delivered
//! (absent) ───────▶ in_flight ─────────▶ delivered   absorbing: later copies have no effect
//!                    │  ▲   │ failed, attempts left
//!    lease expired ──┘  │   └────────▶ waiting ──claim──▶ in_flight (next attempt)
//!    (crash): claim     │ failed for good
//!    with a new fence   └────────────▶ dead ──claim of a newer generation──▶ in_flight
//! ```
//!
//! An operator who forces a replay makes a delivered one wait for an attempt of a newer generation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, millis};

/// State of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker holds the claim until the lease ends.
    InFlight,
    /// An attempt failed; the next one is queued with a delay.
    Waiting,
    /// The destination accepted it. Absorbing, unless an operator forces a replay.
    Delivered,
    /// A dead letter, until an operator acts.
    Dead,
}

/// Why a delivery became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The last attempt of the retry policy failed.
    Exhausted,
    /// The destination answered with a permanent status.
    Permanent,
    /// The event is older than the retry policy's `max_age`.
    TooOld,
    /// The seal is invalid: the message was forged or altered on the broker.
    SealBroken,
    /// The message has no readable Zentra envelope.
    NotOurs,
    /// The same signed bytes as another event, under another unsigned id: perhaps a replay by
    /// somebody who saw it. An operator can release it.
    SuspectedReplay,
    /// Another body under a known id that isn't shown to name one event. An operator can release
    /// it.
    Conflict,
    /// Several workers crashed with it: too many claims of one attempt expired, or the broker's
    /// delivery limit was reached. Only the dead-letter queue knows of the latter.
    Crashed,
    /// An operator ended its retries.
    Ended,
    /// Its destination doesn't subscribe to it, and no holder of a seal key sent it there.
    NotSubscribed,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Exhausted,
        Self::Permanent,
        Self::TooOld,
        Self::SealBroken,
        Self::NotOurs,
        Self::SuspectedReplay,
        Self::Conflict,
        Self::Crashed,
        Self::Ended,
        Self::NotSubscribed,
    ];

    /// Whether it is released instead of requeued.
    pub fn is_released(self) -> bool {
        matches!(self, Self::SuspectedReplay | Self::Conflict)
    }

    /// The reason with this stable name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The stable name, as in history, metrics and CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::TooOld => "too_old",
            Self::SealBroken => "seal_broken",
            Self::NotOurs => "not_ours",
            Self::SuspectedReplay => "suspected_replay",
            Self::Conflict => "conflict",
            Self::Crashed => "crashed",
            Self::Ended => "ended",
            Self::NotSubscribed => "not_subscribed",
        }
    }
}

/// What copies of one callback have in common. Messages under one delivery key are compared by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// SHA-256 of the body, or [`Fingerprint::UNKNOWN`].
    pub body: [u8; 32],
    /// The start of the SHA-256 of the provider's unsigned id, if it sent one.
    pub id: Option<[u8; 8]>,
}

impl Fingerprint {
    /// The fingerprint of an event that was created from a provider's list: the callback can have
    /// other bytes.
    pub const UNKNOWN: [u8; 32] = [0; 32];

    /// Whether the bodies differ.
    fn conflicts(&self, other: &Self) -> bool {
        let known = [self.body, other.body].iter().all(|body| *body != Self::UNKNOWN);
        known && self.body != other.body
    }
}

/// State of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// State.
    pub state: State,
    /// Number of requeues, replays and releases; 0 at first.
    pub generation: u32,
    /// In flight: the running attempt. Waiting: the next one. From 1.
    pub attempt: u32,
    /// In flight: earlier claims of this attempt that expired, up to 255.
    pub expired: u8,
    /// Grows with each claim. A settlement with an older one changes nothing.
    pub fence: u64,
    /// In flight: end of the lease. Waiting: time of the next attempt. Otherwise zero.
    pub until: Timestamp,
    /// Fingerprint of the message that was claimed first.
    #[serde(skip)]
    pub fingerprint: Fingerprint,
}

/// What can happen to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A worker with a message of this generation and attempt requests the claim.
    Claim {
        /// The message's generation.
        generation: u32,
        /// The message's attempt.
        attempt: u32,
        /// Duration of the claim, unless it is settled or renewed.
        lease: Duration,
        /// Fingerprint of the message.
        fingerprint: Fingerprint,
    },
    /// A worker whose attempt still runs extends its claim.
    Renew {
        /// Fence of the claim.
        fence: u64,
        /// Duration of the claim from now.
        lease: Duration,
    },
    /// A worker stores the outcome of the attempt that it claimed under `fence`.
    Settle {
        /// Fence of the claim.
        fence: u64,
        /// The claimed generation.
        generation: u32,
        /// The claimed attempt.
        attempt: u32,
        /// Outcome.
        outcome: Outcome,
        /// Fingerprint of the message, if the claim was forgotten.
        fingerprint: Fingerprint,
    },
    /// An operator opens a delivered event for another run.
    Reopen,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination accepted it.
    Delivered,
    /// It failed, and the next attempt is queued (confirmed).
    Retry {
        /// Time of the next attempt.
        next_at: Timestamp,
    },
    /// It failed finally, and the dead letter is confirmed.
    Dead(DeadReason),
}

impl Outcome {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Dead(_) => "dead",
        }
    }
}

/// Answer of [`step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Make the attempt, and settle with this fence.
    Claimed {
        /// Fence for the settlement.
        fence: u64,
        /// Number of earlier claims of this attempt that expired, up to 255: their workers crashed.
        expired: u8,
    },
    /// Another worker has the claim. Defer the message until after the lease; never drop it.
    Busy {
        /// Time until the lease ends; at least one millisecond.
        remaining: Duration,
    },
    /// Already delivered: the message is a copy, without effect.
    Done,
    /// Dead at this generation: the dead-letter queue has it.
    Dead,
    /// The message is of an older generation or attempt; a newer one continues.
    Stale,
    /// Another body under the same id: no effect.
    Conflict,
    /// The same signed bytes under another unsigned id: no effect under this key. The message
    /// becomes a dead letter of its own.
    Suspected,
    /// The claim was extended.
    Renewed,
    /// Another worker has the claim.
    Lost,
    /// The settlement took effect.
    Settled,
    /// Delivered under an old fence: the effect happened, so it counts.
    SettledLate,
    /// The settlement was too late and changed nothing.
    Superseded,
    /// It waits for the first attempt of a new generation.
    Reopened {
        /// The new generation.
        generation: u32,
    },
    /// It isn't delivered, so it can't be opened.
    NotDelivered,
}

impl Answer {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Busy { .. } => "busy",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::Suspected => "suspected",
            Self::Renewed => "renewed",
            Self::Lost => "lost",
            Self::Settled => "settled",
            Self::SettledLate => "settled_late",
            Self::Superseded => "superseded",
            Self::Reopened { .. } => "reopened",
            Self::NotDelivered => "not_delivered",
        }
    }
}

/// One transition: the new record and the answer. `None` is an unknown delivery, also one that was
/// forgotten: the next claim starts again.
pub fn step(record: Option<&Record>, event: &Input, now: Timestamp) -> (Option<Record>, Answer) {
    match *event {
        Input::Claim { generation, attempt, lease, fingerprint } => {
            claim(record, generation, attempt, lease, fingerprint, now)
        }
        Input::Renew { fence, lease } => renew(record, fence, lease, now),
        Input::Settle { fence, generation, attempt, outcome, fingerprint } => {
            settle(record, fence, generation, attempt, outcome, fingerprint)
        }
        Input::Reopen => reopen(record, now),
    }
}

fn claim(
    record: Option<&Record>,
    generation: u32,
    attempt: u32,
    lease: Duration,
    fingerprint: Fingerprint,
    now: Timestamp,
) -> (Option<Record>, Answer) {
    let refuse = |answer| (record.cloned(), answer);
    let mut expired = 0;
    if let Some(known) = record {
        // First of all: a message that is no copy of the first one is not one of its attempts.
        match (known.fingerprint.id, fingerprint.id) {
            (Some(first), Some(this)) if first != this => return refuse(Answer::Suspected),
            _ if known.fingerprint.conflicts(&fingerprint) => return refuse(Answer::Conflict),
            _ => {}
        }
        let older = (generation, attempt) < (known.generation, known.attempt);
        match known.state {
            State::Delivered => return refuse(Answer::Done),
            State::Dead if generation == known.generation => return refuse(Answer::Dead),
            _ if older => return refuse(Answer::Stale),
            State::InFlight if now < known.until => {
                let remaining = known.until.since(now);
                return refuse(Answer::Busy { remaining });
            }
            State::InFlight if (generation, attempt) == (known.generation, known.attempt) => {
                expired = known.expired.saturating_add(1);
            }
            State::InFlight | State::Waiting | State::Dead => {}
        }
    }
    // From the clock, so that it grows even if the record was lost.
    let fence = record.map_or(0, |known| known.fence + 1).max(now.millis());
    let next = Record {
        state: State::InFlight,
        generation,
        attempt,
        expired,
        fence,
        until: end(lease, now),
        fingerprint: record.map_or(fingerprint, |known| known.fingerprint),
    };
    (Some(next), Answer::Claimed { fence, expired })
}

fn end(lease: Duration, now: Timestamp) -> Timestamp {
    now.plus(Duration::from_millis(millis(lease).max(1)))
}

/// The next claim gets another fence, so an expired claim that nobody took can be renewed too.
fn renew(
    record: Option<&Record>,
    fence: u64,
    lease: Duration,
    now: Timestamp,
) -> (Option<Record>, Answer) {
    match record {
        Some(known) if known.state == State::InFlight && known.fence == fence => {
            let until = known.until.max(end(lease, now));
            (Some(Record { until, ..known.clone() }), Answer::Renewed)
        }
        _ => (record.cloned(), Answer::Lost),
    }
}

fn settle(
    record: Option<&Record>,
    fence: u64,
    generation: u32,
    attempt: u32,
    outcome: Outcome,
    fingerprint: Fingerprint,
) -> (Option<Record>, Answer) {
    let fingerprint = record.map_or(fingerprint, |known| known.fingerprint);
    let current =
        record.is_some_and(|known| known.state == State::InFlight && known.fence == fence);
    let ended = |state, attempt, until| {
        Some(Record { state, generation, attempt, expired: 0, fence, until, fingerprint })
    };
    let zero = Timestamp::default();
    if record.is_some_and(|known| settled_so(known, fence, attempt, outcome)) {
        return (record.cloned(), Answer::Settled);
    }
    match outcome {
        Outcome::Delivered if current => (ended(State::Delivered, attempt, zero), Answer::Settled),
        Outcome::Delivered => {
            // A late success is a success. It never lowers the fence.
            let next = match record {
                Some(known) => Some(Record {
                    state: State::Delivered,
                    expired: 0,
                    until: zero,
                    ..known.clone()
                }),
                None => ended(State::Delivered, attempt, zero),
            };
            (next, Answer::SettledLate)
        }
        _ if !current => (record.cloned(), Answer::Superseded),
        Outcome::Retry { next_at } => {
            let next = attempt.saturating_add(1);
            (ended(State::Waiting, next, next_at), Answer::Settled)
        }
        Outcome::Dead(_) => (ended(State::Dead, attempt, zero), Answer::Settled),
    }
}

/// The fence stays; the next claim's is greater.
fn reopen(record: Option<&Record>, now: Timestamp) -> (Option<Record>, Answer) {
    match record {
        Some(known) if known.state == State::Delivered => {
            let generation = known.generation.saturating_add(1);
            let (state, attempt, until) = (State::Waiting, 1, now);
            let next = Record { state, generation, attempt, until, ..known.clone() };
            (Some(next), Answer::Reopened { generation })
        }
        _ => (record.cloned(), Answer::NotDelivered),
    }
}

/// Whether the record already has this settlement: it was sent twice, because the first answer was
/// lost.
fn settled_so(known: &Record, fence: u64, attempt: u32, outcome: Outcome) -> bool {
    let (state, attempt) = match outcome {
        Outcome::Delivered => (State::Delivered, attempt),
        Outcome::Retry { .. } => (State::Waiting, attempt.saturating_add(1)),
        Outcome::Dead(_) => (State::Dead, attempt),
    };
    (known.fence, known.state, known.attempt) == (fence, state, attempt)
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
