//! The delivery store of `zentra-store` on Redis 7 and later.
//!
//! A delivery is one string (see `layout`). One Lua script per transition changes it, by the same
//! rules as [`zentra_core::lifecycle::step`]. Two indexes are separate keys: event ID →
//! deliveries, where the ID is not the identity, and the dead letters of each destination. They
//! are written before the script runs, so they never miss a delivery. Every result of an index is
//! checked against the delivery itself.
//!
//! In a cluster the keys of one delivery are in one of [`PARTITIONS`] slots, with the list of the
//! deliveries in it. What is small (worker control, tokens, audit, jobs) is in one slot. Each index
//! is in the slot of its name.

mod cluster;
mod connection;
mod control;
mod copy;
mod incidents;
mod jobs;
mod layout;
mod list;
mod replaced;
mod sentinel;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, Script};
use zentra_config::{ClientTls, RedisServers};
use zentra_core::clock::{Timestamp, millis};
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::{Answer, Outcome, State};
use zentra_store::journal::list::{Page, Query};
use zentra_store::journal::{
    Claim, Delivery, DeliveryStore, First, HistoryEvent, Journal, JournalError, Remembered, Settle,
    Summary, Usage, named,
};

use connection::Connection;
pub use copy::Copied;
pub use settings::Server;

/// Lifetime of the key that probes whether Redis accepts writes.
const WRITABLE_MS: u64 = 60_000;
/// Number of slots that the deliveries are in, in a cluster. More of them make lists slower. Fewer
/// of them do not spread over large clusters.
const PARTITIONS: u8 = 64;

/// The delivery store on Redis.
#[derive(Clone)]
pub struct RedisJournal {
    connection: Connection,
    namespace: Arc<str>,
    retention: Duration,
    scripts: Arc<Scripts>,
}

struct Scripts {
    index: Script,
    claim: Script,
    renew: Script,
    settle: Script,
    note: Script,
    reopen: Script,
}

impl Scripts {
    fn new() -> Self {
        let script = |text: &str| Script::new(&layout::script(text));
        Self {
            index: Script::new(include_str!("index.lua")),
            claim: script(include_str!("claim.lua")),
            renew: script(include_str!("renew.lua")),
            settle: script(include_str!("settle.lua")),
            note: script(include_str!("note.lua")),
            reopen: script(include_str!("reopen.lua")),
        }
    }
}

impl RedisJournal {
    /// Connects at the first use, and again whenever the connection is lost. `retention` is how
    /// long an operator's change is remembered. Call this within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// An invalid URL. The message contains no part of it.
    pub fn new(
        servers: &RedisServers,
        tls: &ClientTls,
        namespace: &str,
        retention: Duration,
    ) -> Result<Self, JournalError> {
        Ok(Self {
            connection: Connection::new(servers, tls)?,
            namespace: namespace.into(),
            retention,
            scripts: Arc::new(Scripts::new()),
        })
    }

    /// The partition of a delivery. All are in the only one without a cluster.
    fn partition(&self, key: &DeliveryKey) -> u8 {
        let hash = crc32fast::hash(key.as_str().as_bytes());
        (hash % u32::from(self.partitions())) as u8
    }

    fn partitions(&self) -> u8 {
        if self.connection.is_cluster() { PARTITIONS } else { 1 }
    }

    /// A key of a partition. What is in braces decides its slot.
    fn partitioned(&self, kind: &str, partition: u8) -> String {
        match self.connection.is_cluster() {
            true => format!("{}:{kind}:{{{partition}}}", self.namespace),
            false => format!("{}:{kind}", self.namespace),
        }
    }

    /// A key of what is small: all of them are in one slot.
    fn small(&self, name: &str) -> String {
        let namespace = &self.namespace;
        match self.connection.is_cluster() {
            true => format!("{namespace}:{{{namespace}}}:{name}"),
            false => format!("{namespace}:{name}"),
        }
    }

