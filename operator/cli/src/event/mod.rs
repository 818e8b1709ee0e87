//! `zentra event` and `zentra tail`.

mod case;
mod list;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::audit::Actor;
use zentra_admin::dead::Done;
use zentra_admin::event::{self, Change, Released};
use zentra_config::Config;

pub(crate) use list::DeliveryArgs;

use crate::actor::reason;
use crate::dead;
use crate::failure::Failure;
use crate::history;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum EventCommand {
    /// List deliveries, newest first.
    List {
        #[command(flatten)]
        wanted: DeliveryArgs,
        /// Maximum number of items.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Cursor of the next page, from the previous one.
        #[arg(long, conflicts_with = "id")]
        cursor: Option<String>,
        /// Print JSON: deliveries with their histories, and the next page's cursor.
        #[arg(long)]
        json: bool,
    },
    /// Find events whose bodies contain a text, such as a transfer's number: in dead letters,
    /// archive, unrouted and refused callbacks. Each search is audited. Exit status 1 if there is
    /// none.
    Find {
        /// The text, as it appears in the body.
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        text: String,
        /// Search redacted fields too.
        #[arg(long)]
        unredacted: bool,
        /// Name of the actor, for the audit log.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show an event: its state and its complete history.
    Show {
        /// A provider's event id, an identity, or a delivery key (destination/source/id).
        id: String,
        /// Print JSON with the lists `deliveries`, `accepted` and `refused`.
        #[arg(long)]
        json: bool,
        /// Write a Markdown page for a ticket to this file (`-`: standard output).
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        case_file: Option<PathBuf>,
    },
    /// Release a suspected replay or a conflict as an event of its own. A waiting delivery is
    /// attempted now.
    Release {
        /// The provider's event id, or the delivery key.
        id: String,
        /// Reason, for the history.
        #[arg(long, value_name = "WHY", value_parser = reason)]
        because: String,
        /// Name of the actor, for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End the retries of a waiting delivery. It becomes a dead letter.
    End {
        /// The provider's event id, or the delivery key.
        id: String,
        /// Reason, for the history.
        #[arg(long, value_name = "WHY", value_parser = reason)]
        because: String,
        /// Name of the actor, for the history.
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: EventCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    match command {
        EventCommand::List { wanted, limit, cursor, json } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let (histories, query) = (backend.histories(), wanted.query()?);
            let page = match &wanted.id {
                Some(id) => event::of_event(&histories, &config.pairs(), &query, id).await?,
                None => event::list(&histories, &query, cursor, limit).await?,
            };
            match json {
                true => print_json(&page, &mut out),
                false => Ok(list::page(&page, &mut out)?),
            }
        }
        EventCommand::Find { text, unredacted, by, json } => {
            let attribution = Actor { name: by, reason: String::new() }.attribution();
            let matches =
                event::find_text(backend, config, &text, unredacted, &attribution).await?;
            match json {
                true => print_json(&matches, &mut out)?,
                false => list::matches(&matches, &text, &mut out)?,
            }
            match matches.events.is_empty() && matches.refused.is_empty() {
                true => Err(Failure::Asked(
                    "nothing was found.\nTry the provider's id: zentra event show ID.".into(),
                )),
                false => Ok(()),
            }
        }
        EventCommand::Show { id, json, case_file } => {
            let found = event::look(backend, config, &id).await?;
            match (&case_file, json) {
                (Some(file), _) if file.as_os_str() == "-" => {
                    Ok(case::write(&id, &found, &mut out)?)
                }
                (Some(file), _) => {
                    case::file(file, &id, &found)?;
                    Ok(writeln!(out, "written to {}", file.display())?)
                }
                (None, true) => print_json(&found, &mut out),
                (None, false) => Ok(history::found(&found, &mut out)?),
            }
        }
        EventCommand::Release { id, because, by, json } => {
            let actor = Actor { name: by, reason: because };
            let done = event::release(backend, config, &id, &actor).await?;
            match (json, done) {
                (true, Released::Waiting(key)) => print_json(
                    &serde_json::json!({ "delivery": key, "attempted": "now" }),
                    &mut out,
                ),
                (true, Released::Suspected(Done { tally, .. })) => print_json(&tally, &mut out),
                (false, Released::Waiting(key)) => Ok(writeln!(out, "{key} is attempted now")?),
                (false, Released::Suspected(done)) => dead::tell(&done, "released", &mut out),
            }
        }
        EventCommand::End { id, because, by, json } => {
            let actor = Actor { name: by, reason: because };
            let key = event::end(backend, config, &id, &actor).await?;
            match json {
                true => {
                    print_json(&serde_json::json!({ "delivery": key, "given_up": true }), &mut out)
                }
                false => Ok(writeln!(out, "{key} is dead-lettered")?),
            }
        }
    }
}

/// Prints what happens, until the output is closed.
pub(crate) async fn tail(
    backend: &impl Backend,
    wanted: &DeliveryArgs,
    json: bool,
) -> Result<(), Failure> {
    let (mut out, mut written) = (text::stdout(), Ok(()));
    let reader = |changes: &[Change]| {
        let lines = changes.iter().try_for_each(|change| write(change, json, &mut out));
        written = lines.and_then(|()| out.flush());
        written.is_ok()
    };
    event::tail(backend, &wanted.query()?, wanted.id.as_deref(), reader).await?;
    Ok(written?)
}

/// Prints one change.
fn write(change: &Change, json: bool, out: &mut impl Write) -> io::Result<()> {
    match json {
        true => serde_json::to_writer(&mut *out, change)?,
        false => write!(out, "{}  {}", change.delivery, history::line(&change.entry))?,
    }
    writeln!(out)
}
