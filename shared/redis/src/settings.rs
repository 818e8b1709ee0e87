//! Checks the settings of Redis that a delivery store should not have.

use redis::InfoDict;
use zentra_core::clock::Timestamp;
use zentra_store::journal::{JournalError, Usage};

use super::RedisJournal;
use crate::failed;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Redis or Valkey, and its version.
    pub version: String,
    /// Its clock, where it shows it.
    pub clock: Option<Timestamp>,
    /// Why it accepts no writes, with a remedy.
    pub not_writable: Option<String>,
    /// Settings that a delivery store should not have, each with a remedy.
    pub weaknesses: Vec<&'static str>,
}

impl RedisJournal {
    /// The servers that take writes: one, or the primaries of a cluster. Uses `INFO`, which managed
    /// services allow where they forbid `CONFIG`.
    ///
    /// # Errors
    ///
    /// Those of the store, if it does not answer.
    pub async fn servers(&self) -> Result<Vec<Server>, JournalError> {
        let infos = self.connection.infos().await.map_err(failed)?;
        let as_cluster = self.connection.is_cluster();
        let server = |info: &InfoDict| Server {
            version: version(info),
            clock: info.get::<u64>("server_time_usec").map(|at| Timestamp::from_millis(at / 1000)),
            not_writable: not_writable(info),
            weaknesses: weaknesses(info, as_cluster),
        };
        Ok(infos.iter().map(server).collect())
    }

    /// The weak settings of these servers, each once.
    pub async fn weaknesses(&self) -> Result<Vec<&'static str>, JournalError> {
        let mut found = Vec::new();
        for weakness in self.servers().await?.into_iter().flat_map(|server| server.weaknesses) {
            if !found.contains(&weakness) {
                found.push(weakness);
            }
        }
        Ok(found)
    }

    /// Why one of these servers accepts no writes, with a remedy. `None` if all accept them.
    pub(super) async fn not_writable(&self) -> Result<Option<String>, JournalError> {
        let infos = self.connection.infos().await.map_err(failed)?;
        Ok(infos.iter().find_map(not_writable))
    }

    pub(super) async fn memory(&self) -> Result<Usage, JournalError> {
        let infos = self.connection.infos().await.map_err(failed)?;
        Ok(usage(&infos))
    }
}

fn number(info: &InfoDict, key: &str) -> u64 {
    info.get::<u64>(key).unwrap_or(0)
}

/// Used memory, as Redis compares it with its `maxmemory`: buffers of replicas and of the
/// append-only file do not count.
fn used(info: &InfoDict) -> u64 {
    number(info, "used_memory").saturating_sub(number(info, "mem_not_counted_for_evict"))
}

fn usage(infos: &[InfoDict]) -> Usage {
    let part = |usage: &Usage| usage.used as f64 / usage.max.max(1) as f64;
    let of = infos.iter().map(|info| Usage {
        used: used(info),
        max: number(info, "maxmemory"),
        evicted: number(info, "evicted_keys"),
    });
    let evicted = of.clone().map(|one| one.evicted).sum();
    // Servers without a limit are never full.
    let fullest = of.max_by(|one, other| {
        (one.max > 0).cmp(&(other.max > 0)).then(part(one).total_cmp(&part(other)))
    });
    Usage { evicted, ..fullest.unwrap_or_default() }
}

fn version(info: &InfoDict) -> String {
    let text = |key: &str| info.get::<String>(key);
    match text("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", text("redis_version").unwrap_or_default()),
    }
}

const REPLICA: &str = "it is a read-only replica: name the primary in redis.url, or set \
                       redis.sentinel to follow failovers";

fn not_writable(info: &InfoDict) -> Option<String> {
    let is = |key: &str, value: &str| info.get::<String>(key).is_some_and(|text| text == value);
    let (used, most) = (used(info), number(info, "maxmemory"));
    if is("role", "slave") {
        return Some(REPLICA.into());
    }
    if most > 0 && used > most && is("maxmemory_policy", "noeviction") {
        return Some(format!("it is full ({used} of {most} bytes): raise its maxmemory"));
    }
    is("aof_last_write_status", "err")
        .then(|| "it cannot write its append-only file: free room on its disk".into())
}

fn weaknesses(info: &InfoDict, as_cluster: bool) -> Vec<&'static str> {
    let text = |key: &str| info.get::<String>(key).unwrap_or_default();
    let number = |key: &str| info.get::<u64>(key);
    let mut found = Vec::new();
    let major = text("redis_version").split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        found.push("it is older than 7: Zentra is tested with 7 and later");
    }
    if text("role") == "slave" {
        found.push(REPLICA);
    }
    if number("cluster_enabled") == Some(1) && !as_cluster {
        found.push(
            "it is a node of a cluster, and refuses most keys: set redis.cluster instead of \
             redis.url",
        );
    }
    if number("aof_enabled") == Some(0) {
        found.push(
            "it keeps no append-only file, so a crash forgets claims that it had granted, and a \
             copy may be attempted again: set appendonly yes",
        );
    }
    if !matches!(&*text("maxmemory_policy"), "" | "noeviction") {
        found.push(
            "it evicts keys when memory is short, so what was delivered may be forgotten, and a \
             copy attempted again: set maxmemory-policy noeviction",
        );
    }
    // `INFO` has this field only where `min-replicas-to-write` is set.
    if number("connected_slaves") > Some(0) && number("min_slaves_good_slaves").is_none() {
        found.push(
            "it has replicas, and takes writes without them, so a failover may forget what was \
             granted: set min-replicas-to-write 1",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_server_counts_and_evictions_of_all() {
        let info = |used: u64, most: u64, evicted: u64| {
            InfoDict::new(&format!(
                "used_memory:{used}\r\nmem_not_counted_for_evict:10\r\nmaxmemory:{most}\r\n\
                 evicted_keys:{evicted}\r\n"
            ))
        };
        let of = |infos: &[InfoDict]| {
            let Usage { used, max, evicted } = usage(infos);
            (used, max, evicted)
        };
        assert_eq!(of(&[info(110, 1000, 1), info(60, 100, 2), info(900, 0, 4)]), (50, 100, 7));
        assert_eq!(of(&[info(900, 0, 0)]), (890, 0, 0));
        assert_eq!(of(&[]), (0, 0, 0));
    }

    #[test]
    fn each_weakness_is_told_and_a_good_server_has_none() {
        let good = "redis_version:7.0.15\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n\
                    connected_slaves:0\r\n";
        assert!(weaknesses(&InfoDict::new(good), false).is_empty());
        for (what, finding) in [
            ("redis_version:6.2.0", "older than 7"),
            ("aof_enabled:0", "appendonly yes"),
            ("maxmemory_policy:allkeys-lru", "noeviction"),
            ("connected_slaves:1", "min-replicas-to-write"),
            ("role:slave", "redis.sentinel"),
            ("cluster_enabled:1", "redis.cluster"),
        ] {
            let found = weaknesses(&InfoDict::new(what), false);
            assert!(matches!(found[..], [one] if one.contains(finding)), "{found:?}");
        }
        assert!(weaknesses(&InfoDict::new("cluster_enabled:1"), true).is_empty());
        let replicas = "connected_slaves:1\r\nmin_slaves_good_slaves:1\r\n";
        assert!(weaknesses(&InfoDict::new(replicas), false).is_empty());
        assert!(weaknesses(&InfoDict::new(""), false).is_empty());
    }
}
