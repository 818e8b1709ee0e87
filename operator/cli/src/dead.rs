//! `zentra dead`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use zentra_admin::dead::{self, DeadLetter, Done, Export, Letters, PassReport};
use zentra_admin::filter::{self, DEFAULT_LETTERS, DEFAULT_LIMIT, DEFAULT_RATE, Filter};
use zentra_admin::list::List;
use zentra_admin::progress::Progress as _;
use zentra_admin::{Backend, audit::Actor, status};
use zentra_config::Config;
use zentra_store::journal::{Delivery, HistoryEvent};

use crate::actor::reason;
use crate::failure::Failure;
use crate::history::{deliveries, words};
use crate::payload::Payload;
use crate::progress::Bar;
use crate::table;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead deliveries, oldest first. Reads the delivery store, not the queues.
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Maximum number of items for each destination.
        #[arg(long, default_value_t = DEFAULT_LIMIT)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a dead letter: its history; with --body its original bytes.
    Show {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Requeue dead letters, in their order. Each passes the same checks as a first delivery, under
    /// the same idempotency key.
    Requeue {
        #[command(flatten)]
        letters: LettersArgs,
        /// Reason, for the history.
        #[arg(long, value_name = "WHY", default_value = "", value_parser = reason)]
        because: String,
    },
    /// Drain dead letters: take them out of their queues for good. --export writes them to a file
    /// first. A drained letter can't be requeued.
    Drain {
        #[command(flatten)]
        letters: LettersArgs,
        /// Reason, for the history.
        #[arg(long, value_name = "WHY", value_parser = reason)]
        because: String,
        /// Append each letter to this file first, as a line of JSON with its bytes.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Write redacted fields to the export too.
        #[arg(long, requires = "export")]
        unredacted: bool,
    },
}

/// Filters for dead letters.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Only this destination.
    #[arg(long)]
    destination: Option<String>,
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only this reason, such as `exhausted`.
    #[arg(long)]
    reason: Option<String>,
    /// Only this event type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only this error: `answered 503`, or the text of the last attempt's error.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only letters received longer ago than this (`2h`, `3days`).
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only letters received within this time.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { destination, source, reason, kind, error, older_than, newer_than } = args;
        Self { destination, source, reason, kind, error, older_than, newer_than }
    }
}

/// The selected dead letters, and how they are handled.
#[derive(clap::Args)]
pub(crate) struct LettersArgs {
    /// IDs to act on. If omitted, the filters select the letters.
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Select all letters.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Maximum number of items.
    #[arg(long, default_value_t = DEFAULT_LETTERS)]
    limit: usize,
    /// Maximum number per second (0 disables the limit).
    #[arg(long, default_value_t = DEFAULT_RATE)]
    rate: u32,
    /// Print number, kinds and age only. This is the default if filters select the letters.
    #[arg(long)]
    dry_run: bool,
    /// Act on letters that filters select.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Name of the actor, for the history.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl LettersArgs {
    /// Letters that are named by id are handled at once, selected ones only with --yes.
    fn letters(self) -> Letters {
        let Self { ids, filter, all, limit, rate, dry_run, yes, .. } = self;
        let dry_run = dry_run || (ids.is_empty() && !yes);
        Letters { ids, filter: filter.into(), all, limit, rate, dry_run }
    }
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: DeadCommand,
) -> Result<(), Failure> {
    match command {
        DeadCommand::List { filter, limit, json } => {
            list(config, backend, &filter.into(), limit, json).await
        }
        DeadCommand::Show { id, payload, json } => show(config, backend, &id, &payload, json).await,
        DeadCommand::Requeue { letters, because } => {
            let (by, json) = (letters.by.clone(), letters.json);
            let what = HistoryEvent::Requeued { reason: because, job: None };
            let (letters, bar) = (letters.letters(), Bar::new());
            let done = dead::requeue(backend, config, &letters, &what, &by, &bar).await;
            bar.done();
            let (done, mut out) = (done?, text::stdout());
            match json {
                true => print_json(&done.tally, &mut out),
                false => tell(&done, "requeued", &mut out),
            }
        }
        DeadCommand::Drain { letters, because, export, unredacted } => {
            let actor = Actor { name: letters.by.clone(), reason: because };
            let export = export.map(|path| Export { path, unredacted });
            let (json, letters, bar) = (letters.json, letters.letters(), Bar::new());
            let tally = dead::drain(backend, config, &letters, export, &actor, &bar).await;
            bar.done();
            let (tally, mut out) = (tally?, text::stdout());
            match json {
                true => print_json(&tally, &mut out),
                false => Ok(tell_tally(&tally, "drained", &mut out)?),
            }
        }
    }
}

