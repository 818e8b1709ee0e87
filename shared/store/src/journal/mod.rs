//! The delivery store: it remembers the state and history of each delivery. Workers use
//! [`Journal`], operators [`DeliveryStore`].

pub mod list;

use std::future::Future;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::storage::StorageError;
use zentra_core::clock::Timestamp;
use zentra_core::event::{Admitted, Context, DeliveryKey, Event, Identity};
use zentra_core::lifecycle::{Answer, DeadReason, Fingerprint, Outcome, Record, State};

/// Errors of the delivery store. It is unknown whether a failed command took effect; the same
/// command may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The store is unreachable, or answered with an error.
    #[error("Redis failed: {0}")]
    Unavailable(String),
    /// The store answers, but takes no writes: it is full, a replica, or can't save.
    #[error("Redis accepts no writes: {0}")]
    NotWritable(String),
    /// The store refuses this program or cannot be verified. A retry helps only after the
    /// configuration or the store's settings have changed.
    #[error("Redis cannot be used: {0}")]
    Unusable(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// An invalid cursor.
    #[error("there is no page {0}: use the cursor that the previous page returned")]
    NoSuchPage(String),
    /// The store has data that no version of this software wrote.
    #[error("the delivery store has an unreadable entry under {0}")]
    Unreadable(String),
    /// A newer version of this software wrote it.
    #[error(
        "a newer version of Zentra wrote {what} (form {version}; this one reads up to {newest}): upgrade this one"
    )]
    Newer {
        /// What it is, such as `job 0a1b`.
        what: String,
        /// Version of its form, or a lower bound of it.
        version: u16,
        /// The newest form that this program reads.
        newest: u16,
    },
}

/// A request for the claim of one message.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Key of the delivery.
    pub key: &'a DeliveryKey,
    /// The message's generation.
    pub generation: u32,
    /// The message's attempt.
    pub attempt: u32,
    /// Duration of the claim, unless it is settled or renewed.
    pub lease: Duration,
    /// Name of the worker.
    pub worker: &'a str,
    /// Fingerprint of the message.
    pub fingerprint: &'a Fingerprint,
    /// What histories show of the event.
    pub summary: &'a Summary,
    /// How long the delivery is remembered after its last change, unless it is dead.
    pub retention: Duration,
}

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct Settle<'a> {
    /// Key of the delivery.
    pub key: &'a DeliveryKey,
    /// Fence of the claim.
    pub fence: u64,
    /// The claimed generation.
    pub generation: u32,
    /// The claimed attempt.
    pub attempt: u32,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Name of the worker.
    pub worker: &'a str,
    /// Result of the attempt.
    pub result: &'a AttemptResult,
    /// As in the claim, if the store has forgotten the delivery.
    pub fingerprint: &'a Fingerprint,
    /// As in the claim, if the store has forgotten the delivery.
    pub summary: &'a Summary,
    /// As in the claim.
    pub retention: Duration,
}

/// What histories show of an event. Never its body, never a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the source.
    pub source: String,
    /// Provider; empty if the seal was invalid.
    pub provider: String,
    /// Name of the secret that verified it; empty if the seal was invalid.
    pub verified_with: String,
    /// The provider's event id.
    pub event_id: Option<String>,
    /// The provider's event type.
    pub event_type: Option<String>,
    /// Time of receipt by the ingress.
    pub received_at: Option<Timestamp>,
    /// The time that the provider signed.
    pub provider_time: Option<Timestamp>,
    /// SHA-256 of the body, in hex.
    pub body_sha256: String,
    /// Trace id (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Context of the callback.
    #[serde(default)]
    pub context: Context,
    /// Who admitted it, if it was refused first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
}

impl Summary {
    /// The summary of an event whose seal is valid.
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

/// Result of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptResult {
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// HTTP status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The start of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// Class of the failure, if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// No answer within the destination's timeout.
    Timeout,
    /// The host name doesn't resolve.
    Dns,
    /// The host name resolves to a private address.
    PrivateAddress,
    /// The connection failed.
    Connect,
    /// TLS failed, most often because of a certificate.
    Tls,
    /// The connection broke, or the answer was not HTTP.
    Protocol,
    /// The request is invalid.
    Request,
    /// The handler returned an error.
    Handler,
    /// The handler panicked.
    Panic,
    /// Several workers crashed with it.
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

/// One entry of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Time, by the store's clock.
    pub at: Timestamp,
    /// Generation.
    pub generation: u32,
    /// Attempt.
    pub attempt: u32,
    /// Worker or operator.
    pub by: String,
    /// What happened.
    #[serde(flatten)]
    pub what: HistoryEvent,
}

