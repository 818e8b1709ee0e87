//! Jobs on Redis: a hash of jobs, a hash of their desired states, and a hash of the destinations
//! that job runners hold.

use std::collections::BTreeMap;

use zentra_core::clock::millis;
use zentra_store::job::{HOLD, Halt, Job, Jobs, surplus};
use zentra_store::journal::JournalError;
use zentra_store::stored::{self, Listing};

use super::RedisJournal;
use super::control::listing;
use crate::failed;

/// Reserves destinations for a job runner. `KEYS[1]` is the hash of holders and expiry times.
/// ARGV: the holder, the duration, the destinations. Returns the other holder of one of them, or
/// nothing.
const HOLD_SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  local has = redis.call('HGET', KEYS[1], ARGV[at])
  local till, who = string.match(has or '', '^(%d+) (.*)$')
  if who and who ~= ARGV[1] and tonumber(till) > now then return who end
end
for at = 3, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[at], string.format('%d %s', now + ARGV[2], ARGV[1]))
end
return false
";

/// Releases them. ARGV: the holder and the destinations.
const LET_GO_SCRIPT: &str = r"
for at = 2, #ARGV do
  local who = string.match(redis.call('HGET', KEYS[1], ARGV[at]) or '', '^%d+ (.*)$')
  if who == ARGV[1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
";

impl RedisJournal {
    fn jobs_hash(&self) -> String {
        self.small("jobs")
    }

    fn halts(&self) -> String {
        self.small("jobs:halt")
    }

    fn holders(&self) -> String {
        self.small("jobs:desk")
    }
}

impl Jobs for RedisJournal {
    async fn keep_job(&self, job: &Job) -> Result<(), JournalError> {
        let mut set = redis::cmd("HSET");
        set.arg(self.jobs_hash()).arg(&job.id).arg(stored::write(job)?);
        let new: bool = set.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        let gone = if new { surplus(self.jobs().await?.items) } else { Vec::new() };
        for id in gone {
            let mut pipe = redis::pipe();
            pipe.hdel(self.jobs_hash(), &id).ignore().hdel(self.halts(), &id).ignore();
            pipe.exec_async(&mut self.connection.clone()).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn job(&self, id: &str) -> Result<Option<Job>, JournalError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.jobs_hash()).arg(id);
        let found: Option<Vec<u8>> =
            get.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        found.map(|job| stored::read(id, &job)).transpose()
    }

    async fn jobs(&self) -> Result<Listing<Job>, JournalError> {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.jobs_hash());
        let found: BTreeMap<String, Vec<u8>> =
            all.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        let mut jobs: Listing<Job> = listing(&found)?;
        jobs.items.sort_by_key(|job| std::cmp::Reverse(job.made.at));
        Ok(jobs)
    }

    async fn ask_job(&self, id: &str, halt: Option<Halt>) -> Result<(), JournalError> {
        let mut command = redis::cmd(if halt.is_some() { "HSET" } else { "HDEL" });
        command.arg(self.halts()).arg(id);
        if let Some(halt) = &halt {
            command.arg(halt.stored());
        }
        command.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn asked_of_job(&self, id: &str) -> Result<Option<Halt>, JournalError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.halts()).arg(id);
        let found: Option<Vec<u8>> =
            get.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok(found.map(|halt| Halt::of_stored(&halt)))
    }

    async fn hold(
        &self,
        destinations: &[String],
        holder: &str,
    ) -> Result<Option<String>, JournalError> {
        let script = redis::Script::new(HOLD_SCRIPT);
        let mut call = script.key(self.holders());
        call.arg(holder).arg(millis(HOLD)).arg(destinations);
        call.invoke_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn let_go(&self, destinations: &[String], holder: &str) -> Result<(), JournalError> {
        let script = redis::Script::new(LET_GO_SCRIPT);
        let mut call = script.key(self.holders());
        call.arg(holder).arg(destinations);
        call.invoke_async(&mut self.connection.clone()).await.map_err(failed)
    }
}
