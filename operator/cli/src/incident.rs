//! `zentra incident` and `zentra notify`.

use std::io::Write;

use clap::Subcommand;
use zentra_admin::list::List;
use zentra_admin::notify::{self, meaning};
use zentra_admin::{Backend, audit::Actor};
use zentra_config::Config;
use zentra_store::incident::{Incident, Notice};

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::table;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum IncidentCommand {
    /// List incidents that stand, newest first. A `zentra serve` with receivers ([notify.NAME]) keeps them.
    List {
        /// List closed incidents too, at most the newest 1,000.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Acknowledge an incident: nobody is reminded of it.
    Acknowledge(IncidentArgs),
    /// Resolve an incident: it closes, and receivers are notified. Its finding opens a new one only after
    /// it has gone for five minutes.
    Resolve(IncidentArgs),
}

/// An action on an incident.
#[derive(clap::Args)]
pub(crate) struct IncidentArgs {
    /// The id, from the list.
    id: String,
    #[command(flatten)]
    actor: ActorArgs,
    /// Print the resulting state as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(crate) enum NotifyCommand {
    /// Send a test message to a receiver ([notify.NAME]).
    Test {
        /// The receiver's name.
        name: String,
        #[command(flatten)]
        actor: ActorArgs,
    },
}

pub(crate) async fn command(
    backend: &impl Backend,
    command: IncidentCommand,
) -> Result<(), Failure> {
    let (incident, json) = match command {
        IncidentCommand::List { all, json } => return list(backend, all, json).await,
        IncidentCommand::Acknowledge(IncidentArgs { id, actor, json }) => {
            (notify::acknowledge(backend, &id, &actor.into()).await?, json)
        }
        IncidentCommand::Resolve(IncidentArgs { id, actor, json }) => {
            (notify::resolve(backend, &id, &actor.into()).await?, json)
        }
    };
    let mut out = text::stdout();
    match json {
        true => print_json(&incident, &mut out),
        false => Ok(writeln!(out, "{}: {}", incident.id, state(&incident))?),
    }
}

async fn list(backend: &impl Backend, all: bool, json: bool) -> Result<(), Failure> {
    let incidents = notify::list(&backend.histories(), !all).await?;
    let mut out = text::stdout();
    if json {
        return print_json(&List::from(incidents), &mut out);
    }
    if incidents.is_empty() {
        return Ok(writeln!(out, "no incidents")?);
    }
    let rows = incidents.iter().map(|one| {
        [
            one.id.clone(),
            one.severity.as_str().to_owned(),
            one.opened_at.to_string(),
            one.name.clone(),
            one.finding.replace('_', " "),
            state(one),
            meaning(&one.finding).next.to_owned(),
        ]
    });
    let names = ["ID", "SEVERITY", "SINCE", "OF", "FINDING", "STATE", "NEXT"];
    Ok(table::write(&mut out, names, rows)?)
}

fn state(incident: &Incident) -> String {
    let notified = incident.sent.values().filter(|sent| sent.notice != Notice::Closed).count();
    match incident {
        Incident { resolved: Some(by), .. } => format!("resolved by {}", by.by),
        Incident { closed_at: Some(at), .. } => format!("closed {at}"),
        Incident { acknowledged: Some(by), .. } => format!("acknowledged by {}", by.by),
        _ if notified > 0 => format!("open, {notified} notified"),
        _ => "open".into(),
    }
}

pub(crate) async fn notify(
    config: &Config,
    backend: &impl Backend,
    command: NotifyCommand,
) -> Result<(), Failure> {
    let NotifyCommand::Test { name, actor } = command;
    let actor: Actor = actor.into();
    notify::test(config, &backend.histories(), &name, &actor).await?;
    Ok(writeln!(text::stdout(), "{name} accepted a test message")?)
}
