//! What both backends promise, tested unchanged on each.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;
use zentra_shared::embedded::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_shared::event::{DeliveryKey, Identity};
use zentra_shared::journal::redis::RedisJournal;
use zentra_shared::journal::{AttemptResult, Claim, Histories, Journal, Settle, Summary, What};
use zentra_shared::lifecycle::{Answer, DeadReason, Outcome, Print, State};
use zentra_shared::queue::amqp::{Amqp, Settings};
use zentra_shared::queue::{
    Consumer, Delay, Message, Operate, Place, Process, Publish, Receipt, Routes, Subscribe,
    Subscriber, Walk,
};
use zentra_shared::seal::Sealed;
use zentra_shared::secret::Secret;
use zentra_tests::services::folder;
use zentra_tests::world::RETENTION;
use zentra_tests::{eventually, namespace, queue_settings, routes, shared_rabbit, shared_redis};

const BOUND: Duration = Duration::from_secs(20);
/// A queue that brings nothing for so long has nothing.
const QUIET: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(30);
const PRINT: Print = Print { body: [7; 32], id: None };

/// A place for events and their memory, which outlives the programs that use it.
trait Backend: Sized + Send {
    type Queue: Publish + Process + Operate;
    type Journal: Journal + Histories;

    fn new() -> Self;

    /// As a program that has just started sees it.
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
        let queue = Amqp::entrance(Settings { routes: Some(routes), ..settings });
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

on_both! {
    a_confirmed_event_is_with_each_subscriber_as_it_was_until_it_is_acknowledged
    what_nobody_subscribed_to_is_kept_apart_and_can_be_routed_later
    what_was_in_hand_when_a_program_ended_comes_again_to_the_next
    what_is_given_back_comes_again_at_once
    a_short_delay_isnt_kept_up_by_a_long_one_and_none_ends_early
    dead_letters_are_walked_in_order_and_those_left_stay_in_it
    refused_callbacks_are_kept_apart
    of_claimers_at_once_one_is_granted_and_the_others_hear_how_long_it_takes
    a_claim_that_ran_out_is_granted_anew_and_the_old_fence_changes_nothing
    a_late_success_counts_and_nothing_undoes_it
    another_body_is_a_conflict_and_a_copy_is_counted_without_effect
    a_dead_delivery_is_listed_until_it_is_requeued_or_discarded
    a_delivery_is_found_by_event_id_by_identity_and_by_key
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
    Message { sealed: sealed("acme.x", body), attempt: 1, generation: 0, dead: None }
}

async fn next<C: Consumer>(consumer: &mut C) -> (Message, C::Receipt) {
    timeout(BOUND, consumer.next()).await.unwrap().unwrap()
}

async fn is_quiet(consumer: &mut impl Consumer) -> bool {
    timeout(QUIET, consumer.next()).await.is_err()
}

/// The bodies in a place, in its order. Those that are unwanted are taken away.
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

/// Kept, as soon as there is a connection for it: it is nobody's haste.
async fn kept(queue: &impl Publish, body: &str) {
    eventually("it is kept", BOUND, async || queue.keep(&sealed("acme.x", body)).await.ok()).await;
}

async fn a_confirmed_event_is_with_each_subscriber_as_it_was_until_it_is_acknowledged<
    B: Backend,
>() {
    let backend = B::new();
    let routes = subscribers(&[("ledger", "acme.#"), ("mail", "acme.mail.*"), ("other", "x.#")]);
    let (queue, _) = backend.open(routes).await;
    queue.publish(&sealed("acme.mail.sent", "{ \"as\":\u{a0}1}")).await.unwrap();
    for destination in ["ledger", "mail"] {
        let mut consumer = queue.consume(destination, 4);
        let (found, receipt) = next(&mut consumer).await;
        let sent = sealed("acme.mail.sent", "{ \"as\":\u{a0}1}");
        // The route is the broker's business.
        let found_sealed = Sealed { route: sent.route.clone(), ..found.sealed };
        assert_eq!(found_sealed, sent);
        assert_eq!((found.attempt, found.generation, found.dead), (1, 0, None));
        receipt.ack().await;
        assert!(is_quiet(&mut consumer).await);
    }
    assert!(is_quiet(&mut queue.consume("other", 4)).await);
}

async fn what_nobody_subscribed_to_is_kept_apart_and_can_be_routed_later<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    queue.publish(&sealed("github.push", "lost?")).await.unwrap();
    assert_eq!(walked(&queue, Place::Unrouted, &[]).await, ["lost?"]);
    queue.subscribe(subscribers(&[("ledger", "acme.#"), ("builds", "github.#")])).await;
    let mut walk = queue.walk(Place::Unrouted).await.unwrap();
    let (found, receipt) = walk.next().await.unwrap().unwrap();
    queue.reroute(&Sealed { route: "github.push".into(), ..found.sealed }).await.unwrap();
    receipt.ack().await;
    walk.finish().await.unwrap();
    let (found, receipt) = next(&mut queue.consume("builds", 1)).await;
    assert_eq!(found.sealed.body, "lost?");
    receipt.ack().await;
    assert!(walked(&queue, Place::Unrouted, &[]).await.is_empty());
}

