//! `zentra destination`, `zentra worker` and `zentra audit`: what runs, what operators want of it,
//! and what they did.

use std::future::Future;
use std::io::Write;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::control::{Act, Beat, Circuit, Control, Order, Said, Wish};

use crate::backend::Backend;
use crate::cli::DestinationCommand;
use crate::failure::Failure;
use crate::list::List;
use crate::print_json;
use crate::text;

/// Who asks, and why.
#[derive(clap::Args, Clone)]
pub(crate) struct Asked {
    /// Why; for the audit.
    #[arg(long = "because", value_name = "WHY", default_value = "", value_parser = crate::cli::reason)]
    pub(crate) because: String,
    /// Who asks; for the audit.
    #[arg(long, env = "USER", default_value = "operator")]
    pub(crate) by: String,
}

impl Asked {
    /// Now.
    pub(crate) fn said(&self) -> Said {
        Said { by: self.by.clone(), at: clock::now(), because: self.because.clone() }
    }
}

/// What is to be done with a destination's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// No more attempts.
    Pause,
    /// Attempts again.
    Resume,
    /// Attempts, though the circuit is open.
    CloseCircuit,
}

/// A destination, as its workers tell of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Standing {
    pub(crate) destination: String,
    /// How many workers work for it.
    workers: usize,
    in_flight: u64,
    /// The worst of all workers'.
    circuit: Option<Circuit>,
    #[serde(flatten)]
    order: Order,
    /// How many workers have heard that it is paused.
    heard: usize,
}

/// All destinations of the config.
pub(crate) async fn destinations(
    control: &impl Control,
    config: &Config,
) -> Result<Vec<Standing>, Failure> {
    let (beats, mut orders) = (control.workers().await?, control.orders().await?);
    let names = config.destinations.iter().map(|destination| &destination.name);
    Ok(names.map(|name| standing(name, &beats, orders.remove(name))).collect())
}

fn standing(name: &str, beats: &[Beat], order: Option<Order>) -> Standing {
    let works = || beats.iter().filter_map(|beat| beat.destinations.get(name));
    Standing {
        destination: name.to_owned(),
        workers: works().count(),
        in_flight: works().map(|work| work.in_flight).sum(),
        circuit: works().map(|work| work.circuit).max(),
        heard: works().filter(|work| work.paused).count(),
        order: order.unwrap_or_default(),
    }
}

/// Does it: first into the audit, then to the workers, who hear it within a second.
pub(crate) async fn act(
    control: &impl Control,
    name: &str,
    deed: Deed,
    asked: &Asked,
) -> Result<&'static str, Failure> {
    let said = asked.said();
    let (action, wish, wanted, words) = match deed {
        Deed::Pause => ("destination pause", Wish::Pause, Some(&said), "paused"),
        Deed::Resume => ("destination resume", Wish::Pause, None, "resumed"),
        Deed::CloseCircuit => {
            ("destination close-circuit", Wish::Close, Some(&said), "told to try again")
        }
    };
    let act =
        Act { action: action.into(), on: name.into(), result: String::new(), said: said.clone() };
    control.audit(&act).await?;
    control.wish(name, wish, wanted).await?;
    Ok(words)
}

/// What an operator does, for the audit.
pub(crate) struct Audited<'a, C> {
    /// None for a dry run, which is no act.
    pub(crate) control: Option<&'a C>,
    /// As the command line has it.
    pub(crate) action: &'a str,
    pub(crate) on: String,
    pub(crate) said: Said,
}

impl<C: Control> Audited<'_, C> {
    /// Does it between two entries: that it was asked for, and what came of it.
    pub(crate) async fn run<T>(
        self,
        deed: impl Future<Output = Result<T, Failure>>,
        result: impl Fn(&T) -> String,
    ) -> Result<T, Failure> {
        let Self { control, action, on, said } = self;
        let mut act = Act { action: action.into(), on, result: String::new(), said };
        let Some(control) = control else { return deed.await };
        control.audit(&act).await?;
        let done = deed.await;
        act.result = match &done {
            Ok(done) => result(done),
            Err(failure) => format!("failed: {}", failure.text().lines().next().unwrap_or("")),
        };
        act.said.at = clock::now();
        if let Err(error) = control.audit(&act).await {
            tracing::warn!(%error, result = act.result, "what came of it isn't in the audit");
        }
        done
    }
}

