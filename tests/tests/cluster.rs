//! A RabbitMQ cluster of three nodes under faults, with a steady load: nothing is lost or doubled,
//! and an ingress and a worker that can reach a majority answer and deliver again in time. A test
//! program of its own, so that nothing else runs beside it.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use zentra_rehearse::sandbox::Rabbit;
use zentra_tests::ledger::Ledger;
use zentra_tests::load::Load;
use zentra_tests::partition::Partition;
use zentra_tests::services::{self, folder};
use zentra_tests::stack::{Program, Stack};

/// How long answers and deliveries may stop while a majority of the nodes can be reached. RabbitMQ
/// 3.10 itself takes 14 s to elect leaders after one is frozen; docs/reliability.md has figures.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(30);
/// The nodes, and the programs under load.
struct Site {
    nodes: [Rabbit; 3],
    ledger: Arc<Ledger>,
    ingress: Program,
    _worker: Program,
    _stack: Stack,
}

impl Site {
    async fn start() -> Self {
        let nodes = Rabbit::cluster().unwrap();
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let redis = services::redis();
        let retry = "retry = { attempts = 20, initial = \"250ms\", max = \"2s\" }\nshards = 2";
        let stack = Stack::new(&nodes[0].url(), &redis.url(), "cluster", &ledger.url, retry);
        let urls = [0, 1, 2].map(|at: usize| {
            let file = folder("url").join("url");
            std::fs::write(&file, nodes[at].url()).unwrap();
            format!("\"file:{}\"", file.display())
        });
        stack.replace("\"env:RABBITMQ_URL\"", &urls.join(", "));
        let (ingress, worker) = (stack.ingress().await, stack.worker().await);
        std::mem::forget(redis);
        Self { nodes, ledger: Arc::new(ledger), ingress, _worker: worker, _stack: stack }
    }

    /// Lets a fault happen under load, and checks what must hold.
    async fn under<T>(
        &mut self,
        name: &str,
        has_majority: bool,
        fault: impl AsyncFnOnce(&mut [Rabbit; 3]) -> T,
        mend: impl AsyncFnOnce(&mut [Rabbit; 3], T),
    ) {
        let load = Load::start(&self.ingress, &self.ledger);
        load.flows(50).await;
        let began = Instant::now();
        let state = fault(&mut self.nodes).await;
        sleep(FAULT).await;
        let [answers, deliveries] = load.gaps(began);
        let mended = Instant::now();
        mend(&mut self.nodes, state).await;
        load.flows(100).await;
        let [answers_after, deliveries_after] = load.gaps(mended);
        println!(
            "{name:<24} answers stopped for {answers:>6.1?}, deliveries for {deliveries:>6.1?}; \
             after it {answers_after:.1?} and {deliveries_after:.1?}"
        );
        let sent = load.settle().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(sent > 100, "{name}: {sent} events");
        if has_majority {
            let log = services::output();
            assert!(answers <= WITHIN, "{name}: no answer for {answers:?}\n{log}");
            assert!(deliveries <= WITHIN, "{name}: no delivery for {deliveries:?}\n{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_nodes_and_nothing_is_lost_doubled_or_held_up() {
    let mut site = Site::start().await;
    site.under(
        "a node is killed",
        true,
        async |nodes| nodes[0].kill(),
        async |nodes, ()| nodes[0].restart().unwrap(),
    )
    .await;
    site.under(
        "a node is frozen",
        true,
        async |nodes| nodes[1].freeze(),
        async |nodes, ()| nodes[1].thaw(),
    )
    .await;
    site.under(
        "a rolling restart",
        true,
        async |nodes| {
            for node in nodes {
                node.restart_gently().unwrap();
                sleep(Duration::from_secs(5)).await;
            }
        },
        async |_, ()| {},
    )
    .await;
    if Partition::is_possible() {
        let cut = |nodes: &[Rabbit; 3]| {
            let [one, two, three] = [0, 1, 2].map(|at: usize| nodes[at].address());
            Partition::between(three, &[one, two])
        };
        site.under("a node is cut off", true, async |nodes| cut(nodes), async |_, cut| drop(cut))
            .await;
    } else {
        println!("a node is cut off: skipped, because iptables cannot be used here");
    }
    site.under(
        "two nodes are killed",
        false,
        async |nodes| {
            nodes[1].kill();
            nodes[2].kill();
        },
        async |nodes, ()| {
            let [_, one, two] = nodes;
            // Each waits for the other.
            let (one, two) = tokio::task::block_in_place(|| {
                std::thread::scope(|scope| {
                    let one = scope.spawn(|| one.restart());
                    let two = scope.spawn(|| two.restart());
                    (one.join().unwrap(), two.join().unwrap())
                })
            });
            one.unwrap();
            two.unwrap();
        },
    )
    .await;
}
