//! The journal seam: what remembers each delivery's state and history.
//!
//! The worker claims and settles; the operator reads. [`redis`] is the Redis side.

pub mod list;

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use zentra_core::clock::Timestamp;
use zentra_core::event::{Admitted, Context, DeliveryKey, Event, Identity};
use zentra_core::lifecycle::{Answer, DeadReason, Fingerprint, Outcome, Record};

/// Why the journal didn't do what was asked. Whether a command that failed took effect
/// is unknown: the same command may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Redis is away, or answered with an error.
    #[error("redis failed: {0}")]
    Unavailable(String),
    /// Redis answers, and takes no writes: it is full, a replica, or can't save.
    #[error("redis takes no writes: {0}")]
    NotWritable(String),
    /// The storage did not do it.
    #[error(transparent)]
    Storage(StorageError),
    /// A cursor that no page has given.
    #[error("there is no page {0}: a cursor is what the page before it gave")]
    NoSuchPage(String),
    /// Redis holds what no version of this software wrote.
    #[error("the journal holds something unreadable under {0}")]
    Unreadable(String),
}

/// A request for the claim of one message.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Whose claim.
    pub key: &'a DeliveryKey,
    /// The message's generation.
    pub generation: u32,
    /// The message's attempt.
    pub attempt: u32,
    /// How long the claim lasts, neither settled nor renewed.
    pub lease: Duration,
    /// Who asks.
    pub worker: &'a str,
    /// What the message has in common with its copies.
    pub fingerprint: &'a Fingerprint,
    /// What is kept of the event for the operator.
    pub summary: &'a Summary,
    /// How long the delivery is remembered after its last change, unless it is dead.
    pub retention: Duration,
}

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct Settle<'a> {
    /// Whose attempt.
    pub key: &'a DeliveryKey,
    /// As the claim gave it.
    pub fence: u64,
    /// The claimed generation.
    pub generation: u32,
    /// The claimed attempt.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Who made it.
    pub worker: &'a str,
    /// What the destination said.
    pub result: &'a AttemptResult,
    /// As for the claim, should that have been forgotten.
    pub fingerprint: &'a Fingerprint,
    /// Likewise.
    pub summary: &'a Summary,
    /// As for the claim.
    pub retention: Duration,
}

/// What is kept of an event: never its body, never a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Summary {
    /// The source.
    pub source: String,
    /// The scheme that verified it; empty if its seal was broken.
    pub provider: String,
    /// The name of the secret that fitted; empty if its seal was broken.
    pub verified_with: String,
    /// The provider's id.
    pub event_id: Option<String>,
    /// The provider's event type.
    pub event_type: Option<String>,
    /// When the ingress took it.
    pub received_at: Option<Timestamp>,
    /// The time that the provider signed.
    pub provider_time: Option<Timestamp>,
    /// SHA-256 of the body, in hex.
    pub body_sha256: String,
    /// The id of its trace (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How it came.
    #[serde(default)]
    pub context: Context,
    /// Who let it in, if it was refused at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
}

impl Summary {
    /// What is kept of an event whose seal opened, and of its print.
    pub fn of(event: &Event, fingerprint: &Fingerprint) -> Self {
        let envelope = &event.envelope;
        Self {
            source: envelope.source.clone(),
            provider: envelope.provider.clone(),
            verified_with: envelope.verified_with.clone(),
            event_id: envelope.event_id().map(str::to_owned),
            event_type: envelope.event_type.clone(),
            received_at: Some(envelope.received_at),
            provider_time: envelope.provider_time,
            body_sha256: hex::encode(fingerprint.body),
            trace: None,
            context: envelope.context.clone(),
            admitted: envelope.admitted.clone(),
        }
    }
}

/// What came of one attempt at the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptResult {
    /// How long it took.
    pub duration_ms: u64,
    /// The HTTP status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The start of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// What kind of failure it was, if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErrorClass {
    /// None within the destination's timeout.
    Timeout,
    /// Its name stands for no address.
    Dns,
    /// Its name stands for an address inside.
    PrivateAddress,
    /// Nobody took the connection.
    Connect,
    /// TLS failed: a certificate, most often.
    Tls,
    /// The connection broke, or what came was no HTTP.
    Protocol,
    /// The request couldn't be made.
    Request,
    /// A handler returned an error.
    Handler,
    /// A handler panicked.
    Panic,
    /// Workers went away with it, one after the other.
    Crash,
}

