//! Events: state, history and lists.

mod accepted;
mod find;
mod list;
mod refused;
mod tail;
mod waiting;

use serde::Serialize;
use zentra_config::Config;
use zentra_core::event::DeliveryKey;
use zentra_store::journal::{Delivery, HistoryEvent};
use zentra_store::queue::Operate;

pub use accepted::{Accepted, Waiting};
pub use find::{Match, Matches, find as find_text};
pub use list::{list, of_event};
pub use refused::RefusedCopy;
pub use tail::{Change, New, Watch, tail};
pub use waiting::end;

use crate::audit::Actor;
use crate::backend::{Backend, broker_unavailable};
use crate::dead::{self, Done, Letters};
use crate::deliveries;
use crate::error::AdminError;

/// All information about an event.
#[derive(Serialize)]
pub struct EventDetails {
    /// Deliveries, oldest key first.
    pub deliveries: Vec<Delivery>,
    /// Where it waits, if no worker has claimed it.
    pub accepted: Vec<Accepted>,
    /// Refused callbacks that claim its id or have its body.
    pub refused: Vec<RefusedCopy>,
}

/// Timeout of RabbitMQ if the store has the event already.
const BRIEFLY: std::time::Duration = std::time::Duration::from_secs(3);

/// Searches an event: in the store; in the queues, if the store doesn't have it or doesn't answer;
/// and among refused callbacks.
pub async fn look(
    backend: &impl Backend,
    config: &Config,
    id: &str,
) -> Result<EventDetails, AdminError> {
    let known = deliveries::known(&backend.histories(), &config.pairs(), id).await;
    let found = known.as_ref().is_ok_and(|known| !known.is_empty());
    let connecting = async {
        match found {
            true => tokio::time::timeout(BRIEFLY, backend.queue()).await.unwrap_or_else(late),
            false => backend.queue().await,
        }
    };
    let queue = match connecting.await {
        Ok(queue) => queue,
        // The store's answer is enough.
        Err(failure) if found => {
            tracing::warn!(error = failure.message, "cannot read refused callbacks");
            return Ok(EventDetails {
                deliveries: known?,
                accepted: Vec::new(),
                refused: Vec::new(),
            });
        }
        Err(failure) => return Err(failure),
    };
    let known_here = known.as_deref().unwrap_or_default();
    let (accepted, refused) = in_queues(&queue, config, id, known_here).await?;
    match known {
        Ok(deliveries) if found || !accepted.is_empty() || !refused.is_empty() => {
            Ok(EventDetails { deliveries, accepted, refused })
        }
        Err(_) if !accepted.is_empty() => {
            Ok(EventDetails { deliveries: Vec::new(), accepted, refused })
        }
        Err(failure) => Err(failure),
        Ok(_) => Err(deliveries::unknown(id)),
    }
}

fn late<T>(_: tokio::time::error::Elapsed) -> Result<T, AdminError> {
    Err(broker_unavailable())
}

async fn in_queues(
    queue: &impl Operate,
    config: &Config,
    id: &str,
    known: &[Delivery],
) -> Result<(Vec<Accepted>, Vec<RefusedCopy>), AdminError> {
    let accepted = match known {
        [] => accepted::find(queue, config, id).await?,
        _ => Vec::new(),
    };
    let events = known.iter().map(|delivery| &delivery.event);
    let events = events.chain(accepted.iter().map(|one| &one.event));
    let bodies = events.map(|event| (event.source.as_str(), event.body_sha256.as_str()));
    let of = refused::Of { id, known: bodies.collect() };
    let refused = refused::find(queue, config, &of).await?;
    Ok((accepted, refused))
}

/// What was released.
pub enum Released {
    /// A waiting attempt, by its delivery key.
    Waiting(DeliveryKey),
    /// A suspected replay or a conflict.
    Suspected(Done),
}

/// Lets a suspected replay or a conflict go on as an event of its own, or has a delivery that waits for its next
/// attempt attempted now.
///
/// # Errors
/// Those of [`dead::requeue`], and [`crate::ErrorCode::AmbiguousId`].
pub async fn release(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    actor: &Actor,
) -> Result<Released, AdminError> {
    if let Some(key) = waiting::now(backend, config, id, actor).await? {
        return Ok(Released::Waiting(key));
    }
    let what = HistoryEvent::Released { reason: actor.reason.clone() };
    let letters = Letters::of(vec![id.to_owned()]);
    let done = dead::requeue(backend, config, &letters, &what, &actor.name, &()).await?;
    Ok(Released::Suspected(done))
}
