//! Whatever the broker does, the ingress answers in time, and a 2xx is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::options::ExchangeDeleteOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_core::seal::Sealed;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_store::queue::Subscriber;
use zentra_store::queue::{Consumer, Process, Publish, QueueError, Receipt};
use zentra_tests::http::Http;
use zentra_tests::services;
use zentra_tests::stack::Stack;
use zentra_tests::{
    eventually, namespace, queue_settings, routes, shared_rabbit, shared_redis, sign,
};

const BOUND: Duration = Duration::from_secs(30);
/// The limit of a late response. The deadline itself is two seconds.
const IN_TIME: Duration = Duration::from_millis(2500);

fn settings(url: &str, namespace: &str) -> Settings {
    let ledger =
        Subscriber { destination: "ledger".into(), patterns: vec!["acme.#".into()], shards: 1 };
    Settings { routes: routes(vec![ledger]), ..queue_settings(url, namespace) }
}

fn event(route: &str, at: usize) -> Sealed {
    Sealed {
        envelope: "{}".into(),
        seal: "v1,k,AA==".into(),
        body: at.to_string().into(),
        route: route.into(),
        id: format!("acme/evt_{at}"),
        trace: None,
    }
}

async fn connected(settings: Settings) -> Amqp {
    let queue = Amqp::processor(settings);
    timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    queue
}