impl ErrorClass {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::PrivateAddress => "private_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Request => "request",
            Self::Handler => "handler",
            Self::Panic => "panic",
            Self::Crash => "crash",
        }
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// When, by the journal's own clock.
    pub at: Timestamp,
    /// The generation it speaks of.
    pub generation: u32,
    /// The attempt it speaks of.
    pub attempt: u32,
    /// The worker or operator who did it.
    pub by: String,
    /// What happened.
    #[serde(flatten)]
    pub what: HistoryEvent,
}

/// What a history's line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HistoryEvent {
    /// A worker took the claim; the attempt begins.
    Claimed {
        /// The claim's fence.
        fence: u64,
        /// The one before ran out unsettled: its worker crashed or hung.
        reclaimed: bool,
    },
    /// A message met a running claim and was set aside until past its lease.
    Busy,
    /// A copy of what is already delivered: no effect.
    Duplicate,
    /// A copy of what is in the dead-letter queue: no effect.
    DuplicateDead,
    /// A message that a newer attempt or generation has overtaken: no effect.
    Stale,
    /// Another body came under the same id: no effect on this delivery. Where the id isn't shown to
    /// name one event, a dead letter of its own holds it.
    Conflict {
        /// SHA-256 of that body, in hex.
        body_sha256: String,
    },
    /// The same signed bytes came under another unsigned id: no effect. They are kept as a
    /// dead letter of their own.
    Suspected {
        /// The delivery key of that dead letter.
        kept_as: String,
    },
    /// The destination took it.
    Delivered {
        /// Settled after its claim had passed to another worker.
        #[serde(default)]
        late: bool,
        /// What the destination said.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// The attempt failed; another one follows.
    Failed {
        /// When the next attempt is due.
        next_at: Timestamp,
        /// What the destination said.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// Given up.
    Dead {
        /// Why.
        reason: DeadReason,
        /// What the destination said at last.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// An attempt failed after its claim had passed to another worker: no effect.
    Superseded {
        /// What the destination said.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// An operator sent the dead letter back to the work queue.
    Requeued {
        /// Why, in the operator's words; empty if none were given.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The job that did it for him, and in which of its runs: `0a1b2c3d/1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
    },
    /// An operator had it run again, from the archive.
    Replayed {
        /// Why, in the operator's words; empty if none were given.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The job that did it for him, and in which of its runs: `0a1b2c3d/1`.
        job: String,
    },
    /// An operator took the dead letter out of the queue for good.
    Discarded {
        /// Why, in the operator's words.
        reason: String,
    },
    /// An operator let a suspected replay go on as an event of its own, or an attempt that waited be
    /// made at once.
    Released {
        /// Why, in the operator's words.
        reason: String,
    },
}

impl HistoryEvent {
    /// Whether an operator had it run again, in a new generation.
    pub fn sends_on(&self) -> bool {
        matches!(self, Self::Requeued { .. } | Self::Replayed { .. } | Self::Released { .. })
    }
}

/// All that is known of one delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivery {
    /// Which one.
    pub key: DeliveryKey,
    /// Where it stands.
    pub record: Record,
    /// Why it is dead, if it is.
    pub reason: Option<DeadReason>,
    /// The event.
    pub event: Summary,
    /// What happened so far, oldest first: the newest lines, up to 32 KiB as they are stored.
    pub history: Vec<Entry>,
}

/// Of what a journal remembers the first.
#[derive(Clone, Copy, Debug)]
pub enum First<'a> {
    /// The type that a source's identity came with.
    Type {
        /// The source's name.
        source: &'a str,
        /// Of the event.
        identity: &'a Identity,
    },
    /// The delivery key of a copy of these signed bytes that a destination set apart.
    Copy {
        /// Where it was set apart.
        destination: &'a str,
        /// The source's name.
        source: &'a str,
        /// Of the event.
        identity: &'a Identity,
        /// There are several of them.
        place: usize,
    },
    /// The identity of one of the callbacks with the same bytes that a destination takes in an hour.
    Repeat {
        /// Where it is delivered.
        destination: &'a str,
        /// The source's name.
        source: &'a str,
        /// [`Envelope::same_bytes`](zentra_core::event::Envelope::same_bytes).
        same_bytes: &'a Identity,
        /// There are several of them.
        place: usize,
    },
}

impl First<'_> {
    /// The kind, and a name of its own within it.
    pub fn name(&self) -> (&'static str, String) {
        match self {
            Self::Type { source, identity } => ("type", format!("{source}/{}", identity.as_str())),
            Self::Copy { destination, source, identity, place } => {
                ("copy", format!("{place}/{destination}/{source}/{}", identity.as_str()))
            }
            Self::Repeat { destination, source, same_bytes, place } => {
                ("repeat", format!("{place}/{destination}/{source}/{}", same_bytes.as_str()))
            }
        }
    }
}

