//! Redis with sentinels, and Redis Cluster, under faults and a steady load: nothing is lost or
//! doubled, and deliveries go on after a failover. A test program of its own, so that nothing else
//! runs beside it.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::sleep;
use zentra_config::{ClientTls, RedisServers};
use zentra_redis::RedisJournal;
use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::Query;
use zentra_tests::ledger::Ledger;
use zentra_tests::load::Load;
use zentra_tests::services::{self, RedisSentinel, folder};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::RETENTION;
use zentra_tests::{by_sentinel, eventually, in_cluster, shared_rabbit};

/// How long deliveries may stop. The servers themselves notice a dead one after a second, and take
/// another second to replace it; docs/reliability.md has figures.
const WITHIN: Duration = Duration::from_secs(10);
/// How long the servers may take to be complete again.
const COMPLETE: Duration = Duration::from_secs(60);
/// How long the load goes on after a fault.
const AFTER: Duration = Duration::from_secs(10);

/// These tests run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The programs under load.
struct Site {
    stack: Stack,
    ledger: Arc<Ledger>,
    ingress: Program,
    _worker: Program,
    journal: RedisJournal,
}

impl Site {
    /// `setting` stands in the place of `redis.url`.
    async fn start(namespace: &str, setting: &str, servers: &RedisServers) -> Self {
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let retry = r#"retry = { attempts = 20, initial = "250ms", max = "2s" }"#;
        let stack = Stack::new(&shared_rabbit(), "", namespace, &ledger.url, retry);
        stack.replace("url = \"env:REDIS_URL\"", setting);
        let journal =
            RedisJournal::new(servers, &ClientTls::default(), namespace, RETENTION).unwrap();
        let (ingress, worker) = (stack.ingress().await, stack.worker().await);
        Self { stack, ledger: Arc::new(ledger), ingress, _worker: worker, journal }
    }

    /// Lets a fault happen under load, and checks what must hold. Returns the number of events.
    async fn under(&self, name: &str, fault: impl AsyncFnOnce()) -> usize {
        let load = Load::start(&self.ingress, &self.ledger);
        load.flows(50).await;
        let began = Instant::now();
        fault().await;
        sleep(AFTER).await;
        let [answers, deliveries] = load.gaps(began);
        let sent = load.settle().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        println!(
            "{name:<24} {sent} events, answers stopped for {answers:.1?}, deliveries for \
             {deliveries:.1?}; {} deliveries are remembered",
            self.remembered().await
        );
        assert!(answers < WITHIN && deliveries < WITHIN, "{name}\n{}", services::output());
        sent
    }

    /// The number of deliveries that are remembered.
    async fn remembered(&self) -> usize {
        let (mut count, mut next) = (0, None::<String>);
        loop {
            // The connection may still be to a server that is gone.
            let page = eventually("a page of the list", COMPLETE, async || {
                self.journal.list(&Query::default(), next.as_deref(), 500).await.ok()
            })
            .await;
            count += page.items.len();
            next = page.next;
            if next.is_none() {
                return count;
            }
        }
    }
}

fn quoted(urls: &[String]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    urls.join(", ")
}

/// Waits until the sentinels agree on a primary that has both replicas.
async fn primary(servers: &RedisSentinel) -> usize {
    eventually("the primary has its replicas", COMPLETE, async || {
        let at = servers.primary()?;
        let info = servers.servers[at].tell("INFO replication").ok()?;
        let complete = info.contains("role:master") && info.contains("min_slaves_good_slaves:2");
        complete.then_some(at)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_of_sentinel_are_followed_and_each_event_has_one_effect() {
    let _alone = ALONE.lock().await;
    let mut servers = services::redis_sentinel();
    let setting = format!(
        "sentinel = {{ urls = [{}], service = \"{}\" }}",
        quoted(&servers.urls()),
        RedisSentinel::SERVICE
    );
    let site = Site::start("sentinel", &setting, &by_sentinel(&servers)).await;
    // docs/reliability.md has the figures of 20.
    let kills = std::env::var("ZENTRA_FAILOVERS").map_or(2, |count| count.parse().unwrap());
    let mut sent = 0;
    for _ in 0..kills {
        let at = primary(&servers).await;
        sent += site.under("a primary is killed", async || servers.servers[at].kill()).await;
        servers.servers[at].restart().unwrap();
    }
    let at = primary(&servers).await;
    sent += site.under("a primary is frozen", async || servers.servers[at].freeze()).await;
    servers.servers[at].thaw();
    let at = primary(&servers).await;
    sent += site
        .under("an ordered failover", async || {
            servers.fail_over().unwrap();
        })
        .await;
    assert_ne!(primary(&servers).await, at);
    println!("{sent} events");
    let listed = site.stack.zentra(&["event", "list", "--limit", "3"]);
    assert!(listed.status.success(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_primaries_and_each_event_has_one_effect() {
    let _alone = ALONE.lock().await;
    let mut servers = services::redis_cluster();
    let setting = format!("cluster = {{ urls = [{}] }}", quoted(&servers.urls()));
    let site = Site::start("cluster", &setting, &in_cluster(&servers)).await;
    let mut sent = 0;
    sent += site.under("a primary is killed", async || servers.nodes[0].kill()).await;
    servers.nodes[0].restart().unwrap();
    servers.is_complete().unwrap();
    sent += site.under("a primary is frozen", async || servers.nodes[1].freeze()).await;
    servers.nodes[1].thaw();
    servers.is_complete().unwrap();
    println!("{sent} events");
    let status = site.stack.zentra(&["status"]);
    assert!(status.status.success(), "{status:?}");
}
