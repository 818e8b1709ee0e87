//! The queue on a real RabbitMQ.

use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_store::queue::Subscriber;
use zentra_store::queue::{Consumer, Delay, Message, Operate, Place, Process, Publish};
use zentra_store::queue::{Receipt, Walk};
use zentra_tests::{namespace, queue_settings, routes, services, shared_rabbit};

const BOUND: Duration = Duration::from_secs(20);

fn settings(url: &str, namespace: &str) -> Settings {
    let subscriber = |destination: &str, pattern: &str| Subscriber {
        destination: destination.into(),
        patterns: vec![pattern.into()],
        shards: 1,
    };
    let subscribers = vec![subscriber("ledger", "acme.#"), subscriber("mail", "acme.mail.*")];
    Settings { routes: routes(subscribers), ..queue_settings(url, namespace) }
}

async fn queue(url: &str, namespace: &str) -> Amqp {
    let amqp = Amqp::processor(settings(url, namespace));
    tokio::time::timeout(BOUND, amqp.connected()).await.unwrap().unwrap();
    amqp
}

fn sealed(route: &str, body: &'static [u8]) -> Sealed {
    Sealed {
        envelope: Bytes::from_static(b"{}"),
        seal: "v1,k,AA==".into(),
        body: Bytes::from_static(body),
        route: route.into(),
        id: "acme/evt_1".into(),
        trace: None,
    }
}

async fn next<C: Consumer>(consumer: &mut C) -> (Message, C::Receipt) {
    tokio::time::timeout(BOUND, consumer.next()).await.unwrap().unwrap()
}

