//! Copies everything that is remembered to other servers, also of another form: from one server to
//! a cluster, or back.
//!
//! Every value goes as it is (`DUMP`, `RESTORE`), under the key that the other form has for it. The
//! lists of claimed deliveries are copied entry by entry, oldest first, because each entry goes to
//! the list of its delivery's partition. What the other servers have already stays unchanged, so a
//! copy that was interrupted can be started again.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use zentra_core::event::DeliveryKey;
use zentra_store::journal::JournalError;

use super::list::{Place, Stored};
use super::{PARTITIONS, RedisJournal};
use crate::failed;

/// What `PTTL` answers.
const EXPIRED: i64 = -2;
const FOR_EVER: i64 = -1;
/// Number of keys that are copied at a time.
const AT_ONCE: usize = 64;
/// Number of list entries per request and partition.
const ENTRIES: usize = 500;
/// What the keys of worker control, tokens, audit and jobs begin with.
const SMALL: [&str; 6] = ["worker", "orders", "tokens", "audit", "jobs", "incidents"];

/// What was copied, or would be.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Copied {
    /// Deliveries.
    pub deliveries: u64,
    /// Deliveries that the other servers had already.
    pub known: u64,
    /// All other keys: indexes, tokens, the audit, jobs.
    pub others: u64,
    /// Such keys that the other servers had already. They stay as they are.
    pub others_known: u64,
}

impl RedisJournal {
    /// Copies all that is remembered to `to`, or only counts it. Nobody may write meanwhile.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unavailable`] also when `to` is older and does not understand the values.
    pub async fn copy_to(
        &self,
        to: &Self,
        dry_run: bool,
        show: &(dyn Fn(&Copied) + Sync),
    ) -> Result<Copied, JournalError> {
        let mut copied = Copied::default();
        let before = self.run_ids().await?;
        let mut scan =
            self.connection.scan(format!("{}:*", self.namespace)).await.map_err(failed)?;
        while let Some(keys) = scan.next().await.map_err(failed)? {
            let names: Vec<Name> = keys.iter().filter_map(|key| self.name(key)).collect();
            let copies = stream::iter(&names).map(async |name| {
                let is_new = if dry_run { true } else { self.copy(name, to).await? };
                Ok::<_, JournalError>((name, is_new))
            });
            let done: Vec<_> = copies.buffer_unordered(AT_ONCE).try_collect().await?;
            for (name, is_new) in done {
                match (&name.copied, is_new) {
                    (Kind::Delivery(_), true) => copied.deliveries += 1,
                    (Kind::Delivery(_), false) => copied.known += 1,
                    (_, true) => copied.others += 1,
                    (_, false) => copied.others_known += 1,
                }
            }
            show(&copied);
        }
        if !dry_run {
            self.copy_lists(to).await?;
        }
        // A scan that goes on at another server misses keys.
        match self.run_ids().await? == before {
            true => Ok(copied),
            false => Err(JournalError::Unavailable(
                "the servers changed during the copy: run it again".into(),
            )),
        }
    }

    /// The identities of the processes that have the keys.
    async fn run_ids(&self) -> Result<BTreeSet<String>, JournalError> {
        let infos = self.connection.infos().await.map_err(failed)?;
        Ok(infos.iter().filter_map(|info| info.get("run_id")).collect())
    }

    /// What a key holds. `None` for what is not copied by its key.
    fn name(&self, key: &str) -> Option<Name> {
        let rest = key.strip_prefix(&*self.namespace)?.strip_prefix(':')?;
        let small = rest.strip_prefix(&format!("{{{}}}:", self.namespace));
        let (kind, name) = rest.split_once(':').unwrap_or((rest, ""));
        let copied = match kind {
            _ if small.is_some() => Kind::Small(small?.into()),
            // The others are made anew: the lists below, and a probe of `ready`.
            "taken" | "writable" => return None,
            "workers" => Kind::Small(rest.into()),
            kind if SMALL.contains(&kind) => Kind::Small(rest.into()),
            "delivery" => {
                let bare = name.strip_prefix('{').and_then(|name| name.split_once("}:"));
                Kind::Delivery(DeliveryKey::parse(bare.map_or(name, |(_, key)| key))?)
            }
            _ => Kind::Index(rest.into()),
        };
        Some(Name { key: key.into(), copied })
    }

