//! `zentra doctor`.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use zentra_admin::doctor::{self, Finding, Level};

use crate::failure::Failure;
use crate::text::{self, print_json};

/// What to examine.
#[derive(clap::Args)]
pub(crate) struct Doctor {
    /// RabbitMQ's management API, for policies, alarms and queue members:
    /// `http://USER:PASSWORD@HOST:15672`. The user needs the tag `monitoring`.
    #[arg(long, value_name = "URL", env = "ZENTRA_RABBITMQ_MANAGEMENT", hide_env_values = true)]
    management: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints one line for each part. Fails if there is a problem.
pub(crate) async fn run(path: &Path, asked: &Doctor) -> Result<(), Failure> {
    let environment = zentra_config::environment();
    let found = doctor::examine(path, &environment, asked.management.as_deref()).await;
    let count = |level| found.iter().filter(|one| one.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let mut out = text::stdout();
    match asked.json {
        true => {
            let all = json!({ "findings": found, "problems": problems, "warnings": warnings });
            print_json(&all, &mut out)?;
        }
        false => show(&found, &mut out)?,
    }
    match problems {
        0 => Ok(()),
        _ => Err(Failure::Asked(format!(
            "problems: {problems}, warnings: {warnings}.\nEach line above says what to do."
        ))),
    }
}

fn show(found: &[Finding], out: &mut impl Write) -> std::io::Result<()> {
    let width = found.iter().map(|one| one.about.len()).max().unwrap_or(0).min(40);
    for Finding { level, about, text, remedy } in found {
        let level = match level {
            Level::Ok => "ok",
            Level::Skipped => "skipped",
            Level::Warning => "WARNING",
            Level::Problem => "PROBLEM",
        };
        let remedy = remedy.as_ref().map(|remedy| format!(". {remedy}")).unwrap_or_default();
        writeln!(out, "{level:<8} {about:<width$}  {text}{remedy}")?;
    }
    Ok(())
}