/// The destinations, for a person.
pub(crate) fn show(all: &[Standing], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<20} {:>7} {:>9}  {:<9} STANDING",
        "DESTINATION", "WORKERS", "IN FLIGHT", "CIRCUIT"
    )?;
    for one in all {
        let standing = match &one.order.pause {
            Some(said) => format!("paused since {} by {}{}", said.at, said.by, why(said)),
            None if one.workers == 0 => "no worker works for it".into(),
            None => "runs".into(),
        };
        let circuit = one.circuit.map_or("-", circuit);
        let (name, workers, running) = (&one.destination, one.workers, one.in_flight);
        writeln!(out, "{name:<20} {workers:>7} {running:>9}  {circuit:<9} {standing}")?;
    }
    Ok(())
}

fn why(said: &Said) -> String {
    match said.because.as_str() {
        "" => String::new(),
        because => format!(": {because}"),
    }
}

pub(crate) fn circuit(circuit: Circuit) -> &'static str {
    match circuit {
        Circuit::Closed => "closed",
        Circuit::HalfOpen => "half open",
        Circuit::Open => "open",
    }
}

/// The workers, for a person.
pub(crate) fn show_workers(beats: &[Beat], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<32} {:<10} {:>9}  {:<24} WORKS FOR",
        "WORKER", "VERSION", "IN FLIGHT", "SINCE"
    )?;
    for Beat { worker, version, started_at, destinations } in beats {
        let running: u64 = destinations.values().map(|work| work.in_flight).sum();
        let names: Vec<&str> = destinations.keys().map(String::as_str).collect();
        let (since, names) = (started_at.to_string(), names.join(", "));
        writeln!(out, "{worker:<32} {version:<10} {running:>9}  {since:<24} {names}")?;
    }
    Ok(())
}

/// The acts, for a person.
pub(crate) fn show_acts(acts: &[Act], out: &mut impl Write) -> std::io::Result<()> {
    for Act { action, on, result, said } in acts {
        let because = why(said);
        let result = if result.is_empty() { String::new() } else { format!(" ({result})") };
        writeln!(out, "{}  {}  {action} {on}{result}{because}", said.at, said.by)?;
    }
    Ok(())
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: DestinationCommand,
) -> Result<(), Failure> {
    let control = backend.histories()?;
    let (told, deed) = match command {
        DestinationCommand::List { json } => {
            let all = destinations(&control, config).await?;
            let mut out = text::stdout();
            return match json {
                true => print_json(&List::from(all), &mut out),
                false => Ok(show(&all, &mut out)?),
            };
        }
        DestinationCommand::Pause(told) => (told, Deed::Pause),
        DestinationCommand::Resume(told) => (told, Deed::Resume),
        DestinationCommand::CloseCircuit(told) => (told, Deed::CloseCircuit),
    };
    let name = told.destination;
    crate::destinations(config, Some(name.clone()))?;
    let words = act(&control, &name, deed, &told.asked).await?;
    let mut out = text::stdout();
    if !told.json {
        return Ok(writeln!(out, "{name} is {words}")?);
    }
    let all = destinations(&control, config).await?;
    print_json(&all.iter().find(|one| one.destination == name), &mut out)
}

pub(crate) async fn workers(backend: &impl Backend, json: bool) -> Result<(), Failure> {
    let workers = backend.histories()?.workers().await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&List::from(workers), &mut out),
        false => Ok(show_workers(&workers, &mut out)?),
    }
}

pub(crate) async fn audit(backend: &impl Backend, limit: usize, json: bool) -> Result<(), Failure> {
    let acts = backend.histories()?.audited(limit).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&List::from(acts), &mut out),
        false => Ok(show_acts(&acts, &mut out)?),
    }
}
