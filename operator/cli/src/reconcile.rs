//! `zentra reconcile`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use zentra_admin::audit::Actor;
use zentra_admin::progress::Progress as _;
use zentra_admin::reconcile::{self, Format, List, Listed, Report, Row};
use zentra_admin::{AdminError, Backend, ErrorCode};
use zentra_config::Config;

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::progress::Bar;
use crate::table;
use crate::text::{self, print_json};

/// What is compared with what.
#[derive(clap::Args)]
pub(crate) struct Reconcile {
    /// The source.
    source: String,
    /// The provider's list: an export of its events (`-`: standard input). If omitted, the
    /// provider's API is used (Stripe, GitHub).
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Format of the list.
    #[arg(long, value_enum, default_value = "jsonl", requires = "list")]
    format: FormatName,
    /// Where the list has the event's id: a JSON pointer or a column. By default as in the
    /// provider's callbacks.
    #[arg(long, value_name = "WHERE", requires = "list")]
    id: Option<String>,
    /// Where the list has the event's type.
    #[arg(long = "type", value_name = "WHERE", requires = "list")]
    kind: Option<String>,
    /// Ask the API for events within this time.
    #[arg(long, value_name = "AGE", default_value = "24h", conflicts_with = "list",
          value_parser = humantime::parse_duration)]
    since: Duration,
    /// Address of the API. For GitHub the webhook:
    /// https://api.github.com/repos/OWNER/REPO/hooks/NUMBER
    #[arg(long, value_name = "URL", conflicts_with = "list")]
    at: Option<String>,
    /// Environment variable with the API's token (default: STRIPE_API_KEY or GITHUB_TOKEN).
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    token_env: Option<String>,
    /// Maximum number of events to compare.
    #[arg(long, default_value_t = 100_000)]
    limit: usize,
    /// Accept missing events, with the same checks as a callback. GitHub is asked to send them
    /// again.
    #[arg(long)]
    pub(crate) ingest: bool,
    #[command(flatten)]
    actor: ActorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Format of a list.
#[derive(Clone, Copy, clap::ValueEnum)]
enum FormatName {
    /// One JSON event per line, as the provider sends it.
    Jsonl,
    /// A table with column names in its first line.
    Csv,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Jsonl => Self::Jsonl,
            FormatName::Csv => Self::Csv,
        }
    }
}

pub(crate) async fn run(
    config: &Config,
    backend: &impl Backend,
    asked: Reconcile,
) -> Result<(), Failure> {
    let Reconcile { source, list, format, id, kind, since, at, token_env, limit, .. } = asked;
    let list = match list {
        Some(path) => List::File { path, format: format.into(), id, kind },
        None => List::Api { since, at, token_env },
    };
    let (actor, bar) = (Actor::from(asked.actor), Bar::new());
    let ingest = asked.ingest.then_some(&actor);
    let report = reconcile::compare(backend, config, &source, &list, limit, ingest, &bar).await;
    bar.done();
    let (report, mut out) = (report?, text::stdout());
    match asked.json {
        true => print_json(&report, &mut out)?,
        false => show(&report, &mut out)?,
    }
    match report.events.iter().filter(|row| !row.state.is_well()).count() {
        0 => Ok(()),
        left => {
            let message =
                format!("{left} of the provider's events are missing, dead or different.");
            Err(AdminError::new(ErrorCode::ReconcileFindings, message).into())
        }
    }
}

fn show(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let all: usize = report.counts.values().sum();
    writeln!(out, "{all} events of {} in the provider's list", report.source)?;
    for (state, count) in &report.counts {
        writeln!(out, "  {count:>7}  {state}")?;
    }
    if report.events.is_empty() {
        return Ok(());
    }
    let rows = report.events.iter().map(|Row { listed, state, detail }| {
        let Listed { id, kind, at, .. } = listed;
        let at = at.map_or("-".to_owned(), |at| at.to_string());
        let kind = kind.as_deref().unwrap_or("(no type)");
        let detail = if detail.is_empty() { String::new() } else { format!("  ({detail})") };
        [state.as_str().to_owned(), id.clone(), at, format!("{kind}{detail}")]
    });
    table::write(out, ["STATE", "EVENT", "AT", "TYPE"], rows)
}
