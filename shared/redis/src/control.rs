//! Worker control on Redis: one key per worker, which expires when the worker is silent; a set of
//! worker names; a hash of control actions; a stream of audit entries.

use std::collections::BTreeMap;

use zentra_core::clock::millis;
use zentra_store::control::{
    AUDITED, Attribution, AuditEntry, ControlAction, DesiredStates, HEARTBEAT_TIMEOUT, Heartbeat,
    OperatorControl, Token, WorkerControl, ordered,
};
use zentra_store::journal::JournalError;
use zentra_store::stored::{self, Document, Listing};

use super::RedisJournal;
use crate::failed;

/// An entry of a stream: its ID and its fields.
type Entry = (String, Vec<(String, Vec<u8>)>);

impl RedisJournal {
    fn worker(&self, name: &str) -> String {
        self.small(&format!("worker:{name}"))
    }

    fn workers_set(&self) -> String {
        self.small("workers")
    }

    fn actions(&self) -> String {
        self.small("orders")
    }

    fn tokens_hash(&self) -> String {
        self.small("tokens")
    }

    fn acts(&self) -> String {
        self.small("audit")
    }
}

impl WorkerControl for RedisJournal {
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<DesiredStates, JournalError> {
        let mut pipe = redis::pipe();
        let set =
            pipe.cmd("SET").arg(self.worker(&heartbeat.worker)).arg(stored::write(heartbeat)?);
        set.arg("PX").arg(millis(HEARTBEAT_TIMEOUT)).ignore();
        pipe.sadd(self.workers_set(), &heartbeat.worker).ignore();
        pipe.hgetall(self.actions());
        let (actions,): (Vec<(String, Vec<u8>)>,) =
            pipe.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok(read(&actions))
    }

    async fn leave(&self, worker: &str) -> Result<(), JournalError> {
        let mut pipe = redis::pipe();
        pipe.del(self.worker(worker)).ignore().srem(self.workers_set(), worker).ignore();
        pipe.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }
}

impl OperatorControl for RedisJournal {
    async fn workers(&self) -> Result<Listing<Heartbeat>, JournalError> {
        let mut connection = self.connection.clone();
        let set = self.workers_set();
        let mut names: Vec<String> =
            redis::cmd("SMEMBERS").arg(&set).query_async(&mut connection).await.map_err(failed)?;
        names.sort();
        let mut heartbeats = Vec::new();
        for name in names {
            let key = self.worker(&name);
            let heartbeat: Option<Vec<u8>> =
                redis::cmd("GET").arg(key).query_async(&mut connection).await.map_err(failed)?;
            match heartbeat {
                Some(heartbeat) => heartbeats.push((name, heartbeat)),
                // If the worker is alive after all, its next heartbeat adds it again.
                None => redis::cmd("SREM")
                    .arg(&set)
                    .arg(name)
                    .exec_async(&mut connection)
                    .await
                    .map_err(failed)?,
            }
        }
        listing(heartbeats.iter().map(|(name, heartbeat)| (name, heartbeat)))
    }

    async fn desired_states(&self) -> Result<DesiredStates, JournalError> {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.actions());
        let actions: Vec<(String, Vec<u8>)> =
            all.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok(read(&actions))
    }

    async fn apply(
        &self,
        destination: &str,
        action: ControlAction,
        attribution: Option<&Attribution>,
    ) -> Result<(), JournalError> {
        let field = format!("{} {destination}", action.as_str());
        let mut command = redis::cmd(if attribution.is_some() { "HSET" } else { "HDEL" });
        command.arg(self.actions()).arg(field);
        if let Some(attribution) = attribution {
            command.arg(stored::write(attribution)?);
        }
        command.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn audit(&self, act: &AuditEntry) -> Result<(), JournalError> {
        let mut add = redis::cmd("XADD");
        add.arg(self.acts()).arg("MAXLEN").arg("~").arg(AUDITED);
        add.arg("*").arg("act").arg(stored::write(&act.printable())?);
        add.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn keep_token(&self, token: &Token) -> Result<(), JournalError> {
        let mut set = redis::cmd("HSET");
        set.arg(self.tokens_hash()).arg(&token.id).arg(stored::write(token)?);
        set.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, JournalError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.tokens_hash()).arg(id);
        let found: Option<Vec<u8>> =
            get.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        found.map(|token| stored::read(id, &token)).transpose()
    }

    async fn tokens(&self) -> Result<Listing<Token>, JournalError> {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.tokens_hash());
        let found: BTreeMap<String, Vec<u8>> =
            all.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        listing(&found)
    }

    async fn revoke(&self, id: &str) -> Result<bool, JournalError> {
        let mut gone = redis::cmd("HDEL");
        gone.arg(self.tokens_hash()).arg(id);
        gone.query_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn audited(&self, limit: usize) -> Result<Listing<AuditEntry>, JournalError> {
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.acts()).arg("+").arg("-").arg("COUNT").arg(limit);
        let found: Vec<Entry> =
            range.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        let acts =
            found.iter().flat_map(|(id, fields)| fields.iter().map(move |(_, act)| (id, act)));
        listing(acts)
    }
}

fn read(actions: &[(String, Vec<u8>)]) -> DesiredStates {
    let mut desired_states = DesiredStates::new();
    for (field, attribution) in actions {
        if let Some((action, destination)) = field.split_once(' ') {
            ordered(&mut desired_states, destination, action, attribution);
        }
    }
    desired_states
}

/// The documents of a hash.
pub(super) fn listing<'a, D: Document>(
    documents: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
) -> Result<Listing<D>, JournalError> {
    Listing::read(documents.into_iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}