/// What an entry of a history reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum HistoryEvent {
    /// A worker has the claim; the attempt starts.
    Claimed {
        /// Fence of the claim.
        fence: u64,
        /// Whether the previous claim expired unsettled: its worker crashed or hung.
        reclaimed: bool,
    },
    /// The message met a running claim and was deferred until after its lease.
    Busy,
    /// A copy of what is already delivered: no effect.
    Duplicate,
    /// A copy of what is in the dead-letter queue: no effect.
    DuplicateDead,
    /// A message that a newer attempt or generation has overtaken: no effect.
    Stale,
    /// Another body under the same id: no effect on this delivery. Unless the id is shown to name
    /// one event, it is a dead letter of its own.
    Conflict {
        /// SHA-256 of that body, in hex.
        body_sha256: String,
    },
    /// The same signed bytes under another unsigned id: no effect. It is a dead letter of its own.
    Suspected {
        /// Delivery key of that dead letter.
        kept_as: String,
    },
    /// The destination accepted it.
    Delivered {
        /// Whether another worker had the claim by then.
        #[serde(default)]
        late: bool,
        /// Result of the attempt.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// The attempt failed; another one follows.
    Failed {
        /// Time of the next attempt.
        next_at: Timestamp,
        /// Result of the attempt.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// It became a dead letter.
    Dead {
        /// Reason.
        reason: DeadReason,
        /// Result of the last attempt.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// An attempt failed after another worker had the claim: no effect.
    Superseded {
        /// Result of the attempt.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// An operator requeued the dead letter.
    Requeued {
        /// Reason; empty if none was given.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The job and its run: `0a1b2c3d/1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
    },
    /// An operator replayed it from the archive.
    Replayed {
        /// Reason; empty if none was given.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The job and its run: `0a1b2c3d/1`.
        job: String,
    },
    /// An operator drained the dead letter.
    Discarded {
        /// Reason.
        reason: String,
    },
    /// An operator released a suspected replay or a conflict, or had a waiting attempt made at
    /// once.
    Released {
        /// Reason.
        reason: String,
    },
    /// A newer version of Zentra wrote this line, and this one cannot read it.
    #[serde(other)]
    Newer,
}

impl HistoryEvent {
    /// Whether an operator started a new generation.
    pub fn sends_on(&self) -> bool {
        matches!(self, Self::Requeued { .. } | Self::Replayed { .. } | Self::Released { .. })
    }
}

/// One delivery, with its history. Serialized for operators, also with its [`Delivery::error`].
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Key.
    pub key: DeliveryKey,
    /// State.
    pub record: Record,
    /// Dead-letter reason, if it is dead.
    pub reason: Option<DeadReason>,
    /// The event.
    pub event: Summary,
    /// History, oldest first: the newest entries, up to 32 KiB as stored.
    pub history: Vec<Entry>,
}

impl Serialize for Delivery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { key, record, reason, event, history } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", key)?;
        map.serialize_entry("record", record)?;
        map.serialize_entry("reason", reason)?;
        if let Some(error) = self.error() {
            map.serialize_entry("error", &error)?;
        }
        map.serialize_entry("event", event)?;
        map.serialize_entry("history", history)?;
        map.end()
    }
}

impl Delivery {
    /// What made it a dead letter: `answered 503`, or the error of its last attempt. `None` if it
    /// is not dead, or was not attempted.
    pub fn error(&self) -> Option<String> {
        let last = self.history.iter().rev().find_map(|entry| match &entry.what {
            HistoryEvent::Dead { result, .. } => Some(result),
            _ => None,
        });
        let last = last.filter(|_| self.record.state == State::Dead)?;
        last.status.map(|status| format!("answered {status}")).or_else(|| last.error.clone())
    }

    /// Whether this job has requeued or replayed it.
    pub fn is_touched_by(&self, job: &str) -> bool {
        self.history.iter().any(|entry| match &entry.what {
            HistoryEvent::Requeued { job: Some(run), .. }
            | HistoryEvent::Replayed { job: run, .. } => run.split('/').next() == Some(job),
            _ => false,
        })
    }
}

/// Facts of which the store remembers the first one.
#[derive(Clone, Copy, Debug)]
pub enum First<'a> {
    /// The event type of a source's identity.
    Type {
        /// The source's name.
        source: &'a str,
        /// Identity of the event.
        identity: &'a Identity,
    },
    /// The delivery key of a copy of these signed bytes that was set apart at a destination.
    Copy {
        /// Name of the destination.
        destination: &'a str,
        /// The source's name.
        source: &'a str,
        /// Identity of the event.
        identity: &'a Identity,
        /// Number of the place; several are remembered.
        place: usize,
    },
    /// The identity of a callback with the same bytes that a destination receives within an hour.
    Repeat {
        /// Name of the destination.
        destination: &'a str,
        /// The source's name.
        source: &'a str,
        /// [`Envelope::same_bytes`](zentra_core::event::Envelope::same_bytes).
        same_bytes: &'a Identity,
        /// Number of the place; several are remembered.
        place: usize,
    },
    /// How a consumer's lease ended without success.
    Lease {
        /// Key of the delivery.
        key: &'a DeliveryKey,
        /// Fence of the claim.
        fence: u64,
    },
}

