//! Jobs.

use std::collections::BTreeMap;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zentra_admin::filter::Filter;
use zentra_admin::job::{New, NewPace, Replaying};
use zentra_core::lifecycle;
use zentra_store::control::Role;
use zentra_store::job::{self, Halt};

use crate::State;
use crate::audit::Attribution;
use crate::auth::Who;
use crate::delivery::DeadReason;
use crate::extract::{Answer, Body, Path, Reason, actor};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// List jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<Job>), (status = "default", body = Problem))
)]
pub(super) async fn jobs(state: State) -> Answer<List<Job>> {
    Ok(Json(state.jobs().await?.into()))
}

/// Show a job: its plan and progress.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "look", security(("token" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn job(state: State, Path(id): Path<String>) -> Answer<Job> {
    Ok(Json(state.job(&id).await?.into()))
}

/// A new job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    /// Only this destination.
    destination: Option<String>,
    /// Only this source.
    source: Option<String>,
    /// Only this reason.
    reason: Option<DeadReason>,
    /// Only this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Select all letters. Must be true without a filter and without ids.
    #[serde(default)]
    all: bool,
    /// Replay from the archive instead: events that were never processed, are dead, or were
    /// drained.
    #[serde(default)]
    archive: bool,
    /// Only this error: `answered 503`, or the text of the last attempt's error.
    error: Option<String>,
    /// Only these, by the provider's id or the identity; dead letters also by delivery key. Empty:
    /// all.
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<String>,
    /// Replay delivered events too, and events older than the retention, under the same idempotency
    /// key.
    #[serde(default)]
    force: bool,
    /// Number of canary letters to requeue first (0 disables the canary).
    #[serde(default = "canary")]
    #[schema(maximum = 100)]
    canary: u32,
    /// Maximum number per second (0 disables the limit).
    #[serde(default = "rate")]
    rate: u32,
    /// Stop when more than this percentage of the watched deliveries fail.
    #[serde(default = "max_failures")]
    #[schema(maximum = 100)]
    max_failures: u8,
    /// Reason, for histories and audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

fn canary() -> u32 {
    NewPace::default().canary
}

fn rate() -> u32 {
    NewPace::default().rate
}

fn max_failures() -> u8 {
    NewPace::default().max_failures
}

/// Plan a job: count the selected letters and store the selection. Changes nothing else. The same
/// plan twice is the same job.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "act", security(("token" = [])), request_body = NewJob,
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn plan(who: Who, state: State, Body(plan): Body<NewJob>) -> Answer<Job> {
    who.may(Role::Operator)?;
    let NewJob { destination, source, reason, kind, error, all, archive, ids, force, .. } = plan;
    let NewJob { canary, rate, max_failures, because, .. } = plan;
    if ids.len() > 100 || (!archive && force) {
        return Err(Problem::invalid("ids must be at most 100, and force requires archive"));
    }
    if canary > 100 || max_failures > 100 {
        return Err(Problem::invalid("canary and max_failures must be at most 100"));
    }
    let reason = reason.map(|reason| lifecycle::DeadReason::from(reason).as_str().to_owned());
    let filter = Filter { destination, source, reason, kind, error, ..Filter::default() };
    let replay = archive.then_some(Replaying { force });
    let new = New { ids, filter, all, replay, pace: NewPace { canary, rate, max_failures } };
    Ok(Json(state.plan_job(&new, &actor(&who, &because)?).await?.into()))
}

/// How far a job runs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Pause after the canary.
    #[serde(default)]
    only_canary: bool,
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Run or continue a job: the canary first, then the rest. The answer doesn't wait for it. A server
/// of this API runs it, and continues after a restart.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/run", tag = "act", security(("token" = [])),
    params(("id" = String, Path)), request_body = Run,
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn run(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(Run { only_canary, because }): Body<Run>,
) -> Answer<Job> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &because)?;
    Ok(Json(state.release_job(&id, only_canary, &actor).await?.into()))
}

