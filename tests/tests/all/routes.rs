//! Routing: subscriptions are added and removed, events without a subscriber are kept, and the
//! archive holds everything.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use zentra_tests::ledger::transfer;
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::{World, delivered};
use zentra_tests::{eventually, namespace, services, shared_rabbit, shared_redis, sign};

use crate::queue::depth;

const BOUND: Duration = Duration::from_secs(20);

pub(crate) async fn reload(stack: &Stack, program: &Program) {
    let metric = ["zentra_config_reloads_total", "ok"];
    let before = program.metric(&stack.http, &metric).await;
    program.process.hang_up();
    eventually("the config is in force", BOUND, async || {
        (program.metric(&stack.http, &metric).await > before).then_some(())
    })
    .await;
}

async fn post(stack: &Stack, ingress: &Program, id: &str, kind: &str) {
    let body = format!(r#"{{"type":"{kind}","id":"{id}"}}"#);
    let headers = sign::acme(id, sign::now(), body.as_bytes());
    let url = format!("{}/in/acme", ingress.listen);
    assert_eq!(stack.http.post(&url, &headers, body).await.unwrap().status, 200);
}

/// Everything in the only archive stream of a namespace.
pub(crate) async fn archived(url: &str, queue: &str, count: usize) -> Vec<Vec<u8>> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    let first = AMQPValue::LongString(LongString::from("first"));
    arguments.insert("x-stream-offset".into(), first);
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await;
    let mut consumer = consumer.unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(BOUND, consumer.next()).await.unwrap();
        let delivery = next.unwrap().unwrap();
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        found.push(delivery.data);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_subscribed_to_is_seen_and_goes_out_once_somebody_does() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), "attempts = 2").await.unwrap();
    let stack = &world.stack;
    stack.replace("subscribe = [\"acme.#\",", "subscribe = [\"nobody.#\",");
    reload(stack, &world.ingress).await;
    for (id, transfer_id) in [("evt_1", "trf_1"), ("evt_2", "trf_2")] {
        world.send(id, &transfer(id, transfer_id, 5)).await;
    }
    let unrouted = format!("{}.unrouted", stack.namespace);
    assert_eq!(depth(&rabbit, &unrouted).await, 2);
    eventually("they are counted", BOUND, async || {
        let counted = world.ingress.metric(&stack.http, &["zentra_unrouted_events"]).await;
        (counted == 2.0).then_some(())
    })
    .await;
    let listed = stack.zentra(&["unrouted", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("acme/evt_1 transfer.settled") && listed.contains("none"), "{listed}");

    let tried = stack.zentra(&["unrouted", "requeue"]);
    assert!(String::from_utf8_lossy(&tried.stdout).starts_with("0 routed"));
    stack.replace("subscribe = [\"nobody.#\",", "subscribe = [\"acme.#\",");
    // The file says so, but no program has it in force: messages do not circulate.
    assert!(stack.zentra(&["unrouted", "requeue"]).status.success());
    assert_eq!(depth(&rabbit, &unrouted).await, 2);

    let worker = stack.worker().await;
    let found = stack.zentra(&["unrouted", "requeue", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["items"].as_array().unwrap().len(), 2, "{found}");
    for id in ["evt_1", "evt_2"] {
        world.until(id, delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 2);
    assert_eq!(depth(&rabbit, &unrouted).await, 0);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_taken_out_is_unbound_and_what_waits_is_kept_and_told() {
    let rabbit = shared_rabbit();
    let stack = Stack::new(&rabbit, "redis://unused", &namespace(), "http://127.0.0.1:9/", "");
    stack.add("[destination.mail]\nurl = \"http://127.0.0.1:9/\"\nsubscribe = [\"acme.mail\", \"acme.#\"]\ntimeout = \"1s\"");
    let mut ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_1", "mail").await;
    let work = |destination: &str| format!("{}.work.{destination}", stack.namespace);
    let both =
        async || (depth(&rabbit, &work("mail")).await, depth(&rabbit, &work("ledger")).await);
    assert_eq!(both().await, (1, 1));

    // One pattern less, after SIGHUP. The other one still applies.
    stack.replace("[\"acme.mail\", \"acme.#\"]", "[\"acme.mail\"]");
    reload(&stack, &ingress).await;
    post(&stack, &ingress, "evt_2", "other").await;
    post(&stack, &ingress, "evt_3", "mail").await;
    assert_eq!(both().await, (2, 3));

    // The whole destination, after a restart.
    ingress.process.terminate(BOUND).unwrap();
    let text = std::fs::read_to_string(&stack.config).unwrap();
    std::fs::write(&stack.config, text.split("[destination.mail]").next().unwrap()).unwrap();
    let ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_4", "mail").await;
    assert_eq!(both().await, (2, 4));
    let printed = services::output();
    let queue = format!("queue=\"{}\" messages=2", work("mail"));
    let mut lines = printed.lines().filter(|line| line.contains("routes nothing to the queue"));
    assert!(lines.any(|line| line.contains(&queue)), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_has_what_was_accepted_also_what_is_unrouted_but_not_from_a_source_without_it()
{
    let rabbit = shared_rabbit();
    let stack = Stack::new(&rabbit, "redis://unused", &namespace(), "http://127.0.0.1:9/", "");
    stack.replace("subscribe = [\"acme.#\",", "subscribe = [\"acme.taken\",");
    stack.replace("[source.github]\n", "[source.github]\narchive = false\n");
    stack.add("[archive]\nmax_bytes = \"16MiB\"\nmax_age = \"1h\"");
    let ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_1", "taken").await;
    let url = format!("{}/in/github", ingress.listen);
    let body = r#"{"type":"github"}"#;
    let headers = sign::github("d-1", "push", body.as_bytes());
    assert_eq!(stack.http.post(&url, &headers, body).await.unwrap().status, 200);
    post(&stack, &ingress, "evt_2", "untaken").await;
    let archive = format!("{}.archive.16777216x3600", stack.namespace);
    let bodies = archived(&rabbit, &archive, 2).await;
    assert_eq!(bodies[0], br#"{"type":"taken","id":"evt_1"}"#);
    assert_eq!(bodies[1], br#"{"type":"untaken","id":"evt_2"}"#);
    let listed = stack.zentra(&["archive", "list", "--type", "untaken", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["event_id"], &listed["items"][0]["bytes"]),
        (&"evt_2".into(), &31.into())
    );
    let shown = stack.zentra(&["archive", "show", "evt_1", "--body"]);
    assert_eq!(shown.stdout, br#"{"type":"taken","id":"evt_1"}"#);
    assert_eq!(stack.zentra(&["archive", "show", "nobody"]).status.code(), Some(1));
    // The archive does not hide events without a subscriber.
    assert_eq!(depth(&rabbit, &format!("{}.unrouted", stack.namespace)).await, 1);

    // After SIGHUP without an archive, it is unbound.
    stack.replace("[source.acme]\n", "[source.acme]\narchive = false\n");
    stack.replace("[source.stripe-eu]\n", "[source.stripe-eu]\narchive = false\n");
    reload(&stack, &ingress).await;
    post(&stack, &ingress, "evt_3", "taken").await;
    stack.replace("[source.acme]\narchive = false\n", "[source.acme]\n");
    reload(&stack, &ingress).await;
    post(&stack, &ingress, "evt_4", "taken").await;
    let bodies = archived(&rabbit, &archive, 3).await;
    assert_eq!(bodies[2], br#"{"type":"taken","id":"evt_4"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_holds_confirms_is_left_out_within_the_time_limit() {
    let rabbit = services::rabbit();
    let stack = Stack::new(&rabbit.url(), "redis://unused", "held", "http://127.0.0.1:9/", "");
    stack.add("[archive]\nmax_bytes = \"16MiB\"\nmax_age = \"1h\"");
    let ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_1", "taken").await;
    let writer = |does: &str| {
        let name = "rabbit_misc:r(<<\"/\">>, queue, <<\"held.archive.16777216x3600\">>)";
        let found = format!("{{ok, Queue}} = rabbit_amqqueue:lookup({name})");
        rabbit.evaluate(&format!("{found}, {does}(amqqueue:get_pid(Queue))."));
    };
    writer("sys:suspend");
    let began = Instant::now();
    for at in 2..12 {
        post(&stack, &ingress, &format!("evt_{at}"), "taken").await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ingress.metric(&stack.http, &["zentra_archive_up"]).await, 0.0);
    assert!(services::output().contains("the archive holds the confirms of events"));
    writer("sys:resume");
    let at = AtomicU32::new(20);
    eventually("the archive takes events again", BOUND * 2, async || {
        let id = format!("evt_{}", at.fetch_add(1, Ordering::Relaxed));
        post(&stack, &ingress, &id, "taken").await;
        (ingress.metric(&stack.http, &["zentra_archive_up"]).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_the_broker_has_lost_keeps_no_event_out_and_comes_back_as_another() {
    let mut rabbit = services::rabbit();
    let stack = Stack::new(&rabbit.url(), "redis://unused", "lost", "http://127.0.0.1:9/", "");
    stack.add("[archive]\nmax_bytes = \"16MiB\"\nmax_age = \"1h\"");
    let ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_1", "taken").await;
    let archive = "lost.archive.16777216x3600";
    // As after a crash: the queue is known, and its stream is not. RabbitMQ 4.3 then closes each
    // connection that publishes to it; others do not confirm, or drop what they get.
    let found =
        format!("rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{archive}\">>))");
    rabbit.evaluate(&format!(
        "{{ok, Queue}} = {found}, #{{name := Id}} = amqqueue:get_type_state(Queue), \
         ra:process_command({{rabbit_stream_coordinator, node()}}, {{delete_stream, Id, #{{}}}})."
    ));
    let at = AtomicU32::new(2);
    let accepts = async || {
        let id = format!("evt_{}", at.fetch_add(1, Ordering::Relaxed));
        let (url, body) = (format!("{}/in/acme", ingress.listen), format!(r#"{{"id":"{id}"}}"#));
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        stack.http.post(&url, &headers, body).await.unwrap().status.is_success()
    };
    eventually("events are accepted again", BOUND, async || accepts().await.then_some(())).await;
    for _ in 0..50 {
        assert!(accepts().await, "the archive takes the ingress with it: {}", services::output());
    }
    // The ingress starts with it too.
    drop(ingress);
    let ingress = stack.ingress().await;
    for at in 100..120 {
        post(&stack, &ingress, &format!("evt_{at}"), "taken").await;
    }
    // With other bounds it is another stream. RabbitMQ before 4.3 makes none before a restart.
    rabbit.restart_gently().unwrap();
    stack.replace("16MiB", "32MiB");
    ingress.process.hang_up();
    let at = AtomicU32::new(200);
    eventually("the archive takes events again", BOUND * 6, async || {
        let id = format!("evt_{}", at.fetch_add(1, Ordering::Relaxed));
        let (url, body) = (format!("{}/in/acme", ingress.listen), format!(r#"{{"id":"{id}"}}"#));
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        stack.http.post(&url, &headers, body).await.unwrap();
        (ingress.metric(&stack.http, &["zentra_archive_up"]).await == 1.0).then_some(())
    })
    .await;
    post(&stack, &ingress, "evt_last", "taken").await;
    let bodies = archived(&rabbit.url(), "lost.archive.33554432x3600", 1).await;
    assert!(!bodies.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_the_broker_can_not_serve_keeps_no_event_out_and_comes_back() {
    let rabbit = shared_rabbit();
    let stack = Stack::new(&rabbit, "redis://unused", &namespace(), "http://127.0.0.1:9/", "");
    stack.add("[archive]\nmax_bytes = \"16MiB\"\nmax_age = \"1h\"");
    let ingress = stack.ingress().await;
    post(&stack, &ingress, "evt_1", "taken").await;
    let archive = format!("{}.archive.16777216x3600", stack.namespace);
    assert_eq!(archived(&rabbit, &archive, 1).await.len(), 1);

    // Another kind of queue has its name and accepts nothing, so no event is confirmed.
    let connection = Connection::connect(&rabbit, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeleteOptions::default();
    channel.queue_delete(archive.as_str().into(), options).await.unwrap();
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(archive.as_str().into(), options, full).await.unwrap();
    let exchange = format!("{}.archived", stack.namespace);
    let (queue, options, none) = (archive.as_str().into(), Default::default(), Default::default());
    channel.queue_bind(queue, exchange.as_str().into(), "#".into(), options, none).await.unwrap();
    reload(&stack, &ingress).await;
    post(&stack, &ingress, "evt_2", "taken").await;
    assert!(services::output().contains("events are accepted without it"));

    let options = QueueDeleteOptions::default();
    channel.queue_delete(archive.as_str().into(), options).await.unwrap();
    eventually("the archive is attached again", BOUND, async || {
        (ingress.metric(&stack.http, &["zentra_archive_up"]).await == 1.0).then_some(())
    })
    .await;
    post(&stack, &ingress, "evt_3", "taken").await;
    let bodies = archived(&rabbit, &archive, 1).await;
    assert_eq!(bodies[0], br#"{"type":"taken","id":"evt_3"}"#);
}
