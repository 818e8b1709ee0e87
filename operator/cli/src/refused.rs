//! `zentra refused`.

use std::io::Write;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::list::List;
use zentra_admin::refused::{self, Outcome, RefusedCallback, RefusedFilter};
use zentra_admin::{AdminError, ErrorCode};
use zentra_config::Config;

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::payload::Payload;
use crate::source;
use crate::table;
use crate::text::{self, print_json};

#[derive(Subcommand)]
pub(crate) enum RefusedCommand {
    /// List refused callbacks, oldest first.
    List {
        /// Only this source.
        #[arg(long)]
        source: Option<String>,
        /// Only this reason.
        #[arg(long)]
        reason: Option<String>,
        /// Maximum number of items.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a refused callback: its headers; with --body the received bytes.
    Show {
        /// The id, from the list.
        id: String,
        #[command(flatten)]
        payload: Payload,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Explain why a callback was refused: what is right and wrong with it by the present
    /// configuration, as `zentra verify` does for a captured request. Fails if it would be refused
    /// again.
    Explain {
        /// The id, from the list.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Admit refused callbacks that verify now, for example after a secret was corrected. Freshness
    /// is judged by the time of receipt.
    Admit {
        /// IDs from the list. If omitted, --source and --reason select the callbacks.
        #[arg(required_unless_present = "source")]
        ids: Vec<String>,
        /// Only this source.
        #[arg(long)]
        source: Option<String>,
        /// Only this reason.
        #[arg(long)]
        reason: Option<String>,
        /// Maximum number of items.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        actor: ActorArgs,
        /// Print which would be admitted, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: RefusedCommand,
) -> Result<(), Failure> {
    let mut out = text::stdout();
    match command {
        RefusedCommand::List { source, reason, limit, json } => {
            let wanted = RefusedFilter { ids: Vec::new(), source, reason };
            let found = refused::list(backend, config, &wanted, limit).await?;
            match json {
                true => print_json(&List::from(found), &mut out),
                false => Ok(show_all(&found, &mut out)?),
            }
        }
        RefusedCommand::Show { id, payload, json } => {
            let found = refused::find(backend, config, &id).await?;
            match (json, payload.body) {
                (true, _) => print_json(&found, &mut out),
                (_, true) => {
                    let (control, source) = (backend.histories(), &found.kept.source);
                    let seen =
                        payload.seen(&control, config, "refused show", &id, source, &found.body);
                    Ok(text::write_bytes(&seen.await?, payload.raw)?)
                }
                _ => Ok(show(&found, &mut out)?),
            }
        }
        RefusedCommand::Explain { id, json } => {
            let (source, callback) = refused::received(backend, config, &id).await?;
            source::explain(&callback, source, &config.sources, None, json)
        }
        RefusedCommand::Admit { ids, source, reason, limit, actor, dry_run, json } => {
            let named = ids.first().cloned();
            let wanted = RefusedFilter { ids, source, reason };
            let actor = actor.into();
            let outcomes = refused::admit(backend, config, &wanted, limit, dry_run, &actor).await?;
            let (none, all) = (outcomes.is_empty(), outcomes.iter().all(|one| one.admitted));
            match json {
                true => print_json(&List::from(outcomes), &mut out)?,
                false => show_outcomes(&outcomes, dry_run, &mut out)?,
            }
            match (named, all) {
                (Some(id), _) if none => Err(refused::not_found(&id).into()),
                (Some(_), false) => {
                    let error = AdminError::new(ErrorCode::NotAdmitted, "not all were admitted.");
                    Err(error.hint("Check the source's secrets in the configuration.").into())
                }
                _ => Ok(()),
            }
        }
    }
}

/// Prints one line each.
fn show_all(found: &[RefusedCallback], out: &mut impl Write) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "no refused callbacks are stored");
    }
    let rows = found.iter().map(|RefusedCallback { kept, bytes, .. }| {
        let (received, bytes) = (kept.received_at.to_string(), bytes.to_string());
        [kept.id.clone(), received, kept.source.clone(), kept.reason.to_string(), bytes]
    });
    table::write(out, ["ID", "RECEIVED", "SOURCE", "REASON", "BYTES"], rows)
}

/// Prints one callback without its signature, because with the body it could be sent again.
fn show(found: &RefusedCallback, out: &mut impl Write) -> std::io::Result<()> {
    let kept = &found.kept;
    writeln!(out, "refused    {}", kept.id)?;
    writeln!(out, "source     {}", kept.source)?;
    writeln!(out, "reason     {}", kept.reason)?;
    let peer = kept.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    writeln!(out, "received   {}{peer}", kept.received_at)?;
    writeln!(out, "body       {} bytes, sha256:{}", found.bytes, found.body_sha256)?;
    for (name, value) in &kept.headers {
        writeln!(out, "header     {name}: {value}")?;
    }
    Ok(())
}

/// Prints the outcomes.
fn show_outcomes(outcomes: &[Outcome], dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    let done = if dry_run { "would be admitted" } else { "admitted" };
    for Outcome { id, source, events, handshake, reason, .. } in outcomes {
        match reason {
            None if *handshake => writeln!(out, "{id}  {source}  {done}: a handshake, confirmed")?,
            None if *events != 1 => writeln!(out, "{id}  {source}  {done}: {events} events")?,
            None => writeln!(out, "{id}  {source}  {done}")?,
            Some("handshake") => writeln!(
                out,
                "{id}  {source}  a handshake, not an event: its provider no longer waits for the response. Ask it to \
                 repeat the handshake"
            )?,
            Some(reason) => writeln!(out, "{id}  {source}  still refused: {reason}")?,
        }
    }
    let admitted = outcomes.iter().filter(|outcome| outcome.admitted).count();
    writeln!(out, "{admitted} of {} {done}", outcomes.len())
}
