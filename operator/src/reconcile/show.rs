//! The report, for a person or as JSON.

use std::io::Write;

use super::list::Listed;
use super::{Report, Row};
use crate::failure::Failure;
use crate::text;

pub(super) fn tell(report: Report, json: bool) -> Result<(), Failure> {
    let mut out = text::stdout();
    match json {
        true => crate::print_json(&report, &mut out)?,
        false => show(&report, &mut out)?,
    }
    let left = report.events.iter().filter(|row| !row.standing.is_well()).count();
    match left {
        0 => Ok(()),
        left => Err(Failure::Asked(format!(
            "{left} of the provider's events aren't as they should be.\nBring in what is missing \
             with --ingest; see zentra event show ID for the others."
        ))),
    }
}

fn show(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let all: usize = report.counts.values().sum();
    writeln!(out, "{all} events of {} on the provider's list", report.source)?;
    for (standing, count) in &report.counts {
        writeln!(out, "  {count:>7}  {standing}")?;
    }
    if report.events.is_empty() {
        return Ok(());
    }
    let width = report.events.iter().map(|row| row.listed.id.len()).max().unwrap_or(0).max(5);
    writeln!(out, "{:<9}  {:<width$}  {:<24}  TYPE", "STANDING", "EVENT", "AT")?;
    for Row { listed, standing, detail } in &report.events {
        let Listed { id, kind, at, .. } = listed;
        let (standing, at) = (standing.as_str(), at.map_or("-".to_owned(), |at| at.to_string()));
        let kind = kind.as_deref().unwrap_or("(no type)");
        let detail = if detail.is_empty() { String::new() } else { format!("  ({detail})") };
        writeln!(out, "{standing:<9}  {id:<width$}  {at:<24}  {kind}{detail}")?;
    }
    Ok(())
}
