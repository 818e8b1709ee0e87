//! `zentra destination`, `zentra workers` and `zentra audit`.

use std::io::Write;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::destinations::{self, Action, Destination};
use zentra_admin::list::List;
use zentra_config::Config;
use zentra_store::control::{Attribution, AuditEntry, Circuit, Heartbeat, OperatorControl};

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum DestinationCommand {
    /// List destinations: workers, running attempts, circuit, pause.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Pause a destination. Running attempts finish; all others wait. Reaches all workers within a
    /// second, and lasts until it is resumed, across restarts.
    Pause(ControlArgs),
    /// Resume a paused destination.
    Resume(ControlArgs),
    /// Close the circuits of a destination's workers: attempts start again now.
    CloseCircuit(ControlArgs),
}

/// A control action on a destination.
#[derive(clap::Args)]
pub(crate) struct ControlArgs {
    /// Name of the destination.
    destination: String,
    #[command(flatten)]
    actor: ActorArgs,
    /// Print the resulting state as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: DestinationCommand,
) -> Result<(), Failure> {
    let (control, mut out) = (backend.histories(), text::stdout());
    let (ControlArgs { destination, actor, json }, action, words) = match command {
        DestinationCommand::List { json } => {
            let all = destinations::list(&control, config).await?;
            return match json {
                true => print_json(&List::from(all), &mut out),
                false => Ok(show(&all, &mut out)?),
            };
        }
        DestinationCommand::Pause(told) => (told, Action::Pause, "paused"),
        DestinationCommand::Resume(told) => (told, Action::Resume, "resumed"),
        DestinationCommand::CloseCircuit(told) => (told, Action::CloseCircuit, "told to try again"),
    };
    let done = destinations::act(&control, config, &destination, action, &actor.into()).await?;
    match json {
        true => print_json(&done, &mut out),
        false => Ok(writeln!(out, "{destination} is {words}")?),
    }
}

pub(crate) async fn workers(backend: &impl Backend, json: bool) -> Result<(), Failure> {
    let workers = backend.histories().workers().await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&List::from(workers), &mut out),
        false => Ok(show_workers(&workers, &mut out)?),
    }
}

pub(crate) async fn audit(backend: &impl Backend, limit: usize, json: bool) -> Result<(), Failure> {
    let acts = backend.histories().audited(limit).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&List::from(acts), &mut out),
        false => Ok(show_acts(&acts, &mut out)?),
    }
}

/// Prints the destinations.
fn show(all: &[Destination], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<20} {:>7} {:>9}  {:<9} STANDING",
        "DESTINATION", "WORKERS", "IN FLIGHT", "CIRCUIT"
    )?;
    for one in all {
        let standing = match &one.desired.pause {
            Some(attribution) => {
                format!("paused since {} by {}{}", attribution.at, attribution.by, why(attribution))
            }
            None if one.workers == 0 => "no worker works for it".into(),
            None => "runs".into(),
        };
        let circuit = one.circuit.map_or("-", circuit);
        let (name, workers, running) = (&one.destination, one.workers, one.in_flight);
        writeln!(out, "{name:<20} {workers:>7} {running:>9}  {circuit:<9} {standing}")?;
    }
    Ok(())
}

fn why(attribution: &Attribution) -> String {
    match attribution.because.as_str() {
        "" => String::new(),
        because => format!(": {because}"),
    }
}

fn circuit(circuit: Circuit) -> &'static str {
    match circuit {
        Circuit::Closed => "closed",
        Circuit::HalfOpen => "half open",
        Circuit::Open => "open",
    }
}

/// Prints the workers.
fn show_workers(heartbeats: &[Heartbeat], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<32} {:<10} {:>9}  {:<24} WORKS FOR",
        "WORKER", "VERSION", "IN FLIGHT", "SINCE"
    )?;
    for Heartbeat { worker, version, started_at, destinations } in heartbeats {
        let running: u64 = destinations.values().map(|work| work.in_flight).sum();
        let names: Vec<&str> = destinations.keys().map(String::as_str).collect();
        let (since, names) = (started_at.to_string(), names.join(", "));
        writeln!(out, "{worker:<32} {version:<10} {running:>9}  {since:<24} {names}")?;
    }
    Ok(())
}

/// Prints the audit log.
fn show_acts(acts: &[AuditEntry], out: &mut impl Write) -> std::io::Result<()> {
    for AuditEntry { action, on, result, attribution } in acts {
        let because = why(attribution);
        let result = if result.is_empty() { String::new() } else { format!(" ({result})") };
        writeln!(out, "{}  {}  {action} {on}{result}{because}", attribution.at, attribution.by)?;
    }
    Ok(())
}
