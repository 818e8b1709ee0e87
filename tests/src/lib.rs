//! One harness that starts real services, and every test that involves several processes.

pub mod databases;
pub mod flood;
pub mod fuzz;
pub mod http;
pub mod ledger;
pub mod load;
pub mod partition;
pub mod recorded;
pub mod services;
pub mod sign;
pub mod stack;
pub mod world;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use services::{Rabbit, Redis, RedisCluster, RedisSentinel};
use webhook_verify::Secret;
use zentra_config::{ClientTls, RedisServers};
use zentra_rabbitmq::Settings;
use zentra_store::queue::RefusedBounds;
use zentra_store::queue::{Archive, Routes, Subscriber};

static RABBIT: OnceLock<Rabbit> = OnceLock::new();

/// The URL of a RabbitMQ that all tests of this process share. Each test has its own namespace.
pub fn shared_rabbit() -> String {
    RABBIT.get_or_init(services::rabbit).url()
}

/// Marks a namespace as finished. On the shared RabbitMQ the queues of several finished namespaces
/// are deleted together: the queues of all tests would use all its memory, and it would accept no
/// events.
fn done_with(rabbit: &str, namespace: &str) {
    const AT_ONCE: usize = 16;
    static DONE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let (Some(shared), Ok(mut done)) = (RABBIT.get(), DONE.lock()) else { return };
    if shared.url() == rabbit {
        done.push(namespace.to_owned());
    }
    if done.len() == AT_ONCE {
        let done = std::mem::take(&mut *done);
        std::thread::spawn(move || shared.forget(&done));
    }
}

/// The URL of a Redis that all tests of this process share. Each test has its own namespace.
pub fn shared_redis() -> String {
    static REDIS: LazyLock<Mutex<Redis>> = LazyLock::new(|| Mutex::new(services::redis()));
    REDIS.lock().map(|redis| redis.url()).unwrap_or_default()
}

/// Gives a Redis server the user `zentra:secret`, for these keys, with the permissions of
/// docs/deploying.md and these more.
pub fn permit(redis: &Redis, keys: &str, more: &str) {
    let command = format!(
        "ACL SETUSER zentra on >secret ~{keys} -@all +@connection +@read +@write -@dangerous \
         +eval +evalsha +script|load +time +info {more}"
    );
    redis.tell(&command).unwrap_or_else(|error| panic!("{error}"));
}

/// The same URL with that user.
pub fn permitted(url: &str) -> String {
    url.replace("://", "://zentra:secret@")
}

/// One Redis server.
pub fn one_server(url: impl Into<String>) -> RedisServers {
    RedisServers::One(Secret::new(url.into()))
}

/// The primary that these sentinels name.
pub fn by_sentinel(servers: &RedisSentinel) -> RedisServers {
    RedisServers::Sentinel {
        urls: servers.urls().into_iter().map(Secret::new).collect(),
        service: RedisSentinel::SERVICE.into(),
        primary: Secret::new("redis://primary"),
    }
}

/// A Redis Cluster.
pub fn in_cluster(servers: &RedisCluster) -> RedisServers {
    RedisServers::Cluster { urls: servers.urls().into_iter().map(Secret::new).collect() }
}

/// Settings with which a test connects to a broker. Nothing is declared.
pub fn queue_settings(url: &str, namespace: &str) -> Settings {
    Settings {
        urls: vec![Secret::new(url)],
        tls: ClientTls::default(),
        namespace: namespace.into(),
        routes: None,
        binds_shards: false,
        refused: RefusedBounds { count: 100, bytes: 1 << 20, age: Duration::from_secs(3600) },
        publish_timeout: Duration::from_secs(2),
        lanes: 2,
        largest_body: None,
    }
}

/// Routes to these destinations, without an archive.
pub fn routes(subscribers: Vec<Subscriber>) -> Option<Routes> {
    let archive = Archive { sources: Vec::new(), bytes: 1 << 24, age: Duration::from_secs(3600) };
    Some(Routes { subscribers, archive })
}

/// A namespace that no other test has.
pub fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace of the shared RabbitMQ whose queues are deleted some time after it is dropped.
pub struct Used(String);

impl Used {
    /// That no other test has.
    pub fn new() -> Self {
        Self(namespace())
    }
}

impl Default for Used {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Used {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        done_with(&shared_rabbit(), &self.0);
    }
}

/// Calls `ask` until it returns a value. Panics with `what` when the time limit has passed.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    bound: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + bound;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {bound:?}: {what}\n{}", services::output());
    }
}
