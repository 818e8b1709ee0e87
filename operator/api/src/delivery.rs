//! Deliveries with their histories, as answers have them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zentra_core::{event, lifecycle};
use zentra_store::journal;

use crate::time::Time;

/// State of a delivery.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// A worker holds the claim until the lease ends.
    InFlight,
    /// An attempt failed; the next one is queued with a delay.
    Waiting,
    /// The destination accepted it. Absorbing, unless an operator forces a replay.
    Delivered,
    /// A dead letter, until an operator acts.
    Dead,
}

impl From<lifecycle::State> for State {
    fn from(from: lifecycle::State) -> Self {
        match from {
            lifecycle::State::InFlight => Self::InFlight,
            lifecycle::State::Waiting => Self::Waiting,
            lifecycle::State::Delivered => Self::Delivered,
            lifecycle::State::Dead => Self::Dead,
        }
    }
}

impl From<State> for lifecycle::State {
    fn from(from: State) -> Self {
        match from {
            State::InFlight => Self::InFlight,
            State::Waiting => Self::Waiting,
            State::Delivered => Self::Delivered,
            State::Dead => Self::Dead,
        }
    }
}

/// Why a delivery became a dead letter.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeadReason {
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

impl From<lifecycle::DeadReason> for DeadReason {
    fn from(from: lifecycle::DeadReason) -> Self {
        match from {
            lifecycle::DeadReason::Exhausted => Self::Exhausted,
            lifecycle::DeadReason::Permanent => Self::Permanent,
            lifecycle::DeadReason::TooOld => Self::TooOld,
            lifecycle::DeadReason::SealBroken => Self::SealBroken,
            lifecycle::DeadReason::NotOurs => Self::NotOurs,
            lifecycle::DeadReason::SuspectedReplay => Self::SuspectedReplay,
            lifecycle::DeadReason::Conflict => Self::Conflict,
            lifecycle::DeadReason::Crashed => Self::Crashed,
            lifecycle::DeadReason::Ended => Self::Ended,
            lifecycle::DeadReason::NotSubscribed => Self::NotSubscribed,
        }
    }
}

impl From<DeadReason> for lifecycle::DeadReason {
    fn from(from: DeadReason) -> Self {
        match from {
            DeadReason::Exhausted => Self::Exhausted,
            DeadReason::Permanent => Self::Permanent,
            DeadReason::TooOld => Self::TooOld,
            DeadReason::SealBroken => Self::SealBroken,
            DeadReason::NotOurs => Self::NotOurs,
            DeadReason::SuspectedReplay => Self::SuspectedReplay,
            DeadReason::Conflict => Self::Conflict,
            DeadReason::Crashed => Self::Crashed,
            DeadReason::Ended => Self::Ended,
            DeadReason::NotSubscribed => Self::NotSubscribed,
        }
    }
}

/// State of one delivery.
#[derive(Serialize, ToSchema)]
pub(crate) struct Record {
    /// State.
    pub(crate) state: State,
    /// Number of requeues, replays and releases; 0 at first.
    pub(crate) generation: u32,
    /// In flight: the running attempt. Waiting: the next one. From 1.
    pub(crate) attempt: u32,
    /// In flight: earlier claims of this attempt that expired, up to 255.
    pub(crate) expired: u8,
    /// Grows with each claim. A settlement with an older one changes nothing.
    pub(crate) fence: u64,
    /// In flight: end of the lease. Waiting: time of the next attempt. Otherwise zero.
    pub(crate) until: Time,
}

impl From<lifecycle::Record> for Record {
    fn from(from: lifecycle::Record) -> Self {
        Self {
            state: from.state.into(),
            generation: from.generation,
            attempt: from.attempt,
            expired: from.expired,
            fence: from.fence,
            until: from.until.into(),
        }
    }
}

/// Who admitted a callback that was refused first, or an event that never came.
#[derive(Serialize, ToSchema)]
pub(crate) struct Admitted {
    /// Name of the operator.
    pub(crate) by: String,
    /// Time.
    pub(crate) at: Time,
    /// Why it was refused, or [`Admitted::NOT_RECEIVED`].
    pub(crate) refused_for: String,
}

impl From<event::Admitted> for Admitted {
    fn from(from: event::Admitted) -> Self {
        Self { by: from.by, at: from.at.into(), refused_for: from.refused_for }
    }
}

/// Context of a callback, for people. It never has a signature or a credential.
#[derive(Serialize, ToSchema)]
pub(crate) struct Context {
    /// Method of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Address of the sender: the provider, or the nearest proxy that isn't trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Headers of the request, without hop-by-hop headers, credentials and signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<(String, String)>,
    /// Query of the request, without signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<String>,
    /// What the signature covers: `body`, `query`, `method`, `type`, and names of headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) signed: Vec<String>,
    /// The provider's own attempt count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider_attempt: Option<String>,
    /// The provider's own reason for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider_reason: Option<String>,
    /// Weakness of the provider's scheme, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weakness: Option<Weakness>,
    /// Position in the callback, if that had several events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<Batch>,
    /// Whether the signature doesn't cover the event type.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) type_unsigned: bool,
}

