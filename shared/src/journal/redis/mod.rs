//! The journal on Redis, 7 and later.
//!
//! A delivery is a hash and a list in one hash slot, changed by one script per
//! transition; the scripts say what [`crate::lifecycle::step`] says. Two small indexes
//! lie outside the slot (event id → deliveries, dead per destination). They are written
//! before the script, so what they should find is never missing from them; what they
//! find is checked against the record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, Script};

use super::{Claim, Delivery, Entry, Histories, Journal, JournalError, Settle, Summary};
use crate::clock::{Timestamp, millis};
use crate::event::DeliveryKey;
use crate::lifecycle::{Answer, DeadReason, Outcome, Record, State};
use crate::secret::Secret;

const ANSWER: Duration = Duration::from_secs(2);

/// Redis behind the seam.
#[derive(Clone)]
pub struct RedisJournal {
    connection: ConnectionManager,
    namespace: Arc<str>,
    retention: Duration,
    scripts: Arc<Scripts>,
}

struct Scripts {
    index: Script,
    claim: Script,
    settle: Script,
    note: Script,
    history: Script,
}

impl Scripts {
    fn new() -> Self {
        let script = |text: &str| Script::new(&format!("{}\n{text}", include_str!("common.lua")));
        Self {
            index: Script::new(include_str!("index.lua")),
            claim: script(include_str!("claim.lua")),
            settle: script(include_str!("settle.lua")),
            note: script(include_str!("note.lua")),
            history: Script::new(include_str!("history.lua")),
        }
    }
}

impl RedisJournal {
    /// `retention`: how long a delivery that isn't dead is remembered after its last
    /// change. Connects at the first use, and again whenever the connection is lost. The URL is
    /// `redis://` or `rediss://`; the error names no part of it.
    pub fn new(url: &Secret, namespace: &str, retention: Duration) -> Result<Self, JournalError> {
        let unreadable = |_| JournalError::Unavailable("the url can't be read".into());
        let url = String::from_utf8_lossy(url.expose()).into_owned();
        let info = url.into_connection_info().map_err(unreadable)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(3)
            .set_max_delay(Duration::from_millis(500));
        let client = Client::open(info).map_err(unreadable)?;
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config)
                .map_err(unreadable)?,
            namespace: namespace.into(),
            retention,
            scripts: Arc::new(Scripts::new()),
        })
    }

    /// The braces make a delivery's keys one slot. A brace in the identity shortens the
    /// slot's name, but for all its keys alike.
    fn record_key(&self, key: &DeliveryKey) -> String {
        format!("{}:{{{key}}}", self.namespace)
    }

    fn history_key(&self, key: &DeliveryKey) -> String {
        format!("{}:{{{key}}}:history", self.namespace)
    }

    fn event_index(&self, id: &str) -> String {
        format!("{}:event:{id}", self.namespace)
    }

    fn dead_index(&self, destination: &str) -> String {
        format!("{}:dead:{destination}", self.namespace)
    }

    /// The indexes of the ids that an operator may look a delivery up by.
    fn event_indexes(&self, key: &DeliveryKey, summary: &Summary) -> Vec<String> {
        let identity = key.as_str().splitn(3, '/').nth(2).unwrap_or_default();
        let other = summary.event_id.as_deref().filter(|id| *id != identity);
        [identity].into_iter().chain(other).map(|id| self.event_index(id)).collect()
    }

    async fn index_event(
        &self,
        key: &DeliveryKey,
        summary: &Summary,
        dead: bool,
    ) -> Result<(), JournalError> {
        for index in self.event_indexes(key, summary) {
            let mut call = self.scripts.index.prepare_invoke();
            call.key(index).arg(key.as_str()).arg(millis(self.retention)).arg(u8::from(dead));
            call.invoke_async::<()>(&mut self.connection.clone()).await?;
        }
        if dead {
            let mut index = redis::cmd("ZADD");
            index.arg(self.dead_index(key.destination()));
            index.arg(crate::clock::now().millis()).arg(key.as_str());
            index.exec_async(&mut self.connection.clone()).await?;
        }
        Ok(())
    }

    /// A delivery isn't dead any more: from now on its indexes have their time again.
    async fn forget_dead(&self, key: &DeliveryKey, summary: &Summary) -> Result<(), JournalError> {
        let mut pipe = redis::pipe();
        pipe.zrem(self.dead_index(key.destination()), key.as_str()).ignore();
        for index in self.event_indexes(key, summary) {
            pipe.cmd("PEXPIRE").arg(index).arg(millis(self.retention)).ignore();
        }
        Ok(pipe.exec_async(&mut self.connection.clone()).await?)
    }

    /// A script's answer, to a claim or a settle.
    fn answer(name: &str, number: u64, flag: bool) -> Result<Answer, JournalError> {
        Ok(match name {
            "claimed" => Answer::Claimed { fence: number, reclaimed: flag },
            "busy" => Answer::Busy { remaining: Duration::from_millis(number) },
            "done" => Answer::Done,
            "dead" => Answer::Dead,
            "stale" => Answer::Stale,
            "settled" => Answer::Settled,
            "settled_late" => Answer::SettledLate,
            "superseded" => Answer::Superseded,
            other => return Err(JournalError::Unreadable(other.into())),
        })
    }

    /// A claim, and the time at which Redis judged it.
    #[doc(hidden)]
    pub async fn claim_at(&self, claim: &Claim<'_>) -> Result<(Answer, Timestamp), JournalError> {
        self.index_event(claim.key, claim.summary, false).await?;
        let mut call = self.scripts.claim.prepare_invoke();
        call.key(self.record_key(claim.key)).key(self.history_key(claim.key));
        call.arg(claim.generation).arg(claim.attempt);
        call.arg(millis(claim.lease)).arg(millis(self.retention)).arg(claim.worker);
        call.arg(json(claim.key, claim.summary)?);
        let (name, number, flag, now): (String, u64, bool, u64) =
            call.invoke_async(&mut self.connection.clone()).await?;
        let answer = Self::answer(&name, number, flag)?;
        if matches!(answer, Answer::Claimed { .. }) && claim.generation > 0 {
            self.forget_dead(claim.key, claim.summary).await?;
        }
        Ok((answer, Timestamp::from_millis(now)))
    }

    /// A settle, and the time at which Redis judged it.
    #[doc(hidden)]
    pub async fn settle_at(
        &self,
        settle: &Settle<'_>,
    ) -> Result<(Answer, Timestamp), JournalError> {
        let (outcome, next_at, reason) = match settle.outcome {
            Outcome::Delivered => ("delivered", 0, ""),
            Outcome::Retry { next_at } => ("retry", next_at.millis(), ""),
            Outcome::Dead(reason) => ("dead", 0, reason.as_str()),
        };
        if outcome == "dead" {
            self.index_event(settle.key, settle.summary, true).await?;
        }
        let mut call = self.scripts.settle.prepare_invoke();
        call.key(self.record_key(settle.key)).key(self.history_key(settle.key));
        call.arg(settle.fence).arg(settle.generation).arg(settle.attempt);
        call.arg(outcome).arg(next_at).arg(millis(self.retention)).arg(settle.worker).arg(reason);
        call.arg(json(settle.key, settle.result)?).arg(json(settle.key, settle.summary)?);
        let (name, now): (String, u64) = call.invoke_async(&mut self.connection.clone()).await?;
        let answer = Self::answer(&name, 0, false)?;
        if answer == Answer::SettledLate {
            self.forget_dead(settle.key, settle.summary).await?;
        }
        Ok((answer, Timestamp::from_millis(now)))
    }
}

