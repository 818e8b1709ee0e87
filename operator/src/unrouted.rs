//! `zentra unrouted list` and `zentra unrouted requeue`.

use std::collections::HashSet;
use std::io::Write;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock::Timestamp;
use zentra_shared::config::Config;
use zentra_shared::queue::{Message, Operate, Place, Receipt, Subscriber, Walk};
use zentra_shared::seal::{Sealed, Sealer};

use crate::backend::Backend;
use crate::cli::UnroutedCommand;
use crate::control::Audited;
use crate::failure::Failure;
use crate::list::List;
use crate::print_json;
use crate::text;

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: UnroutedCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let done = with(config, &queue, backend, command).await;
    backend.close(queue).await;
    done
}

async fn with(
    config: &Config,
    queue: &impl Operate,
    backend: &impl Backend,
    command: UnroutedCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    let subscribers = config.subscribers();
    match command {
        UnroutedCommand::List { source, limit, json } => {
            let look = Look { sealer: &config.seal, subscribers: &subscribers, source, limit };
            let found = list(queue, &look).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show(&found, &mut out)?),
            }
        }
        UnroutedCommand::Requeue { source, limit, dry_run, asked, json } => {
            let control = backend.histories()?;
            let audited = Audited {
                control: (!dry_run).then_some(&control),
                action: "unrouted requeue",
                on: source.as_ref().map_or_else(String::new, |name| format!("--source {name}")),
                said: asked.said(),
            };
            let look = Look { sealer: &config.seal, subscribers: &subscribers, source, limit };
            let deed = requeue(queue, &look, dry_run);
            let found = audited.run(deed, |found| found.len().to_string()).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show_requeued(&found, dry_run, &mut out)?),
            }
        }
    }
}

/// What is looked for, and with what.
pub(crate) struct Look<'a> {
    pub(crate) sealer: &'a Sealer,
    /// The destinations of the config, as it is now.
    pub(crate) subscribers: &'a [Subscriber],
    pub(crate) source: Option<String>,
    pub(crate) limit: usize,
}

/// One event that nobody subscribed to.
#[derive(Serialize, ToSchema)]
#[schema(as = Unrouted)]
pub(crate) struct Found {
    source: String,
    event_id: Option<String>,
    event_type: Option<String>,
    received_at: Timestamp,
    bytes: usize,
    /// Who subscribes to it by now.
    destinations: Vec<String>,
}

impl Look<'_> {
    /// The event in a message, with its route, if it is wanted. What has no fitting seal
    /// is nobody's event.
    fn open(&self, message: Message) -> Option<(Found, Sealed)> {
        let envelope = self.sealer.open(&message.sealed).ok()?.envelope;
        if self.source.as_ref().is_some_and(|source| *source != envelope.source) {
            return None;
        }
        let route = envelope.route();
        let takers = self.subscribers.iter().filter(|subscriber| subscriber.takes(&route));
        let found = Found {
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

/// Those that are wanted, oldest first. Leaves them all in their place.
pub(crate) async fn list(queue: &impl Operate, look: &Look<'_>) -> Result<Vec<Found>, Failure> {
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

/// Routes those that a destination subscribes to by now; the others stay. With
/// `dry_run`, none is routed.
pub(crate) async fn requeue(
    queue: &impl Operate,
    look: &Look<'_>,
    dry_run: bool,
) -> Result<Vec<Found>, Failure> {
    let mut walk = queue.walk(Place::Unrouted).await?;
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    while all.len() < look.limit
        && let Some((message, receipt)) = walk.next().await?
    {
        let Some((found, sealed)) = look.open(message) else {
            continue;
        };
        // What comes back, since no program has bound the config's subscription yet, isn't
        // sent round in circles.
        if found.destinations.is_empty() || !seen.insert(sealed.id.clone()) {
            continue;
        }
        if !dry_run {
            queue.reroute(&sealed).await?;
            // Confirmed in its new place: only now may it go from the old one.
            receipt.ack().await;
        }
        all.push(found);
    }
    walk.finish().await?;
    Ok(all)
}

/// Shows them to a person: one line each.
pub(crate) fn show(all: &[Found], out: &mut impl Write) -> std::io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no unrouted events");
    }
    writeln!(out, "{:<24}  {:<40}  BYTES  TAKEN BY NOW", "RECEIVED", "EVENT")?;
    for found in all {
        let Found { received_at, bytes, .. } = found;
        let takers = match found.destinations.is_empty() {
            true => "nobody".into(),
            false => found.destinations.join(", "),
        };
        let (received, event) = (received_at.to_string(), event(found));
        writeln!(out, "{received:<24}  {event:<40}  {bytes:<5}  {takers}")?;
    }
    Ok(())
}

/// Shows to a person what was routed.
pub(crate) fn show_requeued(
    all: &[Found],
    dry_run: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let done = if dry_run { "would be routed" } else { "routed" };
    for found in all {
        writeln!(out, "{}  {done} to {}", event(found), found.destinations.join(", "))?;
    }
    writeln!(out, "{} {done}; the others have no destination in this config", all.len())
}

fn event(found: &Found) -> String {
    let id = found.event_id.as_deref().unwrap_or("(no id)");
    let kind = found.event_type.as_deref().unwrap_or("(no type)");
    format!("{}/{id} {kind}", found.source)
}
