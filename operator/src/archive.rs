//! `zentra archive list` and `zentra archive show`: what was accepted, whatever became of it.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock::{self, Timestamp};
use zentra_shared::config::Config;
use zentra_shared::event::Event;
use zentra_shared::queue::{Archived, Operate, QueueError};

use crate::backend::Backend;
use crate::cli::ArchiveCommand;
use crate::failure::Failure;
use crate::list::List;
use crate::print_json;
use crate::text;

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: ArchiveCommand,
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
    command: ArchiveCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    match command {
        ArchiveCommand::List { wanted, json } => {
            let found = list(queue, config, &wanted).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show(&found, &mut out)?),
            }
        }
        ArchiveCommand::Show { id, payload, json } => {
            let (found, event) = find(queue, config, &id).await?;
            match (json, payload.body) {
                (true, _) => print_json(&found, &mut out),
                (_, true) => {
                    let (control, source) = (backend.histories()?, &event.envelope.source);
                    let seen =
                        payload.seen(&control, config, "archive show", &id, source, &event.body);
                    Ok(text::write_bytes(&seen.await?, payload.raw)?)
                }
                _ => Ok(show(&[found], &mut out)?),
            }
        }
    }
}

/// What is looked for.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Wanted {
    /// Only this source's.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Only those of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Only those that were accepted so long ago or less (`2h`).
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(crate) newer_than: Option<Duration>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: usize,
}

/// One archived event.
#[derive(Serialize, ToSchema)]
#[schema(as = Archived)]
pub(crate) struct Found {
    source: String,
    event_id: Option<String>,
    /// As its deliveries are named.
    identity: String,
    event_type: Option<String>,
    received_at: Timestamp,
    bytes: usize,
}

impl Found {
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

/// The archive from this time on. None: no program has declared it yet, so it is empty.
pub(crate) async fn open<Q: Operate>(
    queue: &Q,
    config: &Config,
    from: Timestamp,
) -> Result<Option<Q::Archived>, Failure> {
    let archive = config.routes().archive;
    if archive.sources.is_empty() {
        return Err(Failure::Asked(
            "no source of this config is archived.\nSet archive = true for one.".into(),
        ));
    }
    match queue.archived(&archive, from).await {
        Err(QueueError::Missing(_)) => Ok(None),
        archived => Ok(Some(archived?)),
    }
}

/// Those that are wanted, oldest first. What has no fitting seal is nobody's event.
async fn look(
    queue: &impl Operate,
    config: &Config,
    from: Timestamp,
    limit: usize,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, Failure> {
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

/// Lists them.
pub(crate) async fn list(
    queue: &impl Operate,
    config: &Config,
    wanted: &Wanted,
) -> Result<Vec<Found>, Failure> {
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
    Ok(found.iter().map(Found::of).collect())
}

/// Those that are wanted of what was accepted from this time on, at most `limit`.
pub(crate) async fn all(
    queue: &impl Operate,
    config: &Config,
    from: Timestamp,
    limit: usize,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, Failure> {
    look(queue, config, from, limit, wanted).await
}

/// The first that is wanted.
pub(crate) async fn first(
    queue: &impl Operate,
    config: &Config,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Option<Event>, Failure> {
    Ok(look(queue, config, Timestamp::default(), 1, wanted).await?.pop())
}

/// The first with this id: the provider's, or the identity.
pub(crate) async fn find(
    queue: &impl Operate,
    config: &Config,
    id: &str,
) -> Result<(Found, Event), Failure> {
    let fits = |event: &Event| {
        let envelope = &event.envelope;
        envelope.event_id() == Some(id) || envelope.name().as_str() == id
    };
    let event = first(queue, config, fits).await?.ok_or_else(|| {
        Failure::Asked(format!("no event {id} is in the archive.\nSee zentra archive list."))
    })?;
    Ok((Found::of(&event), event))
}

/// Shows them to a person: one line each.
pub(crate) fn show(all: &[Found], out: &mut impl Write) -> std::io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no archived events");
    }
    writeln!(out, "{:<24}  {:<40}  BYTES  TYPE", "RECEIVED", "EVENT")?;
    for found in all {
        let id = found.event_id.as_ref().unwrap_or(&found.identity);
        let (received, event) = (found.received_at.to_string(), format!("{}/{id}", found.source));
        let kind = found.event_type.as_deref().unwrap_or("(no type)");
        writeln!(out, "{received:<24}  {event:<40}  {:<5}  {kind}", found.bytes)?;
    }
    Ok(())
}
