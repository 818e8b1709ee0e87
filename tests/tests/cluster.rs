//! A RabbitMQ cluster of three nodes under faults, with a steady load: nothing is lost or doubled,
//! and an ingress and a worker that can reach a majority answer and deliver again in time. A test
//! program of its own, so that nothing else runs beside it.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use zentra_rehearse::sandbox::Rabbit;
use zentra_tests::http::Http;
use zentra_tests::ledger::{Ledger, transfer};
use zentra_tests::partition::Partition;
use zentra_tests::services::{self, folder};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::{eventually, sign};

/// How long answers and deliveries may stop while a majority of the nodes can be reached. RabbitMQ
/// 3.10 itself takes 14 s to elect leaders after one is frozen; docs/reliability.md has figures.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(30);
/// How long everything may take to be delivered in the end: RabbitMQ resends what a killed node had
/// under way to a retry after a time of its own.
const SETTLED: Duration = Duration::from_secs(120);
/// Pause between two events.
const EVERY: Duration = Duration::from_millis(50);

/// A program, and when each event was acknowledged and each new row was seen.
struct Load {
    acknowledged: Arc<Mutex<Vec<(String, Instant)>>>,
    delivered: Arc<Mutex<Vec<Instant>>>,
    stop: CancellationToken,
}

impl Load {
    fn start(ingress: &Program, ledger: &Arc<Ledger>, name: &'static str) -> Self {
        let load = Self {
            acknowledged: Arc::default(),
            delivered: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (url, stop) = (format!("{}/in/acme", ingress.listen), load.stop.clone());
        let acknowledged = load.acknowledged.clone();
        tokio::spawn(async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for at in 0.. {
                tick.tick().await;
                if stop.is_cancelled() {
                    return;
                }
                tokio::spawn(send(url.clone(), format!("{name}-{at}"), acknowledged.clone()));
            }
        });
        let (ledger, seen, stop) = (ledger.clone(), load.delivered.clone(), load.stop.clone());
        tokio::spawn(async move {
            let mut rows = 0;
            while !stop.is_cancelled() {
                sleep(EVERY).await;
                let now = ledger.rows().unwrap().len();
                if now > rows {
                    seen.lock().unwrap().push(Instant::now());
                }
                rows = now;
            }
        });
        load
    }

    /// Waits until so many more events are acknowledged.
    async fn flows(&self, more: usize) {
        let known = || self.acknowledged.lock().unwrap().len();
        let begun = known();
        eventually("events are accepted", SETTLED, async || {
            (known() >= begun + more).then_some(())
        })
        .await;
    }

    /// The longest time without an acknowledged event, and without a delivery, since then.
    fn gaps(&self, since: Instant) -> [Duration; 2] {
        let acknowledged = self.acknowledged.lock().unwrap().iter().map(|(_, at)| *at).collect();
        [acknowledged, self.delivered.lock().unwrap().clone()].map(|times| gap(times, since))
    }
}

fn gap(mut times: Vec<Instant>, since: Instant) -> Duration {
    times.retain(|at| *at >= since);
    times.sort();
    let (mut last, mut longest) = (since, Duration::ZERO);
    for at in times.into_iter().chain([Instant::now()]) {
        longest = longest.max(at - last);
        last = at;
    }
    longest
}

/// A provider: sends one event until it is acknowledged.
async fn send(url: String, id: String, acknowledged: Arc<Mutex<Vec<(String, Instant)>>>) {
    let (http, body) = (Http::default(), transfer(&id, &id, 1));
    let end = Instant::now() + SETTLED * 2;
    while Instant::now() < end {
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        let answer = http.post(&url, &headers, body.clone()).await;
        if answer.is_some_and(|answer| answer.status.is_success()) {
            acknowledged.lock().unwrap().push((id, Instant::now()));
            return;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

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
        let retry = r#"retry = { attempts = 20, initial = "250ms", max = "2s" }"#;
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
        name: &'static str,
        has_majority: bool,
        fault: impl AsyncFnOnce(&mut [Rabbit; 3]) -> T,
        mend: impl AsyncFnOnce(&mut [Rabbit; 3], T),
    ) {
        let load = Load::start(&self.ingress, &self.ledger, name);
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
        load.stop.cancel();
        let sent: HashSet<String> =
            load.acknowledged.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        eventually("every acknowledged event is delivered", SETTLED, async || {
            let rows = self.ledger.rows().unwrap();
            let known: HashSet<&str> = rows.iter().map(|row| row.transfer.as_str()).collect();
            sent.iter().all(|id| known.contains(id.as_str())).then_some(())
        })
        .await;
        let rows = self.ledger.rows().unwrap();
        let transfers: HashSet<&str> = rows.iter().map(|row| row.transfer.as_str()).collect();
        assert_eq!(transfers.len(), rows.len(), "{name}: a transfer was booked twice");
        assert!(sent.len() > 100, "{name}: {} events", sent.len());
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
