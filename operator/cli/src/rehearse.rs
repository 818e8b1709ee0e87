//! `zentra rehearse` and `zentra demo`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zentra_core::lifecycle::State;
use zentra_rehearse::{DEMO, Kind, On, Outcome, Played, Rehearsal, Running};
use zentra_store::journal::Delivery;

use crate::failure::Failure;
use crate::history::deliveries as show_deliveries;
use crate::progress::Bar;
use crate::text::{self, print_json};

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
    backend: KindName,
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
    backend: KindName,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What a private Zentra runs on.
#[derive(Clone, Copy, clap::ValueEnum)]
enum KindName {
    /// One file: no server is needed.
    Embedded,
    /// RabbitMQ and Redis, which must be installed; private ones are started.
    Rabbitmq,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Embedded => Self::Embedded,
            KindName::Rabbitmq => Self::Rabbitmq,
        }
    }
}

/// Plays the scenarios, and fails if one of them does.
pub(crate) async fn rehearse(path: &Path, asked: &Rehearse) -> Result<(), Failure> {
    let mut out = text::stdout();
    if asked.list {
        for (name, about) in zentra_rehearse::shipped() {
            writeln!(out, "{name:<18}{about}")?;
        }
        return Ok(());
    }
    let on = match &asked.at {
        None => On::Private(asked.backend.into()),
        Some(url) => On::Running(Running {
            config: path.into(),
            url: url.clone(),
            destination: asked.destination,
            source: asked.source.clone(),
            force: asked.force,
        }),
    };
    let (scenarios, kind) = (asked.scenarios.clone(), asked.kind.clone());
    let mut shown = Ok(());
    let each = |played: &Played| {
        if !asked.json && shown.is_ok() {
            shown = played.show(&mut out);
        }
    };
    let rehearsal = Rehearsal { scenarios, on, kind };
    let report = zentra_rehearse::rehearse(&rehearsal, &Bar::new(), each).await?;
    shown?;
    if let Some(file) = &asked.junit {
        report.junit(file)?;
    }
    match asked.json {
        true => print_json(&report, &mut out)?,
        false => report.sum(&mut out)?,
    }
    match report.failed {
        0 => Ok(()),
        _ => Err(not_kept()),
    }
}

fn not_kept() -> Failure {
    Failure::Asked("not every contract was kept.\nSee the report above.".into())
}

/// What the demo tells a machine.
#[derive(Serialize)]
struct DemoReport<'a> {
    #[serde(flatten)]
    played: &'a Played,
    backend: Kind,
    deliveries: &'a [Delivery],
}

/// The picture that tests it all.
pub(crate) async fn demo(asked: &Demo) -> Result<(), Failure> {
    let (mut out, backend, event) = (text::stdout(), asked.backend.into(), DEMO.1);
    let (played, deliveries) = zentra_rehearse::demo(backend, &Bar::new()).await?;
    if asked.json {
        print_json(&DemoReport { played: &played, backend, deliveries: &deliveries }, &mut out)?;
    } else {
        played.show(&mut out)?;
        writeln!(out, "$ zentra event show {event}")?;
        show_deliveries(&deliveries, &mut out)?;
        let results = deliveries.iter().filter(|of| of.record.state == State::Delivered).count();
        writeln!(out, "\n{results} result{}", if results == 1 { "" } else { "s" })?;
    }
    match played.outcome {
        Outcome::Passed => Ok(()),
        _ => Err(not_kept()),
    }
}
