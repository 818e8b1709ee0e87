//! The archive of accepted events.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::Event;
use zentra_store::queue::{Archive, Archived, Operate, QueueError};

use crate::error::{AdminError, ErrorCode};

/// Filters for archived events.
#[derive(Clone, Debug, Default)]
pub struct ArchiveFilter {
    /// Only this source.
    pub source: Option<String>,
    /// Only this event type.
    pub kind: Option<String>,
    /// Only events that were accepted within this time.
    pub newer_than: Option<Duration>,
    /// Maximum number of events.
    pub limit: usize,
}

/// An archived event.
#[derive(Serialize)]
pub struct ArchivedEvent {
    pub source: String,
    pub event_id: Option<String>,
    /// Identity, as in its delivery keys.
    pub identity: String,
    pub event_type: Option<String>,
    pub received_at: Timestamp,
    pub bytes: usize,
}

impl ArchivedEvent {
    fn of(event: &Event) -> Self {
        let envelope = &event.envelope;
        Self {
            source: envelope.source.clone(),
            event_id: envelope.event_id().map(str::to_owned),
            identity: envelope.name().as_str().to_owned(),
            event_type: envelope.event_type.clone(),
            received_at: envelope.received_at,
            bytes: event.body.len(),
        }
    }
}

/// The archive from this time on. `None`: no program has declared it yet.
pub async fn open<Q: Operate>(
    queue: &Q,
    config: &Config,
    from: Timestamp,
) -> Result<Option<Q::Archived>, AdminError> {
    opened(queue.archived(&enabled(config)?, from).await)
}

/// The archive behind a position. `None`: no program has declared it yet.
pub(crate) async fn open_after<Q: Operate>(
    queue: &Q,
    config: &Config,
    position: &str,
) -> Result<Option<Q::Archived>, AdminError> {
    opened(queue.archived_after(&enabled(config)?, position).await)
}

fn enabled(config: &Config) -> Result<Archive, AdminError> {
    let archive = config.routes().archive;
    match archive.sources.is_empty() {
        false => Ok(archive),
        true => Err(AdminError::new(ErrorCode::ArchiveDisabled, "no source has an archive.")
            .hint("Set archive = true for a source.")),
    }
}

fn opened<A>(archived: Result<A, QueueError>) -> Result<Option<A>, AdminError> {
    match archived {
        Err(QueueError::Missing(_)) => Ok(None),
        archived => Ok(Some(archived?)),
    }
}

/// Matching events, oldest first. Messages without a valid seal are skipped.
async fn look(
    queue: &impl Operate,
    config: &Config,
    from: Timestamp,
    limit: usize,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, AdminError> {
    let Some(mut archived) = open(queue, config, from).await? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(sealed) = archived.next().await?
    {
        let event = config.seal.open(&sealed).ok();
        found.extend(event.filter(|event| event.envelope.received_at >= from && wanted(event)));
    }
    Ok(found)
}

/// Matching archived events, oldest first.
pub async fn list(
    queue: &impl Operate,
    config: &Config,
    wanted: &ArchiveFilter,
) -> Result<Vec<ArchivedEvent>, AdminError> {
    let from = wanted.newer_than.map_or(Timestamp::default(), |age| {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(clock::now().millis().saturating_sub(age))
    });
    let fits = |event: &Event| {
        let envelope = &event.envelope;
        wanted.source.as_ref().is_none_or(|source| *source == envelope.source)
            && (wanted.kind.is_none() || wanted.kind == envelope.event_type)
    };
    let found = look(queue, config, from, wanted.limit, fits).await?;
    Ok(found.iter().map(ArchivedEvent::of).collect())
}

/// Matching events that were accepted since a time, at most `limit`.
pub async fn all(
    queue: &impl Operate,
    config: &Config,
    from: Timestamp,
    limit: usize,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, AdminError> {
    look(queue, config, from, limit, wanted).await
}

/// The first match.
pub async fn first(
    queue: &impl Operate,
    config: &Config,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Option<Event>, AdminError> {
    Ok(look(queue, config, Timestamp::default(), 1, wanted).await?.pop())
}

/// Which one of several events with the same id is meant.
#[derive(Clone, Debug, Default)]
pub struct Among {
    /// Only of this source.
    pub source: Option<String>,
    /// The one with this body, if there is one: SHA-256, in hex.
    pub body_sha256: Option<String>,
}

/// The event with this id, the provider's or the identity: the first one, unless `among` names another.
pub async fn find(
    queue: &impl Operate,
    config: &Config,
    id: &str,
    among: &Among,
) -> Result<(ArchivedEvent, Event), AdminError> {
    let fits = |event: &Event| {
        let envelope = &event.envelope;
        among.source.as_ref().is_none_or(|source| *source == envelope.source)
            && (envelope.event_id() == Some(id) || envelope.name().as_str() == id)
    };
    let mut found = None;
    if let Some(digest) = &among.body_sha256 {
        let is_meant =
            |event: &Event| fits(event) && *digest == hex::encode(Sha256::digest(&event.body));
        found = first(queue, config, is_meant).await?;
    }
    if found.is_none() {
        found = first(queue, config, fits).await?;
    }
    let event = found.ok_or_else(|| {
        let message = format!("the archive has no event {id}.");
        AdminError::new(ErrorCode::ArchivedEventNotFound, message).about(id)
    })?;
    Ok((ArchivedEvent::of(&event), event))
}
