//! Incidents on Redis: a hash.

use std::collections::BTreeMap;

use zentra_store::incident::{Incident, Incidents, surplus};
use zentra_store::journal::JournalError;
use zentra_store::stored;

use super::RedisJournal;
use super::control::listing;
use crate::failed;

/// Stores an incident if nobody else has changed it. `KEYS[1]` is the hash. ARGV: the id, the incident, its version.
const KEEP_SCRIPT: &str = r"
local has = redis.call('HGET', KEYS[1], ARGV[1])
local version = has and cjson.decode(has).version or 0
if version ~= ARGV[3] - 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
";

impl RedisJournal {
    fn incidents_hash(&self) -> String {
        self.small("incidents")
    }
}

impl Incidents for RedisJournal {
    async fn incidents(&self) -> Result<Vec<Incident>, JournalError> {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.incidents_hash());
        let found: BTreeMap<String, Vec<u8>> =
            all.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        let mut incidents: Vec<Incident> = listing(&found)?.all()?;
        incidents.sort_by_key(|incident| std::cmp::Reverse(incident.opened_at));
        Ok(incidents)
    }

    async fn keep_incident(&self, incident: &Incident) -> Result<bool, JournalError> {
        let script = redis::Script::new(KEEP_SCRIPT);
        let mut keep = script.key(self.incidents_hash());
        keep.arg(&incident.id).arg(stored::write(incident)?).arg(incident.version);
        let kept: bool = keep.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        let is_new = kept && incident.version == 1;
        let gone = if is_new { surplus(self.incidents().await?) } else { Vec::new() };
        if !gone.is_empty() {
            let mut delete = redis::cmd("HDEL");
            delete.arg(self.incidents_hash()).arg(gone);
            delete.exec_async(&mut self.connection.clone()).await.map_err(failed)?;
        }
        Ok(kept)
    }
}
