//! `zentra destination`, `zentra workers` and `zentra audit`.

use std::io::Write;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::destinations::{self, Action, Destination};
use zentra_admin::list::List;
use zentra_admin::shards::{self, Resharded, WorkQueue};
use zentra_config::Config;
use zentra_store::control::{Attribution, AuditEntry, Circuit, Heartbeat, OperatorControl};

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::table;
use crate::text::{self, print_json, show_newer};

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
    /// List a destination's work queues at RabbitMQ: messages, and whether the configured number
    /// of shards has the queue.
    Shards {
        /// Name of the destination.
        destination: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Move the messages of former shards to the current ones, in their order. Workers deliver
    /// messages of former shards too; this empties them without a worker.
    Reshard {
        /// Name of the destination.
        destination: String,
        /// Maximum number of messages to move.
        #[arg(long, default_value_t = 100_000)]
        limit: u64,
        /// Print how many messages would be moved, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        actor: ActorArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
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
        DestinationCommand::Shards { destination, json } => {
            let queues = shards::list(backend, config, &destination).await?;
            return match json {
                true => print_json(&List::from(queues), &mut out),
                false => Ok(show_queues(&queues, &mut out)?),
            };
        }
        DestinationCommand::Reshard { destination, limit, dry_run, actor, json } => {
            let (bounds, actor) = ((limit, dry_run), actor.into());
            let moved = shards::reshard(backend, config, &destination, bounds, &actor).await?;
            return match json {
                true => print_json(&moved, &mut out),
                false => Ok(show_moved(&moved, dry_run, &mut out)?),
            };
        }
        DestinationCommand::Pause(args) => (args, Action::Pause, "paused"),
        DestinationCommand::Resume(args) => (args, Action::Resume, "resumed"),
        DestinationCommand::CloseCircuit(args) => (args, Action::CloseCircuit, "attempting again"),
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
        false => {
            show_newer(&workers.newer);
            Ok(show_workers(&workers.items, &mut out)?)
        }
    }
}

pub(crate) async fn audit(backend: &impl Backend, limit: usize, json: bool) -> Result<(), Failure> {
    let acts = backend.histories().audited(limit).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&List::from(acts), &mut out),
        false => {
            show_newer(&acts.newer);
            Ok(show_acts(&acts.items, &mut out)?)
        }
    }
}

/// Prints the destinations.
fn show(all: &[Destination], out: &mut impl Write) -> std::io::Result<()> {
    let rows = all.iter().map(|one| {
        let status = match &one.desired.pause {
            Some(attribution) => {
                format!("paused since {} by {}{}", attribution.at, attribution.by, why(attribution))
            }
            None if one.workers == 0 => "no worker".into(),
            None => "running".into(),
        };
        let circuit = one.circuit.map_or("-", circuit);
        let (workers, running) = (one.workers.to_string(), one.in_flight.to_string());
        [one.destination.clone(), workers, running, circuit.to_owned(), status]
    });
    table::write(out, ["DESTINATION", "WORKERS", "IN FLIGHT", "CIRCUIT", "STATUS"], rows)
}

/// Prints a destination's work queues.
fn show_queues(queues: &[WorkQueue], out: &mut impl Write) -> std::io::Result<()> {
    let rows = queues.iter().map(|queue| {
        let messages = queue.messages.map_or("not declared".into(), |count| count.to_string());
        let kind = if queue.current { "current" } else { "former" };
        [queue.shard.to_string(), messages, kind.to_owned()]
    });
    table::write(out, ["SHARD", "MESSAGES", "STATUS"], rows)
}

/// Prints what was moved.
fn show_moved(resharded: &Resharded, dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    show_queues(&resharded.queues, out)?;
    let done = if dry_run { "would be moved" } else { "moved" };
    writeln!(out, "{} messages of former shards {done}", resharded.moved)
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
    let rows = heartbeats.iter().map(|heartbeat| {
        let Heartbeat { worker, version, started_at, destinations } = heartbeat;
        let running: u64 = destinations.values().map(|work| work.in_flight).sum();
        let names: Vec<&str> = destinations.keys().map(String::as_str).collect();
        let since = started_at.to_string();
        [worker.clone(), version.clone(), running.to_string(), since, names.join(", ")]
    });
    table::write(out, ["WORKER", "VERSION", "IN FLIGHT", "SINCE", "DESTINATIONS"], rows)
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
