//! `zentra rehearse` and `zentra demo`: production's failures before they happen. A rehearsal plays
//! the provider and the destination, and compares what was promised with what came of it.

mod destination;
mod play;
mod private;
mod provider;
mod report;
mod scenario;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use zentra_operator::sandbox;
use zentra_shared::config::{Config, Role};
use zentra_shared::journal::{Delivery, Histories};
use zentra_shared::lifecycle::State;

use crate::backend::{Backend, File, Servers};
use crate::failure::Failure;
use crate::progress::progress;
use crate::text;
use crate::{event, load, print_json};
use destination::Destination;
use play::{End, Stage};
use private::{Kind, Private};
use provider::Provider;
use report::{Outcome, Played, Report};
use scenario::Scenario;

/// The scenario of the demo, and its event.
const DEMO: (&str, &str) = ("transfer", "trf_8172");
/// A source that isn't rehearsed in.
const PRODUCTION: &str = "production";

/// What is rehearsed, and where.
#[derive(clap::Args)]
pub(crate) struct Rehearse {
    /// Names of scenarios that come along, or files (.toml). None: all that come along.
    scenarios: Vec<String>,
    /// Lists the scenarios that come along.
    #[arg(long)]
    list: bool,
    /// On what a private Zentra runs, which each scenario gets.
    #[arg(long, value_enum, default_value = "embedded")]
    backend: Kind,
    /// Instead of a private one: the address of a running Zentra's ingress, whose config this is
    /// (https://host:8080).
    #[arg(long, value_name = "URL", conflicts_with = "backend")]
    at: Option<String>,
    /// Plays the destination there; the running config's url must point to it.
    #[arg(long, value_name = "ADDRESS", requires = "at")]
    destination: Option<SocketAddr>,
    /// The source that callbacks go to, where a scenario doesn't ask for a provider.
    #[arg(long, requires = "at")]
    source: Option<String>,
    /// The type of the events; a destination must subscribe to it.
    #[arg(long = "type", value_name = "TYPE", default_value = "rehearsal.event")]
    kind: String,
    /// Also where the config says that a source is for production.
    #[arg(long, requires = "at")]
    force: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Writes a JUnit report, as CI servers read it.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The demo.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// What it runs on. RabbitMQ and Redis must be installed; private ones are started.
    #[arg(long, value_enum, default_value = "embedded")]
    backend: Kind,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Plays the scenarios, and fails if one of them does.
pub(crate) async fn rehearse(path: &Path, asked: &Rehearse) -> Result<(), Failure> {
    let mut out = text::stdout();
    if asked.list {
        for scenario in Scenario::shipped() {
            writeln!(out, "{:<18}{}", scenario.name, scenario.about)?;
        }
        return Ok(());
    }
    let scenarios = chosen(&asked.scenarios)?;
    let report = match &asked.at {
        None => on_private(&scenarios, asked, &mut out).await,
        Some(url) => on_running(path, url, &scenarios, asked, &mut out).await,
    };
    sandbox::sweep();
    let report = report?;
    if let Some(file) = &asked.junit {
        report.junit(file)?;
    }
    match asked.json {
        true => print_json(&report, &mut out)?,
        false => report.sum(&mut out)?,
    }
    match report.failed {
        0 => Ok(()),
        _ => Err(Failure::Asked("not every contract was kept.\nSee the report above.".into())),
    }
}

fn chosen(names: &[String]) -> Result<Vec<Scenario>, Failure> {
    let mut shipped = Scenario::shipped();
    if names.is_empty() {
        return Ok(shipped);
    }
    let mut all = Vec::new();
    for name in names {
        if let Some(at) = shipped.iter().position(|scenario| scenario.name == *name) {
            all.push(shipped.remove(at));
            continue;
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Asked(format!(
                "{name} is no scenario that comes along, and no file: {error}\nSee zentra rehearse \
                 --list."
            ))
        })?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let read = Scenario::parse(&stem.unwrap_or_default(), &text);
        all.push(read.map_err(|error| Failure::Asked(format!("{name}: {error}")))?);
    }
    Ok(all)
}

