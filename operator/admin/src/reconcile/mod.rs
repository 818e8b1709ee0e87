//! Reconcile: compare a provider's list of events with what came, and ingest what is missing.

mod ingest;
mod list;
mod provider;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use webhook_verify::Location;
use webhook_verify::Secret;
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::event::Event;
use zentra_core::lifecycle::State;
use zentra_core::source::Source;
use zentra_store::journal::{Delivery, DeliveryStore};
use zentra_store::queue::Operate;

use crate::archive;
use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::deliveries;
use crate::error::{AdminError, ErrorCode};
use crate::progress::Progress;
use ingest::{INGEST, ingest_missing, ingestible};
use list::Fields;
pub use list::{Format, Listed};
use provider::{Api, Kind};

/// What came so lately may still be on its way.
const YOUNG: Duration = Duration::from_secs(300);
/// How far a provider's clock can be ahead of the ingress's.
const EARLIER: Duration = Duration::from_secs(3600);
/// Number of lookups at a time.
const AT_A_TIME: usize = 16;

/// Where the provider's own list comes from.
#[derive(Clone, Debug)]
pub enum List {
    /// A file; `-` is the standard input.
    File {
        path: PathBuf,
        format: Format,
        /// Where in it an event's id is: a JSON pointer, or a column. None: where the provider has it.
        id: Option<String>,
        /// Where in it an event's type is.
        kind: Option<String>,
    },
    /// The provider's API (Stripe, GitHub).
    Api {
        /// Events of so long ago or less.
        since: Duration,
        /// Where it is; none: the provider's own. GitHub needs the webhook's address.
        at: Option<String>,
        /// The environment variable that holds the token; none: the one that the provider's own tools read.
        token_env: Option<String>,
    },
}

/// State of an event of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconcileState {
    /// It never came.
    Missing,
    /// It is a dead letter.
    Dead,
    /// It came with another type.
    Differing,
    /// It was accepted; no worker has claimed it.
    Accepted,
    /// It didn't come yet, but is so recent that it can be on its way.
    Young,
    /// It came.
    Received,
    /// It never came, and was ingested now.
    Ingested,
    /// It never came; the provider was asked to send it again.
    AskedFor,
}

impl ReconcileState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Dead => "dead",
            Self::Differing => "differing",
            Self::Accepted => "accepted",
            Self::Young => "young",
            Self::Received => "received",
            Self::Ingested => "ingested",
            Self::AskedFor => "asked_for",
        }
    }

    /// Whether no action is needed.
    pub fn is_well(self) -> bool {
        !matches!(self, Self::Missing | Self::Dead | Self::Differing)
    }
}

/// One event of the list.
#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub listed: Listed,
    pub state: ReconcileState,
    /// Details.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    pub source: String,
    /// Number of events by state.
    pub counts: BTreeMap<String, usize>,
    /// Events that aren't simply received.
    pub events: Vec<Row>,
}

/// Compares a provider's list with what came; with `ingest`, ingests what is missing, for which the
/// configuration must have the sources' secrets. GitHub's API is asked to send it again.
///
/// # Errors
/// [`ErrorCode::SourceNotFound`], [`ErrorCode::IngestImpossible`], [`ErrorCode::InvalidList`],
/// [`ErrorCode::ListTooLong`], those of the provider's API, and those of store and broker.
pub async fn compare(
    backend: &impl Backend,
    config: &Config,
    source: &str,
    list: &List,
    limit: usize,
    ingest: Option<&Actor>,
    progress: &dyn Progress,
) -> Result<Report, AdminError> {
    let source = named(config, source)?;
    let api = api(source, list)?;
    if ingest.is_some() {
        ingestible(source, api.is_some())?;
    }
    let listed = listed(source, list, api.as_ref(), limit, ingest.is_some()).await?;
    reported(backend, config, source, listed, api.as_ref(), ingest, progress).await
}

