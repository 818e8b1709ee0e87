//! Search for a text in bodies, such as a customer's transfer number.
//!
//! It reads all places that keep bodies, except work queues, because RabbitMQ counts each read
//! there as a delivery. Waiting and delivered events are found in the archive. Redacted fields are
//! searched only for somebody who may see them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Event, Identity};
use zentra_core::refused::RefusedRecord;
use zentra_store::control::Attribution;
use zentra_store::journal::DeliveryStore;
use zentra_store::queue::{Message, Operate, Place};

use crate::archive;
use crate::audit::looked;
use crate::backend::Backend;
use crate::deliveries::status;
use crate::error::AdminError;
use crate::look::each;
use crate::payload::shown;

/// Maximum number of messages that are read in one place.
const LOOK: usize = 1_000_000;
/// Maximum number of matches.
const MOST: usize = 100;

/// Matches of a search.
#[derive(Debug, Default, Serialize)]
pub struct Matches {
    /// Accepted events, by time of receipt.
    pub events: Vec<Match>,
    /// Ids of refused callbacks. Nothing has verified them.
    pub refused: Vec<String>,
    /// Whether there can be more.
    pub more: bool,
    /// Whether bodies of delivered events are archived.
    pub archived: bool,
}

/// An event whose body contains the text.
#[derive(Debug, Serialize)]
pub struct Match {
    pub source: String,
    pub event_id: Option<String>,
    /// Identity, as in its delivery keys.
    pub identity: String,
    pub event_type: Option<String>,
    pub received_at: Timestamp,
    /// Places where its body was found.
    pub places: BTreeSet<String>,
    /// Its remembered deliveries and their states.
    pub deliveries: BTreeMap<String, String>,
}

/// A search.
struct Search<'a> {
    config: &'a Config,
    finder: Finder<'a>,
    /// Search redacted fields too.
    unredacted: bool,
    /// Whether no source redacts bodies.
    plain: bool,
}

impl<'a> Search<'a> {
    fn new(config: &'a Config, text: &'a str, unredacted: bool) -> Self {
        let plain = unredacted || config.sources.iter().all(|one| one.redact.shows_bodies());
        Self { config, finder: Finder::new(text), unredacted, plain }
    }

    /// Whether a body can contain the text. Cheaper than opening the seal.
    fn may_fit(&self, body: &[u8]) -> bool {
        !self.plain || self.finder.find(body).is_some()
    }

    fn fits(&self, source: &str, body: &Bytes) -> bool {
        match self.unredacted {
            true => self.finder.find(body).is_some(),
            false => self.finder.find(&shown(self.config, source, body)).is_some(),
        }
    }
}

/// Looks through all places for events whose bodies have the text; with `unredacted`, also in what their
/// sources redact. The audit log has before who looks for what.
///
/// # Errors
/// Those of broker and store.
pub async fn find(
    backend: &impl Backend,
    config: &Config,
    text: &str,
    unredacted: bool,
    attribution: &Attribution,
) -> Result<Matches, AdminError> {
    let histories = backend.histories();
    let action = if unredacted { "event find unredacted" } else { "event find" };
    looked(&histories, action, text, attribution).await?;
    let queue = backend.queue().await?;
    let mut matches = look(&queue, &Search::new(config, text, unredacted)).await?;
    for event in &mut matches.events {
        event.remembered(&histories, config).await?;
    }
    Ok(matches)
}

async fn look(queue: &impl Operate, search: &Search<'_>) -> Result<Matches, AdminError> {
    let config = search.config;
    let mut found = Events::default();
    let mut places = vec![(Place::Unrouted, "unrouted".to_owned())];
    for name in config.destinations.iter().map(|destination| &destination.name) {
        places.push((Place::Dead(name), format!("dead letters of {name}")));
    }
    let fits = |event: &Event| search.fits(&event.envelope.source, &event.body);
    for (place, words) in places {
        let enough = |message: &Message| {
            let may_fit = search.may_fit(&message.sealed.body);
            let event = may_fit.then(|| config.seal.open(&message.sealed).ok()).flatten();
            event.is_some_and(|event| fits(&event) && found.add(&event, &words))
        };
        each(queue, place, LOOK, enough).await?;
    }
    let mut refused = Vec::new();
    let take = |message: &Message| {
        let may_fit = search.may_fit(&message.sealed.body);
        let kept =
            may_fit.then(|| RefusedRecord::open(&config.seal, &message.sealed).ok()).flatten();
        let kept = kept.filter(|(kept, callback)| search.fits(&kept.source, &callback.body));
        refused.extend(kept.map(|(kept, _)| kept.id));
        refused.len() == MOST
    };
    each(queue, Place::Refused, LOOK, take).await?;
    let archived = !config.routes().archive.sources.is_empty();
    if archived {
        for event in archive::all(queue, config, Timestamp::default(), MOST, fits).await? {
            found.add(&event, "archive");
        }
    }
    let more = found.0.len() >= MOST || refused.len() >= MOST;
    let mut events: Vec<Match> = found.0.into_values().collect();
    events.sort_by_key(|event| event.received_at);
    Ok(Matches { events, refused, more, archived })
}

/// By source and identity.
#[derive(Default)]
struct Events(BTreeMap<(String, String), Match>);

impl Events {
    /// Whether the maximum is reached.
    fn add(&mut self, event: &Event, place: &str) -> bool {
        let envelope = &event.envelope;
        let (source, identity) = (envelope.source.clone(), envelope.name().as_str().to_owned());
        let known = self.0.entry((source.clone(), identity.clone())).or_insert_with(|| Match {
            source,
            event_id: envelope.event_id().map(str::to_owned),
            identity,
            event_type: envelope.event_type.clone(),
            received_at: envelope.received_at,
            places: BTreeSet::new(),
            deliveries: BTreeMap::new(),
        });
        known.places.insert(place.to_owned());
        self.0.len() >= MOST
    }
}

impl Match {
    async fn remembered(
        &mut self,
        histories: &impl DeliveryStore,
        config: &Config,
    ) -> Result<(), AdminError> {
        for destination in &config.destinations {
            let identity = Identity::from_text(&self.identity);
            let key = DeliveryKey::new(&destination.name, &self.source, &identity);
            if let Some(delivery) = histories.history(&key).await? {
                self.deliveries.insert(key.to_string(), status(&delivery));
            }
        }
        Ok(())
    }
}