async fn what_was_in_hand_when_a_program_ended_comes_again_to_the_next<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies: Vec<String> = (0..10).map(|at| at.to_string()).collect();
    for body in &bodies {
        queue.publish(&sealed("acme.x", body)).await.unwrap();
    }
    let mut consumer = queue.consume("ledger", 10);
    let mut held = Vec::new();
    for body in &bodies {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!(found.sealed.body, body.as_str());
        held.push(receipt);
    }
    // Of these, two come to their end.
    for receipt in held.drain(..2) {
        receipt.ack().await;
    }
    consumer.stop().await;
    std::mem::forget(held);
    consumer.finish().await;
    drop(queue);
    let (queue, _) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 10);
    let mut again = HashSet::new();
    while again.len() < 8 {
        let (found, receipt) = next(&mut consumer).await;
        again.insert(found.sealed.body);
        receipt.ack().await;
    }
    assert!(bodies[2..].iter().all(|body| again.contains(body.as_bytes())), "{again:?}");
}

async fn what_is_given_back_comes_again_at_once<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    queue.publish(&sealed("acme.x", "again")).await.unwrap();
    let mut consumer = queue.consume("ledger", 1);
    for _ in 0..3 {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!(found.sealed.body, "again");
        receipt.give_back().await;
    }
    let (_, receipt) = next(&mut consumer).await;
    receipt.ack().await;
    assert!(is_quiet(&mut consumer).await);
}

async fn a_short_delay_isnt_kept_up_by_a_long_one_and_none_ends_early<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 4);
    let started = Instant::now();
    let mut due = Vec::new();
    for (body, wish) in [("long", 2000), ("short", 300), ("middle", 800)] {
        let delay = queue.delay(Delay::AtLeast(Duration::from_millis(wish)));
        assert!(delay >= Duration::from_millis(wish));
        queue.retry("ledger", &Message { attempt: 2, ..message(body) }, delay).await.unwrap();
        due.push((body, delay));
    }
    due.sort_by_key(|(_, delay)| *delay);
    for (body, delay) in due {
        let (found, receipt) = next(&mut consumer).await;
        assert_eq!((found.sealed.body, found.attempt), (Bytes::from(body), 2));
        let took = started.elapsed();
        assert!(took >= delay.saturating_sub(Duration::from_millis(50)), "{body}: {took:?}");
        assert!(took <= delay + Duration::from_secs(2), "{body}: {took:?}");
        receipt.ack().await;
    }
}

