//! Jobs.

use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;
use zentra_admin::filter::Filter;
use zentra_admin::job::{New, NewPace, Replaying};
use zentra_admin::list::List;
use zentra_core::lifecycle::DeadReason;
use zentra_store::control::Role;
use zentra_store::job::{Halt, Job};

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Reason, actor};
use crate::problem::Problem;

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
    Ok(Json(state.job(&id).await?))
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
    /// Only these archived events, by the provider's id or the identity. Empty: all.
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
    let NewJob { destination, source, reason, kind, all, archive, ids, force, .. } = plan;
    let NewJob { canary, rate, max_failures, because, .. } = plan;
    if ids.len() > 100 || (!archive && (force || !ids.is_empty())) {
        return Err(Problem::invalid("ids (100 at most) and force are for archive"));
    }
    if canary > 100 || max_failures > 100 {
        return Err(Problem::invalid("canary and max_failures are at most 100"));
    }
    let reason = reason.map(|reason| reason.as_str().to_owned());
    let filter = Filter { destination, source, reason, kind, ..Filter::default() };
    let replay = archive.then_some(Replaying { ids, force });
    let new = New { filter, all, replay, pace: NewPace { canary, rate, max_failures } };
    Ok(Json(state.plan_job(&new, &actor(&who, &because)?).await?))
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
    Ok(Json(state.release_job(&id, only_canary, &actor).await?))
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
    Ok(Json(state.halt_job(id, halt, &actor).await?))
}