/// Each on a Zentra of its own.
async fn on_private(
    scenarios: &[Scenario],
    asked: &Rehearse,
    out: &mut impl Write,
) -> Result<Report, Failure> {
    let servers = servers(asked.backend).await?;
    let mut report = Report::new(match asked.backend {
        Kind::Embedded => "embedded",
        Kind::Rabbitmq => "rabbitmq",
    });
    for (at, scenario) in scenarios.iter().enumerate() {
        let namespace = format!("rehearsal{at}");
        let bar = waiting(&scenario.name);
        let played = alone(scenario, &namespace, servers.clone(), &asked.kind, "").await;
        bar.finish_and_clear();
        let played = match played {
            Ok((played, _)) => played,
            // It may be the scenario's own: the others are played.
            Err(failure) => {
                let named = (&*scenario.name, &*scenario.about);
                let why = Some(failure.text().into());
                Played::new(named, Vec::new(), why, Duration::ZERO)
            }
        };
        if !asked.json {
            played.show(out)?;
        }
        report.add(played);
    }
    Ok(report)
}

async fn servers(backend: Kind) -> Result<Option<private::Servers>, Failure> {
    match backend {
        Kind::Embedded => Ok(None),
        Kind::Rabbitmq => {
            let bar = waiting("starting RabbitMQ and Redis");
            let servers = private::servers().await;
            bar.finish_and_clear();
            servers.map(Some)
        }
    }
}