/// The same with a list that is given: events as the provider sends them.
///
/// # Errors
/// As [`compare`].
pub async fn compare_given(
    backend: &impl Backend,
    config: &Config,
    source: &str,
    events: &[Box<RawValue>],
    ingest: Option<&Actor>,
) -> Result<Report, AdminError> {
    let source = named(config, source)?;
    if ingest.is_some() {
        ingestible(source, false)?;
    }
    let id = pointer(&source.endpoint.scheme.id, "id");
    let kind = pointer(&source.endpoint.scheme.kind, "type");
    let fields = Fields { id: &id, kind: &kind, bodies: ingest.is_some() };
    let mut seen = HashSet::new();
    let mut listed = Vec::new();
    for event in events {
        let event = list::event(event.get().as_bytes(), &fields).ok_or_else(|| {
            AdminError::new(ErrorCode::InvalidList, format!("an event has no id at {id}."))
                .hint(format!("Give events as {} sends them.", source.endpoint.provider))
        })?;
        if seen.insert(event.id.clone()) {
            listed.push(event);
        }
    }
    reported(backend, config, source, listed, None, ingest, &()).await
}

fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Source, AdminError> {
    let source = config.sources.iter().find(|source| source.name == name);
    source.ok_or_else(|| {
        let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
        let names = names.join(", ");
        AdminError::new(ErrorCode::SourceNotFound, format!("unknown source {name}."))
            .hint(format!("The configuration has: {names}."))
            .about(name)
    })
}

/// Where in an event of JSON it is, as the provider has it.
fn pointer(at: &Option<Location>, default: &str) -> String {
    match at {
        Some(Location::Json(pointer)) => pointer.clone(),
        _ => format!("/{default}"),
    }
}

async fn reported(
    backend: &impl Backend,
    config: &Config,
    source: &Source,
    listed: Vec<Listed>,
    api: Option<&Api>,
    ingest: Option<&Actor>,
    progress: &dyn Progress,
) -> Result<Report, AdminError> {
    let control = backend.histories();
    let mut rows = compared(&control, config, source, listed, progress).await?;
    let queue = backend.queue().await?;
    accepted(&queue, config, source, &mut rows).await?;
    if let Some(actor) = ingest {
        let attribution = actor.attribution();
        let audited = Audited {
            control: Some(&control),
            action: INGEST,
            on: source.name.clone(),
            attribution: attribution.clone(),
        };
        let deed = ingest_missing(&queue, &control, config, source, api, &attribution, &mut rows);
        audited.run(deed, |done| format!("{done} events")).await?;
    }
    Ok(report(source, rows))
}

fn api(source: &Source, list: &List) -> Result<Option<Api>, AdminError> {
    let List::Api { at, token_env, .. } = list else { return Ok(None) };
    let kind = Kind::of(&source.endpoint.provider).ok_or_else(|| {
        let message = format!("Zentra does not know the API of {}.", source.endpoint.provider);
        AdminError::new(ErrorCode::ProviderApiUnknown, message)
            .hint("Export its list of events, and give that file.")
    })?;
    let name = token_env.as_deref().unwrap_or(kind.token_name());
    let token = std::env::var(name).ok().filter(|token| !token.is_empty()).ok_or_else(|| {
        let message = format!("the environment variable {name} must have the API's token.");
        AdminError::new(ErrorCode::ProviderApiDenied, message)
            .hint("Use a token that may only read events; or give an export.")
    })?;
    Api::new(kind, at.as_deref(), Secret::new(token)).map(Some)
}

async fn listed(
    source: &Source,
    list: &List,
    api: Option<&Api>,
    limit: usize,
    bodies: bool,
) -> Result<Vec<Listed>, AdminError> {
    let (path, format, id, kind) = match (list, api) {
        (List::Api { since, .. }, Some(api)) => {
            return api.list(clock::now().minus(*since), limit, bodies).await;
        }
        (List::Api { .. }, None) => return Ok(Vec::new()),
        (List::File { path, format, id, kind }, _) => (path, *format, id, kind),
    };
    let place = |at: &Option<Location>, default: &str| match format {
        Format::Jsonl => pointer(at, default),
        Format::Csv => default.to_owned(),
    };
    let id = id.clone().unwrap_or_else(|| place(&source.endpoint.scheme.id, "id"));
    let kind = kind.clone().unwrap_or_else(|| place(&source.endpoint.scheme.kind, "type"));
    let fields = Fields { id: &id, kind: &kind, bodies };
    let mut seen = HashSet::new();
    let all = list::read(path, format, &fields, limit)?;
    Ok(all.into_iter().filter(|event| seen.insert(event.id.clone())).collect())
}