    fn delivery_key(&self, key: &DeliveryKey) -> String {
        format!("{}:{key}", self.partitioned("delivery", self.partition(key)))
    }

    fn event_index(&self, id: &str) -> String {
        format!("{}:event:{id}", self.namespace)
    }

    /// The list of the claimed deliveries of a partition, in order, for [`DeliveryStore::list`].
    fn taken(&self, partition: u8) -> String {
        self.partitioned("taken", partition)
    }

    fn dead_index(&self, destination: &str) -> String {
        format!("{}:dead:{destination}", self.namespace)
    }

    /// The index of the ID that operators may know a delivery by, unless it is part of the
    /// delivery's key.
    fn id_index(&self, key: &DeliveryKey, summary: &Summary) -> Option<String> {
        let id = summary.event_id.as_deref()?;
        (key.identity() != id).then(|| self.event_index(id))
    }

    async fn index(
        &self,
        key: &DeliveryKey,
        summary: &Summary,
        retention: Duration,
        dead: bool,
    ) -> Result<(), JournalError> {
        let Some(index) = self.id_index(key, summary) else {
            return Ok(());
        };
        let mut call = self.scripts.index.prepare_invoke();
        call.key(index).arg(key.as_str()).arg(millis(retention)).arg(u8::from(dead));
        call.invoke_async::<()>(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn index_dead(&self, key: &DeliveryKey, at: Timestamp) -> Result<(), JournalError> {
        let mut index = redis::cmd("ZADD");
        index.arg(self.dead_index(key.destination()));
        index.arg(at.millis()).arg(key.as_str());
        index.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    /// A delivery that is no longer dead: its indexes expire with it from now on.
    async fn forget_dead(
        &self,
        key: &DeliveryKey,
        summary: &Summary,
        retention: Duration,
    ) -> Result<(), JournalError> {
        let mut connection = self.connection.clone();
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.dead_index(key.destination())).arg(key.as_str());
        remove.exec_async(&mut connection).await.map_err(failed)?;
        let Some(index) = self.id_index(key, summary) else { return Ok(()) };
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(index).arg(millis(retention));
        expire.exec_async(&mut connection).await.map_err(failed)
    }

    /// Imports a delivery from another store. Returns `false` if this store knows the delivery
    /// already. Its own copy is at least as new, so it stays unchanged.
    pub async fn take_over(&self, of: &Remembered) -> Result<bool, JournalError> {
        let Remembered { delivery, dead, until } = of;
        let (key, mut connection) = (&delivery.key, self.connection.clone());
        let stored = self.delivery_key(key);
        if redis::cmd("EXISTS").arg(&stored).query_async(&mut connection).await.map_err(failed)? {
            return Ok(false);
        }
        let now = zentra_core::clock::now();
        let retention = until.map_or(self.retention, |until| until.since(now));
        self.index(key, &delivery.event, retention, until.is_none()).await?;
        if let Some(at) = dead {
            self.index_dead(key, *at).await?;
        }
        let mut set = redis::cmd("SET");
        set.arg(&stored).arg(packed(key, layout::written(delivery))?).arg("NX");
        if until.is_some() {
            set.arg("PX").arg(millis(retention).max(1));
        }
        let set: Option<String> = set.query_async(&mut connection).await.map_err(failed)?;
        if delivery.event.context.type_unsigned {
            let (identity, retention) = (Identity::from_text(key.identity()), retention);
            let kind = delivery.event.event_type.as_deref().unwrap_or_default();
            let of = First::Type { source: key.source(), identity: &identity };
            self.first(of, kind, retention).await?;
        }
        if set.is_some() {
            self.list_anew(key, &delivery.event).await?;
        }
        Ok(set.is_some())
    }

    /// A script's answer to a claim or a settle.
    fn answer(name: &str, number: u64, expired: u8) -> Result<Answer, JournalError> {
        Ok(match name {
            "claimed" => Answer::Claimed { fence: number, expired },
            "busy" => Answer::Busy { remaining: Duration::from_millis(number) },
            "done" => Answer::Done,
            "dead" => Answer::Dead,
            "stale" => Answer::Stale,
            "conflict" => Answer::Conflict,
            "suspected" => Answer::Suspected,
            "renewed" => Answer::Renewed,
            "lost" => Answer::Lost,
            "settled" => Answer::Settled,
            "settled_late" => Answer::SettledLate,
            "superseded" => Answer::Superseded,
            other => return Err(JournalError::Unreadable(other.into())),
        })
    }

    /// A claim, and the time at which Redis decided it.
    #[doc(hidden)]
    pub async fn claim_at(&self, claim: &Claim<'_>) -> Result<(Answer, Timestamp), JournalError> {
        let Claim { key, summary, retention, .. } = *claim;
        self.index(key, summary, retention, false).await?;
        let mut call = self.scripts.claim.prepare_invoke();
        call.key(self.delivery_key(key)).key(self.taken(self.partition(key)));
        call.arg(claim.generation).arg(claim.attempt);
        call.arg(millis(claim.lease)).arg(millis(retention)).arg(claim.worker);
        call.arg(&claim.fingerprint.body).arg(&layout::id(claim.fingerprint));
        call.arg(packed(key, layout::summary(summary))?).arg(key.as_str());
        call.arg(summary.event_type.as_deref().unwrap_or_default());
        let (name, number, expired, now): (String, u64, u8, u64) =
            call.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        let answer = Self::answer(&name, number, expired)?;
        match answer {
            Answer::Claimed { .. } if claim.generation > 0 => {
                self.forget_dead(key, summary, retention).await?;
            }
            // Under this ID it is a delivery of its own, not a copy.
            Answer::Suspected => {
                if let Some(index) = self.id_index(key, summary) {
                    let mut remove = redis::cmd("SREM");
                    remove.arg(index).arg(key.as_str());
                    remove.exec_async(&mut self.connection.clone()).await.map_err(failed)?;
                }
            }
            _ => {}
        }
        Ok((answer, Timestamp::from_millis(now)))
    }

    /// A renewal, and the time at which Redis decided it.
    #[doc(hidden)]
    pub async fn renew_at(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> Result<(Answer, Timestamp), JournalError> {
        let mut call = self.scripts.renew.prepare_invoke();
        call.key(self.delivery_key(key)).arg(fence).arg(millis(lease));
        let (name, now): (String, u64) =
            call.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok((Self::answer(&name, 0, 0)?, Timestamp::from_millis(now)))
    }

    /// A replay of a delivered event, and the time at which Redis decided it.
    #[doc(hidden)]
    pub async fn reopen_at(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<(Answer, Timestamp), JournalError> {
        let unfit = || JournalError::Unreadable(format!("{key}: {what:?}"));
        let (kind, words) = layout::noted(what).ok_or_else(unfit)?;
        let mut call = self.scripts.reopen.prepare_invoke();
        call.key(self.delivery_key(key)).arg(kind).arg(by).arg(words.as_ref());
        call.arg(millis(self.retention));
        let (generation, now): (Option<u32>, u64) =
            call.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        let answer =
            generation.map_or(Answer::NotDelivered, |generation| Answer::Reopened { generation });
        Ok((answer, Timestamp::from_millis(now)))
    }

    /// A settle, and the time at which Redis decided it.
    #[doc(hidden)]
    pub async fn settle_at(
        &self,
        settle: &Settle<'_>,
    ) -> Result<(Answer, Timestamp), JournalError> {
        let Settle { key, summary, retention, .. } = *settle;
        let (outcome, number) = match settle.outcome {
            Outcome::Delivered => ("delivered", 0),
            Outcome::Retry { next_at } => ("retry", next_at.millis()),
            Outcome::Dead(reason) => ("dead", layout::reason(reason)),
        };
        if outcome == "dead" {
            self.index(key, summary, retention, true).await?;
            self.index_dead(key, zentra_core::clock::now()).await?;
        }
        let mut call = self.scripts.settle.prepare_invoke();
        call.key(self.delivery_key(key));
        call.arg(settle.fence).arg(settle.generation).arg(settle.attempt);
        call.arg(outcome).arg(number).arg(millis(retention)).arg(settle.worker);
        call.arg(packed(key, layout::result(settle.result))?);
        let mut connection = self.connection.clone();
        let (mut name, mut now): (String, u64) =
            call.invoke_async(&mut connection).await.map_err(failed)?;
        if name == "forgotten" {
            // Redis usually knows from the claim what this would only repeat.
            call.arg(&settle.fingerprint.body).arg(&layout::id(settle.fingerprint));
            call.arg(packed(key, layout::summary(summary))?);
            (name, now) = call.invoke_async(&mut connection).await.map_err(failed)?;
        }
        let answer = Self::answer(&name, 0, 0)?;
        if answer == Answer::SettledLate {
            self.forget_dead(key, summary, retention).await?;
        }
        Ok((answer, Timestamp::from_millis(now)))
    }
}

impl Journal for RedisJournal {
    const SYSTEM: &'static str = "redis";

    async fn claim(&self, claim: &Claim<'_>) -> Result<Answer, JournalError> {
        Ok(self.claim_at(claim).await?.0)
    }

    async fn known(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        self.history(key).await
    }

    async fn first(
        &self,
        of: First<'_>,
        value: &str,
        retention: Duration,
    ) -> Result<String, JournalError> {
        let mut connection = self.connection.clone();
        let (kind, name) = of.name();
        let key = format!("{}:{kind}:{name}", self.namespace);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(value).arg("NX").arg("PX").arg(millis(retention).max(1));
        let new: Option<String> = set.query_async(&mut connection).await.map_err(failed)?;
        if new.is_some() {
            return Ok(value.into());
        }
        let first: Option<String> =
            redis::cmd("GET").arg(&key).query_async(&mut connection).await.map_err(failed)?;
        Ok(first.unwrap_or_else(|| value.into()))
    }

    async fn renew(
        &self,
        key: &DeliveryKey,
        fence: u64,
        lease: Duration,
    ) -> Result<Answer, JournalError> {
        Ok(self.renew_at(key, fence, lease).await?.0)
    }

    async fn settle(&self, settle: &Settle<'_>) -> Result<Answer, JournalError> {
        Ok(self.settle_at(settle).await?.0)
    }

    async fn oldest_dead(&self, destination: &str) -> Result<Option<Timestamp>, JournalError> {
        let mut oldest = redis::cmd("ZRANGE");
        oldest.arg(self.dead_index(destination)).arg(0).arg(0).arg("WITHSCORES");
        let found: Vec<(String, u64)> =
            oldest.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        Ok(found.first().map(|(_, at)| Timestamp::from_millis(*at)))
    }

    async fn tidy(&self, retention: Duration) -> Result<(), JournalError> {
        self.trim(retention).await
    }

    async fn ready(&self) -> Result<(), JournalError> {
        let mut write = redis::cmd("SET");
        write.arg(format!("{}:writable", self.namespace)).arg(1).arg("PX").arg(WRITABLE_MS);
        write.exec_async(&mut self.connection.clone()).await.map_err(failed)
    }

    async fn usage(&self) -> Result<Option<Usage>, JournalError> {
        self.memory().await.map(Some)
    }
}

impl DeliveryStore for RedisJournal {
    async fn refuses_claims(&self) -> Result<Option<String>, JournalError> {
        self.not_writable().await
    }

    async fn find(
        &self,
        id: &str,
        pairs: &[(&str, &str)],
    ) -> Result<Vec<DeliveryKey>, JournalError> {
        let mut connection = self.connection.clone();
        let index = self.event_index(id);
        let found: Vec<String> =
            redis::cmd("SMEMBERS").arg(index).query_async(&mut connection).await.map_err(failed)?;
        let mut found: Vec<_> = found.iter().filter_map(|key| DeliveryKey::parse(key)).collect();
        for key in named(id, pairs) {
            let known = redis::cmd("EXISTS").arg(self.delivery_key(&key)).to_owned();
            if known.query_async(&mut connection).await.map_err(failed)? {
                found.push(key);
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn history(&self, key: &DeliveryKey) -> Result<Option<Delivery>, JournalError> {
        let mut get = redis::cmd("GET");
        get.arg(self.delivery_key(key));
        let raw: Option<Vec<u8>> =
            get.query_async(&mut self.connection.clone()).await.map_err(failed)?;
        raw.map(|raw| layout::read(key, &raw)).transpose()
    }

    async fn list(
        &self,
        query: &Query,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, JournalError> {
        self.page(query, after, limit).await
    }

    async fn dead(
        &self,
        destination: &str,
        limit: usize,
        wanted: &(dyn Fn(&Delivery) -> bool + Sync),
    ) -> Result<Vec<Delivery>, JournalError> {
        const PAGE: usize = 256;
        let mut found = Vec::new();
        for start in (0..).step_by(PAGE) {
            let mut range = redis::cmd("ZRANGE");
            range.arg(self.dead_index(destination)).arg(start).arg(start + PAGE - 1);
            let keys: Vec<String> =
                range.query_async(&mut self.connection.clone()).await.map_err(failed)?;
            for key in keys.iter().filter_map(|key| DeliveryKey::parse(key)) {
                if found.len() == limit {
                    return Ok(found);
                }
                let delivery = self.history(&key).await?;
                let dead = |known: &Delivery| known.record.state == State::Dead && wanted(known);
                found.extend(delivery.filter(dead));
            }
            if keys.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    async fn reopen(
        &self,
        key: &DeliveryKey,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<Option<u32>, JournalError> {
        match self.reopen_at(key, by, what).await?.0 {
            Answer::Reopened { generation } => Ok(Some(generation)),
            _ => Ok(None),
        }
    }

    async fn note(
        &self,
        key: &DeliveryKey,
        generation: u32,
        by: &str,
        what: &HistoryEvent,
    ) -> Result<bool, JournalError> {
        let unfit = || JournalError::Unreadable(format!("{key}: {what:?}"));
        let (kind, words) = layout::noted(what).ok_or_else(unfit)?;
        let mut call = self.scripts.note.prepare_invoke();
        call.key(self.delivery_key(key)).arg(kind).arg(generation).arg(by).arg(words);
        call.arg(millis(self.retention));
        let known = call.invoke_async(&mut self.connection.clone()).await.map_err(failed)?;
        if matches!(what, HistoryEvent::Discarded { .. })
            && let Some(delivery) = self.history(key).await?
        {
            self.forget_dead(key, &delivery.event, self.retention).await?;
        }
        Ok(known)
    }
}

fn packed(key: &DeliveryKey, packed: Option<Vec<u8>>) -> Result<Vec<u8>, JournalError> {
    packed.ok_or_else(|| JournalError::Unreadable(key.to_string()))
}

/// The seam's error for an error of the client library.
fn failed(error: redis::RedisError) -> JournalError {
    let unusable = match error.code() {
        Some("OOM" | "READONLY" | "MISCONF" | "NOREPLICAS") => {
            return JournalError::NotWritable(error.to_string());
        }
        Some("WRONGPASS" | "NOAUTH") => {
            Some(format!("it refuses the user or the password ({error}): check [redis]"))
        }
        Some("NOPERM") => Some(format!(
            "the user lacks a permission ({error}): docs/deploying.md has the permissions"
        )),
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            Some("it refuses the user or the password: check [redis]".into())
        }
        _ => zentra_config::remedy(&error, "redis"),
    };
    let unavailable = || JournalError::Unavailable(error.to_string());
    unusable.map_or_else(unavailable, JournalError::Unusable)
}