/// For a person who waits.
fn waiting(what: &str) -> ProgressBar {
    let bar = progress();
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// One, and what is known of an event in the end.
async fn alone(
    scenario: &Scenario,
    namespace: &str,
    servers: Option<private::Servers>,
    kind: &str,
    event: &str,
) -> Result<(Played, Vec<Delivery>), Failure> {
    let began = Instant::now();
    let failed = |error| Failure::Ours(format!("the destination can't listen: {error}"));
    let port = sandbox::free_port().map_err(failed)?;
    let mut destination =
        Destination::start(([127, 0, 0, 1], port).into()).await.map_err(failed)?;
    let url = destination.url();
    let mut private = Private::start(servers, namespace, &url, &scenario.config).await?;
    let config = private.config()?;
    let provider = Provider::new(private.entrance(), kind.into(), String::new())?;
    let stage = (&mut private, &mut destination, provider, began);
    match &config.embedded {
        Some(embedded) => {
            let histories = File::open(&config, embedded)?.histories()?;
            on_stage(scenario, &config, histories, stage, event).await
        }
        None => {
            let histories = Servers(&config).histories()?;
            on_stage(scenario, &config, histories, stage, event).await
        }
    }
}

async fn on_stage<H: Histories>(
    scenario: &Scenario,
    config: &Config,
    histories: H,
    (private, destination, provider, began): (&mut Private, &mut Destination, Provider, Instant),
    event: &str,
) -> Result<(Played, Vec<Delivery>), Failure> {
    let mut stage = Stage::new((config, Path::new("")), histories, provider);
    stage.private = Some(private);
    stage.destination = Some(destination);
    let ended = stage.play(scenario).await;
    let known = match event {
        "" => Vec::new(),
        event => event::find(&stage.histories, &config.pairs(), event).await.unwrap_or_default(),
    };
    Ok((told(scenario, ended, stage, began), known))
}

fn told<H>(
    scenario: &Scenario,
    ended: Result<(), End>,
    stage: Stage<'_, H>,
    began: Instant,
) -> Played {
    let named = (&*scenario.name, &*scenario.about);
    match ended {
        Ok(()) => Played::new(named, stage.rows, None, began.elapsed()),
        // What was seen before isn't forgotten.
        Err(End::Skipped(why)) if stage.rows.iter().any(|row| row.kept == Some(false)) => {
            Played::new(named, stage.rows, Some(why), began.elapsed())
        }
        Err(End::Skipped(why)) => Played::skipped(named, &why),
        Err(End::Broken(failure)) => {
            Played::new(named, stage.rows, Some(failure.text().into()), began.elapsed())
        }
    }
}

/// On somebody's Zentra, whose config this is.
async fn on_running(
    path: &Path,
    url: &str,
    scenarios: &[Scenario],
    asked: &Rehearse,
    out: &mut impl Write,
) -> Result<Report, Failure> {
    let mut config = load(path, Role::Rehearsal)?;
    refuse_production(&mut config, asked)?;
    let mut destination = None;
    if let Some(address) = asked.destination {
        let started = Destination::start(address).await;
        destination = Some(started.map_err(|error| {
            Failure::Asked(format!(
                "--destination: can't listen on {address}: {error}\nIs another program there?"
            ))
        })?);
    }
    let mut report = Report::new(url);
    for scenario in scenarios {
        let played = match &config.embedded {
            Some(embedded) => {
                let histories = File::open(&config, embedded)?.histories()?;
                one(path, url, (scenario, asked), &config, histories, &mut destination).await?
            }
            None => {
                let histories = Servers(&config).histories()?;
                one(path, url, (scenario, asked), &config, histories, &mut destination).await?
            }
        };
        if !asked.json {
            played.show(out)?;
        }
        report.add(played);
    }
    Ok(report)
}

async fn one<H: Histories>(
    path: &Path,
    url: &str,
    (scenario, asked): (&Scenario, &Rehearse),
    config: &Config,
    histories: H,
    destination: &mut Option<Destination>,
) -> Result<Played, Failure> {
    let began = Instant::now();
    if scenario.needs_private() {
        let named = (&*scenario.name, &*scenario.about);
        return Ok(Played::skipped(named, "it needs a Zentra of its own: leave out --at"));
    }
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let provider = Provider::new(url.trim_end_matches('/').to_owned(), asked.kind.clone(), suffix)?;
    let mut stage = Stage::new((config, path), histories, provider);
    stage.source = asked.source.as_deref();
    stage.destination = destination.as_mut();
    let ended = stage.play(scenario).await;
    Ok(told(scenario, ended, stage, began))
}

/// Takes the sources that are for production out, unless that is forced.
fn refuse_production(config: &mut Config, asked: &Rehearse) -> Result<(), Failure> {
    let named = |name: &str| config.sources.iter().find(|source| source.name == name);
    if let Some(name) = &asked.source {
        match named(name) {
            None => return Err(Failure::Asked(format!("there is no source {name}."))),
            Some(source) if source.environment == PRODUCTION && !asked.force => {
                return Err(Failure::Asked(format!(
                    "the source {name} is for production (environment).\nRehearse with another \
                     one, or with --force."
                )));
            }
            Some(_) => {}
        }
    }
    if !asked.force {
        config.sources.retain(|source| source.environment != PRODUCTION);
    }
    match config.sources.is_empty() {
        true => Err(Failure::Asked(
            "all sources are for production (environment).\nRehearse on a private Zentra \
             (without --at), or with --force."
                .into(),
        )),
        false => Ok(()),
    }
}

/// What the demo tells a machine.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    played: &'a Played,
    backend: Kind,
    deliveries: &'a [Delivery],
}

/// The picture that tests it all.
pub(crate) async fn demo(asked: &Demo) -> Result<(), Failure> {
    let mut out = text::stdout();
    let mut shipped = Scenario::shipped().into_iter();
    let (name, event) = DEMO;
    let scenario = shipped.find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Failure::Ours("the demo isn't there".into()))?;
    let servers = servers(asked.backend).await?;
    let bar = waiting("three callbacks, a failed attempt, a killed worker");
    let played = alone(&scenario, "demo", servers, "transfer.settled", event).await;
    bar.finish_and_clear();
    sandbox::sweep();
    let (played, deliveries) = played?;
    if asked.json {
        let backend = asked.backend;
        print_json(&Told { played: &played, backend, deliveries: &deliveries }, &mut out)?;
    } else {
        played.show(&mut out)?;
        writeln!(out, "$ zentra event show {event}")?;
        event::show(&deliveries, &mut out)?;
        let results = deliveries.iter().filter(|of| of.record.state == State::Delivered).count();
        writeln!(out, "\n{results} result{}", if results == 1 { "" } else { "s" })?;
    }
    match played.outcome {
        Outcome::Passed => Ok(()),
        _ => Err(Failure::Asked("not every contract was kept.\nSee the report above.".into())),
    }
}
