//! Events that were accepted, but that no worker has taken up: they are in a queue, and not in the
//! journal.

use std::io::Write;

use serde::Serialize;
use zentra_shared::config::Config;
use zentra_shared::delivery;
use zentra_shared::event::Event;
use zentra_shared::journal::Summary;
use zentra_shared::queue::{Message, Operate, Place};

use crate::failure::Failure;
use crate::look::each;
use crate::payload;
use crate::{archive, event};

/// So many of a work queue's messages are looked at. A look holds them back from workers for a
/// moment, and counts as one of the deliveries after which RabbitMQ gives a message up.
const LOOK: usize = 1000;
/// So many of the unrouted are.
const UNROUTED: usize = 10_000;

/// One such event.
#[derive(Debug, Serialize)]
pub(crate) struct Accepted {
    /// For who reads JSON: what a delivery has in its record.
    state: &'static str,
    /// Where it was found.
    place: Waiting,
    /// For whom it waits, in a work queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    event: Summary,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Waiting {
    Work,
    Unrouted,
    Archive,
}

/// Where an event of this name is, if it is in a queue: in work queues, else among the unrouted,
/// else in the archive.
pub(crate) async fn find(
    queue: &impl Operate,
    config: &Config,
    id: &str,
) -> Result<Vec<Accepted>, Failure> {
    let named = |event: &Event| {
        let envelope = &event.envelope;
        envelope.event_id() == Some(id) || envelope.name().as_str() == id
    };
    let mut found = Vec::new();
    for destination in config.destinations.iter().map(|destination| &destination.name) {
        let fits = |message: &Message| {
            let opened = delivery::open(&config.seal, destination, &message.sealed);
            let event = opened.event.ok()?;
            (named(&event) || opened.key.as_str() == id)
                .then(|| payload::summary(config, &opened.summary))
        };
        let place = Place::Work(destination);
        found.extend(first(queue, place, LOOK, fits).await?.map(|event| Accepted {
            destination: Some(destination.clone()),
            ..Accepted::new(Waiting::Work, event)
        }));
    }
    if found.is_empty() {
        let fits = |message: &Message| {
            let event = config.seal.open(&message.sealed).ok().filter(named)?;
            let trace = message.sealed.trace.map(|trace| trace.id());
            Some(Summary { trace, ..Summary::of(&event, &event.print()) })
        };
        let unrouted = first(queue, Place::Unrouted, UNROUTED, fits).await?;
        found.extend(unrouted.map(|event| Accepted::new(Waiting::Unrouted, event)));
    }
    if found.is_empty() && !config.routes().archive.sources.is_empty() {
        let archived = archive::first(queue, config, &named).await?;
        found.extend(
            archived
                .map(|event| Accepted::new(Waiting::Archive, Summary::of(&event, &event.print()))),
        );
    }
    Ok(found)
}

/// Of the first messages in a queue, the first that fits.
async fn first<T>(
    queue: &impl Operate,
    place: Place<'_>,
    most: usize,
    fits: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let mut found = None;
    let enough = |message: &Message| {
        found = fits(message);
        found.is_some()
    };
    each(queue, place, most, enough).await?;
    Ok(found)
}

impl Accepted {
    fn new(place: Waiting, event: Summary) -> Self {
        Self { state: "accepted", place, destination: None, event }
    }

    /// What is known of the event itself.
    pub(crate) fn event(&self) -> &Summary {
        &self.event
    }

    /// Where it waits, and what for.
    fn words(&self) -> String {
        let place = match (self.place, &self.destination) {
            (Waiting::Unrouted, _) => {
                "no destination subscribes to it (zentra unrouted requeue routes it once one does)"
            }
            (Waiting::Archive, _) => {
                "it is in the archive: further back in a work queue, or long forgotten"
            }
            (Waiting::Work, destination) => {
                let name = destination.as_deref().unwrap_or_default();
                return format!("it waits in the work queue of {name}: no worker has taken it up");
            }
        };
        place.into()
    }
}

/// Shows them to a person.
pub(crate) fn show(all: &[Accepted], out: &mut impl Write) -> std::io::Result<()> {
    for (at, accepted) in all.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(out, "status     accepted: {}", accepted.words())?;
        event::show_event(&accepted.event, None, out)?;
    }
    Ok(())
}