/// Number of messages in a queue, according to the broker.
pub(crate) async fn depth(url: &str, queue: &str) -> u32 {
    let connect = Connection::connect(url, ConnectionProperties::default());
    let connection = tokio::time::timeout(BOUND, connect).await.unwrap().unwrap();
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let queue = channel.queue_declare(queue.into(), passive, FieldTable::default());
    queue.await.unwrap().message_count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_publish_reaches_each_subscriber_byte_for_byte() {
    let queue = queue(&shared_rabbit(), &namespace()).await;
    let event = sealed("acme.mail.sent", b"\x00\xff exact");
    queue.publish(&event).await.unwrap();
    for destination in ["ledger", "mail"] {
        let mut consumer = queue.consume(destination, 4);
        let (message, receipt) = next(&mut consumer).await;
        assert_eq!(message.sealed.body, event.body);
        assert_eq!(message.sealed.envelope, event.envelope);
        assert_eq!(message.sealed.seal, event.seal);
        assert_eq!((message.attempt, message.generation), (1, 0));
        receipt.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_subscribed_to_is_kept_as_unrouted() {
    let (url, namespace) = (shared_rabbit(), namespace());
    let queue = queue(&url, &namespace).await;
    queue.publish(&sealed("stranger.event", b"{}")).await.unwrap();
    assert_eq!(depth(&url, &format!("{namespace}.unrouted")).await, 1);
    assert_eq!(depth(&url, &format!("{namespace}.work.ledger")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_back_to_its_own_destination_after_its_delay() {
    let queue = queue(&shared_rabbit(), &namespace()).await;
    let mut ledger = queue.consume("ledger", 4);
    let message = Message { attempt: 2, generation: 1, ..Message::new(sealed("", b"again")) };
    let delay = queue.delay(Delay::AtLeast(Duration::from_millis(300)));
    assert_eq!(delay, Duration::from_millis(375));
    let sent = std::time::Instant::now();
    queue.retry("ledger", &message, delay).await.unwrap();
    let (back, receipt) = next(&mut ledger).await;
    assert!(sent.elapsed() >= Duration::from_millis(300), "{:?}", sent.elapsed());
    assert_eq!(back, message);
    receipt.ack().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_letter_is_found_and_held_and_the_others_stay() {
    let (url, namespace) = (shared_rabbit(), namespace());
    let queue = queue(&url, &namespace).await;
    let bodies: [&[u8]; 3] = [b"one", b"two", b"three"];
    for body in bodies {
        let message = Message { attempt: 8, ..Message::new(sealed("", body)) };
        queue.dead("ledger", &message, DeadReason::Exhausted, None).await.unwrap();
    }
    let dead = format!("{namespace}.dead.ledger");
    let mut walk = queue.walk(Place::Dead("ledger")).await.unwrap();
    while walk.next().await.unwrap().is_some() {}
    walk.finish().await.unwrap();
    assert_eq!(depth(&url, &dead).await, 3);
    let mut walk = queue.walk(Place::Dead("ledger")).await.unwrap();
    let (mut message, receipt) = loop {
        let (message, receipt) = walk.next().await.unwrap().unwrap();
        if message.sealed.body == "two" {
            break (message, receipt);
        }
    };
    message.attempt = 1;
    message.generation += 1;
    queue.requeue("ledger", &message).await.unwrap();
    receipt.ack().await;
    walk.finish().await.unwrap();
    let (back, receipt) = next(&mut queue.consume("ledger", 1)).await;
    assert_eq!((&back.sealed.body[..], back.generation), (&b"two"[..], 1));
    receipt.ack().await;
    zentra_tests::eventually("two dead letters stay", BOUND, async || {
        (depth(&url, &dead).await == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_comes_by_each_letter_once_and_what_it_leaves_stays_as_it_stood() {
    // Many more than one fetch delivers.
    const ALL: usize = 2000;
    let (url, namespace) = (shared_rabbit(), namespace());
    let queue = queue(&url, &namespace).await;
    let mut publishing = tokio::task::JoinSet::new();
    for at in 0..ALL {
        let queue = queue.clone();
        publishing.spawn(async move {
            let sealed = Sealed { body: at.to_string().into(), ..sealed("", b"") };
            let message = Message { attempt: 8, ..Message::new(sealed) };
            queue.dead("ledger", &message, DeadReason::Exhausted, None).await.unwrap();
        });
        if publishing.len() >= 500 {
            publishing.join_next().await;
        }
    }
    publishing.join_all().await;
    // They were published concurrently, so their order is random.
    let stood = walked(&queue, |_| false).await;
    let mut sorted = stood.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..ALL).collect::<Vec<_>>());
    let every_third = |at: usize| at.is_multiple_of(3);
    assert_eq!(walked(&queue, every_third).await, stood);
    let left: Vec<usize> = stood.into_iter().filter(|at| !every_third(*at)).collect();
    // A walk that ends early also returns messages that were on their way.
    let mut walk = queue.walk(Place::Dead("ledger")).await.unwrap();
    for _ in 0..100 {
        walk.next().await.unwrap().unwrap();
    }
    walk.finish().await.unwrap();
    assert_eq!(walked(&queue, |_| false).await, left);
    assert_eq!(walked(&queue, |_| false).await, left);
}

/// The numbers of all dead letters, in the queue's order. Removes those that are not wanted.
async fn walked(queue: &Amqp, unwanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let (mut walk, mut seen) = (queue.walk(Place::Dead("ledger")).await.unwrap(), Vec::new());
    while let Some((message, receipt)) = walk.next().await.unwrap() {
        let at = std::str::from_utf8(&message.sealed.body).unwrap().parse().unwrap();
        seen.push(at);
        if unwanted(at) {
            receipt.ack().await;
        }
    }
    walk.finish().await.unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_message_is_read_as_one_without_seal() {
    let (url, namespace) = (shared_rabbit(), namespace());
    let queue = queue(&url, &namespace).await;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let work = format!("{namespace}.work.ledger");
    let (options, none) = (BasicPublishOptions::default(), BasicProperties::default());
    let sent = channel.basic_publish("".into(), work.into(), options, b"hello", none);
    sent.await.unwrap().await.unwrap();
    let (message, receipt) = next(&mut queue.consume("ledger", 1)).await;
    assert!(message.sealed.envelope.is_empty());
    assert_eq!(message.attempt, 1);
    queue.dead("ledger", &message, DeadReason::NotOurs, None).await.unwrap();
    receipt.ack().await;
    let dead = format!("{namespace}.dead.ledger");
    let got = channel.basic_get(dead.into(), BasicGetOptions::default()).await.unwrap();
    assert_eq!(got.unwrap().delivery.data, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_over_255_bytes_is_an_error_and_no_panic() {
    let queue = queue(&shared_rabbit(), &namespace()).await;
    let long = "x".repeat(300);
    assert!(queue.publish(&sealed(&long, b"{}")).await.is_err());
    assert!(queue.publish(&sealed("acme.ok", b"{}")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_kill_9_and_publish_and_consume_go_on_after_it() {
    let mut rabbit = services::rabbit();
    let queue = queue(&rabbit.url(), "killed").await;
    let mut consumer = queue.consume("ledger", 4);
    queue.publish(&sealed("acme.a", b"before")).await.unwrap();
    rabbit.kill();
    zentra_tests::eventually("publishing fails at once", BOUND, async || {
        queue.publish(&sealed("acme.a", b"lost")).await.err()
    })
    .await;
    rabbit.restart().unwrap();
    let again = async || queue.publish(&sealed("acme.a", b"after")).await.ok();
    zentra_tests::eventually("it is found again", Duration::from_secs(5), again).await;
    let mut bodies = std::collections::HashSet::new();
    while bodies.len() < 2 {
        let (message, receipt) = next(&mut consumer).await;
        bodies.insert(message.sealed.body);
        receipt.ack().await;
    }
    assert!(bodies.contains(&b"before"[..]) && bodies.contains(&b"after"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_1000_that_wait_for_their_retry_none_is_lost_when_the_broker_is_killed() {
    const ALL: usize = 1000;
    let mut rabbit = services::rabbit();
    let queue = queue(&rabbit.url(), "waiting").await;
    let mut waiting = tokio::task::JoinSet::new();
    for at in 0..ALL {
        let queue = queue.clone();
        waiting.spawn(async move {
            // In several delay queues. Some TTLs end before the kill and some after it.
            let delay = queue.delay(Delay::Near(Duration::from_millis(750 << (at % 4))));
            let body = at.to_string().into();
            let sealed = Sealed { body, ..sealed("", b"") };
            let message = Message { attempt: 2, ..Message::new(sealed) };
            queue.retry("ledger", &message, delay).await.unwrap();
        });
    }
    waiting.join_all().await;
    rabbit.kill();
    rabbit.restart().unwrap();
    let mut consumer = queue.consume("ledger", 500);
    let mut back = std::collections::HashSet::new();
    while back.len() < ALL {
        let (message, receipt) = next(&mut consumer).await;
        assert_eq!(message.attempt, 2);
        back.insert(message.sealed.body);
        receipt.ack().await;
    }
}