impl Journal for RedisJournal {
    async fn claim(&self, claim: &Claim<'_>) -> Result<Answer, JournalError> {
        Ok(self.claim_at(claim).await?.0)
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Answer, JournalError> {
        Ok(self.settle_at(settle).await?.0)
    }

    async fn ready(&self) -> bool {
        let ping = redis::cmd("PING").exec_async(&mut self.connection.clone()).await;
        ping.is_ok()
    }
}

impl Histories for RedisJournal {
    async fn find(&self, id: &str) -> Result<Vec<DeliveryKey>, JournalError> {
        let mut connection = self.connection.clone();
        let mut found: Vec<String> =
            redis::cmd("SMEMBERS").arg(self.event_index(id)).query_async(&mut connection).await?;
        if let Some(key) = DeliveryKey::parse(id) {
            let record = self.record_key(&key);
            if redis::cmd("EXISTS").arg(record).query_async(&mut connection).await? {
                found.push(id.into());
            }
        }
        found.sort();
        found.dedup();
        Ok(found.iter().filter_map(|key| DeliveryKey::parse(key)).collect())
    }

    async fn history(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        let mut call = self.scripts.history.prepare_invoke();
        call.key(self.record_key(key)).key(self.history_key(key));
        let (fields, lines): (HashMap<String, String>, Vec<String>) =
            call.invoke_async(&mut self.connection.clone()).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        let unreadable = || JournalError::Unreadable(key.to_string());
        let mut history: Vec<Entry> = Vec::with_capacity(lines.len());
        for line in lines {
            history.push(serde_json::from_str(&line).map_err(|_| unreadable())?);
        }
        let delivery = delivery(key, &fields, history).ok_or_else(unreadable)?;
        Ok(Some(delivery))
    }

    async fn dead(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, JournalError> {
        const PAGE: usize = 256;
        let mut found = Vec::new();
        for start in (0..).step_by(PAGE) {
            let mut range = redis::cmd("ZRANGE");
            range.arg(self.dead_index(destination)).arg(start).arg(start + PAGE - 1);
            let keys: Vec<String> = range.query_async(&mut self.connection.clone()).await?;
            for key in keys.iter().filter_map(|key| DeliveryKey::parse(key)) {
                if found.len() == limit {
                    return Ok(found);
                }
                let delivery = self.history(&key).await?;
                found.extend(delivery.filter(|known| known.record.state == State::Dead));
            }
            if keys.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    async fn note_requeue(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
    ) -> Result<(), JournalError> {
        let mut call = self.scripts.note.prepare_invoke();
        call.key(self.record_key(key)).key(self.history_key(key));
        call.arg(generation).arg(1).arg(by).arg(millis(self.retention));
        let _now: u64 = call.invoke_async(&mut self.connection.clone()).await?;
        Ok(())
    }
}

fn delivery(
    key: &DeliveryKey,
    fields: &HashMap<String, String>,
    history: Vec<Entry>,
) -> Option<Delivery> {
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let named = |name: &str| serde_json::Value::from(name);
    let reason = fields.get("reason").map(|name| named(name));
    Some(Delivery {
        key: key.clone(),
        record: Record {
            state: serde_json::from_value::<State>(named(fields.get("state")?)).ok()?,
            generation: number("generation")?.try_into().ok()?,
            attempt: number("attempt")?.try_into().ok()?,
            fence: number("fence")?,
            until: Timestamp::from_millis(number("until")?),
        },
        reason: match reason {
            Some(name) => Some(serde_json::from_value::<DeadReason>(name).ok()?),
            None => None,
        },
        event: serde_json::from_str(fields.get("event")?).ok()?,
        history,
    })
}

fn json(key: &DeliveryKey, value: &impl serde::Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|_| JournalError::Unreadable(key.to_string()))
}

impl From<redis::RedisError> for JournalError {
    fn from(error: redis::RedisError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