async fn dead_letters_are_walked_in_order_and_those_left_stay_in_it<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    let bodies: Vec<String> = (0..200).map(|at| at.to_string()).collect();
    for body in &bodies {
        let reason = DeadReason::Exhausted;
        queue.dead("ledger", &message(body), reason, Some("no\nledger")).await.unwrap();
    }
    let place = Place::Dead("ledger");
    assert_eq!(walked(&queue, place, &["3", "150"]).await, bodies);
    let left: Vec<_> =
        bodies.iter().filter(|body| !["3", "150"].contains(&body.as_str())).collect();
    let mut walk = queue.walk(place).await.unwrap();
    let (first, receipt) = walk.next().await.unwrap().unwrap();
    assert_eq!((&first.sealed.body[..], first.dead), (&b"0"[..], Some(DeadReason::Exhausted)));
    // A second pass meanwhile doesn't see what the first one holds.
    assert!(!walked(&queue, place, &[]).await.contains(&"0".to_owned()));
    let again = Message { generation: 1, dead: None, ..first };
    queue.requeue("ledger", &again).await.unwrap();
    receipt.ack().await;
    walk.finish().await.unwrap();
    let (back, receipt) = next(&mut queue.consume("ledger", 1)).await;
    assert_eq!((&back.sealed.body[..], back.generation, back.dead), (&b"0"[..], 1, None));
    receipt.ack().await;
    let mut now = walked(&queue, place, &[]).await;
    // The order is kept for passes one after the other.
    now.sort_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(now.iter().collect::<Vec<_>>(), left[1..]);
}

async fn refused_callbacks_are_kept_apart<B: Backend>() {
    let backend = B::new();
    let (queue, _) = backend.open(ledger()).await;
    kept(&queue, "forged?").await;
    assert_eq!(walked(&queue, Place::Refused, &["forged?"]).await, ["forged?"]);
    assert!(walked(&queue, Place::Refused, &[]).await.is_empty());
    assert!(walked(&queue, Place::Unrouted, &[]).await.is_empty());
    assert!(is_quiet(&mut queue.consume("ledger", 1)).await);
}

/// One delivery in one journal.
struct Desk<J> {
    journal: J,
    key: DeliveryKey,
    summary: Summary,
}

impl<J: Journal + Histories> Desk<J> {
    fn new(journal: &J, id: &str) -> Self {
        let summary = Summary {
            source: "acme".into(),
            event_id: Some(format!("shown-{id}")),
            ..Summary::default()
        };
        let key = DeliveryKey::new("ledger", "acme", &Identity::from_id(id).unwrap());
        Self { journal: journal.clone(), key, summary }
    }

    async fn claim_as(&self, generation: u32, lease: Duration, print: Print) -> Answer {
        let claim = Claim {
            key: &self.key,
            generation,
            attempt: 1,
            lease,
            worker: "w1",
            print: &print,
            summary: &self.summary,
            retention: RETENTION,
        };
        self.journal.claim(&claim).await.unwrap()
    }

    async fn claim(&self, generation: u32) -> Answer {
        self.claim_as(generation, LEASE, PRINT).await
    }

    async fn claimed(&self, generation: u32, lease: Duration) -> u64 {
        match self.claim_as(generation, lease, PRINT).await {
            Answer::Claimed { fence, .. } => fence,
            other => panic!("not claimed: {other:?}"),
        }
    }

    async fn settle(&self, fence: u64, generation: u32, outcome: Outcome) -> Answer {
        let result = AttemptResult { status: Some(500), ..AttemptResult::default() };
        let settle = Settle {
            key: &self.key,
            fence,
            generation,
            attempt: 1,
            outcome,
            worker: "w1",
            result: &result,
            print: &PRINT,
            summary: &self.summary,
            retention: RETENTION,
        };
        self.journal.settle(&settle).await.unwrap()
    }

    async fn state(&self) -> State {
        self.journal.history(&self.key).await.unwrap().unwrap().record.state
    }

    /// What the history says, one word a line.
    async fn told(&self) -> Vec<String> {
        let known = self.journal.history(&self.key).await.unwrap().unwrap();
        let word = |what: &What| {
            let json = serde_json::to_value(what).unwrap();
            json["what"].as_str().unwrap().to_owned()
        };
        known.history.iter().map(|entry| word(&entry.what)).collect()
    }
}