/// What a worker needs. Each call is atomic, and may be repeated.
pub trait Journal: Clone + Send + Sync + 'static {
    /// Asks to run an attempt. Whatever the answer, it is in the history.
    fn claim(&self, claim: &Claim<'_>)
    -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// What is remembered of a delivery.
    fn known(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Option<Delivery>, JournalError>> + Send;

    /// What came first of this: `value`, if nothing is remembered. It is remembered for `retention`.
    fn first(
        &self,
        of: First<'_>,
        value: &str,
        retention: Duration,
    ) -> impl Future<Output = Result<String, JournalError>> + Send;

    /// Makes the claim of a running attempt last `lease` from now. [`Answer::Lost`] if it
    /// has passed to another worker.
    fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// Says how an attempt ended.
    fn settle(
        &self,
        settle: &Settle<'_>,
    ) -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// When the destination's oldest dead delivery was given up.
    fn oldest_dead(
        &self,
        destination: &str,
    ) -> impl Future<Output = Result<Option<Timestamp>, JournalError>> + Send;

    /// Lets go of what lists nothing any more: `retention` is the longest that any delivery is
    /// remembered after its last change. To be called now and then.
    fn tidy(&self, retention: Duration) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Whether it takes claims: it answers, and can be written to.
    fn ready(&self) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// Bytes of a history: its newest lines are kept.
pub const HISTORY: usize = 32 * 1024;
/// Copies without effect are listed up to half of it, so that a flood of them neither hides
/// what happened nor costs more than a look.
pub const COPIES: usize = HISTORY / 2;

/// A delivery and how long it is remembered, when a deployment moves from one journal to
/// another.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The delivery.
    pub delivery: Delivery,
    /// When it was given up, while it is dead and not discarded.
    pub dead: Option<Timestamp>,
    /// When it is forgotten; none: kept.
    pub until: Option<Timestamp>,
}

/// The delivery keys that an operator may mean: an identity at these pairs of destination and
/// source, or a key itself.
pub fn named(id: &str, pairs: &[(&str, &str)]) -> Vec<DeliveryKey> {
    let of = |(destination, source): &(&str, &str)| {
        DeliveryKey::new(destination, source, &Identity::from_text(id))
    };
    pairs.iter().map(of).chain(DeliveryKey::parse(id)).collect()
}

/// What the operator needs.
pub trait DeliveryStore: Send + Sync + 'static {
    /// The deliveries of an event: by the provider's id, by its identity, or by a
    /// delivery key itself. An identity is looked for at these pairs of destination and
    /// source.
    fn find(
        &self,
        id: &str,
        pairs: &[(&str, &str)],
    ) -> impl Future<Output = Result<Vec<DeliveryKey>, JournalError>> + Send;

    /// Why claims are refused now, as far as that can be told without a write: nothing is delivered
    /// then.
    fn refuses_claims(&self) -> impl Future<Output = Result<Option<String>, JournalError>> + Send;

    /// One delivery, with its history.
    fn history(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Option<Delivery>, JournalError>> + Send;

    /// A page of what is remembered and wanted, newest first, of at most `limit`; `after` is the
    /// [`list::Page::next`] of the page before. What has been dead for longer than all else is
    /// remembered isn't among it: see [`DeliveryStore::dead`].
    fn list(
        &self,
        query: &list::Query,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<list::Page, JournalError>> + Send;

    /// A destination's dead deliveries that are wanted, oldest first, at most `limit`.
    fn dead(
        &self,
        destination: &str,
        limit: usize,
        wanted: &(dyn Fn(&Delivery) -> bool + Sync),
    ) -> impl Future<Output = Result<Vec<Delivery>, JournalError>> + Send;

    /// Has a delivered one wait for one more run, and notes it: the new generation. None if it isn't
    /// delivered.
    fn reopen(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> impl Future<Output = Result<Option<u32>, JournalError>> + Send;

    /// Notes what an operator does with a dead delivery: re-queues, replays or releases it, as this
    /// generation, or discards it. `false` if the journal knows no such delivery.
    fn note(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
        what: &HistoryEvent,
    ) -> impl Future<Output = Result<bool, JournalError>> + Send;
}
