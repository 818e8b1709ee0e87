//! Jobs in the file.

use rusqlite::{Connection, OptionalExtension, params};
use zentra_core::clock;
use zentra_store::job::{HOLD, Halt, Job, Jobs, surplus};
use zentra_store::journal::JournalError;
use zentra_store::stored::{self, Listing};

use super::control::{listing, rows};
use super::journal::{EmbeddedJournal, unreadable, unwritable};
use super::store::number;

impl Jobs for EmbeddedJournal {
    async fn keep_job(&self, job: &Job) -> Result<(), JournalError> {
        let job = job.clone();
        let write = move |file: &Connection| {
            let kept = stored::write(&job).map_err(unwritable)?;
            let known =
                file.prepare_cached("SELECT 1 FROM job WHERE id = ?1")?.exists([&job.id])?;
            let keep = "INSERT INTO job (id, job) VALUES (?1, ?2) \
                        ON CONFLICT (id) DO UPDATE SET job = ?2";
            file.prepare_cached(keep)?.execute(params![job.id, kept])?;
            let gone = if known { Vec::new() } else { surplus(all(file)?.items) };
            for id in gone {
                file.execute("DELETE FROM job WHERE id = ?1", [id])?;
            }
            Ok(())
        };
        Ok(self.store.write(write).await?)
    }

    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        let (name, id) = (id, id.to_owned());
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached("SELECT job FROM job WHERE id = ?1")?;
            select.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let found = self.store.read(read).await?;
        found.map(|job| stored::read(name, &job)).transpose()
    }

    async fn jobs(&self) -> Result<Listing<Job>, JournalError> {
        Ok(self.store.read(all).await?)
    }

    async fn ask_job(&self, id: &str, halt: Option<Halt>) -> Result<(), JournalError> {
        let id = id.to_owned();
        let write = move |file: &Connection| {
            let halt = halt.map(|halt| halt.stored().as_bytes());
            file.execute("UPDATE job SET halt = ?2 WHERE id = ?1", params![id, halt]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn asked_of_job(&self, id: &str) -> Result<Option<Halt>, JournalError> {
        let id = id.to_owned();
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached("SELECT halt FROM job WHERE id = ?1")?;
            let halt: Option<Option<Vec<u8>>> =
                select.query_row([id], |row| row.get(0)).optional()?;
            Ok(halt.flatten().map(|halt| Halt::of_stored(&halt)))
        };
        Ok(self.store.read(read).await?)
    }

    async fn hold(
        &self,
        destinations: &[String],
        holder: &str,
    ) -> Result<Option<String>, JournalError> {
        let (destinations, holder) = (destinations.to_owned(), holder.to_owned());
        let write = move |file: &Connection| {
            let now = clock::now();
            for destination in &destinations {
                let has = "SELECT holder FROM desk \
                           WHERE destination = ?1 AND holder <> ?2 AND until > ?3";
                let asked = params![destination, holder, number(now)];
                let other: Option<String> =
                    file.prepare_cached(has)?.query_row(asked, |row| row.get(0)).optional()?;
                if other.is_some() {
                    return Ok(other);
                }
            }
            for destination in &destinations {
                let hold = "INSERT OR REPLACE INTO desk (destination, holder, until) \
                            VALUES (?1, ?2, ?3)";
                file.prepare_cached(hold)?.execute(params![
                    destination,
                    holder,
                    number(now.plus(HOLD))
                ])?;
            }
            Ok(None)
        };
        Ok(self.store.write(write).await?)
    }

    async fn let_go(&self, destinations: &[String], holder: &str) -> Result<(), JournalError> {
        let (destinations, holder) = (destinations.to_owned(), holder.to_owned());
        let write = move |file: &Connection| {
            let gone = "DELETE FROM desk WHERE destination = ?1 AND holder = ?2";
            for destination in &destinations {
                file.execute(gone, params![destination, holder])?;
            }
            Ok(())
        };
        Ok(self.store.write(write).await?)
    }
}

/// The newest first.
fn all(file: &Connection) -> rusqlite::Result<Listing<Job>> {
    let rows = rows(file, "SELECT id, job FROM job", ())?;
    let mut jobs: Listing<Job> = listing(&rows).map_err(|error| unreadable(0, error))?;
    jobs.items.sort_by_key(|job| std::cmp::Reverse(job.made.at));
    Ok(jobs)
}
