//! `zentra archive`.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::archive::{self, Among, ArchiveFilter, ArchivedEvent};
use zentra_admin::filter::DEFAULT_LIMIT;
use zentra_admin::list::List;
use zentra_config::Config;

use crate::failure::Failure;
use crate::payload::Payload;
use crate::table;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List archived events, oldest first.
    List {
        #[command(flatten)]
        wanted: WantedArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show an archived event; with --body its original bytes.
    Show {
        /// The provider's event id, or the identity.
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Filters for archived events.
#[derive(clap::Args)]
pub(crate) struct WantedArgs {
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only this event type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events that were accepted within this time (`2h`).
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// Maximum number of items to return.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

impl From<WantedArgs> for ArchiveFilter {
    fn from(WantedArgs { source, kind, newer_than, limit }: WantedArgs) -> Self {
        Self { source, kind, newer_than, limit }
    }
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: ArchiveCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let mut out = text::stdout();
    match command {
        ArchiveCommand::List { wanted, json } => {
            let found = archive::list(&queue, config, &wanted.into()).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show(&found, &mut out)?),
            }
        }
        ArchiveCommand::Show { id, payload, json } => {
            let (found, event) = archive::find(&queue, config, &id, &Among::default()).await?;
            match (json, payload.body) {
                (true, _) => print_json(&found, &mut out),
                (_, true) => {
                    let (control, source) = (backend.histories(), &event.envelope.source);
                    let seen =
                        payload.seen(&control, config, "archive show", &id, source, &event.body);
                    Ok(text::write_bytes(&seen.await?, payload.raw)?)
                }
                _ => Ok(show(&[found], &mut out)?),
            }
        }
    }
}

/// Prints one line each.
fn show(all: &[ArchivedEvent], out: &mut impl Write) -> std::io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no archived events");
    }
    let rows = all.iter().map(|found| {
        let id = found.event_id.as_ref().unwrap_or(&found.identity);
        let kind = found.event_type.as_deref().unwrap_or("(no type)");
        let event = format!("{}/{id}", found.source);
        [found.received_at.to_string(), event, found.bytes.to_string(), kind.to_owned()]
    });
    table::write(out, ["RECEIVED", "EVENT", "BYTES", "TYPE"], rows)
}