/// Pause a job, within a second. It can continue.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/pause", tag = "act", security(("token" = [])),
    params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn pause(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<Job> {
    halt(&who, &state, &id, Halt::Pause, reason).await
}

/// Cancel a job. Letters that it has requeued stay requeued.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "act", security(("token" = [])),
    params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn cancel(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<Job> {
    halt(&who, &state, &id, Halt::Cancel, reason).await
}

async fn halt(who: &Who, state: &State, id: &str, halt: Halt, reason: Reason) -> Answer<Job> {
    who.may(Role::Operator)?;
    let actor = actor(who, &reason.because)?;
    Ok(Json(state.halt_job(id, halt, &actor).await?.into()))
}

/// A filter for letters or events; all conditions must match. Times are absolute, so a job that is
/// continued selects the same ones.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scope {
    /// Source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Dead-letter reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Event type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Error of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Received before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Time>,
    /// Received after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Time>,
}

impl From<job::Scope> for Scope {
    fn from(from: job::Scope) -> Self {
        Self {
            source: from.source,
            reason: from.reason,
            kind: from.kind,
            error: from.error,
            before: from.before.map(Into::into),
            after: from.after.map(Into::into),
        }
    }
}

/// What a job processes.
#[derive(Serialize, ToSchema)]
#[serde(tag = "from", rename_all = "snake_case")]
pub(crate) enum Through {
    /// Dead letters.
    DeadLetters,
    /// Dead letters that are selected by their ids or their error.
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

impl From<job::Through> for Through {
    fn from(from: job::Through) -> Self {
        match from {
            job::Through::DeadLetters => Self::DeadLetters,
            job::Through::SelectedDeadLetters { ids } => Self::SelectedDeadLetters { ids },
            job::Through::Archive { ids, force } => Self::Archive { ids, force },
        }
    }
}

/// Canary, rate and failure limit of a job.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pace {
    /// Number of canary letters to requeue first (0 disables the canary).
    pub(crate) canary: u32,
    /// Maximum number per second (0 disables the limit).
    pub(crate) rate: u32,
    /// Stop when more than this percentage of the watched deliveries fail.
    pub(crate) max_failures: u8,
}

impl From<job::Pace> for Pace {
    fn from(from: job::Pace) -> Self {
        Self { canary: from.canary, rate: from.rate, max_failures: from.max_failures }
    }
}

/// What a job selects, counted before anything was changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plan {
    /// Number of letters.
    pub(crate) letters: u64,
    /// Number by destination and reason.
    pub(crate) by: BTreeMap<String, u64>,
    /// Receipt of the oldest.
    pub(crate) oldest: Option<Time>,
    /// Duration at the job's rate, in seconds, without the canary. `None` without a rate.
    pub(crate) seconds: Option<u64>,
}

impl From<job::Plan> for Plan {
    fn from(from: job::Plan) -> Self {
        Self {
            letters: from.letters,
            by: from.by,
            oldest: from.oldest.map(Into::into),
            seconds: from.seconds,
        }
    }
}

/// Stage of a job.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
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

impl From<job::Stage> for Stage {
    fn from(from: job::Stage) -> Self {
        match from {
            job::Stage::Planned => Self::Planned,
            job::Stage::Canary => Self::Canary,
            job::Stage::Running => Self::Running,
            job::Stage::Paused => Self::Paused,
            job::Stage::Stopped => Self::Stopped,
            job::Stage::Cancelled => Self::Cancelled,
            job::Stage::Done => Self::Done,
        }
    }
}

/// Progress of a job. Runners count it; the last second before a kill is missing.
#[derive(Serialize, ToSchema)]
pub(crate) struct Progress {
    /// Requeued letters.
    pub(crate) requeued: u64,
    /// Watched letters that were delivered.
    pub(crate) delivered: u64,
    /// Watched letters whose next attempt failed.
    pub(crate) failed: u64,
    /// Left: requeued by this run, and dead again.
    pub(crate) again: u64,
    /// Left: suspected replays and conflicts, which are released instead.
    pub(crate) unsuited: u64,
    /// Left: a worker was processing them.
    pub(crate) busy: u64,
    /// Removed, or left in the archive: handled before.
    pub(crate) leftover: u64,
    /// Left in the archive: older than the retention, so they may have been delivered.
    pub(crate) forgotten: u64,
}

impl From<job::Progress> for Progress {
    fn from(from: job::Progress) -> Self {
        Self {
            requeued: from.requeued,
            delivered: from.delivered,
            failed: from.failed,
            again: from.again,
            unsuited: from.unsuited,
            busy: from.busy,
            leftover: from.leftover,
            forgotten: from.forgotten,
        }
    }
}

/// A job.
#[derive(Serialize, ToSchema)]
pub(crate) struct Job {
    /// Id.
    pub(crate) id: String,
    /// Who planned it, when and why.
    pub(crate) made: Attribution,
    /// The request in words: `source=acme`, `archive force`, or `all`.
    pub(crate) asked: String,
    /// Destinations.
    pub(crate) destinations: Vec<String>,
    /// What it processes.
    #[serde(flatten)]
    pub(crate) through: Through,
    /// Filter.
    pub(crate) scope: Scope,
    /// Canary, rate and failure limit.
    pub(crate) pace: Pace,
    /// What the plan counted.
    pub(crate) plan: Plan,
    /// Stage.
    pub(crate) stage: Stage,
    /// Whether it pauses after its canary.
    pub(crate) only_canary: bool,
    /// Number of runs.
    pub(crate) runs: u32,
    /// Reason of the stage; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
    /// Progress.
    pub(crate) progress: Progress,
    /// Time of this state.
    pub(crate) at: Time,
}

impl From<job::Job> for Job {
    fn from(from: job::Job) -> Self {
        Self {
            id: from.id,
            made: from.made.into(),
            asked: from.asked,
            destinations: from.destinations,
            through: from.through.into(),
            scope: from.scope.into(),
            pace: from.pace.into(),
            plan: from.plan.into(),
            stage: from.stage.into(),
            only_canary: from.only_canary,
            runs: from.runs,
            why: from.why,
            progress: from.progress.into(),
            at: from.at.into(),
        }
    }
}
