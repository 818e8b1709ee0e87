//! Everything dies, in an order that a seed decides, while a thousand events flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zentra_store::journal::HistoryEvent;
use zentra_tests::ledger::Turn;
use zentra_tests::services::{self};
use zentra_tests::stack::Program;
use zentra_tests::world::{BOUND, World, count, delivered};
use zentra_tests::{eventually, namespace};

use crate::faults::{Provider, RETRY, event, every_one_has_its_end, is_transfer};

/// Minimum number of events. They flow until all faults have happened.
const EVENTS: usize = 1000;
/// The default seed.
const SEED: u64 = 8172;
const PAUSE: Duration = Duration::from_millis(15);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A worker is killed.
    Worker,
    /// A worker is stopped until its lease and its attempts are over, and then continued.
    Frozen,
    Rabbit,
    Redis,
    /// A worker dies in this window.
    Window(&'static str),
}

const FAULTS: [Fault; 9] = [
    Fault::Worker,
    Fault::Frozen,
    Fault::Rabbit,
    Fault::Redis,
    Fault::Window("claimed"),
    Fault::Window("attempting"),
    Fault::Window("settled"),
    Fault::Window("retried"),
    Fault::Window("buried"),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_each_acknowledged_event_ends_as_one_row_or_dead_and_its_history_tells() {
    let seed = std::env::var("ZENTRA_SEED").ok();
    let seed = seed.map_or(SEED, |seed| seed.trim().parse::<u64>().unwrap());
    println!("ZENTRA_SEED={seed} repeats this run");
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut rabbit, mut redis) = (services::rabbit(), services::redis());
    let world =
        Arc::new(World::start(&rabbit.url(), &redis.url(), &namespace(), RETRY).await.unwrap());
    // While the broker is away the ledger's failures pile up, and all come at once afterwards. A
    // pause would only let more of them pile up.
    let circuit = "circuit = { failures = 0 }\nshards = 3";
    world.stack.replace("timeout = \"1s\"\n", &format!("timeout = \"1s\"\n{circuit}\n"));
    let mut workers = vec![world.stack.worker().await, world.stack.worker().await];
    // After a kill -9 half a second after a quorum queue was declared, RabbitMQ 4.0 confirms nothing
    // that is routed there (docs/production.md). A stop writes all of it.
    rabbit.restart_gently().unwrap();

    let enough = CancellationToken::new();
    let provider = Provider::of(&world);
    let acknowledged = provider.acknowledged.clone();
    let flow = send(world.clone(), provider, chance.random(), enough.clone());
    let sending = tokio::spawn(flow);
    let mut faults = FAULTS;
    faults.shuffle(&mut chance);
    for fault in faults {
        println!("{fault:?}");
        match fault {
            Fault::Worker => {
                let at = chance.random_range(0..workers.len());
                drop(workers.remove(at));
                workers.push(world.stack.worker().await);
            }
            Fault::Frozen => {
                let at = chance.random_range(0..workers.len());
                frozen(&workers[at], &acknowledged).await;
            }
            Fault::Rabbit => {
                rabbit.kill();
                rabbit.restart().unwrap();
            }
            Fault::Redis => {
                redis.kill();
                redis.restart().unwrap();
            }
            Fault::Window(window) => dies_at(&world, window).await,
        }
    }
    enough.cancel();
    let sent = sending.await.unwrap();
    assert!(sent >= EVENTS);
    every_one_has_its_end(&world, &rabbit, sent).await;
    for at in (0..sent).filter(|at| is_transfer(*at)) {
        let known = world.until(&event(at), delivered).await;
        let ends = count(&known, |what| matches!(what, HistoryEvent::Delivered { .. }));
        assert!(
            ends >= 1 && count(&known, |what| matches!(what, HistoryEvent::Claimed { .. })) >= 1
        );
    }
}

/// Sends events until there are enough and `enough` is set. Returns their number.
async fn send(
    world: Arc<World>,
    provider: Provider,
    seed: u64,
    enough: CancellationToken,
) -> usize {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut sending, mut sent) = (JoinSet::new(), 0);
    let mut tick = tokio::time::interval(PAUSE);
    while sent < EVENTS || !enough.is_cancelled() {
        tick.tick().await;
        if chance.random_bool(0.1) {
            let turn = match chance.random_range(0..4) {
                0 => Turn::Answer(500, Vec::new()),
                1 => Turn::Answer(429, Vec::new()),
                2 => Turn::Hang,
                _ => Turn::WriteAndHang,
            };
            world.ledger.take_turns([turn]);
        }
        let (provider, at) = (provider.clone(), sent);
        sending.spawn(async move { provider.callback(at).await });
        sent += 1;
    }
    sending.join_all().await;
    sent
}

/// Stops a worker while enough events flow to last twice its lease of two seconds.
async fn frozen(worker: &Program, acknowledged: &AtomicUsize) {
    let signal = |name: &str| {
        let id = worker.process.id().to_string();
        std::process::Command::new("kill").args([name, &id]).status().unwrap();
    };
    signal("-STOP");
    let count = || acknowledged.load(Ordering::SeqCst);
    let enough = count() + 4000 / usize::try_from(PAUSE.as_millis()).unwrap();
    eventually("events flow", BOUND, async || (count() >= enough).then_some(())).await;
    signal("-CONT");
}

/// Runs a worker until it has died there.
async fn dies_at(world: &World, window: &str) {
    let mut command = world.stack.command("zentra-test-dying-worker");
    command.env("DOOM_AT", window);
    let mut doomed = services::start(command);
    let died = || std::future::ready(doomed.has_ended().then_some(()));
    eventually(&format!("it dies at {window}"), BOUND, died).await;
}
