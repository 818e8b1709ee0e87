//! The promises of both backends. The same tests run on each.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::{Answer, DeadReason, Fingerprint, Outcome, State};
use zentra_core::seal::Sealed;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_redis::RedisJournal;
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_store::job::Jobs;
use zentra_store::journal::{
    AttemptResult, Claim, DeliveryStore, HistoryEvent, Journal, Settle, Summary,
};
use zentra_store::queue::{
    Archived, Consumer, Delay, Message, Operate, Place, Process, Publish, Receipt, Routes,
    Subscribe, Subscriber, Walk,
};
use zentra_tests::services::folder;
use zentra_tests::world::RETENTION;
use zentra_tests::{eventually, namespace, queue_settings, routes, shared_rabbit, shared_redis};

const BOUND: Duration = Duration::from_secs(20);
/// A queue that delivers nothing for this long is empty.
const QUIET: Duration = Duration::from_secs(1);

/// Storage for messages and deliveries, which outlives the programs that use it.
trait Backend: Sized + Send {
    type Queue: Publish + Process + Operate;
    type Journal: Journal + DeliveryStore + Jobs;

    fn new() -> Self;

    /// Opens it as a program that has just started.
    fn open(&self, routes: Routes) -> impl Future<Output = (Self::Queue, Self::Journal)> + Send;
}

/// RabbitMQ and Redis.
struct Servers(String);

impl Backend for Servers {
    type Queue = Amqp;
    type Journal = RedisJournal;

    fn new() -> Self {
        Self(namespace())
    }

    async fn open(&self, routes: Routes) -> (Amqp, RedisJournal) {
        let settings = queue_settings(&shared_rabbit(), &self.0);
        let queue = Amqp::ingress(Settings { routes: Some(routes), ..settings });
        timeout(BOUND, queue.connected()).await.unwrap();
        let url = Secret::new(shared_redis());
        (queue, RedisJournal::new(&url, &self.0, RETENTION).unwrap())
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

macro_rules! on_both {
    ($($name:ident)*) => {
        mod servers {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name::<super::Servers>().await;
            })*
        }
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name::<super::File>().await;
            })*
        }
    };
}

mod jobs;
mod journal;
mod queue;

use journal::{Claimant, LEASE};

on_both! {
    all_is_there_after_a_restart
}

fn subscribers(all: &[(&str, &str)]) -> Routes {
    let one = |(destination, pattern): &(&str, &str)| Subscriber {
        destination: (*destination).into(),
        patterns: vec![(*pattern).into()],
    };
    routes(all.iter().map(one).collect()).unwrap()
}

fn ledger() -> Routes {
    subscribers(&[("ledger", "acme.#")])
}

fn sealed(route: &str, body: &str) -> Sealed {
    Sealed {
        envelope: Bytes::from_static(b"{\"version\":1}"),
        seal: "v1,k,AA==".into(),
        body: body.to_owned().into(),
        route: route.into(),
        id: format!("acme/{body}"),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap()),
    }
}

fn message(body: &str) -> Message {
    Message::new(sealed("acme.x", body))
}

async fn next<C: Consumer>(consumer: &mut C) -> (Message, C::Receipt) {
    timeout(BOUND, consumer.next()).await.unwrap().unwrap()
}

async fn is_quiet(consumer: &mut impl Consumer) -> bool {
    timeout(QUIET, consumer.next()).await.is_err()
}

/// The bodies in a queue, in order. Unwanted ones are removed.
async fn walked(queue: &impl Operate, place: Place<'_>, unwanted: &[&str]) -> Vec<String> {
    let (mut walk, mut seen) = (queue.walk(place).await.unwrap(), Vec::new());
    while let Some((message, receipt)) = walk.next().await.unwrap() {
        let body = String::from_utf8(message.sealed.body.to_vec()).unwrap();
        if unwanted.contains(&body.as_str()) {
            receipt.ack().await;
        }
        seen.push(body);
    }
    walk.finish().await.unwrap();
    seen
}

/// Stored as soon as there is a connection for it. Nobody waits for it.
async fn kept(queue: &impl Publish, body: &str) {
    eventually("it is kept", BOUND, async || queue.keep(&sealed("acme.x", body)).await.ok()).await;
}

async fn all_is_there_after_a_restart<B: Backend>() {
    let backend = B::new();
    let (queue, journal) = backend.open(ledger()).await;
    queue.publish(&sealed("acme.x", "work")).await.unwrap();
    queue.publish(&sealed("github.x", "unrouted")).await.unwrap();
    kept(&queue, "refused").await;
    queue.dead("ledger", &message("dead"), DeadReason::TooOld, None).await.unwrap();
    let delay = queue.delay(Delay::AtLeast(Duration::from_millis(500)));
    let waits = Message { attempt: 3, generation: 2, ..message("waits") };
    queue.retry("ledger", &waits, delay).await.unwrap();
    let delivered = Claimant::new(&journal, "delivered");
    let fence = delivered.claimed(0, LEASE).await;
    delivered.settle(fence, 0, Outcome::Delivered).await;
    let waiting = Claimant::new(&journal, "waiting");
    let fence = waiting.claimed(0, LEASE).await;
    let next_at = clock::now().plus(LEASE);
    waiting.settle(fence, 0, Outcome::Retry { next_at }).await;
    let dead = Claimant::new(&journal, "dead");
    let fence = dead.claimed(0, LEASE).await;
    dead.settle(fence, 0, Outcome::Dead(DeadReason::TooOld)).await;
    let running = Claimant::new(&journal, "running");
    let fence = running.claimed(0, LEASE).await;
    drop((queue, journal, delivered, waiting, dead, running));

    let (queue, journal) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 4);
    let mut found = Vec::new();
    for _ in 0..2 {
        let (message, receipt) = next(&mut consumer).await;
        found.push((message.sealed.body, message.attempt, message.generation));
        receipt.ack().await;
    }
    assert_eq!(found, [("work".into(), 1, 0), ("waits".into(), 3, 2)]);
    assert_eq!(walked(&queue, Place::Dead("ledger"), &[]).await, ["dead"]);
    assert_eq!(walked(&queue, Place::Unrouted, &[]).await, ["unrouted"]);
    assert_eq!(walked(&queue, Place::Refused, &[]).await, ["refused"]);
    assert_eq!(Claimant::new(&journal, "delivered").claim(0).await, Answer::Done);
    let waiting = Claimant::new(&journal, "waiting").known().await;
    assert_eq!((waiting.record.state, waiting.record.until), (State::Waiting, next_at));
    assert_eq!(Claimant::new(&journal, "dead").claim(0).await, Answer::Dead);
    let dead = journal.dead("ledger", 9, &|_| true).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason), (1, Some(DeadReason::TooOld)));
    let running = Claimant::new(&journal, "running");
    assert!(matches!(running.claim(0).await, Answer::Busy { .. }));
    assert_eq!(running.settle(fence, 0, Outcome::Delivered).await, Answer::Settled);
}
