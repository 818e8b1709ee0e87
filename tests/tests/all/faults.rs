//! The promise under faults: hundreds of callbacks while workers and the broker die.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zentra_core::event::DeliveryKey;
use zentra_rabbitmq::Amqp;
use zentra_store::journal::DeliveryStore;
use zentra_store::queue::{Operate, Place, Walk};
use zentra_tests::http::Http;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, Rabbit};
use zentra_tests::world::{BOUND, World};
use zentra_tests::{eventually, namespace, queue_settings, shared_redis, sign};

const WAVE: usize = 100;
/// How long a provider keeps sending a callback that is not acknowledged.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a message may wait for its retry after the broker was killed: longer than RabbitMQ
/// 3.10's slowest timer, three minutes. It usually takes seconds (see `services::Rabbit`). What
/// has not arrived by then is lost.
const RECOVERED: Duration = Duration::from_secs(240);
pub(crate) const RETRY: &str = r#"attempts = 20, initial = "250ms", multiplier = 1.5, max = "2s""#;

/// A provider that sends each callback until it is acknowledged, and every third one twice.
#[derive(Clone)]
pub(crate) struct Provider {
    http: Http,
    url: String,
    under_way: Arc<Semaphore>,
    pub(crate) acknowledged: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Provider {
    /// As the source `acme`, with 32 concurrent callbacks.
    pub(crate) fn of(world: &World) -> Self {
        Self {
            http: Http::default(),
            url: format!("{}/in/acme", world.ingress.listen),
            under_way: Arc::new(Semaphore::new(32)),
            acknowledged: Arc::default(),
            refused: Arc::default(),
        }
    }

    fn wave(&self, number: usize) -> JoinSet<()> {
        let mut sending = JoinSet::new();
        for at in number * WAVE..(number + 1) * WAVE {
            let provider = self.clone();
            sending.spawn(async move { provider.callback(at).await });
        }
        sending
    }

    /// Sends one callback until it is acknowledged.
    pub(crate) async fn callback(&self, at: usize) {
        let _permit = self.under_way.acquire().await.unwrap();
        let (id, body) = (event(at), body(at));
        for _ in 0..=usize::from(at.is_multiple_of(3)) {
            eventually(&format!("{id} is acknowledged"), PATIENCE, async || {
                let headers = sign::acme(&id, sign::now(), body.as_bytes());
                let answer = self.http.post(&self.url, &headers, body.clone()).await;
                let taken = answer.is_some_and(|answer| answer.status.is_success());
                self.refused.fetch_add(usize::from(!taken), Ordering::SeqCst);
                taken.then_some(())
            })
            .await;
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn has_acknowledged(&self, least: usize) {
        eventually("callbacks are acknowledged", PATIENCE, async || {
            (self.acknowledged.load(Ordering::SeqCst) >= least).then_some(())
        })
        .await;
    }
}

pub(crate) fn event(at: usize) -> String {
    format!("evt_{at:04}")
}

/// Every twentieth is not a transfer: the ledger answers 422, which is final.
pub(crate) fn is_transfer(at: usize) -> bool {
    !at.is_multiple_of(20)
}

fn body(at: usize) -> String {
    match is_transfer(at) {
        true => transfer(&event(at), &format!("trf_{at:04}"), 1),
        false => format!(r#"{{"id": "{}", "type": "other"}}"#, event(at)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_callback_ends_as_one_row_or_dead_while_worker_and_broker_are_killed() {
    let mut rabbit = services::rabbit();
    let mut world =
        World::start(&rabbit.url(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let mut workers = [world.stack.worker().await, world.stack.worker().await];
    let provider = Provider::of(&world);
    world.ledger.take_turns((0..10).map(|_| Turn::Answer(500, Vec::new())));

    // A worker dies in the middle of an attempt that has written nothing.
    world.ledger.take_turns([Turn::Hang]);
    let wave = provider.wave(0);
    kill_in_the_middle(&mut world, &mut workers).await;
    wave.join_all().await;

    // The broker dies in the middle of the traffic.
    let before = provider.acknowledged.load(Ordering::SeqCst);
    let wave = provider.wave(1);
    provider.has_acknowledged(before + 30).await;
    rabbit.kill();
    rabbit.restart().unwrap();
    wave.join_all().await;

    // The broker freezes, so that it confirms nothing, and then dies. An event that got a 2xx
    // meanwhile would be lost.
    let (before, wave) = (provider.acknowledged.load(Ordering::SeqCst), provider.wave(2));
    provider.has_acknowledged(before + 30).await;
    rabbit.freeze();
    let answered =
        || provider.acknowledged.load(Ordering::SeqCst) + provider.refused.load(Ordering::SeqCst);
    let at_freeze = answered();
    eventually("all that are under way are answered", PATIENCE, async || {
        (answered() >= at_freeze + 32).then_some(())
    })
    .await;
    rabbit.kill();
    rabbit.restart().unwrap();
    wave.join_all().await;

    // A worker and the broker die together.
    world.ledger.take_turns([Turn::Hang]);
    let wave = provider.wave(3);
    kill_in_the_middle(&mut world, &mut workers).await;
    rabbit.kill();
    rabbit.restart().unwrap();
    wave.join_all().await;

    every_one_has_its_end(&world, &rabbit, 4 * WAVE).await;
}

async fn kill_in_the_middle(world: &mut World, workers: &mut [zentra_tests::stack::Program]) {
    let hung = tokio::time::timeout(BOUND, world.ledger.hung.recv()).await.unwrap().unwrap();
    let id = hung.rsplit('/').next().unwrap();
    // In one assignment the new worker would start first, and could get the event before the kill.
    let killed = world.kill_the_holder(id, workers).await.unwrap();
    *killed = world.stack.worker().await;
}

pub(crate) async fn every_one_has_its_end(world: &World, rabbit: &Rabbit, sent: usize) {
    let (transfers, others): (Vec<usize>, Vec<usize>) = (0..sent).partition(|at| is_transfer(*at));
    let key = |at: &usize| format!("ledger/acme/{}", event(*at));
    let expected: Vec<String> = transfers.iter().map(key).collect();
    let rows =
        || -> Vec<String> { world.ledger.rows().unwrap().into_iter().map(|row| row.key).collect() };
    let all_there = async || (rows().len() >= expected.len()).then_some(());
    let there = eventually("every transfer has its row", RECOVERED * 2, all_there);
    if tokio::time::timeout(RECOVERED, there).await.is_err() {
        let written: HashSet<String> = rows().into_iter().collect();
        for key in expected.iter().filter(|key| !written.contains(*key)) {
            let known = DeliveryKey::parse(key).unwrap();
            println!("{key} has no row: {:#?}", world.journal.history(&known).await);
        }
        panic!("not every transfer has its row. Waiting in RabbitMQ:\n{}", rabbit.waiting());
    }
    assert_eq!(rows(), expected, "one row for each transfer, and no other");

    eventually("every other is dead", PATIENCE, async || {
        let dead = world.journal.dead("ledger", 1000, &|_| true).await.unwrap();
        let mut keys: Vec<&str> = dead.iter().map(|delivery| delivery.key.as_str()).collect();
        keys.sort_unstable();
        (keys == others.iter().map(key).collect::<Vec<_>>()).then_some(())
    })
    .await;
    let settings = queue_settings(&rabbit.url(), &world.stack.namespace);
    let queue = Amqp::publisher(settings, "test");
    tokio::time::timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    let mut walk = queue.walk(Place::Dead("ledger")).await.unwrap();
    let mut letters = HashSet::new();
    while let Some((message, _held)) = walk.next().await.unwrap() {
        letters.insert(message.sealed.body.to_vec());
    }
    for at in others {
        assert!(letters.contains(body(at).as_bytes()), "{} is a dead letter", event(at));
    }
}