async fn of_claimers_at_once_one_is_granted_and_the_others_hear_how_long_it_takes<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desk = std::sync::Arc::new(Desk::new(&journal, "race"));
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let desk = desk.clone();
        claims.spawn(async move { desk.claim(0).await });
    }
    let answers = claims.join_all().await;
    let granted = answers.iter().filter(|answer| matches!(answer, Answer::Claimed { .. })).count();
    let busy = |answer: &&Answer| matches!(answer, Answer::Busy { remaining } if *remaining <= LEASE && !remaining.is_zero());
    assert_eq!((granted, answers.iter().filter(busy).count()), (1, 49), "{answers:?}");
}

async fn a_claim_that_ran_out_is_granted_anew_and_the_old_fence_changes_nothing<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desk = Desk::new(&journal, "ran-out");
    let old = desk.claimed(0, Duration::ZERO).await;
    let new = timeout(BOUND, async {
        loop {
            match desk.claim(0).await {
                Answer::Claimed { fence, expired } => break (fence, expired),
                Answer::Busy { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let (new, expired) = new.await.unwrap();
    assert!(new > old && expired == 1, "{old}, then {new}, {expired}");
    assert_eq!(journal.renew(&desk.key, old, LEASE).await.unwrap(), Answer::Lost);
    assert_eq!(journal.renew(&desk.key, new, LEASE).await.unwrap(), Answer::Renewed);
    let dead = Outcome::Dead(DeadReason::Permanent);
    assert_eq!(desk.settle(old, 0, dead).await, Answer::Superseded);
    assert_eq!(desk.state().await, State::InFlight);
    assert_eq!(desk.settle(new, 0, Outcome::Delivered).await, Answer::Settled);
    // The first answer got lost.
    assert_eq!(desk.settle(new, 0, Outcome::Delivered).await, Answer::Settled);
    let told = desk.told().await;
    let told: Vec<_> = told.iter().filter(|word| *word != "busy").collect();
    assert_eq!(told, ["claimed", "claimed", "superseded", "delivered"]);
}

async fn a_late_success_counts_and_nothing_undoes_it<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desk = Desk::new(&journal, "late");
    let fence = desk.claimed(0, LEASE).await;
    let dead = Outcome::Dead(DeadReason::Exhausted);
    assert_eq!(desk.settle(fence, 0, dead).await, Answer::Settled);
    assert_eq!(desk.settle(fence - 1, 0, Outcome::Delivered).await, Answer::SettledLate);
    assert_eq!(desk.settle(fence, 0, dead).await, Answer::Superseded);
    assert_eq!((desk.claim(0).await, desk.claim(1).await), (Answer::Done, Answer::Done));
    assert_eq!(desk.state().await, State::Delivered);
    assert!(journal.dead("ledger", 9, &|_| true).await.unwrap().is_empty());
    // Of a delivery that nobody remembers, too.
    let forgotten = Desk::new(&journal, "forgotten");
    assert_eq!(forgotten.settle(5, 0, Outcome::Delivered).await, Answer::SettledLate);
    assert_eq!(forgotten.claim(0).await, Answer::Done);
    let unknown = Desk::new(&journal, "unknown");
    assert_eq!(unknown.settle(5, 0, dead).await, Answer::Superseded);
    assert!(journal.history(&unknown.key).await.unwrap().is_none());
}

async fn another_body_is_a_conflict_and_a_copy_is_counted_without_effect<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desk = Desk::new(&journal, "copies");
    let first = Print { body: [7; 32], id: Some([1; 8]) };
    assert!(matches!(desk.claim_as(0, LEASE, first).await, Answer::Claimed { .. }));
    let other = Print { body: [8; 32], ..first };
    assert_eq!(desk.claim_as(0, LEASE, other).await, Answer::Conflict);
    let suspected = Print { id: Some([2; 8]), ..first };
    assert_eq!(desk.claim_as(0, LEASE, suspected).await, Answer::Suspected);
    assert!(matches!(desk.claim_as(0, LEASE, first).await, Answer::Busy { .. }));
    assert_eq!(desk.told().await, ["claimed", "conflict", "suspected", "busy"]);
    for _ in 0..1000 {
        desk.claim_as(0, LEASE, other).await;
    }
    let told = desk.told().await;
    assert!(told[0] == "claimed" && told.len() < 500, "{} lines", told.len());
}

async fn a_dead_delivery_is_listed_until_it_is_requeued_or_discarded<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desks = ["dead-1", "dead-2", "dead-3"].map(|id| Desk::new(&journal, id));
    for desk in &desks {
        let fence = desk.claimed(0, LEASE).await;
        desk.settle(fence, 0, Outcome::Dead(DeadReason::Permanent)).await;
    }
    let listed = async || -> Vec<DeliveryKey> {
        let dead = journal.dead("ledger", 9, &|_| true).await.unwrap();
        assert!(dead.iter().all(|known| known.reason == Some(DeadReason::Permanent)));
        dead.into_iter().map(|known| known.key).collect()
    };
    let mut all = listed().await;
    all.sort();
    assert_eq!(all, desks.each_ref().map(|desk| desk.key.clone()));
    assert_eq!(journal.dead("ledger", 2, &|_| true).await.unwrap().len(), 2);
    assert!(journal.dead("mail", 9, &|_| true).await.unwrap().is_empty());
    assert!(journal.oldest_dead("ledger").await.unwrap().is_some());
    assert_eq!(desks[0].claim(0).await, Answer::Dead);

    let requeued = What::Requeued { reason: "mended".into() };
    assert!(journal.note(&desks[0].key, 1, "ada", &requeued).await.unwrap());
    let again = desks[0].claimed(1, LEASE).await;
    let discarded = What::Discarded { reason: "a test".into() };
    assert!(journal.note(&desks[1].key, 0, "ada", &discarded).await.unwrap());
    assert_eq!(listed().await, [desks[2].key.clone()]);
    assert_eq!(desks[0].settle(again, 1, Outcome::Delivered).await, Answer::Settled);
    let told = desks[0].told().await;
    assert_eq!(told, ["claimed", "dead", "duplicate_dead", "requeued", "claimed", "delivered"]);
    // A copy of what was discarded doesn't bring it back.
    assert_eq!(desks[1].claim(0).await, Answer::Dead);
    assert_eq!(listed().await, [desks[2].key.clone()]);
    assert_eq!(desks[1].told().await, ["claimed", "dead", "discarded", "duplicate_dead"]);
    let unknown = Desk::new(&journal, "unknown");
    assert!(!journal.note(&unknown.key, 1, "ada", &requeued).await.unwrap());
}

async fn a_delivery_is_found_by_event_id_by_identity_and_by_key<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let desk = Desk::new(&journal, "found");
    desk.claim(0).await;
    let pairs = [("mail", "acme"), ("ledger", "acme")];
    for id in ["shown-found", "found", "ledger/acme/found"] {
        let found = journal.find(id, &pairs).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&desk.key), "{id}");
    }
    assert!(journal.find("nobody", &pairs).await.unwrap().is_empty());
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
    let delivered = Desk::new(&journal, "delivered");
    let fence = delivered.claimed(0, LEASE).await;
    delivered.settle(fence, 0, Outcome::Delivered).await;
    let running = Desk::new(&journal, "running");
    let fence = running.claimed(0, LEASE).await;
    drop((queue, journal, delivered, running));

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
    assert_eq!(Desk::new(&journal, "delivered").claim(0).await, Answer::Done);
    let running = Desk::new(&journal, "running");
    assert!(matches!(running.claim(0).await, Answer::Busy { .. }));
    assert_eq!(running.settle(fence, 0, Outcome::Delivered).await, Answer::Settled);
}
