//! A job: many dead letters or archived events that run again. Its stored state lets another runner
//! continue it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::Attribution;
use crate::journal::{Delivery, JournalError, Summary};
use crate::stored::{Document, Listing};
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;

/// How long a runner holds its destinations without renewal.
pub const HOLD: Duration = Duration::from_secs(15);

/// Number of finished jobs that are kept, the newest ones.
pub const KEPT: usize = 1000;

/// A filter for letters or events; all conditions must match. Times are absolute, so a job that is
/// continued selects the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Dead-letter reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Event type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// [`Delivery::error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Received before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// Received after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
}

impl Scope {
    /// Whether an event matches; `dead` is its dead-letter reason. [`Scope::takes_error`] is
    /// separate, because it needs the delivery.
    pub fn takes(&self, event: &Summary, dead: Option<DeadReason>) -> bool {
        let is = |asked: &Option<String>, has: Option<&str>| {
            asked.as_deref().is_none_or(|asked| has == Some(asked))
        };
        let received = event.received_at;
        is(&self.source, Some(&event.source))
            && is(&self.reason, dead.map(DeadReason::as_str))
            && is(&self.kind, event.event_type.as_deref())
            && self.before.is_none_or(|asked| received.is_some_and(|received| received < asked))
            && self.after.is_none_or(|asked| received.is_some_and(|received| received > asked))
    }

    /// Whether the error of a delivery matches.
    pub fn takes_error(&self, known: Option<&Delivery>) -> bool {
        self.error
            .as_ref()
            .is_none_or(|asked| known.and_then(Delivery::error).as_ref() == Some(asked))
    }
}

/// What a job processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Through {
    /// Dead letters.
    DeadLetters,
    /// Dead letters that are selected by their ids or their error. Versions that know neither cannot read such a
    /// job: they would requeue all.
    SelectedDeadLetters {
        /// Only these, by delivery key. Empty: the filter selects.
        ids: Vec<String>,
    },
    /// Archived events that were never processed, are dead, or were drained.
    Archive {
        /// Only these events, by the provider's id or the identity. Empty: all.
        ids: Vec<String>,
        /// Include delivered events, and events older than the retention: once, under the same
        /// idempotency key.
        force: bool,
    },
}

/// Canary, rate and failure limit of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Number of canary letters to requeue first (0 disables the canary).
    pub canary: u32,
    /// Maximum number per second (0 disables the limit).
    pub rate: u32,
    /// Stop when more than this percentage of the watched deliveries fail.
    pub max_failures: u8,
}

/// What a job selects, counted before anything was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of letters.
    pub letters: u64,
    /// Number by destination and reason.
    pub by: BTreeMap<String, u64>,
    /// Receipt of the oldest.
    pub oldest: Option<Timestamp>,
    /// Duration at the job's rate, in seconds, without the canary. `None` without a rate.
    pub seconds: Option<u64>,
}

/// Stage of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Planned; nothing was changed.
    Planned,
    /// The canary letters are requeued and watched.
    Canary,
    /// The canary succeeded; the rest follows.
    Running,
    /// Paused by an operator. It can continue.
    Paused,
    /// Stopped, because too many deliveries failed. It can continue.
    Stopped,
    /// Cancelled by an operator.
    Cancelled,
    /// Finished.
    Done,
}

impl Stage {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Canary => "canary",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    /// Whether a runner works on it, or should.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Canary | Self::Running)
    }

    /// Whether it can't continue.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done)
    }
}

/// Progress of a job. Runners count it; the last second before a kill is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Requeued letters.
    pub requeued: u64,
    /// Watched letters that were delivered.
    pub delivered: u64,
    /// Watched letters whose next attempt failed.
    pub failed: u64,
    /// Left: requeued by this run, and dead again.
    pub again: u64,
    /// Left: suspected replays and conflicts, which are released instead.
    pub unsuited: u64,
    /// Left: a worker was processing them.
    pub busy: u64,
    /// Removed, or left in the archive: handled before.
    pub leftover: u64,
    /// Left in the archive: older than the retention, so they may have been delivered.
    #[serde(default)]
    pub forgotten: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Id.
    pub id: String,
    /// Who planned it, when and why.
    pub made: Attribution,
    /// The request in words: `source=acme`, `archive force`, or `all`.
    pub asked: String,
    /// Destinations.
    pub destinations: Vec<String>,
    /// What it processes.
    #[serde(flatten)]
    pub through: Through,
    /// Filter.
    pub scope: Scope,
    /// Canary, rate and failure limit.
    pub pace: Pace,
    /// What the plan counted.
    pub plan: Plan,
    /// Stage.
    pub stage: Stage,
    /// Whether it pauses after its canary.
    #[serde(default)]
    pub only_canary: bool,
    /// Number of runs.
    #[serde(default)]
    pub runs: u32,
    /// Reason of the stage; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Progress.
    pub progress: Progress,
    /// Time of this state.
    pub at: Timestamp,
}

impl Document for Job {
    const KIND: &'static str = "job";
    const NEWEST: u16 = 2;

    /// Version 2 knows selected dead letters.
    fn version(&self) -> u16 {
        if matches!(self.through, Through::SelectedDeadLetters { .. }) { 2 } else { 1 }
    }
}

/// An operator's request to a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// Pause.
    Pause,
    /// Cancel.
    Cancel,
}

impl Halt {
    /// The stored form, a JSON string.
    pub fn stored(self) -> &'static str {
        match self {
            Self::Pause => r#""pause""#,
            Self::Cancel => r#""cancel""#,
        }
    }

    /// Reads the stored form. A request that only a newer version knows pauses the job.
    pub fn of_stored(stored: &[u8]) -> Self {
        if stored == Self::Cancel.stored().as_bytes() { Self::Cancel } else { Self::Pause }
    }
}

/// Storage of jobs.
pub trait Jobs: Clone + Send + Sync + 'static {
    /// Stores a job's state. Called by its creator, and then only by the holder of its
    /// destinations.
    fn keep_job(&self, job: &Job) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The job with this id.
    fn job(&self, id: &str) -> impl Future<Output = Result<Option<Job>, JournalError>> + Send;

    /// All jobs, newest first.
    fn jobs(&self) -> impl Future<Output = Result<Listing<Job>, JournalError>> + Send;

    /// Sets an operator's request to the runner of a job, or removes it (`None`).
    fn ask_job(
        &self,
        id: &str,
        halt: Option<Halt>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The operator's request to the runner of a job.
    fn asked_of_job(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<Halt>, JournalError>> + Send;

    /// Keeps these destinations from other jobs for [`HOLD`], or for so long again: all or none.
    /// The answer is who else has one of them; none: they are the holder's.
    ///
    /// This is for order, not for safety: were two at the same letters, each letter would be held
    /// by one of them, and the journal would tell the other that it had been dealt with.
    fn hold(
        &self,
        destinations: &[String],
        holder: &str,
    ) -> impl Future<Output = Result<Option<String>, JournalError>> + Send;

    /// Releases the holder's destinations.
    fn let_go(
        &self,
        destinations: &[String],
        holder: &str,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// The ids of finished jobs beyond [`KEPT`].
pub fn surplus(mut all: Vec<Job>) -> Vec<String> {
    all.sort_by_key(|job| std::cmp::Reverse(job.made.at));
    let old = all.into_iter().skip(KEPT);
    old.filter(|job| job.stage.is_over()).map(|job| job.id).collect()
}