impl First<'_> {
    /// The kind, and a unique name within it.
    pub fn name(&self) -> (&'static str, String) {
        match self {
            Self::Type { source, identity } => ("type", format!("{source}/{}", identity.as_str())),
            Self::Copy { destination, source, identity, place } => {
                ("copy", format!("{place}/{destination}/{source}/{}", identity.as_str()))
            }
            Self::Repeat { destination, source, same_bytes, place } => {
                ("repeat", format!("{place}/{destination}/{source}/{}", same_bytes.as_str()))
            }
            Self::Lease { key, fence } => ("lease", format!("{fence}/{}", key.as_str())),
        }
    }
}

/// What a worker uses. Each call is atomic and can be repeated.
pub trait Journal: Clone + Send + Sync + 'static {
    /// The attribute `db.system.name` of spans, such as `redis`.
    const SYSTEM: &'static str;

    /// Requests the claim of an attempt. The answer is in the history.
    fn claim(&self, claim: &Claim<'_>)
    -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// A delivery, if it is remembered.
    fn known(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Option<Delivery>, JournalError>> + Send;

    /// The first value of this fact: `value`, if none is remembered. It is remembered for
    /// `retention`.
    fn first(
        &self,
        of: First<'_>,
        value: &str,
        retention: Duration,
    ) -> impl Future<Output = Result<String, JournalError>> + Send;

    /// Extends a claim to `lease` from now. [`Answer::Lost`] if another worker has it.
    fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// Stores the outcome of an attempt.
    fn settle(
        &self,
        settle: &Settle<'_>,
    ) -> impl Future<Output = Result<Answer, JournalError>> + Send;

    /// When the destination's oldest dead delivery became dead.
    fn oldest_dead(
        &self,
        destination: &str,
    ) -> impl Future<Output = Result<Option<Timestamp>, JournalError>> + Send;

    /// Removes expired entries of the lists. `retention` is the longest one of all sources. Called
    /// periodically.
    fn tidy(&self, retention: Duration) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Whether the store answers and takes writes.
    fn ready(&self) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// How full the store is. `None` if it does not say.
    fn usage(&self) -> impl Future<Output = Result<Option<Usage>, JournalError>> + Send {
        async { Ok(None) }
    }
}

/// How full a store is; of several servers, the fullest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Used memory in bytes.
    pub used: u64,
    /// Maximum of it in bytes; 0: none.
    pub max: u64,
    /// Number of keys that all servers have evicted since their starts.
    pub evicted: u64,
}

/// Maximum size of a history in bytes: its newest entries are kept.
pub const HISTORY: usize = 32 * 1024;
/// Maximum size of entries about copies, so that a flood of copies doesn't hide what happened.
pub const COPIES: usize = HISTORY / 2;

/// A delivery and how long it is remembered, for a migration between stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The delivery.
    pub delivery: Delivery,
    /// When it became dead, while it is dead and not drained.
    pub dead: Option<Timestamp>,
    /// When it is forgotten; `None`: never.
    pub until: Option<Timestamp>,
}

/// The delivery keys that an id can mean: an identity at these pairs of destination and source, or
/// a key itself.
pub fn named(id: &str, pairs: &[(&str, &str)]) -> Vec<DeliveryKey> {
    let of = |(destination, source): &(&str, &str)| {
        DeliveryKey::new(destination, source, &Identity::from_text(id))
    };
    pairs.iter().map(of).chain(DeliveryKey::parse(id)).collect()
}

/// What operators use.
pub trait DeliveryStore: Send + Sync + 'static {
    /// The deliveries of an event, by the provider's id, its identity or a delivery key. An
    /// identity is searched at these pairs of destination and source.
    fn find(
        &self,
        id: &str,
        pairs: &[(&str, &str)],
    ) -> impl Future<Output = Result<Vec<DeliveryKey>, JournalError>> + Send;

    /// Why claims are refused now, as far as reads show it.
    fn refuses_claims(&self) -> impl Future<Output = Result<Option<String>, JournalError>> + Send;

    /// One delivery, with its history.
    fn history(
        &self,
        key: &DeliveryKey,
    ) -> impl Future<Output = Result<Option<Delivery>, JournalError>> + Send;

    /// A page of matching deliveries, newest first, at most `limit`. `after` is the
    /// [`list::Page::next`] of the previous page. Deliveries that are dead for longer than the
    /// retention are only in [`DeliveryStore::dead`].
    fn list(
        &self,
        query: &list::Query,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<list::Page, JournalError>> + Send;

    /// A destination's matching dead deliveries, oldest first, at most `limit`.
    fn dead(
        &self,
        destination: &str,
        limit: usize,
        wanted: &(dyn Fn(&Delivery) -> bool + Sync),
    ) -> impl Future<Output = Result<Vec<Delivery>, JournalError>> + Send;

    /// Opens a delivered one for another run, and returns the new generation. `None` if it isn't
    /// delivered.
    fn reopen(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> impl Future<Output = Result<Option<u32>, JournalError>> + Send;

    /// Adds an operator's action on a dead delivery to its history: requeue, replay or release with
    /// this generation, or drain. `false` if the delivery is unknown.
    fn note(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
        what: &HistoryEvent,
    ) -> impl Future<Output = Result<bool, JournalError>> + Send;
}
