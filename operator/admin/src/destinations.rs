//! Destinations: their state by heartbeats, and control actions.

use serde::Serialize;
use zentra_config::Config;
use zentra_store::control::{
    AuditEntry, Circuit, ControlAction, DesiredState, Heartbeat, OperatorControl,
};

use crate::audit::Actor;
use crate::error::AdminError;
use crate::filter;

/// A control action for a destination's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make no attempts.
    Pause,
    /// Make attempts again.
    Resume,
    /// Make attempts although the circuit is open.
    CloseCircuit,
}

/// A destination, by its workers' heartbeats.
#[derive(Debug, Serialize)]
pub struct Destination {
    pub destination: String,
    /// Number of workers.
    pub workers: usize,
    /// Running attempts.
    pub in_flight: u64,
    /// The worst circuit state of all workers; null without a worker.
    pub circuit: Option<Circuit>,
    #[serde(flatten)]
    pub desired: DesiredState,
    /// Number of workers that have read the pause.
    pub heard: usize,
}

/// All destinations of the configuration.
pub async fn list(
    control: &impl OperatorControl,
    config: &Config,
) -> Result<Vec<Destination>, AdminError> {
    let (heartbeats, mut desired_states) =
        (control.workers().await?, control.desired_states().await?);
    let names = config.destinations.iter().map(|destination| &destination.name);
    Ok(names
        .map(|name| destination_state(name, &heartbeats.items, desired_states.remove(name)))
        .collect())
}

fn destination_state(
    name: &str,
    heartbeats: &[Heartbeat],
    desired: Option<DesiredState>,
) -> Destination {
    let works = || heartbeats.iter().filter_map(|heartbeat| heartbeat.destinations.get(name));
    Destination {
        destination: name.to_owned(),
        workers: works().count(),
        in_flight: works().map(|work| work.in_flight).sum(),
        circuit: works().map(|work| work.circuit).max(),
        heard: works().filter(|work| work.paused).count(),
        desired: desired.unwrap_or_default(),
    }
}

/// The destination of this name.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`].
pub async fn find(
    control: &impl OperatorControl,
    config: &Config,
    name: &str,
) -> Result<Destination, AdminError> {
    filter::destinations(config, Some(name))?;
    let (heartbeats, mut desired_states) =
        (control.workers().await?, control.desired_states().await?);
    Ok(destination_state(name, &heartbeats.items, desired_states.remove(name)))
}

/// Tells a destination's workers, who hear it within a second; and says how it stands then. The audit log has
/// it before.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`].
pub async fn act(
    control: &impl OperatorControl,
    config: &Config,
    name: &str,
    action: Action,
    actor: &Actor,
) -> Result<Destination, AdminError> {
    find(control, config, name).await?;
    let attribution = actor.attribution();
    let (words, action, wanted) = match action {
        Action::Pause => ("destination pause", ControlAction::Pause, Some(&attribution)),
        Action::Resume => ("destination resume", ControlAction::Pause, None),
        Action::CloseCircuit => {
            ("destination close-circuit", ControlAction::Close, Some(&attribution))
        }
    };
    let act = AuditEntry {
        action: words.into(),
        on: name.into(),
        result: String::new(),
        attribution: attribution.clone(),
    };
    control.audit(&act).await?;
    control.apply(name, action, wanted).await?;
    find(control, config, name).await
}