async fn list(
    config: &Config,
    backend: &impl Backend,
    filter: &Filter,
    limit: usize,
    json: bool,
) -> Result<(), Failure> {
    let found = dead::list(backend, config, filter, limit).await?;
    let mut out = text::stdout();
    if json {
        return print_json(&List::from(found), &mut out);
    }
    show_all(&found, &mut out)?;
    let names = filter::destinations(config, filter.destination.as_deref())?;
    for (destination, letters) in status::unlisted_letters(backend, config, &names).await {
        writeln!(
            out,
            "{letters} more in the dead-letter queue of {destination}: RabbitMQ dead-lettered them, or a command \
             that was killed left them. See zentra dead requeue --destination {destination} --all"
        )?;
    }
    Ok(())
}

async fn show(
    config: &Config,
    backend: &impl Backend,
    id: &str,
    payload: &Payload,
    json: bool,
) -> Result<(), Failure> {
    let DeadLetter { delivery, body } = dead::show(backend, config, id).await?;
    let mut out = text::stdout();
    match (body, payload.body) {
        (Some(body), true) => {
            let (control, source) = (backend.histories(), &delivery.event.source);
            let seen = payload.seen(&control, config, "dead show", id, source, &body).await?;
            Ok(text::write_bytes(&seen, payload.raw)?)
        }
        (None, true) => Err(dead::unavailable(&delivery.key).into()),
        (body, false) if json => {
            let letter_bytes = body.map(|body| body.len());
            print_json(&DeadLetterJson { delivery: &delivery, letter_bytes }, &mut out)
        }
        (body, false) => {
            deliveries(&[delivery], &mut out)?;
            let words = match body {
                Some(body) => format!("{} bytes; show them with --body", body.len()),
                None => "not in the dead-letter queue at the moment".into(),
            };
            Ok(writeln!(out, "letter     {words}")?)
        }
    }
}

/// A dead letter as JSON.
#[derive(Serialize)]
struct DeadLetterJson<'a> {
    #[serde(flatten)]
    delivery: &'a Delivery,
    /// `None` while another operator holds it.
    letter_bytes: Option<usize>,
}

pub(crate) fn tell(done: &Done, words: &str, out: &mut impl Write) -> Result<(), Failure> {
    match &done.last {
        Some((key, generation)) if done.tally.done == 1 => {
            Ok(writeln!(out, "{words} {key} as generation {generation}")?)
        }
        _ => Ok(tell_tally(&done.tally, words, out)?),
    }
}

/// Prints one line each.
fn show_all(dead: &[Delivery], out: &mut impl Write) -> std::io::Result<()> {
    if dead.is_empty() {
        return writeln!(out, "no dead letters");
    }
    let rows = dead.iter().map(|delivery| {
        let end = delivery.history.iter().rev().find_map(|entry| match &entry.what {
            HistoryEvent::Dead { result, .. } => Some((entry.at.to_string(), words(result))),
            _ => None,
        });
        let (since, last) = end.unwrap_or_default();
        let reason = delivery.reason.map_or("", |reason| reason.as_str());
        let (key, attempt) = (delivery.key.to_string(), delivery.record.attempt.to_string());
        [key, reason.to_owned(), attempt, since, last]
    });
    table::write(out, ["DELIVERY", "REASON", "ATTEMPT", "SINCE", "LAST RESPONSE"], rows)
}

/// Why selected letters are left.
pub(crate) const UNSUITED: &str = "left: suspected replays and conflicts are released by zentra event \
    release; a letter that the journal does not know goes only where it is subscribed to";

/// Prints the result of a pass. `done` names the action, such as "requeued".
fn tell_tally(tally: &PassReport, done: &str, out: &mut impl Write) -> std::io::Result<()> {
    let would = if tally.dry_run { "would be " } else { "" };
    writeln!(out, "{} of {} dead letters {would}{done}", tally.done, tally.looked)?;
    for (of, count) in &tally.by {
        writeln!(out, "  {count:>7}  {of}")?;
    }
    if let Some(oldest) = tally.oldest {
        writeln!(out, "the oldest was received at {oldest}")?;
    }
    for (count, why) in [
        (tally.unsuited, UNSUITED),
        (tally.leftover, "were handled before: only copies were removed"),
        (tally.busy, "left: a worker is processing them"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {why}")?;
        }
    }
    if tally.dry_run {
        writeln!(out, "nothing was changed; use --yes to do it")?;
    }
    Ok(())
}
