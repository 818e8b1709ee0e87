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

/// Jobs, the newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<Job>), (status = "default", body = Problem))
)]
pub(super) async fn jobs(state: State) -> Answer<List<Job>> {
    Ok(Json(state.jobs().await?.into()))
}

/// A job: its plan, and how far it is.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "look", security(("token" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = "default", body = Problem))
)]
pub(super) async fn job(state: State, Path(id): Path<String>) -> Answer<Job> {
    Ok(Json(state.job(&id).await?))
}

/// Which dead letters, or archived events, are to run again, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    /// Only those of this destination.
    destination: Option<String>,
    /// Only those of this source.
    source: Option<String>,
    /// Only those that were given up for this reason.
    reason: Option<DeadReason>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// All of them. Without a filter or ids, it must be true.
    #[serde(default)]
    all: bool,
    /// Goes through the archive, not the dead letters: replays what was never run, and what is dead or
    /// was drained.
    #[serde(default)]
    archive: bool,
    /// Only these events of the archive, by the provider's id or the identity; empty: all.
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<String>,
    /// Replays from the archive also what is delivered, and what is so old that nobody knows: once
    /// more, under the same idempotency key.
    #[serde(default)]
    force: bool,
    /// So many go first, and all else waits for what comes of them; 0: none.
    #[serde(default = "canary")]
    #[schema(maximum = 100)]
    canary: u32,
    /// At most so many a second; 0 is no bound.
    #[serde(default = "rate")]
    rate: u32,
    /// It stops when more than this part of those that are watched failed, in percent.
    #[serde(default = "max_failures")]
    #[schema(maximum = 100)]
    max_failures: u8,
    /// For the histories and the audit; at most 1000 bytes.
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

/// Looks how many letters there are, and keeps that as a job; changes nothing else. Asked twice, it is
/// the same job.
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

/// How far a job is to run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// It halts behind its canary.
    #[serde(default)]
    only_canary: bool,
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Has a job run, or go on: first a canary, and when that went well the others. The answer doesn't
/// wait for it; one that serves this API runs it, and after a restart goes on with it.
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

/// Has a job halt, within a second; it can go on.
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

/// Ends a job. What it has re-queued stays so.
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
