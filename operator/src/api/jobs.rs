//! The routes of jobs.

use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;
use zentra_shared::control::Role;
use zentra_shared::job::{Halt, Job};
use zentra_shared::lifecycle::DeadReason;

use super::State;
use super::auth::Who;
use super::problem::Problem;
use super::routes::{Answer, Body, Path, Reason, asked, bad};
use crate::dead::Filter;
use crate::job::{How, Replaying};
use crate::list::List;

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
    known(&state, &id).await.map(Json)
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
    10
}

fn rate() -> u32 {
    100
}

fn max_failures() -> u8 {
    10
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
        return Err(bad("ids (100 at most) and force are for archive".into()));
    }
    if canary > 100 || max_failures > 100 {
        return Err(bad("canary and max_failures are at most 100".into()));
    }
    let reason = reason.map(|reason| reason.as_str().to_owned());
    let filter = Filter::of(destination, source, reason, kind);
    if !all && filter.is_empty() && ids.is_empty() {
        return Err(bad("give a filter or ids; or set all to true, for all there are".into()));
    }
    let asked = asked(&who, Reason { because })?;
    let (replay, how) = (Replaying { archive, ids, force }, How { canary, rate, max_failures });
    Ok(Json(state.plan(&filter, &replay, how, &asked).await?))
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
    let asked = asked(&who, Reason { because })?;
    known(&state, &id).await?;
    Ok(Json(state.release(&id, only_canary, &asked).await?))
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
    let asked = asked(who, reason)?;
    known(state, id).await?;
    Ok(Json(state.halt(id, halt, &asked).await?))
}

async fn known(state: &State, id: &str) -> Result<Job, Problem> {
    let job = state.job(id).await?;
    job.ok_or_else(|| Problem::unknown(format!("there is no job {id}: see /v1/jobs")))
}
