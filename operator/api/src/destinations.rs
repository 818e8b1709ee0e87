//! Destinations and their workers.

use std::collections::BTreeMap;

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_admin::destinations::Action;
use zentra_store::control::{self, Role};

use crate::State;
use crate::audit::Attribution;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Reason, actor};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

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
    responses((status = 200, body = List<DestinationState>), (status = "default", body = Problem))
)]
pub(super) async fn destinations(state: State) -> Answer<List<DestinationState>> {
    Ok(Json(state.destinations().await?.into()))
}

/// Pause a destination.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/pause", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = DestinationState), (status = "default", body = Problem))
)]
pub(super) async fn pause(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<DestinationState> {
    act(&who, &state, &destination, Action::Pause, reason).await
}

/// Resume a paused destination.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/resume", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = DestinationState), (status = "default", body = Problem))
)]
pub(super) async fn resume(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<DestinationState> {
    act(&who, &state, &destination, Action::Resume, reason).await
}

/// Close the circuits of a destination's workers: attempts start again now.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/close-circuit", tag = "act",
    security(("token" = [])), params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = DestinationState), (status = "default", body = Problem))
)]
pub(super) async fn close_circuit(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<DestinationState> {
    act(&who, &state, &destination, Action::CloseCircuit, reason).await
}

async fn act(
    who: &Who,
    state: &State,
    destination: &str,
    action: Action,
    reason: Reason,
) -> Answer<DestinationState> {
    who.may(Role::Operator)?;
    let actor = actor(who, &reason.because)?;
    Ok(Json(state.act(destination, action, &actor).await?.into()))
}

/// A worker's heartbeat.
#[derive(Serialize, ToSchema)]
pub(crate) struct Heartbeat {
    /// Name of the worker, as in histories.
    pub(crate) worker: String,
    /// Version of the program.
    pub(crate) version: String,
    /// Start of the worker, by its own clock.
    pub(crate) started_at: Time,
    /// State of each destination in this worker, by name.
    pub(crate) destinations: BTreeMap<String, Work>,
}

impl From<control::Heartbeat> for Heartbeat {
    fn from(from: control::Heartbeat) -> Self {
        Self {
            worker: from.worker,
            version: from.version,
            started_at: from.started_at.into(),
            destinations: from.destinations.into_iter().map(|(name, x)| (name, x.into())).collect(),
        }
    }
}

/// State of one destination in one worker.
#[derive(Serialize, ToSchema)]
pub(crate) struct Work {
    /// Running attempts.
    pub(crate) in_flight: u64,
    /// State of the circuit breaker.
    pub(crate) circuit: Circuit,
    /// Whether the worker has read that the destination is paused.
    pub(crate) paused: bool,
}

impl From<control::Work> for Work {
    fn from(from: control::Work) -> Self {
        Self { in_flight: from.in_flight, circuit: from.circuit.into(), paused: from.paused }
    }
}

/// State of a circuit breaker.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Circuit {
    /// Attempts are made.
    Closed,
    /// A few probes are made, to test the destination.
    HalfOpen,
    /// No attempts are made.
    Open,
}

impl From<control::Circuit> for Circuit {
    fn from(from: control::Circuit) -> Self {
        match from {
            control::Circuit::Closed => Self::Closed,
            control::Circuit::HalfOpen => Self::HalfOpen,
            control::Circuit::Open => Self::Open,
        }
    }
}

/// Desired state of one destination, set by operators.
#[derive(Serialize, ToSchema)]
pub(crate) struct DesiredState {
    /// Set while the destination is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<Attribution>,
    /// The last request to close the circuit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) close: Option<Attribution>,
}

impl From<control::DesiredState> for DesiredState {
    fn from(from: control::DesiredState) -> Self {
        Self { pause: from.pause.map(Into::into), close: from.close.map(Into::into) }
    }
}

/// A destination, by its workers' heartbeats.
#[derive(Serialize, ToSchema)]
pub(crate) struct DestinationState {
    pub(crate) destination: String,
    /// Number of workers.
    pub(crate) workers: usize,
    /// Running attempts.
    pub(crate) in_flight: u64,
    /// The worst circuit state of all workers; null without a worker.
    pub(crate) circuit: Option<Circuit>,
    #[serde(flatten)]
    pub(crate) desired: DesiredState,
    /// Number of workers that have read the pause.
    pub(crate) heard: usize,
}

impl From<zentra_admin::destinations::Destination> for DestinationState {
    fn from(from: zentra_admin::destinations::Destination) -> Self {
        Self {
            destination: from.destination,
            workers: from.workers,
            in_flight: from.in_flight,
            circuit: from.circuit.map(Into::into),
            desired: from.desired.into(),
            heard: from.heard,
        }
    }
}
