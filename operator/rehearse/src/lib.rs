//! Production's failures before they happen. A rehearsal plays the provider and the destination, and compares
//! what was promised with what came of it. The demo is one of them. Tests use the sandbox.

mod destination;
mod error;
mod play;
mod private;
mod provider;
mod report;
pub mod sandbox;
mod scenario;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zentra_admin::backend::{Backend, File, Servers};
use zentra_admin::progress::Progress;
use zentra_admin::{AdminError, ErrorCode, deliveries};
use zentra_config::{Config, Role};
use zentra_store::journal::{Delivery, DeliveryStore};

use destination::Destination;
use error::{broken, unusable};
use play::{End, Stage};
pub use private::Kind;
use private::Private;
use provider::Provider;
pub use report::{Outcome, Played, Report, Row};
use scenario::Scenario;

/// The scenario of the demo, and its event.
pub const DEMO: (&str, &str) = ("transfer", "trf_8172");
/// A source that isn't rehearsed in.
const PRODUCTION: &str = "production";

/// What is rehearsed, and where.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Names of scenarios that come along, or files (.toml); empty: all that come along.
    pub scenarios: Vec<String>,
    /// Where.
    pub on: On,
    /// The type of the events; a destination must subscribe to it.
    pub kind: String,
}

/// Where scenarios are played.
#[derive(Clone, Debug)]
pub enum On {
    /// On a private Zentra of this kind, which each scenario gets.
    Private(Kind),
    /// On a running one.
    Running(Running),
}

/// A running Zentra.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its configuration.
    pub config: PathBuf,
    /// The address of its ingress (https://host:8080).
    pub url: String,
    /// Where the destination is played; the running configuration's url must point to it.
    pub destination: Option<SocketAddr>,
    /// The source that callbacks go to, where a scenario doesn't ask for a provider.
    pub source: Option<String>,
    /// Also where the configuration says that a source is for production.
    pub force: bool,
}

/// Plays the scenarios; `each` is given what came of each. Nothing of what was started stays.
///
/// # Errors
/// What was asked for can't be played. A contract that wasn't kept is in the report.
pub async fn rehearse(
    asked: &Rehearsal,
    progress: &dyn Progress,
    mut each: impl FnMut(&Played),
) -> Result<Report, AdminError> {
    let scenarios = chosen(&asked.scenarios)?;
    let report = match &asked.on {
        On::Private(kind) => on_private(&scenarios, *kind, asked, progress, &mut each).await,
        On::Running(running) => on_running(running, &scenarios, asked, &mut each).await,
    };
    sandbox::sweep();
    report
}

/// The scenarios that come along: name and what each is about.
pub fn shipped() -> Vec<(String, String)> {
    let named = |scenario: Scenario| (scenario.name, scenario.about);
    Scenario::shipped().into_iter().map(named).collect()
}

fn chosen(names: &[String]) -> Result<Vec<Scenario>, AdminError> {
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
            unusable(format!("{name} is no scenario that comes along, and no file: {error}"))
        })?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let read = Scenario::parse(&stem.unwrap_or_default(), &text);
        all.push(read.map_err(|error| unusable(format!("{name}: {error}")))?);
    }
    Ok(all)
}

/// Each on a Zentra of its own.
async fn on_private(
    scenarios: &[Scenario],
    kind: Kind,
    asked: &Rehearsal,
    progress: &dyn Progress,
    each: &mut impl FnMut(&Played),
) -> Result<Report, AdminError> {
    let servers = servers(kind, progress).await?;
    let mut report = Report::new(match kind {
        Kind::Embedded => "embedded",
        Kind::Rabbitmq => "rabbitmq",
    });
    for (at, scenario) in scenarios.iter().enumerate() {
        let namespace = format!("rehearsal{at}");
        progress.show(scenario.name.clone());
        let played = alone(scenario, &namespace, servers.clone(), &asked.kind, "").await;
        progress.done();
        let played = match played {
            Ok((played, _)) => played,
            // It may be the scenario's own: the others are played.
            Err(error) => {
                let named = (&*scenario.name, &*scenario.about);
                Played::new(named, Vec::new(), Some(error.text()), Duration::ZERO)
            }
        };
        each(&played);
        report.add(played);
    }
    Ok(report)
}

async fn servers(
    kind: Kind,
    progress: &dyn Progress,
) -> Result<Option<private::Servers>, AdminError> {
    match kind {
        Kind::Embedded => Ok(None),
        Kind::Rabbitmq => {
            progress.show("starting RabbitMQ and Redis".into());
            let servers = private::servers().await;
            progress.done();
            servers.map(Some)
        }
    }
}

