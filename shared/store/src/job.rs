//! A job: many dead letters, or archived events, that are to run again. What is kept of one lets
//! whoever comes next go on with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::Attribution;
use crate::journal::{JournalError, Summary};
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;

/// How long a runner that says nothing keeps its destinations from others.
pub const HOLD: Duration = Duration::from_secs(15);

/// So many jobs are kept, the newest ones; and those that aren't at an end.
pub const KEPT: usize = 1000;

/// Which letters or events. All that is asked must fit; times are absolute, so that a job that is
/// gone on with means the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scope {
    /// Of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Given up for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of this event type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Received before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// Received after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
}

impl Scope {
    /// Whether an event is as asked; `dead` is why it was given up.
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
}

/// What a job goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Through {
    /// The dead letters.
    DeadLetters,
    /// The archive: what was never run, and what is dead or was discarded.
    Archive {
        /// Only these events, by the provider's id or the identity; empty: all.
        ids: Vec<String>,
        /// Also what is delivered, and what the journal may have forgotten: once, under the same
        /// idempotency key.
        force: bool,
    },
}

/// How a job goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pace {
    /// So many go first, and all else waits for what comes of them.
    pub canary: u32,
    /// At most so many a second; 0 is no bound.
    pub rate: u32,
    /// It stops when more than this part of those that were watched failed, in percent.
    pub max_failures: u8,
}

/// What a job was found to be about, before anything was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Letters.
    pub letters: u64,
    /// Of those, by destination and reason.
    pub by: BTreeMap<String, u64>,
    /// When the oldest was received.
    pub oldest: Option<Timestamp>,
    /// How long it takes at the job's rate, in seconds, the canary aside; none without a bound.
    pub seconds: Option<u64>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Stage {
    /// Nothing was changed yet.
    Planned,
    /// The first letters are on their way, and watched.
    Canary,
    /// The canary went well; the others follow.
    Running,
    /// An operator halted it. It can go on.
    Paused,
    /// It halted itself, because too much failed. It can go on.
    Stopped,
    /// An operator ended it.
    Cancelled,
    /// It came to its end.
    Done,
}

impl Stage {
    /// Its stable name.
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

    /// Whether somebody runs it, or should.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Canary | Self::Running)
    }

    /// Whether it never goes on.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done)
    }
}

/// How far a job has come. Counted by its runners, so what one did in its last second before it
/// was killed isn't in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Sent back to their work queues.
    pub requeued: u64,
    /// Of those, watched ones that were delivered.
    pub delivered: u64,
    /// Of those, watched ones whose next attempt failed.
    pub failed: u64,
    /// Left: this run had re-queued them, and they were given up again.
    pub again: u64,
    /// Left: suspected replays are released, not re-queued.
    pub unsuited: u64,
    /// Left: a worker was at them.
    pub busy: u64,
    /// Taken away, or left in the archive: they had been dealt with before.
    pub leftover: u64,
    /// Left in the archive: so old that the journal may have forgotten that they were delivered.
    #[serde(default)]
    pub forgotten: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Names it.
    pub id: String,
    /// Who planned it, when, and why.
    pub made: Attribution,
    /// What was asked for: `source=acme`, `archive force`, or `all`.
    pub asked: String,
    /// At these destinations.
    pub destinations: Vec<String>,
    /// Through what.
    #[serde(flatten)]
    pub through: Through,
    /// Which of it.
    pub scope: Scope,
    /// How.
    pub pace: Pace,
    /// What was found before.
    pub plan: Plan,
    /// Where it stands.
    pub stage: Stage,
    /// Whether it halts behind its canary.
    #[serde(default)]
    pub only_canary: bool,
    /// How often it was run.
    #[serde(default)]
    pub runs: u32,
    /// Why it stands so; empty where that needs no words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How far it is.
    pub progress: Progress,
    /// When this was written.
    pub at: Timestamp,
}

/// What an operator wants of a job that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Halt {
    /// That it halts, and can go on.
    Pause,
    /// That it ends.
    Cancel,
}

/// What remembers jobs.
pub trait Jobs: Clone + Send + Sync + 'static {
    /// Keeps a job as it is now. Only its maker, and then who holds its destinations, may.
    fn keep_job(&self, job: &Job) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The job of this id.
    fn job(&self, id: &str) -> impl Future<Output = Result<Option<Job>, JournalError>> + Send;

    /// All jobs, the newest first.
    fn jobs(&self) -> impl Future<Output = Result<Vec<Job>, JournalError>> + Send;

    /// Wants something of whoever runs a job; none: takes it back.
    fn ask_job(
        &self,
        id: &str,
        halt: Option<Halt>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// What is wanted of whoever runs a job.
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

    /// Lets go of what this holder has.
    fn let_go(
        &self,
        destinations: &[String],
        holder: &str,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// Which of all jobs go: those that are over, but for the newest.
pub fn surplus(mut all: Vec<Job>) -> Vec<String> {
    all.sort_by_key(|job| std::cmp::Reverse(job.made.at));
    let old = all.into_iter().skip(KEPT);
    old.filter(|job| job.stage.is_over()).map(|job| job.id).collect()
}
