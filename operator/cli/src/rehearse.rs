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
    /// Names of built-in scenarios, or files (.toml). If omitted, all built-in scenarios run.
    scenarios: Vec<String>,
    /// List the built-in scenarios.
    #[arg(long)]
    list: bool,
    /// Backend of the private Zentra that each scenario gets.
    #[arg(long, value_enum, default_value = "embedded")]
    backend: KindName,
    /// Use a running Zentra instead: the address of its ingress (https://host:8080). --config must
    /// be its configuration.
    #[arg(long, value_name = "URL", conflicts_with = "backend")]
    at: Option<String>,
    /// Play the destination at this address. The running configuration's `url` must point to it.
    #[arg(long, value_name = "ADDRESS", requires = "at")]
    destination: Option<SocketAddr>,
    /// Source for callbacks, if a scenario doesn't name a provider.
    #[arg(long, requires = "at")]
    source: Option<String>,
    /// Type of the events. A destination must subscribe to it.
    #[arg(long = "type", value_name = "TYPE", default_value = "rehearsal.event")]
    kind: String,
    /// Send to sources with `environment = "production"` too.
    #[arg(long, requires = "at")]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write a JUnit report to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The demo.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Backend. For `rabbitmq`, RabbitMQ and Redis must be installed; private servers are started.
    #[arg(long, value_enum, default_value = "embedded")]
    backend: KindName,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Backend of a private Zentra.
#[derive(Clone, Copy, clap::ValueEnum)]
enum KindName {
    /// One file, no server.
    Embedded,
    /// Private RabbitMQ and Redis servers; both must be installed.
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

/// Plays the scenarios. Fails if one of them fails.
pub(crate) async fn rehearse(path: &Path, asked: &Rehearse) -> Result<(), Failure> {
    let mut out = text::stdout();
    if asked.list && asked.json {
        let named = |(name, about)| serde_json::json!({ "name": name, "about": about });
        let all: Vec<_> = zentra_rehearse::shipped().into_iter().map(named).collect();
        return print_json(&all, &mut out);
    }
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
    Failure::Asked("not every promise was kept.\nSee the report above.".into())
}

/// The demo's result as JSON.
#[derive(Serialize)]
struct DemoReport<'a> {
    #[serde(flatten)]
    played: &'a Played,
    backend: Kind,
    deliveries: &'a [Delivery],
}

/// The demo: transfer `trf_8172`.
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