/// One, and what is known of an event in the end.
async fn alone(
    scenario: &Scenario,
    namespace: &str,
    servers: Option<private::Servers>,
    kind: &str,
    event: &str,
) -> Result<(Played, Vec<Delivery>), AdminError> {
    let began = Instant::now();
    let failed = |error| broken(format!("the destination can't listen: {error}"));
    let port = sandbox::free_port().map_err(failed)?;
    let mut destination =
        Destination::start(([127, 0, 0, 1], port).into()).await.map_err(failed)?;
    let url = destination.url();
    let mut private = Private::start(servers, namespace, &url, &scenario.config).await?;
    let config = private.config()?;
    let provider = Provider::new(private.ingress_url(), kind.into(), String::new())?;
    let stage = (&mut private, &mut destination, provider, began);
    match &config.embedded {
        Some(embedded) => {
            let histories = File::open(&config, embedded)?.histories();
            on_stage(scenario, &config, histories, stage, event).await
        }
        None => {
            let histories = Servers::new(&config)?.histories();
            on_stage(scenario, &config, histories, stage, event).await
        }
    }
}

async fn on_stage<H: DeliveryStore>(
    scenario: &Scenario,
    config: &Config,
    histories: H,
    (private, destination, provider, began): (&mut Private, &mut Destination, Provider, Instant),
    event: &str,
) -> Result<(Played, Vec<Delivery>), AdminError> {
    let mut stage = Stage::new((config, Path::new("")), histories, provider);
    stage.private = Some(private);
    stage.destination = Some(destination);
    let ended = stage.play(scenario).await;
    let known = match event {
        "" => Vec::new(),
        event => {
            deliveries::find(&stage.histories, &config.pairs(), event).await.unwrap_or_default()
        }
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
            Played::new(named, stage.rows, Some(failure.text()), began.elapsed())
        }
    }
}

/// On somebody's Zentra, whose config this is.
async fn on_running(
    running: &Running,
    scenarios: &[Scenario],
    asked: &Rehearsal,
    each: &mut impl FnMut(&Played),
) -> Result<Report, AdminError> {
    let (path, url) = (&running.config, &running.url);
    let mut config = Config::load(path, Role::Rehearsal, &zentra_config::environment(), &[])?;
    refuse_production(&mut config, running)?;
    let mut destination = None;
    if let Some(address) = running.destination {
        let started = Destination::start(address).await;
        destination = Some(started.map_err(|error| {
            unusable(format!("the destination can't listen on {address}: {error}"))
                .hint("Is another program there?")
        })?);
    }
    let mut report = Report::new(url);
    for scenario in scenarios {
        let played = match &config.embedded {
            Some(embedded) => {
                let histories = File::open(&config, embedded)?.histories();
                one(running, (scenario, &asked.kind), &config, histories, &mut destination).await?
            }
            None => {
                let histories = Servers::new(&config)?.histories();
                one(running, (scenario, &asked.kind), &config, histories, &mut destination).await?
            }
        };
        each(&played);
        report.add(played);
    }
    Ok(report)
}

async fn one<H: DeliveryStore>(
    running: &Running,
    (scenario, kind): (&Scenario, &str),
    config: &Config,
    histories: H,
    destination: &mut Option<Destination>,
) -> Result<Played, AdminError> {
    let began = Instant::now();
    if scenario.needs_private() {
        let named = (&*scenario.name, &*scenario.about);
        return Ok(Played::skipped(named, "it needs a Zentra of its own"));
    }
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let url = running.url.trim_end_matches('/').to_owned();
    let provider = Provider::new(url, kind.to_owned(), suffix)?;
    let mut stage = Stage::new((config, &running.config), histories, provider);
    stage.source = running.source.as_deref();
    stage.destination = destination.as_mut();
    let ended = stage.play(scenario).await;
    Ok(told(scenario, ended, stage, began))
}

/// Takes the sources that are for production out, unless that is forced.
fn refuse_production(config: &mut Config, asked: &Running) -> Result<(), AdminError> {
    let named = |name: &str| config.sources.iter().find(|source| source.name == name);
    if let Some(name) = &asked.source {
        match named(name) {
            None => {
                let message = format!("there is no source {name}.");
                return Err(AdminError::new(ErrorCode::SourceNotFound, message).about(name));
            }
            Some(source) if source.environment == PRODUCTION && !asked.force => {
                return Err(unusable(format!(
                    "the source {name} is for production (environment)."
                ))
                .hint("Rehearse with another one, or force it."));
            }
            Some(_) => {}
        }
    }
    if !asked.force {
        config.sources.retain(|source| source.environment != PRODUCTION);
    }
    match config.sources.is_empty() {
        true => Err(unusable("all sources are for production (environment).")
            .hint("Rehearse on a private Zentra, or force it.")),
        false => Ok(()),
    }
}

/// Plays the picture that tests it all, `trf_8172`, on a private Zentra; returns what came of it, and the
/// deliveries with their histories.
///
/// # Errors
/// It can't be played. A contract that wasn't kept is in [`Played`].
pub async fn demo(
    kind: Kind,
    progress: &dyn Progress,
) -> Result<(Played, Vec<Delivery>), AdminError> {
    let mut shipped = Scenario::shipped().into_iter();
    let (name, event) = DEMO;
    let scenario = shipped.find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| broken("the demo isn't there"))?;
    let servers = servers(kind, progress).await?;
    progress.show("three callbacks, a failed attempt, a killed worker".into());
    let played = alone(&scenario, "demo", servers, "transfer.settled", event).await;
    progress.done();
    sandbox::sweep();
    played
}
