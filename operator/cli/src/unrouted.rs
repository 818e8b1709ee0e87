//! `zentra unrouted`.

use std::io::Write;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::list::List;
use zentra_admin::unrouted::{self, UnroutedEvent};
use zentra_config::Config;

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::table;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum UnroutedCommand {
    /// List unrouted events, oldest first.
    List {
        /// Only this source.
        #[arg(long)]
        source: Option<String>,
        /// Maximum number of items.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Route unrouted events that a destination subscribes to by now. Each passes the same checks
    /// as any event.
    Requeue {
        /// Only this source.
        #[arg(long)]
        source: Option<String>,
        /// Maximum number of items.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print which would be routed, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        actor: ActorArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: UnroutedCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    match command {
        UnroutedCommand::List { source, limit, json } => {
            let found = unrouted::list(backend, config, source, limit).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show(&found, &mut out)?),
            }
        }
        UnroutedCommand::Requeue { source, limit, dry_run, actor, json } => {
            let actor = actor.into();
            let found = unrouted::requeue(backend, config, source, limit, dry_run, &actor).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show_requeued(&found, dry_run, &mut out)?),
            }
        }
    }
}

/// Prints one line each.
fn show(all: &[UnroutedEvent], out: &mut impl Write) -> std::io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no unrouted events");
    }
    let rows = all.iter().map(|found| {
        let subscribers = match found.destinations.is_empty() {
            true => "none".into(),
            false => found.destinations.join(", "),
        };
        let (received, bytes) = (found.received_at.to_string(), found.bytes.to_string());
        [received, event(found), bytes, subscribers]
    });
    table::write(out, ["RECEIVED", "EVENT", "BYTES", "SUBSCRIBERS NOW"], rows)
}

/// Prints what was routed.
fn show_requeued(
    all: &[UnroutedEvent],
    dry_run: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let done = if dry_run { "would be routed" } else { "routed" };
    for found in all {
        writeln!(out, "{}  {done} to {}", event(found), found.destinations.join(", "))?;
    }
    writeln!(out, "{} {done}; no destination subscribes to the others", all.len())
}

fn event(found: &UnroutedEvent) -> String {
    let id = found.event_id.as_deref().unwrap_or("(no id)");
    let kind = found.event_type.as_deref().unwrap_or("(no type)");
    format!("{}/{id} {kind}", found.source)
}
