//! Copies of a destination's events, from the archive. Deliveries do not change.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use zentra_config::{Config, Destination};
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::trace::Trace;
use zentra_store::queue::{Archived, Operate, QueueError, takes};

use crate::archive;
use crate::error::{AdminError, ErrorCode};
use crate::filter;

/// Total size of the bodies after which a request gets no more copies.
const MOST_BYTES: usize = 4 << 20;
/// How long more events are waited for after the first one.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often an archive that does not wait itself is read.
const LOOK: Duration = Duration::from_millis(200);

/// Where reading goes on. As text it is opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// With events that were received from this time on.
    Since(Timestamp),
    /// Behind an event, as the archive names it.
    After(String),
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Since(time) => write!(f, "since.{}", time.millis()),
            Self::After(position) => write!(f, "after.{position}"),
        }
    }
}

impl std::str::FromStr for Position {
    type Err = AdminError;

    /// # Errors
    /// [`ErrorCode::InvalidCursor`].
    fn from_str(text: &str) -> Result<Self, AdminError> {
        let since = text.strip_prefix("since.").and_then(|millis| millis.parse().ok());
        let since = since.map(|millis| Self::Since(Timestamp::from_millis(millis)));
        let after = text.strip_prefix("after.").map(|position| Self::After(position.to_owned()));
        since.or(after).ok_or_else(|| QueueError::NoSuchPosition(text.to_owned()).into())
    }
}

/// A copy of an event.
#[derive(Debug)]
pub struct Copy {
    /// The idempotency key.
    pub key: DeliveryKey,
    pub event: Event,
    /// Its trace.
    pub trace: Option<Trace>,
}

/// Some copies.
#[derive(Debug)]
pub struct Copies {
    /// Oldest first.
    pub events: Vec<Copy>,
    /// Where the next request goes on.
    pub position: Position,
    /// Sources that the destination subscribes to, and whose events are not archived.
    pub not_archived: Vec<String>,
}

/// Copies of the archived events that a destination subscribes to, at most `most`. Waits for the
/// first one, at most `wait`.
///
/// # Errors
/// [`ErrorCode::DestinationNotFound`], [`ErrorCode::InvalidCursor`], and
/// [`ErrorCode::ArchiveDisabled`] if none of its sources is archived.
pub async fn read(
    queue: &impl Operate,
    config: &Config,
    destination: &str,
    from: Position,
    most: usize,
    wait: Duration,
) -> Result<Copies, AdminError> {
    let destination = find(config, destination)?;
    let not_archived = not_archived(config, destination)?;
    let mut copies = Copies { events: Vec::new(), position: from.clone(), not_archived };
    let archived = match &from {
        Position::Since(time) => archive::open(queue, config, *time).await?,
        Position::After(position) => archive::open_after(queue, config, position).await?,
    };
    let (until, mut bytes) = (Instant::now() + wait, 0);
    let Some(mut archived) = archived else {
        sleep(wait).await;
        return Ok(copies);
    };
    while copies.events.len() < most && bytes < MOST_BYTES {
        let left = match copies.events.is_empty() {
            true => until.saturating_duration_since(Instant::now()),
            false => TOGETHER,
        };
        let sealed = match timeout(left, archived.next()).await {
            Ok(next) => match next? {
                Some(sealed) => sealed,
                None if copies.events.is_empty() && !left.is_zero() => {
                    sleep(LOOK.min(left)).await;
                    continue;
                }
                None => break,
            },
            Err(_) => break,
        };
        if let Some(position) = archived.position() {
            copies.position = Position::After(position);
        }
        // A message without a valid seal is no event.
        let Ok(event) = config.seal.open(&sealed) else { continue };
        let is_early = matches!(from, Position::Since(time) if event.envelope.received_at < time);
        if is_early || !takes(&destination.subscribe, &event.envelope.route()) {
            continue;
        }
        bytes += event.body.len();
        let (source, identity) = (&event.envelope.source, event.envelope.name());
        let key = DeliveryKey::new(&destination.name, source, &identity);
        copies.events.push(Copy { key, event, trace: sealed.trace });
    }
    Ok(copies)
}

fn find<'c>(config: &'c Config, name: &str) -> Result<&'c Destination, AdminError> {
    let mut all = config.destinations.iter();
    let found = all.find(|destination| destination.name == name);
    found.ok_or_else(|| filter::unknown_destination(config, name))
}

fn not_archived(config: &Config, destination: &Destination) -> Result<Vec<String>, AdminError> {
    let sources = config.sources.iter().filter(|source| destination.can_take(&source.name));
    let (archived, others): (Vec<_>, Vec<_>) = sources.partition(|source| source.archive);
    let others: Vec<String> = others.iter().map(|source| source.name.clone()).collect();
    match archived.is_empty() {
        false => Ok(others),
        true => {
            let message = format!("no source of the destination {} is archived.", destination.name);
            Err(AdminError::new(ErrorCode::ArchiveDisabled, message)
                .hint("Set archive = true for its sources: copies come from the archive."))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(
            position in prop_oneof![
                any::<u64>().prop_map(|millis| Position::Since(Timestamp::from_millis(millis))),
                ".{0,40}".prop_map(Position::After),
            ],
        ) {
            prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Position>();
        }
    }
}
