//! The sandbox for tests, where a failed start may panic.

use std::path::PathBuf;
use std::process::Command;

pub use zentra_rehearse::sandbox::{
    Guarded, Rabbit, Redis, RedisCluster, RedisSentinel, output, poll, sweep,
};

/// This process's folder. All others are below it.
pub fn workplace() -> PathBuf {
    loud(zentra_rehearse::sandbox::workplace()).into()
}

/// A new folder below this process's own.
pub fn folder(name: &str) -> PathBuf {
    loud(zentra_rehearse::sandbox::folder(name))
}

/// A free port.
pub fn free_port() -> u16 {
    loud(zentra_rehearse::sandbox::free_port())
}

/// Starts a program that ends with this process.
pub fn start(command: Command) -> Guarded {
    loud(Guarded::start(command))
}

/// A private RabbitMQ.
pub fn rabbit() -> Rabbit {
    loud(Rabbit::start())
}

/// A private Redis.
pub fn redis() -> Redis {
    loud(Redis::start())
}

/// A private Redis primary with two replicas and three sentinels.
pub fn redis_sentinel() -> RedisSentinel {
    loud(RedisSentinel::start())
}

/// A private Redis Cluster of three primaries, each with a replica.
pub fn redis_cluster() -> RedisCluster {
    loud(RedisCluster::start())
}

fn loud<T>(done: std::io::Result<T>) -> T {
    done.unwrap_or_else(|error| panic!("{error}"))
}
