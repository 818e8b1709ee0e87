//! A page about an event for a ticket, in Markdown: what is known, and nothing that is secret.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zentra_admin::deliveries::status;
use zentra_admin::event::EventDetails;
use zentra_core::clock;

use crate::failure::Failure;
use crate::history;

/// Writes the page into a new file that only its owner can read.
pub(crate) fn file(path: &Path, id: &str, found: &EventDetails) -> Result<(), Failure> {
    let new = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    let written = new.and_then(|mut file| write(id, found, &mut file));
    written.map_err(|error| {
        Failure::Asked(format!("cannot write {}: {error}\nName another file.", path.display()))
    })
}

/// Writes the page.
pub(crate) fn write(id: &str, found: &EventDetails, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "# Event {}\n", plain(id))?;
    writeln!(out, "Written by Zentra {} at {}.\n", env!("CARGO_PKG_VERSION"), clock::now())?;
    match (&found.deliveries[..], &found.accepted[..]) {
        ([], []) => writeln!(out, "No callback of this event was accepted.\n")?,
        ([], _) => writeln!(out, "No worker has claimed it.\n")?,
        (deliveries, _) => {
            writeln!(out, "| delivery, and its idempotency key | status | attempt | requeued |")?;
            writeln!(out, "|---|---|---|---|")?;
            for delivery in deliveries {
                let (key, record) = (plain(delivery.key.as_str()), &delivery.record);
                let status = plain(&status(delivery));
                let (attempt, again) = (record.attempt, record.generation);
                writeln!(out, "| {key} | {status} | {attempt} | {again} |")?;
            }
            writeln!(out)?;
        }
    }
    let mut shown = Vec::new();
    history::found(found, &mut shown)?;
    // What a destination has answered may not end the block.
    let shown = String::from_utf8_lossy(&shown).replace("```", "'''");
    writeln!(out, "```text\n{}\n```", shown.trim_end())
}

/// Without what Markdown would take for something else.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !"`<>[]|\\*".contains(*c)).collect()
}
