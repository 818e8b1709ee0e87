//! Accepted events that the delivery store doesn't know: no worker has taken them up, or no
//! destination subscribes to them.
//!
//! Work queues are not read. RabbitMQ counts each read as a delivery, and dead-letters a message
//! after 100.

use serde::Serialize;
use zentra_config::Config;
use zentra_core::event::Event;
use zentra_store::journal::Summary;
use zentra_store::queue::{Message, Operate, Place};

use crate::archive;
use crate::error::AdminError;
use crate::look::each;
use crate::payload;

/// Maximum number of unrouted events that are read.
const UNROUTED: usize = 10_000;

/// An accepted event that no worker has claimed.
#[derive(Debug, Serialize)]
pub struct Accepted {
    /// Always the same text, like the state of a delivery's record.
    pub state: &'static str,
    /// Path of the file.
    pub place: Waiting,
    pub event: Summary,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// No destination subscribes to it.
    Unrouted,
    /// No worker has taken it up yet, or it was forgotten.
    Archive,
}

/// Searches an event among the unrouted ones, then in the archive.
pub(crate) async fn find(
    queue: &impl Operate,
    config: &Config,
    id: &str,
) -> Result<Vec<Accepted>, AdminError> {
    // A delivery's key is destination, source and identity.
    let of = |name: &str| id.strip_prefix(name)?.strip_prefix('/');
    let key = config.destinations.iter().find_map(|destination| of(&destination.name));
    let named = |event: &Event| {
        let (envelope, name) = (&event.envelope, event.envelope.name());
        let of_source = || key?.strip_prefix(&envelope.source)?.strip_prefix('/');
        envelope.event_id() == Some(id) || name.as_str() == id || of_source() == Some(name.as_str())
    };
    let shown = |event: &Event| payload::summary(config, &Summary::of(event, &event.fingerprint()));
    let fits = |message: &Message| {
        let event = config.seal.open(&message.sealed).ok().filter(named)?;
        let trace = message.sealed.trace.map(|trace| trace.id());
        Some(Summary { trace, ..shown(&event) })
    };
    if let Some(event) = first(queue, Place::Unrouted, UNROUTED, fits).await? {
        return Ok(vec![Accepted::new(Waiting::Unrouted, event)]);
    }
    if config.routes().archive.sources.is_empty() {
        return Ok(Vec::new());
    }
    let archived = archive::first(queue, config, &named).await?;
    Ok(archived.map(|event| Accepted::new(Waiting::Archive, shown(&event))).into_iter().collect())
}

/// The first match among the first messages of a queue.
async fn first<T>(
    queue: &impl Operate,
    place: Place<'_>,
    most: usize,
    fits: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, AdminError> {
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
        Self { state: "accepted", place, event }
    }
}
