//! `zentra plan`.

use std::collections::BTreeMap;
use std::io::Write;

use zentra_admin::plan::{self, Plan, Running};
use zentra_config::Config;

use crate::failure::Failure;
use crate::table;
use crate::text::{self, print_json};

/// Prints what a start changes. Fails if it would fail.
pub(crate) async fn run(config: &Config, json: bool) -> Result<(), Failure> {
    let plan = plan::plan(config).await?;
    let mut out = text::stdout();
    match json {
        true => print_json(&plan, &mut out)?,
        false => show(&plan, &mut out)?,
    }
    match plan.conflicts() {
        false => Ok(()),
        true => {
            Err(Failure::Asked("a start would fail: see the lines with conflict above.".to_owned()))
        }
    }
}

fn show(plan: &Plan, out: &mut impl Write) -> std::io::Result<()> {
    match plan.changes.is_empty() {
        true => writeln!(out, "a start changes nothing")?,
        false => {
            let rows = plan.changes.iter().map(|change| {
                [change.action.as_str().to_owned(), change.object.clone(), change.note.clone()]
            });
            table::write(out, ["ACTION", "OBJECT", "NOTE"], rows)?;
        }
    }
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Running { worker, version } in &plan.workers {
        versions.entry(version).or_default().push(worker);
    }
    for (version, workers) in versions {
        writeln!(out, "workers of version {version}: {}", workers.join(", "))?;
    }
    if !plan.unreadable.is_empty() {
        let names = plan.unreadable.join(", ");
        writeln!(out, "a newer version of Zentra stored what this one cannot read: {names}")?;
    }
    Ok(())
}
