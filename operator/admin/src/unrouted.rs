//! Accepted events that no destination subscribes to.

use std::collections::HashSet;

use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::seal::{Sealed, Sealer};
use zentra_store::queue::{Message, Operate, Place, Receipt, Subscriber, Walk};

use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::error::AdminError;

/// One of them.
#[derive(Serialize)]
pub struct UnroutedEvent {
    pub source: String,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub received_at: Timestamp,
    pub bytes: usize,
    /// Destinations that subscribe to it by now.
    pub destinations: Vec<String>,
}

/// Those of the source, or all: oldest first, at most `limit`. They all stay in their place.
///
/// # Errors
/// Those of the broker.
pub async fn list(
    backend: &impl Backend,
    config: &Config,
    source: Option<String>,
    limit: usize,
) -> Result<Vec<UnroutedEvent>, AdminError> {
    let look = Look { sealer: &config.seal, subscribers: &config.subscribers(), source, limit };
    listed(&backend.queue().await?, &look).await
}

/// Routes those that a destination subscribes to by now, and returns them; the others stay. Each passes the same
/// seal, claim and attempt as any event. With `dry_run`, none is routed.
///
/// # Errors
/// Those of the broker and of the store.
pub async fn requeue(
    backend: &impl Backend,
    config: &Config,
    source: Option<String>,
    limit: usize,
    dry_run: bool,
    actor: &Actor,
) -> Result<Vec<UnroutedEvent>, AdminError> {
    let (control, queue) = (backend.histories(), backend.queue().await?);
    let audited = Audited {
        control: (!dry_run).then_some(&control),
        action: "unrouted requeue",
        on: source.as_ref().map_or_else(String::new, |name| format!("source={name}")),
        attribution: actor.attribution(),
    };
    let look = Look { sealer: &config.seal, subscribers: &config.subscribers(), source, limit };
    audited.run(routed(&queue, &look, dry_run), |found| found.len().to_string()).await
}

/// A search for unrouted events.
struct Look<'a> {
    sealer: &'a Sealer,
    /// The configured destinations.
    subscribers: &'a [Subscriber],
    source: Option<String>,
    limit: usize,
}

impl Look<'_> {
    /// The event in a message, if it matches. Messages without a valid seal are skipped.
    fn open(&self, message: Message) -> Option<(UnroutedEvent, Sealed)> {
        let envelope = self.sealer.open(&message.sealed).ok()?.envelope;
        if self.source.as_ref().is_some_and(|source| *source != envelope.source) {
            return None;
        }
        let route = envelope.route();
        let takers = self.subscribers.iter().filter(|subscriber| subscriber.takes(&route));
        let found = UnroutedEvent {
            destinations: takers.map(|subscriber| subscriber.destination.clone()).collect(),
            event_id: envelope.event_id().map(str::to_owned),
            source: envelope.source,
            event_type: envelope.event_type,
            received_at: envelope.received_at,
            bytes: message.sealed.body.len(),
        };
        Some((found, Sealed { route, ..message.sealed }))
    }
}

async fn listed(queue: &impl Operate, look: &Look<'_>) -> Result<Vec<UnroutedEvent>, AdminError> {
    let mut walk = queue.walk(Place::Unrouted).await?;
    let mut all = Vec::new();
    while all.len() < look.limit
        && let Some((message, _held)) = walk.next().await?
    {
        all.extend(look.open(message).map(|(found, _)| found));
    }
    walk.finish().await?;
    Ok(all)
}

async fn routed(
    queue: &impl Operate,
    look: &Look<'_>,
    dry_run: bool,
) -> Result<Vec<UnroutedEvent>, AdminError> {
    let mut walk = queue.walk(Place::Unrouted).await?;
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    while all.len() < look.limit
        && let Some((message, receipt)) = walk.next().await?
    {
        let Some((found, sealed)) = look.open(message) else {
            continue;
        };
        // An event that comes back, because no program has bound the subscription yet, is not
        // routed again.
        if found.destinations.is_empty() || !seen.insert(sealed.id.clone()) {
            continue;
        }
        if !dry_run {
            queue.reroute(&sealed).await?;
            // Confirmed in its new place, so it can be removed from the old one.
            receipt.ack().await;
        }
        all.push(found);
    }
    walk.finish().await?;
    Ok(all)
}