impl From<event::Context> for Context {
    fn from(from: event::Context) -> Self {
        Self {
            method: from.method,
            peer: from.peer.map(|peer| peer.to_string()),
            headers: from.headers,
            query: from.query,
            signed: from.signed,
            provider_attempt: from.provider_attempt,
            provider_reason: from.provider_reason,
            weakness: from.weakness.map(Into::into),
            batch: from.batch.map(Into::into),
            type_unsigned: from.type_unsigned,
        }
    }
}

/// A weakness of a provider's scheme.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Weakness {
    /// No signature: the secret itself is sent.
    Token,
    /// The signature doesn't cover the body.
    BodyUnsigned,
    /// The signature covers only a checksum of the body, which protects against nobody.
    Checksum,
    /// A plain digest that can be extended (length extension).
    LengthExtension,
    /// One key signs for all customers of the provider, and nothing names the customer.
    AnyCustomer,
}

impl From<event::Weakness> for Weakness {
    fn from(from: event::Weakness) -> Self {
        match from {
            event::Weakness::Token => Self::Token,
            event::Weakness::BodyUnsigned => Self::BodyUnsigned,
            event::Weakness::Checksum => Self::Checksum,
            event::Weakness::LengthExtension => Self::LengthExtension,
            event::Weakness::AnyCustomer => Self::AnyCustomer,
        }
    }
}

/// Position of an event in a callback with several.
#[derive(Serialize, ToSchema)]
pub(crate) struct Batch {
    /// SHA-256 of the callback's body, in hex.
    pub(crate) body_sha256: String,
    /// Number of the event, from 1.
    pub(crate) item: u32,
    /// Number of events in the callback.
    pub(crate) of: u32,
}

impl From<event::Batch> for Batch {
    fn from(from: event::Batch) -> Self {
        Self { body_sha256: from.body_sha256, item: from.item, of: from.of }
    }
}

/// What histories show of an event. Never its body, never a secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct Summary {
    /// Name of the source.
    pub(crate) source: String,
    /// Provider; empty if the seal was invalid.
    pub(crate) provider: String,
    /// Name of the secret that verified it; empty if the seal was invalid.
    pub(crate) verified_with: String,
    /// The provider's event id.
    pub(crate) event_id: Option<String>,
    /// The provider's event type.
    pub(crate) event_type: Option<String>,
    /// Time of receipt by the ingress.
    pub(crate) received_at: Option<Time>,
    /// The time that the provider signed.
    pub(crate) provider_time: Option<Time>,
    /// SHA-256 of the body, in hex.
    pub(crate) body_sha256: String,
    /// Trace id (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
    /// Context of the callback.
    pub(crate) context: Context,
    /// Who admitted it, if it was refused first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admitted: Option<Admitted>,
}

impl From<journal::Summary> for Summary {
    fn from(from: journal::Summary) -> Self {
        Self {
            source: from.source,
            provider: from.provider,
            verified_with: from.verified_with,
            event_id: from.event_id,
            event_type: from.event_type,
            received_at: from.received_at.map(Into::into),
            provider_time: from.provider_time.map(Into::into),
            body_sha256: from.body_sha256,
            trace: from.trace,
            context: from.context.into(),
            admitted: from.admitted.map(Into::into),
        }
    }
}

/// Result of one attempt.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptResult {
    /// Duration in milliseconds.
    pub(crate) duration_ms: u64,
    /// HTTP status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The start of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<String>,
    /// Class of the failure, if there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<ErrorClass>,
}

impl From<journal::AttemptResult> for AttemptResult {
    fn from(from: journal::AttemptResult) -> Self {
        Self {
            duration_ms: from.duration_ms,
            status: from.status,
            error: from.error,
            response: from.response,
            class: from.class.map(Into::into),
        }
    }
}

/// Why there was no answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorClass {
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

impl From<journal::ErrorClass> for ErrorClass {
    fn from(from: journal::ErrorClass) -> Self {
        match from {
            journal::ErrorClass::Timeout => Self::Timeout,
            journal::ErrorClass::Dns => Self::Dns,
            journal::ErrorClass::PrivateAddress => Self::PrivateAddress,
            journal::ErrorClass::Connect => Self::Connect,
            journal::ErrorClass::Tls => Self::Tls,
            journal::ErrorClass::Protocol => Self::Protocol,
            journal::ErrorClass::Request => Self::Request,
            journal::ErrorClass::Handler => Self::Handler,
            journal::ErrorClass::Panic => Self::Panic,
            journal::ErrorClass::Crash => Self::Crash,
        }
    }
}

