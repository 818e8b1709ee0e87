//! Worker control and the audit log in the file.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Params, params};
use zentra_core::clock;
use zentra_store::control::{
    AUDITED, Attribution, AuditEntry, ControlAction, DesiredStates, HEARTBEAT_TIMEOUT, Heartbeat,
    OperatorControl, Token, WorkerControl, ordered,
};
use zentra_store::journal::JournalError;
use zentra_store::stored::{self, Document, Listing};

use super::journal::{EmbeddedJournal, unwritable};
use super::store::number;

/// Maximum age of a worker's heartbeat.
const TOLD: Duration = Duration::from_secs(3);

impl WorkerControl for EmbeddedJournal {
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<DesiredStates, JournalError> {
        let (now, name) = (clock::now(), heartbeat.worker.clone());
        let known = move |file: &Connection| {
            let known = "SELECT until FROM worker WHERE name = ?1";
            let until: Option<i64> =
                file.prepare_cached(known)?.query_row([name], |row| row.get(0)).optional()?;
            Ok((until, wanted(file)?))
        };
        let (until, desired_states) = self.store.read(known).await?;
        // Each write costs one sync of the disk.
        if until.is_none_or(|until| until < number(now.plus(HEARTBEAT_TIMEOUT - TOLD))) {
            let (name, until) = (heartbeat.worker.clone(), number(now.plus(HEARTBEAT_TIMEOUT)));
            let heartbeat_bytes = stored::write(heartbeat)?;
            let write = move |file: &Connection| {
                let sql = "INSERT OR REPLACE INTO worker (name, until, beat) VALUES (?1, ?2, ?3)";
                file.execute(sql, params![name, until, heartbeat_bytes]).map(drop)
            };
            self.store.write(write).await?;
        }
        Ok(desired_states)
    }

    async fn leave(&self, worker: &str) -> Result<(), JournalError> {
        let worker = worker.to_owned();
        let gone = move |file: &Connection| {
            file.execute("DELETE FROM worker WHERE name = ?1", [worker]).map(drop)
        };
        Ok(self.store.write(gone).await?)
    }
}

impl OperatorControl for EmbeddedJournal {
    async fn workers(&self) -> Result<Listing<Heartbeat>, JournalError> {
        let read = |file: &Connection| {
            let select = "SELECT name, beat FROM worker WHERE until > ?1 ORDER BY name";
            rows(file, select, [number(clock::now())])
        };
        listing(&self.store.read(read).await?)
    }

    async fn desired_states(&self) -> Result<DesiredStates, JournalError> {
        Ok(self.store.read(wanted).await?)
    }

    async fn apply(
        &self,
        destination: &str,
        action: ControlAction,
        attribution: Option<&Attribution>,
    ) -> Result<(), JournalError> {
        let (destination, attribution) = (destination.to_owned(), attribution.cloned());
        let write = move |file: &Connection| {
            let Some(attribution) = &attribution else {
                let gone = "DELETE FROM wish WHERE destination = ?1 AND wish = ?2";
                return file.execute(gone, params![destination, action.as_str()]).map(drop);
            };
            let attribution = stored::write(attribution).map_err(unwritable)?;
            let wanted =
                "INSERT OR REPLACE INTO wish (destination, wish, said) VALUES (?1, ?2, ?3)";
            file.execute(wanted, params![destination, action.as_str(), attribution]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn audit(&self, act: &AuditEntry) -> Result<(), JournalError> {
        let act = act.printable();
        let write = move |file: &Connection| {
            let act = stored::write(&act).map_err(unwritable)?;
            file.execute("INSERT INTO audit (act) VALUES (?1)", [act])?;
            let kept = i64::try_from(AUDITED).unwrap_or(i64::MAX);
            let old = "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1";
            file.execute(old, [kept]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn keep_token(&self, token: &Token) -> Result<(), JournalError> {
        let token = token.clone();
        let write = move |file: &Connection| {
            let kept = stored::write(&token).map_err(unwritable)?;
            let keep = "INSERT OR REPLACE INTO token (id, token) VALUES (?1, ?2)";
            file.execute(keep, params![token.id, kept]).map(drop)
        };
        Ok(self.store.write(write).await?)
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, JournalError> {
        let (name, id) = (id, id.to_owned());
        let read = move |file: &Connection| {
            let mut select = file.prepare_cached("SELECT token FROM token WHERE id = ?1")?;
            select.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let found = self.store.read(read).await?;
        found.map(|token| stored::read(name, &token)).transpose()
    }

    async fn tokens(&self) -> Result<Listing<Token>, JournalError> {
        let read = |file: &Connection| rows(file, "SELECT id, token FROM token ORDER BY id", ());
        listing(&self.store.read(read).await?)
    }

    async fn revoke(&self, id: &str) -> Result<bool, JournalError> {
        let id = id.to_owned();
        let gone = move |file: &Connection| file.execute("DELETE FROM token WHERE id = ?1", [id]);
        Ok(self.store.write(gone).await? > 0)
    }

    async fn audited(&self, limit: usize) -> Result<Listing<AuditEntry>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = move |file: &Connection| {
            let select = "SELECT CAST(id AS TEXT), act FROM audit ORDER BY id DESC LIMIT ?1";
            rows(file, select, [limit])
        };
        listing(&self.store.read(read).await?)
    }
}

fn wanted(file: &Connection) -> rusqlite::Result<DesiredStates> {
    let mut desired_states = DesiredStates::new();
    let mut select = file.prepare_cached("SELECT destination, wish, said FROM wish")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        let (destination, action, attribution): (String, String, Vec<u8>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        ordered(&mut desired_states, &destination, &action, &attribution);
    }
    Ok(desired_states)
}

/// Names and documents.
pub(super) fn rows(
    file: &Connection,
    select: &str,
    parameters: impl Params,
) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let mut select = file.prepare_cached(select)?;
    let rows = select.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

pub(super) fn listing<D: Document>(rows: &[(String, Vec<u8>)]) -> Result<Listing<D>, JournalError> {
    Listing::read(rows.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}
