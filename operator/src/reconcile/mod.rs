//! `zentra reconcile`: what a provider says it had, beside what came; and what didn't come, brought
//! in after all.

mod ingest;
mod list;
mod provider;
mod show;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::event::Event;
use zentra_shared::journal::{Delivery, Histories};
use zentra_shared::lifecycle::State;
use zentra_shared::queue::Operate;
use zentra_shared::secret::Secret;
use zentra_shared::verify::{Location, Source};

use crate::archive;
use crate::backend::Backend;
use crate::control::{Asked, Audited};
use crate::failure::Failure;
use crate::progress::progress;
use ingest::{INGEST, ingest_missing, ingestible};
use list::{Fields, Format, Listed};
use provider::{Api, Kind};
use show::tell;

/// What came so lately may still be on its way.
const YOUNG: Duration = Duration::from_secs(300);
/// A provider's clock may be so far ahead of the entrance's.
const EARLIER: Duration = Duration::from_secs(3600);
/// So many are looked up at a time.
const AT_A_TIME: usize = 16;

/// What is compared, and with what.
#[derive(clap::Args)]
pub(crate) struct Reconcile {
    /// Whose events.
    source: String,
    /// The provider's list: an export of its events; `-` is the standard input. Without it, the
    /// provider's API is asked (Stripe, GitHub).
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// What the file is.
    #[arg(long, value_enum, default_value = "jsonl", requires = "list")]
    format: Format,
    /// Where in it an event's id is: a JSON pointer, or a column. By default where the provider has it.
    #[arg(long, value_name = "WHERE", requires = "list")]
    id: Option<String>,
    /// Where in it an event's type is.
    #[arg(long = "type", value_name = "WHERE", requires = "list")]
    kind: Option<String>,
    /// What the API is asked for: events of so long ago or less.
    #[arg(long, value_name = "AGE", default_value = "24h", conflicts_with = "list",
          value_parser = humantime::parse_duration)]
    since: Duration,
    /// Where the API is; for GitHub the webhook: https://api.github.com/repos/OWNER/REPO/hooks/NUMBER
    #[arg(long, value_name = "URL", conflicts_with = "list")]
    at: Option<String>,
    /// The environment variable that holds the API's token; by default STRIPE_API_KEY or GITHUB_TOKEN.
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    token_env: Option<String>,
    /// At most so many events.
    #[arg(long, default_value_t = 100_000)]
    limit: usize,
    /// Brings in what is missing, through the one way in; GitHub is asked to send it again.
    #[arg(long)]
    pub(crate) ingest: bool,
    #[command(flatten)]
    asked: Asked,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// How an event of the list stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Reconciled)]
pub(crate) enum Standing {
    /// It never came.
    Missing,
    /// It came, and was given up.
    Dead,
    /// It came as one of another type.
    Differing,
    /// It was accepted, and no worker has taken it up.
    Accepted,
    /// It isn't here, but it is so young that it may be on its way.
    Young,
    /// It came.
    Received,
    /// It never came, and was brought in now.
    Ingested,
    /// It never came, and the provider was asked to send it again.
    AskedFor,
}

impl Standing {
    fn as_str(self) -> &'static str {
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

    /// Whether an operator has nothing to do about it.
    fn is_well(self) -> bool {
        !matches!(self, Self::Missing | Self::Dead | Self::Differing)
    }
}

/// One event of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciledEvent)]
pub(crate) struct Row {
    #[serde(flatten)]
    listed: Listed,
    standing: Standing,
    /// What there is to say of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// The list, and how much of it stands how.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    source: String,
    counts: BTreeMap<String, usize>,
    /// All that isn't plainly received.
    events: Vec<Row>,
}

/// Compares, and brings in what is missing if that is asked for.
pub(crate) async fn run(
    backend: &impl Backend,
    config: &Config,
    asked: &Reconcile,
) -> Result<(), Failure> {
    let source = named(config, &asked.source)?;
    if asked.ingest {
        ingestible(source, asked.list.is_none())?;
    }
    let api = api(source, asked)?;
    let listed = listed(source, asked, api.as_ref()).await?;
    let ingest = asked.ingest.then_some(&asked.asked);
    let report = reported(backend, config, source, listed, api.as_ref(), ingest).await?;
    tell(report, asked.json)
}

/// The same with a list that is given: events as the provider sends them.
pub(crate) async fn given(
    backend: &impl Backend,
    config: &Config,
    source: &str,
    events: &[Box<RawValue>],
    ingest: Option<&Asked>,
) -> Result<Report, Failure> {
    let source = named(config, source)?;
    if ingest.is_some() {
        ingestible(source, false)?;
    }
    let id = pointer(&source.scheme.id, "id");
    let kind = pointer(&source.scheme.kind, "type");
    let fields = Fields { id: &id, kind: &kind, bodies: ingest.is_some() };
    let mut seen = HashSet::new();
    let mut listed = Vec::new();
    for event in events {
        let event = list::event(event.get().as_bytes(), &fields).ok_or_else(|| {
            Failure::Asked(format!(
                "an event has no id at {id}.\nGive events as {} sends them.",
                source.provider
            ))
        })?;
        if seen.insert(event.id.clone()) {
            listed.push(event);
        }
    }
    reported(backend, config, source, listed, None, ingest).await
}

fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Source, Failure> {
    let source = config.sources.iter().find(|source| source.name == name);
    source.ok_or_else(|| {
        let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
        let names = names.join(", ");
        Failure::Asked(format!("there is no source {name}.\nThe config has: {names}."))
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
    ingest: Option<&Asked>,
) -> Result<Report, Failure> {
    let mut rows = compared(&backend.histories()?, config, source, listed).await?;
    let queue = backend.queue().await?;
    let done = async {
        accepted(&queue, config, source, &mut rows).await?;
        if let Some(asked) = ingest {
            let (control, said) = (backend.histories()?, asked.said());
            let audited = Audited {
                control: Some(&control),
                action: INGEST,
                on: source.name.clone(),
                said: said.clone(),
            };
            let deed = ingest_missing(&queue, &control, config, source, api, &said, &mut rows);
            audited.run(deed, |done| format!("{done} events")).await?;
        }
        Ok(())
    };
    let done: Result<(), Failure> = done.await;
    backend.close(queue).await;
    done.map(|()| report(source, rows))
}

fn api(source: &Source, asked: &Reconcile) -> Result<Option<Api>, Failure> {
    if asked.list.is_some() {
        return Ok(None);
    }
    let kind = Kind::of(&source.provider).ok_or_else(|| {
        Failure::Asked(format!(
            "the API of {} isn't known here.\nExport its list of events, and give it by --list.",
            source.provider
        ))
    })?;
    let name = asked.token_env.as_deref().unwrap_or(kind.token_name());
    let token = std::env::var(name).ok().filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::Asked(format!(
            "the API's token is wanted in the environment, as {name}.\nGive one that may only \
             read events; or an export by --list."
        ))
    })?;
    Api::new(kind, asked.at.as_deref(), Secret::new(token)).map(Some)
}

async fn listed(
    source: &Source,
    asked: &Reconcile,
    api: Option<&Api>,
) -> Result<Vec<Listed>, Failure> {
    if let Some(api) = api {
        return api.list(clock::now().minus(asked.since), asked.limit, asked.ingest).await;
    }
    let place = |at: &Option<Location>, default: &str| match asked.format {
        Format::Jsonl => pointer(at, default),
        Format::Csv => default.to_owned(),
    };
    let id = asked.id.clone().unwrap_or_else(|| place(&source.scheme.id, "id"));
    let kind = asked.kind.clone().unwrap_or_else(|| place(&source.scheme.kind, "type"));
    let fields = Fields { id: &id, kind: &kind, bodies: asked.ingest };
    let path = asked.list.as_deref().unwrap_or(std::path::Path::new("-"));
    let mut seen = HashSet::new();
    let all = list::read(path, asked.format, &fields, asked.limit)?;
    Ok(all.into_iter().filter(|event| seen.insert(event.id.clone())).collect())
}

/// Each event of the list beside what the journal knows.
async fn compared(
    histories: &impl Histories,
    config: &Config,
    source: &Source,
    listed: Vec<Listed>,
) -> Result<Vec<Row>, Failure> {
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
        let (standing, detail) = standing(&listed, &known, young);
        Ok::<_, Failure>(Row { listed, standing, detail })
    };
    let (bar, many) = (progress(), listed.len());
    let rows = stream::iter(listed).map(one).buffered(AT_A_TIME).enumerate();
    let rows = rows.map(|(at, row)| {
        bar.set_message(format!("{} of {many} events looked up", at + 1));
        row
    });
    let rows = rows.try_collect().await;
    bar.finish_and_clear();
    rows
}

fn standing(listed: &Listed, known: &[Delivery], young: bool) -> (Standing, String) {
    let ends = || {
        let of =
            |one: &Delivery| format!("{}: {}", one.key.destination(), crate::event::status(one));
        known.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let Some(first) = known.first() else {
        let standing = if young { Standing::Young } else { Standing::Missing };
        return (standing, String::new());
    };
    let here = first.event.event_type.as_deref();
    if let (Some(there), Some(here)) = (listed.kind.as_deref(), here)
        && there != here
    {
        return (Standing::Differing, format!("here it is {here}"));
    }
    match known.iter().any(|one| one.record.state == State::Dead) {
        true => (Standing::Dead, ends()),
        false => (Standing::Received, ends()),
    }
}

/// What no worker has taken up yet is in the archive: it did come.
async fn accepted(
    queue: &impl Operate,
    config: &Config,
    source: &Source,
    rows: &mut [Row],
) -> Result<(), Failure> {
    let unknown = rows.iter_mut().filter(|row| !row.standing.is_well() && row.detail.is_empty());
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
            row.standing = Standing::Accepted;
            row.detail = format!("accepted at {}", event.envelope.received_at);
        }
    }
    Ok(())
}

fn report(source: &Source, rows: Vec<Row>) -> Report {
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry(row.standing.as_str().to_owned()).or_default() += 1;
    }
    let mut events: Vec<Row> =
        rows.into_iter().filter(|row| row.standing != Standing::Received).collect();
    events.sort_by_key(|one| one.standing);
    Report { source: source.name.clone(), counts, events }
}
