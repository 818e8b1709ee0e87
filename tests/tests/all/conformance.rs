//! The conformance suite of `zentra-store` on each backend.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_config::{ClientTls, RedisServers};
use zentra_rabbitmq::{Amqp, Settings};
use zentra_redis::RedisJournal;
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_store::conformance::{Backend, RETENTION, suite};
use zentra_store::queue::Routes;
use zentra_tests::services::{self, RedisCluster, RedisSentinel, folder};
use zentra_tests::{
    Used, by_sentinel, one_server, permit, permitted, queue_settings, shared_rabbit, shared_redis,
};

const BOUND: Duration = Duration::from_secs(20);

mod servers {
    use super::Servers;
    super::suite!(Servers);
}

/// The delivery store on the primary that Sentinel names.
mod sentinel {
    use super::Sentinel;
    super::suite!(Sentinel, store);
}

/// The delivery store on Redis Cluster.
mod cluster {
    use super::Cluster;
    super::suite!(Cluster, store);
}

mod file {
    use super::File;
    super::suite!(File);
}

/// RabbitMQ and Redis.
struct Servers(Used);

impl Backend for Servers {
    type Queue = Amqp;
    type Journal = RedisJournal;

    fn new() -> Self {
        Self(Used::new())
    }

    async fn open(&self, routes: Routes) -> (Amqp, RedisJournal) {
        open(&self.0, routes, &one_server(shared_redis())).await
    }
}

async fn open(namespace: &str, routes: Routes, redis: &RedisServers) -> (Amqp, RedisJournal) {
    let settings = queue_settings(&shared_rabbit(), namespace);
    let queue = Amqp::ingress(Settings { routes: Some(routes), ..settings });
    timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    (queue, RedisJournal::new(redis, &ClientTls::default(), namespace, RETENTION).unwrap())
}

/// A primary with replicas and sentinels.
struct Sentinel(Used);

impl Backend for Sentinel {
    type Queue = Amqp;
    type Journal = RedisJournal;

    fn new() -> Self {
        Self(Used::new())
    }

    async fn open(&self, routes: Routes) -> (Amqp, RedisJournal) {
        static SERVERS: LazyLock<RedisSentinel> = LazyLock::new(|| {
            let started = services::redis_sentinel();
            started.servers.iter().for_each(|server| permit(server, "*", "+role"));
            started
        });
        let RedisServers::Sentinel { urls, service, .. } = by_sentinel(&SERVERS) else { panic!() };
        let primary = Secret::new(permitted("redis://primary"));
        open(&self.0, routes, &RedisServers::Sentinel { urls, service, primary }).await
    }
}

/// Redis Cluster.
struct Cluster(Used);

impl Backend for Cluster {
    type Queue = Amqp;
    type Journal = RedisJournal;

    fn new() -> Self {
        Self(Used::new())
    }

    async fn open(&self, routes: Routes) -> (Amqp, RedisJournal) {
        static SERVERS: LazyLock<RedisCluster> = LazyLock::new(|| {
            let started = services::redis_cluster();
            started.nodes.iter().for_each(|node| permit(node, "*", "+cluster|slots +cluster|info"));
            started
        });
        let urls = SERVERS.urls().iter().map(|url| Secret::new(permitted(url))).collect();
        open(&self.0, routes, &RedisServers::Cluster { urls }).await
    }
}

/// One file.
struct File(PathBuf);

impl Backend for File {
    type Queue = EmbeddedQueue;
    type Journal = EmbeddedJournal;

    fn new() -> Self {
        Self(folder("embedded").join("zentra.db"))
    }

    async fn open(&self, routes: Routes) -> (EmbeddedQueue, EmbeddedJournal) {
        let store = Store::open(&self.0, 1 << 30).unwrap();
        let refused = queue_settings("", "").refused;
        let queue = EmbeddedQueue::new(store.clone(), routes, refused);
        (queue, EmbeddedJournal::new(store, RETENTION))
    }
}

#[test]
fn every_promise_is_in_the_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/store/src/conformance");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let listed = text("mod.rs");
    let mut promises = 0;
    for part in ["restart.rs", "queue.rs", "journal.rs", "jobs.rs"] {
        for rest in text(part).split("\npub async fn ").skip(1) {
            let end = rest.find(['<', '(']).unwrap();
            let name = rest[..end].trim();
            assert!(listed.contains(name), "{name} is not in the suite");
            promises += 1;
        }
    }
    assert!(promises > 20, "{promises}");
}