/// One entry of a history.
#[derive(Serialize, ToSchema)]
pub(crate) struct Entry {
    /// Time, by the store's clock.
    pub(crate) at: Time,
    /// Generation.
    pub(crate) generation: u32,
    /// Attempt.
    pub(crate) attempt: u32,
    /// Worker or operator.
    pub(crate) by: String,
    /// What happened.
    #[serde(flatten)]
    pub(crate) what: HistoryEvent,
}

impl From<journal::Entry> for Entry {
    fn from(from: journal::Entry) -> Self {
        Self {
            at: from.at.into(),
            generation: from.generation,
            attempt: from.attempt,
            by: from.by,
            what: from.what.into(),
        }
    }
}

/// What an entry of a history reports.
#[derive(Serialize, ToSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum HistoryEvent {
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
        late: bool,
        /// Result of the attempt.
        #[serde(flatten)]
        result: AttemptResult,
    },
    /// The attempt failed; another one follows.
    Failed {
        /// Time of the next attempt.
        next_at: Time,
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
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The job and its run: `0a1b2c3d/1`.
        #[serde(skip_serializing_if = "Option::is_none")]
        job: Option<String>,
    },
    /// An operator replayed it from the archive.
    Replayed {
        /// Reason; empty if none was given.
        #[serde(skip_serializing_if = "String::is_empty")]
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
    Newer,
}

impl From<journal::HistoryEvent> for HistoryEvent {
    fn from(from: journal::HistoryEvent) -> Self {
        match from {
            journal::HistoryEvent::Claimed { fence, reclaimed } => {
                Self::Claimed { fence, reclaimed }
            }
            journal::HistoryEvent::Busy => Self::Busy,
            journal::HistoryEvent::Duplicate => Self::Duplicate,
            journal::HistoryEvent::DuplicateDead => Self::DuplicateDead,
            journal::HistoryEvent::Stale => Self::Stale,
            journal::HistoryEvent::Conflict { body_sha256 } => Self::Conflict { body_sha256 },
            journal::HistoryEvent::Suspected { kept_as } => Self::Suspected { kept_as },
            journal::HistoryEvent::Delivered { late, result } => {
                Self::Delivered { late, result: result.into() }
            }
            journal::HistoryEvent::Failed { next_at, result } => {
                Self::Failed { next_at: next_at.into(), result: result.into() }
            }
            journal::HistoryEvent::Dead { reason, result } => {
                Self::Dead { reason: reason.into(), result: result.into() }
            }
            journal::HistoryEvent::Superseded { result } => {
                Self::Superseded { result: result.into() }
            }
            journal::HistoryEvent::Requeued { reason, job } => Self::Requeued { reason, job },
            journal::HistoryEvent::Replayed { reason, job } => Self::Replayed { reason, job },
            journal::HistoryEvent::Discarded { reason } => Self::Discarded { reason },
            journal::HistoryEvent::Released { reason } => Self::Released { reason },
            journal::HistoryEvent::Newer => Self::Newer,
        }
    }
}

/// One delivery, with its history.
#[derive(Serialize, ToSchema)]
pub(crate) struct Delivery {
    /// Key.
    pub(crate) key: String,
    /// State.
    pub(crate) record: Record,
    /// Dead-letter reason, if it is dead.
    pub(crate) reason: Option<DeadReason>,
    /// What made it a dead letter: `answered 503`, or the error of its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The event.
    pub(crate) event: Summary,
    /// History, oldest first: the newest entries, up to 32 KiB as stored.
    pub(crate) history: Vec<Entry>,
}

impl From<journal::Delivery> for Delivery {
    fn from(from: journal::Delivery) -> Self {
        Self {
            error: from.error(),
            key: from.key.to_string(),
            record: from.record.into(),
            reason: from.reason.map(Into::into),
            event: from.event.into(),
            history: from.history.into_iter().map(Into::into).collect(),
        }
    }
}

/// One item of a page.
#[derive(Serialize, ToSchema)]
pub(crate) struct Listed {
    /// When a worker first took it up.
    pub(crate) first_claimed_at: Time,
    /// The delivery.
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
}

impl From<journal::list::Listed> for Listed {
    fn from(from: journal::list::Listed) -> Self {
        Self { first_claimed_at: from.first_claimed_at.into(), delivery: from.delivery.into() }
    }
}

/// A line of `/v1/tail`: a new entry of a delivery's history.
#[derive(Serialize)]
pub(crate) struct Change {
    /// The delivery's key.
    pub(crate) delivery: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The entry.
    #[serde(flatten)]
    pub(crate) entry: Entry,
    /// Where to go on after this change and those that were found with it.
    pub(crate) position: String,
}

impl Change {
    pub(crate) fn new(from: &zentra_admin::event::Change, position: &str) -> Self {
        Self {
            delivery: from.delivery.to_string(),
            kind: from.kind.clone(),
            entry: from.entry.clone().into(),
            position: position.to_owned(),
        }
    }
}