/// All bodies in the ledger's work queue, with the number of each.
async fn queued(url: &str, namespace: &str, least: usize) -> HashMap<String, usize> {
    let queue = connected(queue_settings(url, namespace)).await;
    let mut consumer = queue.consume("ledger", 500);
    let mut found: HashMap<String, usize> = HashMap::new();
    while found.len() < least {
        let next = timeout(BOUND, consumer.next()).await;
        let (message, receipt) = next.unwrap_or_else(|_| panic!("only {}", found.len())).unwrap();
        let body = String::from_utf8(message.sealed.body.to_vec()).unwrap();
        *found.entry(body).or_default() += 1;
        receipt.ack().await;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn among_thousands_no_returned_message_is_taken_for_a_confirmed_one() {
    let (url, namespace) = (shared_rabbit(), namespace());
    let queue = connected(settings(&url, &namespace)).await;
    // Without the queue of unrouted events, an event without a subscriber is returned.
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let unrouted = format!("{namespace}.unrouted");
    let (name, none) = (unrouted.as_str(), FieldTable::default());
    channel.queue_unbind(name.into(), name.into(), "".into(), none).await.unwrap();

    const ALL: usize = 6000;
    let lost = |at: usize| at.is_multiple_of(7) || at % 100 > 90;
    let publish = |at| {
        let queue = queue.clone();
        async move {
            let route = if lost(at) { "stranger.x" } else { "acme.x" };
            (at, queue.publish(&event(route, at)).await)
        }
    };
    let mut publishing: JoinSet<_> = (0..300).map(publish).collect();
    let (mut next, mut yes) = (300, Vec::new());
    while let Some(done) = publishing.join_next().await {
        match done.unwrap() {
            (at, Ok(())) => yes.push(at),
            (at, Err(QueueError::Refused)) => assert!(lost(at), "{at} could be routed"),
            (at, Err(error)) => panic!("{at}: {error}"),
        }
        if next < ALL {
            publishing.spawn(publish(next));
            next += 1;
        }
    }
    let false_yes: Vec<_> = yes.iter().filter(|at| lost(**at)).collect();
    assert!(false_yes.is_empty(), "false confirms: {false_yes:?}");
    assert_eq!(queued(&url, &namespace, yes.len()).await.len(), yes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_reached_the_archive_alone_is_not_accepted() {
    let (rabbit, namespace) = (services::rabbit(), namespace());
    let settings = settings(&rabbit.url(), &namespace);
    let mut routes = settings.routes.clone().unwrap();
    routes.archive.sources.push("acme".into());
    let declaring = connected(Settings { routes: Some(routes), ..settings.clone() }).await;
    declaring.publish(&event("acme.x", 1)).await.unwrap();
    // No worker is left that would declare a queue again.
    declaring.close().await;
    let queue = Amqp::operator(settings);
    timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    rabbit.delete_queue(&format!("{namespace}.work.ledger"));
    queue.publish(&event("acme.x", 2)).await.unwrap();
    rabbit.delete_queue(&format!("{namespace}.unrouted"));
    for at in 3..6 {
        let printed = queue.publish(&event("acme.x", at)).await;
        assert!(matches!(printed, Err(QueueError::Refused)), "{printed:?}");
    }
}

/// The outcome of a publish, without waiting for a deadline, which is seconds away.
async fn at_once(queue: &Amqp) -> Result<(), QueueError> {
    let publish = event("acme.x", 3);
    timeout(Duration::from_secs(1), queue.publish(&publish)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_broker_costs_one_deadline_then_nothing_and_is_found_again_within_5_s() {
    let rabbit = services::rabbit();
    let queue = connected(settings(&rabbit.url(), "stuck")).await;
    queue.publish(&event("acme.x", 1)).await.unwrap();
    rabbit.freeze();
    let started = Instant::now();
    assert!(queue.publish(&event("acme.x", 2)).await.is_err());
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    eventually("it is known to be stuck", BOUND, async || (!Publish::ready(&queue)).then_some(()))
        .await;
    // The broker is known to be dead: the answer comes at once, also while the connection is given
    // up and a new connect hangs.
    let end = Instant::now() + Duration::from_secs(14);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut last = Ok(());
    while Instant::now() < end {
        last = at_once(&queue).await;
        assert!(last.is_err());
        tick.tick().await;
    }
    // Before heartbeats notice it, which takes 20 s.
    assert!(matches!(last, Err(QueueError::Disconnected)), "not given up: {last:?}");
    rabbit.thaw();
    let again = async || queue.publish(&event("acme.x", 4)).await.ok();
    eventually("it is found again", Duration::from_secs(5), again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_sender_has_given_up_waiting_for_a_place_is_not_published_later() {
    let rabbit = services::rabbit();
    let queue = connected(Settings { lanes: 1, ..settings(&rabbit.url(), "late") }).await;
    queue.publish(&event("acme.x", 0)).await.unwrap();
    rabbit.freeze();
    let late = (1..=300).map(|at| {
        let queue = queue.clone();
        async move { queue.publish(&event("acme.x", at)).await.is_err() }
    });
    let failed = late.collect::<JoinSet<bool>>().join_all().await;
    assert!(failed.into_iter().all(|failed| failed));
    rabbit.thaw();
    let again = async || queue.publish(&event("acme.x", 301)).await.ok();
    eventually("it is found again", BOUND, again).await;
    // The publishes in flight on one lane.
    let most = 64 + 2;
    let found = crate::queue::depth(&rabbit.url(), "late.work.ledger").await;
    assert!((2..=most).contains(&found), "{found} of at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_an_error_in_time_and_ends_by_itself() {
    let rabbit = services::rabbit();
    let queue = connected(settings(&rabbit.url(), "alarm")).await;
    rabbit.alarm(true);
    let started = Instant::now();
    assert!(queue.publish(&event("acme.x", 1)).await.is_err());
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    let blocked = async || {
        let result = queue.publish(&event("acme.x", 2)).await;
        matches!(result, Err(QueueError::Blocked)).then_some(())
    };
    eventually("it says that it blocks", BOUND, blocked).await;
    assert!(!Publish::ready(&queue));
    assert!(matches!(at_once(&queue).await, Err(QueueError::Blocked)));
    rabbit.alarm(false);
    let again = async || queue.publish(&event("acme.x", 3)).await.ok();
    eventually("it takes messages again", Duration::from_secs(5), again).await;
    eventually("it is ready", BOUND, async || Publish::ready(&queue).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_the_first_that_works_is_used_and_then_the_next() {
    // A host that accepts connections and sends nothing, one that refuses them, and two brokers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("amqp://{}/%2f", silent.local_addr().unwrap());
    let (first, second) = (services::rabbit(), services::rabbit());
    let urls = [&silent, "amqp://127.0.0.1:1/%2f", &first.url(), &second.url()];
    let urls = urls.map(Secret::new).to_vec();
    let queue = connected(Settings { urls, ..settings("", "several") }).await;
    queue.publish(&event("acme.x", 1)).await.unwrap();
    let (mut used, other) = match first.evaluate("length(rabbit_amqqueue:list()).").trim() {
        "0" => (second, first),
        _ => (first, second),
    };
    used.kill();
    let next = async || queue.publish(&event("acme.x", 2)).await.ok();
    eventually("the next one is used", Duration::from_secs(10), next).await;
    assert!(queued(&other.url(), "several", 1).await.contains_key("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_leaves_a_broker_that_answers_nothing() {
    let (one, two) = (services::rabbit(), services::rabbit());
    let publishers = [&one, &two].map(|rabbit| settings(&rabbit.url(), "silent"));
    let publishers =
        [connected(publishers[0].clone()).await, connected(publishers[1].clone()).await];
    let urls = [&one, &two].map(|rabbit| Secret::new(rabbit.url())).to_vec();
    let worker = Amqp::processor(Settings { urls, ..settings("", "silent") });
    let mut consumer = worker.consume("ledger", 4);
    for (at, publisher) in publishers.iter().enumerate() {
        publisher.publish(&event("acme.x", at)).await.unwrap();
    }
    let (first, receipt) = timeout(BOUND, consumer.next()).await.unwrap().unwrap();
    receipt.ack().await;
    // Heartbeats would notice it after 20 s.
    let frozen = if first.sealed.body == "0" { &one } else { &two };
    frozen.freeze();
    let next = timeout(Duration::from_secs(15), consumer.next()).await.unwrap().unwrap();
    assert_ne!(next.0.sealed.body, first.sealed.body);
    frozen.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_everything_gets_its_queues_again_before_the_next_2xx() {
    let rabbit = services::rabbit();
    let queue = connected(settings(&rabbit.url(), "reset")).await;
    queue.publish(&event("acme.x", 1)).await.unwrap();
    rabbit.reset();
    let next = async || queue.publish(&event("acme.x", 2)).await.ok();
    eventually("it is accepted", BOUND, next).await;
    assert!(queued(&rabbit.url(), "reset", 1).await.contains_key("2"));
}

async fn delete_exchange(url: &str, name: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
}

/// Somebody deleted it, or only an older version has declared the rest.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_exchange_of_probes_it_is_declared_again_and_operators_connect() {
    let mut rabbit = services::rabbit();
    let queue = connected(settings(&rabbit.url(), "part")).await;
    queue.publish(&event("acme.x", 1)).await.unwrap();
    // It is missing when the program connects again.
    delete_exchange(&rabbit.url(), "part.internal").await;
    tokio::task::block_in_place(|| rabbit.restart_gently()).unwrap();
    let next = async || queue.publish(&event("acme.x", 2)).await.ok();
    eventually("it is accepted", BOUND, next).await;
    queue.close().await;

    delete_exchange(&rabbit.url(), "part.internal").await;
    let operator = Amqp::operator(queue_settings(&rabbit.url(), "part"));
    timeout(BOUND, operator.connected()).await.unwrap().unwrap();
}

/// Sends each callback until it gets a 2xx, as providers do, but sooner.
async fn provider(url: String, at: usize, answers: Arc<AtomicUsize>, slow: Arc<AtomicUsize>) {
    let http = Http::default();
    let (id, body) = (format!("evt_{at}"), format!(r#"{{"type":"t.x","n":{at}}}"#));
    eventually("a callback is accepted at last", BOUND * 4, async || {
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        let started = Instant::now();
        let answer = http.post(&url, &headers, body.clone()).await?;
        slow.fetch_max(started.elapsed().as_millis() as usize, Ordering::SeqCst);
        answer.status.is_success().then_some(())
    })
    .await;
    answers.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_2xx_of_1000_is_queued_as_sent_over_kill_9_and_a_memory_alarm() {
    let mut rabbit = services::rabbit();
    let stack = Stack::new(&rabbit.url(), "redis://unused", "flow", "http://127.0.0.1:9/", "");
    let ingress = stack.ingress().await;
    let (answers, slow) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let url = format!("{}/in/acme", ingress.listen);
    let wave = |from: usize, to: usize| {
        let (url, answers, slow) = (url.clone(), answers.clone(), slow.clone());
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(12));
            let mut sending = JoinSet::new();
            for at in from..to {
                pace.tick().await;
                sending.spawn(provider(url.clone(), at, answers.clone(), slow.clone()));
            }
            sending.join_all().await;
        })
    };
    let reached = async |least| {
        let reached = || answers.load(Ordering::SeqCst) >= least;
        eventually("callbacks are accepted", BOUND, async || reached().then_some(())).await;
    };
    let flowing = wave(0, 300);
    reached(100).await;
    rabbit.kill();
    rabbit.restart().unwrap();
    flowing.await.unwrap();

    let flowing = wave(300, 500);
    reached(350).await;
    let refused = ["zentra_ingress_refused_total", "queue_unavailable"];
    let before = ingress.metric(&stack.http, &refused).await;
    rabbit.alarm(true);
    // Raising the alarm may take longer than the first callbacks.
    let more = wave(500, 700);
    eventually("the alarm is felt", BOUND, async || {
        (ingress.metric(&stack.http, &refused).await > before + 10.0).then_some(())
    })
    .await;
    rabbit.alarm(false);
    flowing.await.unwrap();
    more.await.unwrap();

    let flowing = wave(700, 1000);
    reached(800).await;
    rabbit.kill();
    rabbit.restart().unwrap();
    flowing.await.unwrap();

    let slowest = Duration::from_millis(slow.load(Ordering::SeqCst) as u64);
    assert!(slowest < IN_TIME + Duration::from_millis(500), "an answer took {slowest:?}");
    let found = queued(&rabbit.url(), "flow", 1000).await;
    for at in 0..1000 {
        let body = format!(r#"{{"type":"t.x","n":{at}}}"#);
        assert!(found.contains_key(&body), "{body} got its 2xx and isn't queued");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_too_large_for_the_broker_is_refused_and_hurts_no_other() {
    let rabbit = services::rabbit();
    rabbit.limit_messages(2 << 20);
    let stack = Stack::new(&rabbit.url(), &shared_redis(), &namespace(), "http://127.0.0.1:9/", "");
    stack.replace(
        "provider = \"standard-webhooks\"",
        "provider = \"standard-webhooks\"\nmax_body = \"8MiB\"",
    );
    let ingress = stack.ingress().await;
    let url = format!("{}/in/acme", ingress.listen);
    let post = async |id: String, body: String| {
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        Http::default().post(&url, &headers, body).await.unwrap()
    };
    let large = tokio::spawn({
        let body = "x".repeat(3 << 20);
        let (url, headers) = (url.clone(), sign::acme("large", sign::now(), body.as_bytes()));
        async move { Http::default().post(&url, &headers, body).await.unwrap() }
    });
    for at in 0..60 {
        assert_eq!(post(format!("small-{at}"), "{}".into()).await.status, 200, "{at}");
    }
    let large = large.await.unwrap();
    assert_eq!((large.status.as_u16(), large.reason()), (413, "body_too_large".to_owned()));
    let fits = post("fits".into(), "x".repeat(2 << 20)).await;
    assert_eq!(fits.status, 200, "just what the broker takes");
    let connects = ["zentra_rabbitmq_connects_total", "connection=\"ingress\""];
    assert_eq!(ingress.metric(&Http::default(), &connects).await, 1.0);
}
