//! Incidents in the file.

use rusqlite::{Connection, OptionalExtension, params};
use zentra_store::incident::{Incident, Incidents, surplus};
use zentra_store::journal::JournalError;
use zentra_store::stored::{self, Listing};

use super::control::{listing, rows};
use super::journal::{EmbeddedJournal, unreadable, unwritable};

impl Incidents for EmbeddedJournal {
    async fn incidents(&self) -> Result<Vec<Incident>, JournalError> {
        Ok(self.store.read(all).await?)
    }

    async fn keep_incident(&self, incident: &Incident) -> Result<bool, JournalError> {
        let incident = incident.clone();
        let write = move |file: &Connection| {
            let kept = stored::write(&incident).map_err(unwritable)?;
            let id = &incident.id;
            let stored: Option<Vec<u8>> = file
                .prepare_cached("SELECT incident FROM incident WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?;
            let stored = stored.map(|stored| stored::read::<Incident>(id, &stored)).transpose();
            let stored = stored.map_err(|error| unreadable(0, error))?;
            if stored.map_or(0, |stored| stored.version) + 1 != incident.version {
                return Ok(false);
            }
            let keep = "INSERT OR REPLACE INTO incident (id, incident) VALUES (?1, ?2)";
            file.prepare_cached(keep)?.execute(params![id, kept])?;
            let gone = if incident.version == 1 { surplus(all(file)?) } else { Vec::new() };
            for id in gone {
                file.execute("DELETE FROM incident WHERE id = ?1", [id])?;
            }
            Ok(true)
        };
        Ok(self.store.write(write).await?)
    }
}

/// The newest first.
fn all(file: &Connection) -> rusqlite::Result<Vec<Incident>> {
    let rows = rows(file, "SELECT id, incident FROM incident", ())?;
    let incidents = listing(&rows).and_then(Listing::all);
    let mut incidents: Vec<Incident> = incidents.map_err(|error| unreadable(0, error))?;
    incidents.sort_by_key(|incident| std::cmp::Reverse(incident.opened_at));
    Ok(incidents)
}