    /// Copies one value. Returns `false` if the other servers had the key already.
    async fn copy(&self, name: &Name, to: &Self) -> Result<bool, JournalError> {
        let mut from = self.connection.clone();
        let mut expiry = redis::cmd("PTTL");
        let left: i64 = expiry.arg(&name.key).query_async(&mut from).await.map_err(failed)?;
        let mut dump = redis::cmd("DUMP");
        let value: Option<Vec<u8>> =
            dump.arg(&name.key).query_async(&mut from).await.map_err(failed)?;
        // It has expired meanwhile.
        let Some(value) = value.filter(|_| left != EXPIRED) else { return Ok(true) };
        // For `RESTORE`, zero is for ever.
        let left = if left == FOR_EVER { 0 } else { left.max(1) };
        let key = match &name.copied {
            Kind::Delivery(key) => to.delivery_key(key),
            Kind::Small(name) => to.small(name),
            Kind::Index(rest) => format!("{}:{rest}", to.namespace),
        };
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(left).arg(value);
        match restore.exec_async(&mut to.connection.clone()).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYKEY") => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn copy_lists(&self, to: &Self) -> Result<(), JournalError> {
        let mut after = None;
        loop {
            let (entries, ended) = self.ascending(after).await?;
            for Stored { place, fields } in &entries {
                let key = fields.get(1).and_then(|key| DeliveryKey::parse(key));
                let Some(key) = key else { continue };
                let mut add = redis::cmd("XADD");
                add.arg(to.taken(to.partition(&key)));
                let merged = self.partitions() > to.partitions();
                add.arg(if merged { place.in_one() } else { place.id() });
                let added = add.arg(fields).exec_async(&mut to.connection.clone()).await;
                // An ID that is not above the last one: the entry was copied before.
                match added {
                    Err(error) if error.to_string().contains("equal or smaller") => {}
                    added => added.map_err(failed)?,
                }
            }
            after = entries.last().map(|last| last.place);
            if ended {
                return Ok(());
            }
        }
    }

    /// The next entries of all lists, oldest first, and whether these are the last ones.
    async fn ascending(&self, after: Option<Place>) -> Result<(Vec<Stored>, bool), JournalError> {
        let ranges = (0..self.partitions()).map(|partition| async move {
            let from = after.map_or_else(|| "-".into(), |place| place.after(partition));
            let mut range = redis::cmd("XRANGE");
            range.arg(self.taken(partition)).arg(from).arg("+").arg("COUNT").arg(ENTRIES);
            let found: Vec<(String, Vec<String>)> =
                range.query_async(&mut self.connection.clone()).await.map_err(failed)?;
            Stored::all(found, partition)
        });
        let ranges = try_join_all(ranges).await?;
        let more = ranges.iter().filter(|range| range.len() == ENTRIES);
        let ordered_up_to = more.filter_map(|range| range.last()).map(|last| last.place).min();
        let mut entries: Vec<Stored> = ranges.into_iter().flatten().collect();
        entries.retain(|entry| ordered_up_to.is_none_or(|to| entry.place <= to));
        entries.sort_by_key(|entry| entry.place);
        Ok((entries, ordered_up_to.is_none()))
    }
}

/// A key, and what it holds.
struct Name {
    key: String,
    copied: Kind,
}

enum Kind {
    Delivery(DeliveryKey),
    /// A name without namespace, of what is in one slot.
    Small(String),
    /// The rest of the key after the namespace.
    Index(String),
}

impl Place {
    fn id(self) -> String {
        format!("{}-{}", self.ms, self.seq)
    }

    /// An ID for a list that has the entries of all partitions, in the same order.
    fn in_one(self) -> String {
        let Self { ms, seq, partition } = self;
        format!("{ms}-{}", seq.saturating_mul(PARTITIONS.into()).saturating_add(partition.into()))
    }

    /// The start of a range of a partition's entries after this one.
    fn after(self, partition: u8) -> String {
        let Self { ms, seq, partition: of } = self;
        format!("{}{ms}-{seq}", if partition > of { "" } else { "(" })
    }
}
