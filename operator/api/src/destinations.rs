//! Destinations and their workers.

use axum::Json;
use zentra_admin::destinations::{Action, Destination};
use zentra_admin::list::List;
use zentra_store::control::{Heartbeat, Role};

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Reason, actor};
use crate::problem::Problem;

/// List running workers.
#[utoipa::path(
    get, path = "/v1/workers", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<Heartbeat>), (status = "default", body = Problem))
)]
pub(super) async fn workers(state: State) -> Answer<List<Heartbeat>> {
    Ok(Json(state.workers().await?.into()))
}

/// List destinations: workers, running attempts, circuit, pause.
#[utoipa::path(
    get, path = "/v1/destinations", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<Destination>), (status = "default", body = Problem))
)]
pub(super) async fn destinations(state: State) -> Answer<List<Destination>> {
    Ok(Json(state.destinations().await?.into()))
}

/// Pause a destination.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/pause", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = Destination), (status = "default", body = Problem))
)]
pub(super) async fn pause(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<Destination> {
    act(&who, &state, &destination, Action::Pause, reason).await
}

/// Resume a paused destination.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/resume", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = Destination), (status = "default", body = Problem))
)]
pub(super) async fn resume(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<Destination> {
    act(&who, &state, &destination, Action::Resume, reason).await
}

/// Close the circuits of a destination's workers: attempts start again now.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/close-circuit", tag = "act",
    security(("token" = [])), params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = Destination), (status = "default", body = Problem))
)]
pub(super) async fn close_circuit(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<Destination> {
    act(&who, &state, &destination, Action::CloseCircuit, reason).await
}

async fn act(
    who: &Who,
    state: &State,
    destination: &str,
    action: Action,
    reason: Reason,
) -> Answer<Destination> {
    who.may(Role::Operator)?;
    let actor = actor(who, &reason.because)?;
    Ok(Json(state.act(destination, action, &actor).await?))
}