/// Each event of the list beside what the journal knows.
async fn compared(
    histories: &impl DeliveryStore,
    config: &Config,
    source: &Source,
    listed: Vec<Listed>,
    progress: &dyn Progress,
) -> Result<Vec<Row>, AdminError> {
    let pairs = config.pairs();
    let pairs: Vec<_> = pairs.into_iter().filter(|(_, name)| *name == source.name).collect();
    let (now, pairs) = (clock::now(), &pairs);
    let one = |listed: Listed| async move {
        let mut known = Vec::new();
        for key in histories.find(&listed.id, pairs).await? {
            if key.source() == source.name {
                known.extend(histories.history(&key).await?);
            }
        }
        let young = listed.at.is_some_and(|at| now.since(at) < YOUNG);
        let (state, detail) = state(&listed, &known, young);
        Ok::<_, AdminError>(Row { listed, state, detail })
    };
    let many = listed.len();
    let rows = stream::iter(listed).map(one).buffered(AT_A_TIME).enumerate();
    let rows = rows.map(|(at, row)| {
        progress.show(format!("{} of {many} events looked up", at + 1));
        row
    });
    rows.try_collect().await
}

fn state(listed: &Listed, known: &[Delivery], young: bool) -> (ReconcileState, String) {
    let ends = || {
        let of = |one: &Delivery| format!("{}: {}", one.key.destination(), deliveries::status(one));
        known.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let Some(first) = known.first() else {
        let state = if young { ReconcileState::Young } else { ReconcileState::Missing };
        return (state, String::new());
    };
    let here = first.event.event_type.as_deref();
    if let (Some(there), Some(here)) = (listed.kind.as_deref(), here)
        && there != here
    {
        return (ReconcileState::Differing, format!("received as {here}"));
    }
    match known.iter().any(|one| one.record.state == State::Dead) {
        true => (ReconcileState::Dead, ends()),
        false => (ReconcileState::Received, ends()),
    }
}

/// An event that no worker has claimed yet is in the archive: it arrived.
async fn accepted(
    queue: &impl Operate,
    config: &Config,
    source: &Source,
    rows: &mut [Row],
) -> Result<(), AdminError> {
    let unknown = rows.iter_mut().filter(|row| !row.state.is_well() && row.detail.is_empty());
    let mut unknown: BTreeMap<String, &mut Row> =
        unknown.map(|row| (row.listed.id.clone(), row)).collect();
    if unknown.is_empty() || !source.archive {
        return Ok(());
    }
    let wanted = |event: &Event| {
        let envelope = &event.envelope;
        envelope.source == source.name
            && envelope.event_id().is_some_and(|id| unknown.contains_key(id))
    };
    // Where the list has no times, all of the archive is looked through.
    let times = unknown.values().map(|row| row.listed.at.unwrap_or_default());
    let from = times.min().unwrap_or_default().minus(EARLIER);
    // Copies are archived as well: more than there are ids, but not without end.
    let most = unknown.len().saturating_mul(8);
    let found = archive::all(queue, config, from, most, wanted).await?;
    for event in found {
        let id = event.envelope.event_id().unwrap_or_default();
        if let Some(row) = unknown.get_mut(id) {
            row.state = ReconcileState::Accepted;
            row.detail = format!("accepted at {}", event.envelope.received_at);
        }
    }
    Ok(())
}

fn report(source: &Source, rows: Vec<Row>) -> Report {
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry(row.state.as_str().to_owned()).or_default() += 1;
    }
    let mut events: Vec<Row> =
        rows.into_iter().filter(|row| row.state != ReconcileState::Received).collect();
    events.sort_by_key(|one| one.state);
    Report { source: source.name.clone(), counts, events }
}
