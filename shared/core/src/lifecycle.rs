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

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum State {
    /// A worker holds the claim until the lease ends.
    InFlight,
    /// An attempt failed; the next one is queued with a delay.
    Waiting,
    /// The destination took it. Absorbing, unless an operator forces a replay.
    Delivered,
    /// Given up; in the dead-letter queue until an operator re-queues it.
    Dead,
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeadReason {
    /// The last attempt allowed by the retry policy failed.
    Exhausted,
    /// The destination answered with a status that no retry can change.
    Permanent,
    /// The event is older than the retry policy's `max_age`.
    TooOld,
    /// The seal doesn't fit the message: forged or altered on the broker.
    SealBroken,
    /// The message carries no Zentra envelope that can be read.
    NotOurs,
    /// The same signed bytes as another event's, under another unsigned id: perhaps one
    /// that somebody has seen and sent again. An operator can release it.
    SuspectedReplay,
    /// Another body than that of the event that came first under the same id, which isn't shown to
    /// name one event. An operator can release it.
    Conflict,
    /// Worker after worker went away with it: too many claims of one attempt ran out, or the
    /// broker has seen it come back too often. Of the latter only the dead-letter queue knows.
    Crashed,
    /// An operator ended its retries.
    Ended,
    /// Its destination doesn't subscribe to it, and nobody who holds a seal key sent it there.
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

    /// Whether it waits for an operator's decision: it is released, not requeued.
    pub fn is_released(self) -> bool {
        matches!(self, Self::SuspectedReplay | Self::Conflict)
    }

    /// The one of this stable name.
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

/// What tells whether two messages under one delivery key are copies of one callback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// SHA-256 of the body, or [`Fingerprint::UNKNOWN`].
    pub body: [u8; 32],
    /// The start of the SHA-256 of the provider's unsigned id, if it sent one.
    pub id: Option<[u8; 8]>,
}

impl Fingerprint {
    /// Of an event that was made from a provider's list: the callback may have other bytes.
    pub const UNKNOWN: [u8; 32] = [0; 32];

    /// Whether it is of another body than this one's.
    fn conflicts(&self, other: &Self) -> bool {
        let known = [self.body, other.body].iter().all(|body| *body != Self::UNKNOWN);
        known && self.body != other.body
    }
}

/// What is remembered of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Record {
    /// Where it stands.
    pub state: State,
    /// Grows by one with each re-queue by an operator; 0 at first.
    pub generation: u32,
    /// In flight: the running attempt. Waiting: the next one. From 1.
    pub attempt: u32,
    /// In flight: earlier claims of this attempt that ran out unsettled, up to 255.
    pub expired: u8,
    /// Grows with each claim; a settle with an older one changes nothing.
    pub fence: u64,
    /// In flight: the lease's end. Waiting: the next attempt's time. Else zero.
    pub until: Timestamp,
    /// Of the message that was claimed first.
    #[serde(skip)]
    pub fingerprint: Fingerprint,
}

/// What can happen to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker holds a message of this generation and attempt and asks to run it.
    Claim {
        /// The message's generation.
        generation: u32,
        /// The message's attempt.
        attempt: u32,
        /// How long the claim lasts if nobody settles or renews it.
        lease: Duration,
        /// The message's.
        fingerprint: Fingerprint,
    },
    /// A worker whose attempt still runs asks for more time.
    Renew {
        /// The fence that the claim gave.
        fence: u64,
        /// How long the claim lasts from now.
        lease: Duration,
    },
    /// A worker says how the attempt that it claimed under `fence` ended.
    Settle {
        /// The fence that the claim gave.
        fence: u64,
        /// The claimed generation.
        generation: u32,
        /// The claimed attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// The message's, should the claim have been forgotten.
        fingerprint: Fingerprint,
    },
    /// An operator has a delivered event run once more.
    Reopen,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took it.
    Delivered,
    /// It failed, and the next attempt is queued (and confirmed) for this time.
    Retry {
        /// When the next attempt is due.
        next_at: Timestamp,
    },
    /// It failed for good, and the dead letter is confirmed.
    Dead(DeadReason),
}

/// What [`step`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Run it, and settle with this fence.
    Claimed {
        /// For the settle.
        fence: u64,
        /// So many earlier claims of this attempt ran out unsettled, their workers having
        /// crashed; up to 255.
        expired: u8,
    },
    /// Another worker holds the claim. Never drop the message: park it past the lease.
    Busy {
        /// Until the lease ends; at least one millisecond.
        remaining: Duration,
    },
    /// Already delivered: the message is a copy, without effect.
    Done,
    /// Given up at this generation: the dead-letter queue holds it.
    Dead,
    /// The message is of an older generation or attempt: a newer one carries on.
    Stale,
    /// The same id with another body: the first one counts, this one has no effect.
    Conflict,
    /// The same signed bytes under another unsigned id: no effect under this key. The
    /// message is kept as a dead letter of its own.
    Suspected,
    /// The claim lasts longer now.
    Renewed,
    /// The claim isn't this worker's any more.
    Lost,
    /// The settle took effect.
    Settled,
    /// Delivered, though under an old fence: the effect happened, so it counts.
    SettledLate,
    /// The settle came too late and changed nothing.
    Superseded,
    /// It waits for the first attempt of this generation.
    Reopened {
        /// The new one.
        generation: u32,
    },
    /// It isn't delivered, so there is nothing to run once more.
    NotDelivered,
}

/// One transition: the record after it, and the answer. `None` is a delivery that
/// nobody has heard of (also one whose memory was lost: the next claim starts anew).
pub fn step(record: Option<&Record>, event: &Event, now: Timestamp) -> (Option<Record>, Answer) {
    match *event {
        Event::Claim { generation, attempt, lease, fingerprint } => {
            claim(record, generation, attempt, lease, fingerprint, now)
        }
        Event::Renew { fence, lease } => renew(record, fence, lease, now),
        Event::Settle { fence, generation, attempt, outcome, fingerprint } => {
            settle(record, fence, generation, attempt, outcome, fingerprint)
        }
        Event::Reopen => reopen(record, now),
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
        // Before all else: what is no copy of the first is none of its attempts either.
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
    // From the clock, so that it keeps growing when the memory was lost.
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

/// Whoever claims next gets another fence, so a claim that has run out unnoticed can be
/// renewed as well.
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
            // A late success is still a success. It never lowers the fence.
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

/// The fence stays: the next claim's is greater.
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

/// Whether a record is already what this settle makes of it: the settle was sent twice,
/// because the first answer got lost.
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
