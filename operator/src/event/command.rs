//! The command line of events.

use std::io::Write;

use zentra_shared::config::Config;
use zentra_shared::control::{Act, Control};
use zentra_shared::event::DeliveryKey;
use zentra_shared::journal::What;

use crate::backend::Backend;
use crate::cli::{EventCommand, Letters};
use crate::control::Asked;
use crate::dead::{self, Done};
use crate::failure::Failure;
use crate::print_json;
use crate::text;

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: EventCommand,
) -> Result<(), Failure> {
    match command {
        EventCommand::List { wanted, limit, cursor, json } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let histories = backend.histories()?;
            let query = wanted.query()?;
            let page = match &wanted.id {
                Some(id) => super::of_event(&histories, &config.pairs(), &query, id).await?,
                None => super::list(&histories, &query, cursor, limit).await?,
            };
            let mut out = text::stdout();
            match json {
                true => print_json(&page, &mut out),
                false => Ok(super::show_page(&page, &mut out)?),
            }
        }
        EventCommand::Find { text, unredacted, by, json } => {
            let action = if unredacted { "event find --unredacted" } else { "event find" };
            let said = Asked { because: String::new(), by }.said();
            let act = Act { action: action.into(), on: text.clone(), result: String::new(), said };
            backend.histories()?.audit(&act).await?;
            let matches = super::find_text(backend, config, &text, unredacted).await?;
            let mut out = text::stdout();
            match json {
                true => print_json(&matches, &mut out)?,
                false => super::show_matches(&matches, &text, &mut out)?,
            }
            match matches.events.is_empty() && matches.refused.is_empty() {
                true => Err(Failure::Asked(
                    "nothing was found.\nTry the provider's id: zentra event show ID.".into(),
                )),
                false => Ok(()),
            }
        }
        EventCommand::Show { id, json, case_file } => {
            let found = super::look(backend, config, &id).await?;
            let mut out = text::stdout();
            match (&case_file, json) {
                (Some(file), _) if file.as_os_str() == "-" => {
                    Ok(super::write_case(&id, &found, &mut out)?)
                }
                (Some(file), _) => {
                    super::case_file(file, &id, &found)?;
                    Ok(writeln!(out, "written to {}", file.display())?)
                }
                (None, true) => print_json(&found, &mut out),
                (None, false) => Ok(super::show_found(&found, &mut out)?),
            }
        }
        EventCommand::Release { id, reason, by, json } => {
            let done = let_go(config, backend, &id, &Asked { because: reason, by }).await?;
            let mut out = text::stdout();
            match (json, done) {
                (true, Released::Waiting(key)) => print_json(
                    &serde_json::json!({ "delivery": key, "attempted": "now" }),
                    &mut out,
                ),
                (true, Released::Suspected(Done { tally, .. })) => print_json(&tally, &mut out),
                (false, Released::Waiting(key)) => Ok(writeln!(out, "{key} is attempted now")?),
                (false, Released::Suspected(done)) => {
                    dead::tell_requeued(&done, "released", &mut out)
                }
            }
        }
        EventCommand::End { id, reason, by, json } => {
            let asked = Asked { because: reason, by };
            let key = super::waiting::end(backend, config, &id, &asked).await?;
            let mut out = text::stdout();
            match json {
                true => {
                    print_json(&serde_json::json!({ "delivery": key, "given_up": true }), &mut out)
                }
                false => Ok(writeln!(out, "{key} is given up")?),
            }
        }
    }
}

/// What was let go on.
pub(crate) enum Released {
    /// An attempt that waited.
    Waiting(DeliveryKey),
    /// A suspected replay.
    Suspected(Done),
}

pub(crate) async fn let_go(
    config: &Config,
    backend: &impl Backend,
    id: &str,
    asked: &Asked,
) -> Result<Released, Failure> {
    if let Some(key) = super::waiting::now(backend, config, id, asked).await? {
        return Ok(Released::Waiting(key));
    }
    let (ids, by) = (vec![id.to_owned()], asked.by.clone());
    let letters = Letters { ids, limit: 1, by, ..Letters::default() };
    let what = What::Released { reason: asked.because.clone() };
    Ok(Released::Suspected(dead::requeued(config, backend, &letters, &what).await?))
}
