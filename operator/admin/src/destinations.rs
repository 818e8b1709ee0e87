//! Destinations: how they stand by what their workers tell, and what operators want of them.

use serde::Serialize;
use utoipa::ToSchema;
use zentra_config::Config;
use zentra_store::control::{Act, Beat, Circuit, Control, Order, Wish};

use crate::audit::Actor;
use crate::error::AdminError;
use crate::filter;

/// A control action for a destination's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// No more attempts.
    Pause,
    /// Attempts again.
    Resume,
    /// Attempts, though the circuit is open.
    CloseCircuit,
}

/// A destination, by its workers' heartbeats.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standing)]
pub struct Destination {
    pub destination: String,
    /// How many workers work for it.
    pub workers: usize,
    /// Attempts that run now.
    pub in_flight: u64,
    /// The worst of all workers' circuits; null without a worker.
    pub circuit: Option<Circuit>,
    #[serde(flatten)]
    pub order: Order,
    /// How many workers have heard that it is paused.
    pub heard: usize,
}

/// All destinations of the config.
pub async fn list(control: &impl Control, config: &Config) -> Result<Vec<Destination>, AdminError> {
    let (beats, mut orders) = (control.workers().await?, control.orders().await?);
    let names = config.destinations.iter().map(|destination| &destination.name);
    Ok(names.map(|name| standing(name, &beats, orders.remove(name))).collect())
}

fn standing(name: &str, beats: &[Beat], order: Option<Order>) -> Destination {
    let works = || beats.iter().filter_map(|beat| beat.destinations.get(name));
    Destination {
        destination: name.to_owned(),
        workers: works().count(),
        in_flight: works().map(|work| work.in_flight).sum(),
        circuit: works().map(|work| work.circuit).max(),
        heard: works().filter(|work| work.paused).count(),
        order: order.unwrap_or_default(),
    }
}

/// The destination of this name.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`].
pub async fn find(
    control: &impl Control,
    config: &Config,
    name: &str,
) -> Result<Destination, AdminError> {
    filter::destinations(config, Some(name))?;
    let (beats, mut orders) = (control.workers().await?, control.orders().await?);
    Ok(standing(name, &beats, orders.remove(name)))
}

/// Tells a destination's workers, who hear it within a second; and says how it stands then. The audit log has
/// it before.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`].
pub async fn act(
    control: &impl Control,
    config: &Config,
    name: &str,
    action: Action,
    actor: &Actor,
) -> Result<Destination, AdminError> {
    find(control, config, name).await?;
    let said = actor.said();
    let (words, wish, wanted) = match action {
        Action::Pause => ("destination pause", Wish::Pause, Some(&said)),
        Action::Resume => ("destination resume", Wish::Pause, None),
        Action::CloseCircuit => ("destination close-circuit", Wish::Close, Some(&said)),
    };
    let act =
        Act { action: words.into(), on: name.into(), result: String::new(), said: said.clone() };
    control.audit(&act).await?;
    control.wish(name, wish, wanted).await?;
    find(control, config, name).await
}
