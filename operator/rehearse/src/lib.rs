//! Rehearses production failures. A rehearsal plays the provider and the destination, and compares
//! what Zentra promises with what happened. The demo is one of them. The tests use the sandbox.

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
use zentra_admin::test_callback::PRODUCTION;
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

/// What to rehearse, and where.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Names of built-in scenarios, or files (.toml). Empty: all built-in scenarios.
    pub scenarios: Vec<String>,
    /// Where to play them.
    pub on: On,
    /// The type of the events. A destination must subscribe to it.
    pub kind: String,
}

/// Where scenarios are played.
#[derive(Clone, Debug)]
pub enum On {
    /// On a private Zentra of this kind. Each scenario gets its own.
    Private(Kind),
    /// On a running Zentra.
    Running(Running),
}

/// A running Zentra.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its configuration.
    pub config: PathBuf,
    /// The address of its ingress (https://host:8080).
    pub url: String,
    /// The address that the rehearsal's destination listens on. The running configuration's `url`
    /// must point to it.
    pub destination: Option<SocketAddr>,
    /// The source that callbacks go to, unless a scenario names a provider.
    pub source: Option<String>,
    /// Play even with sources that the configuration marks as production.
    pub force: bool,
}

/// Plays the scenarios, and calls `each` with each result. Everything that was started is removed.
///
/// # Errors
///
/// The request cannot be played. A broken promise is not an error: it is in the report.
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

/// The built-in scenarios: name and description.
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
            unusable(format!("{name} is neither a built-in scenario nor a readable file: {error}"))
        })?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let read = Scenario::parse(&stem.unwrap_or_default(), &text);
        all.push(read.map_err(|error| unusable(format!("{name}: {error}")))?);
    }
    Ok(all)
}

/// Each scenario on its own Zentra.
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
            // The scenario itself may be the cause, so the others are played.
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

/// Plays one scenario, and returns what is known about an event at its end.
async fn alone(
    scenario: &Scenario,
    namespace: &str,
    servers: Option<private::Servers>,
    kind: &str,
    event: &str,
) -> Result<(Played, Vec<Delivery>), AdminError> {
    let began = Instant::now();
    let failed = |error| broken(format!("the rehearsal's destination cannot listen: {error}"));
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
    Ok((report_of(scenario, ended, stage, began), known))
}

fn report_of<H>(
    scenario: &Scenario,
    ended: Result<(), End>,
    stage: Stage<'_, H>,
    began: Instant,
) -> Played {
    let named = (&*scenario.name, &*scenario.about);
    match ended {
        Ok(()) => Played::new(named, stage.rows, None, began.elapsed()),
        // Earlier requests must not be forgotten.
        Err(End::Skipped(why)) if stage.rows.iter().any(|row| row.kept == Some(false)) => {
            Played::new(named, stage.rows, Some(why), began.elapsed())
        }
        Err(End::Skipped(why)) => Played::skipped(named, &why),
        Err(End::Broken(failure)) => {
            Played::new(named, stage.rows, Some(failure.text()), began.elapsed())
        }
    }
}

/// On a user's Zentra, with this configuration.
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
            unusable(format!("the rehearsal's destination cannot listen on {address}: {error}"))
                .hint("Does another program use the address?")
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
        return Ok(Played::skipped(named, "it needs a private Zentra"));
    }
    let suffix = format!("-{:08x}", rand::random::<u32>());
    let url = running.url.trim_end_matches('/').to_owned();
    let provider = Provider::new(url, kind.to_owned(), suffix)?;
    let mut stage = Stage::new((config, &running.config), histories, provider);
    stage.source = running.source.as_deref();
    stage.destination = destination.as_mut();
    let ended = stage.play(scenario).await;
    Ok(report_of(scenario, ended, stage, began))
}

/// Removes sources that are marked as production, unless `force` is set.
fn refuse_production(config: &mut Config, asked: &Running) -> Result<(), AdminError> {
    let named = |name: &str| config.sources.iter().find(|source| source.name == name);
    if let Some(name) = &asked.source {
        match named(name) {
            None => {
                let message = format!("unknown source {name}.");
                return Err(AdminError::new(ErrorCode::SourceNotFound, message).about(name));
            }
            Some(source) if source.environment == PRODUCTION && !asked.force => {
                return Err(unusable(format!(
                    "the source {name} is marked as production (environment)."
                ))
                .hint("Rehearse with another source, or use force."));
            }
            Some(_) => {}
        }
    }
    if !asked.force {
        config.sources.retain(|source| source.environment != PRODUCTION);
    }
    match config.sources.is_empty() {
        true => Err(unusable("all sources are marked as production (environment).")
            .hint("Rehearse on a private Zentra, or use force.")),
        false => Ok(()),
    }
}

/// Plays the demo of `trf_8172` on a private Zentra. Returns the result, and the deliveries with
/// their histories.
///
/// # Errors
///
/// It cannot be played. A broken promise is not an error: it is in [`Played`].
pub async fn demo(
    kind: Kind,
    progress: &dyn Progress,
) -> Result<(Played, Vec<Delivery>), AdminError> {
    let mut shipped = Scenario::shipped().into_iter();
    let (name, event) = DEMO;
    let scenario = shipped.find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| broken("the demo's scenario is missing"))?;
    let servers = servers(kind, progress).await?;
    progress.show("three callbacks, a failed attempt, a killed worker".into());
    let played = alone(&scenario, "demo", servers, "transfer.settled", event).await;
    progress.done();
    sandbox::sweep();
    played
}
