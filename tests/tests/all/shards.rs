//! A destination with several work queues, and changes of their number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zentra_core::seal::Sealed;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_store::queue::{
    Consumer, Message, Operate, Place, Process, Publish, QueueError, Receipt, Routes, Subscribe,
    Subscriber, Walk,
};
use zentra_tests::ledger::transfer;
use zentra_tests::world::{World, delivered};
use zentra_tests::{
    Used, eventually, namespace, queue_settings, routes, shared_rabbit, shared_redis,
};

use crate::queue::depth;
use crate::routes::reload;

const BOUND: Duration = Duration::from_secs(30);
/// Workers look at what others have applied every 45 seconds at most.
const LEARNED: Duration = Duration::from_secs(75);

fn counted(shards: u16) -> Routes {
    let ledger =
        Subscriber { destination: "ledger".into(), patterns: vec!["acme.#".into()], shards };
    routes(vec![ledger]).unwrap()
}

fn settings(namespace: &str, shards: u16) -> Settings {
    Settings { routes: Some(counted(shards)), ..queue_settings(&shared_rabbit(), namespace) }
}

async fn connected(queue: Amqp) -> Amqp {
    tokio::time::timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    queue
}

async fn worker(namespace: &str, shards: u16) -> Amqp {
    connected(Amqp::processor(settings(namespace, shards))).await
}

fn event(id: &str) -> Sealed {
    Sealed {
        envelope: Bytes::from_static(b"{}"),
        seal: "v1,k,AA==".into(),
        body: id.to_owned().into(),
        route: "acme.paid".into(),
        id: format!("acme/{id}"),
        trace: None,
    }
}

fn shard(namespace: &str, shard: u16) -> String {
    match shard {
        0 => format!("{namespace}.work.ledger"),
        _ => format!("{namespace}.work.ledger.{shard}"),
    }
}

async fn depths(namespace: &str, count: u16) -> Vec<u32> {
    let mut all = Vec::new();
    for at in 0..count {
        all.push(depth(&shared_rabbit(), &shard(namespace, at)).await);
    }
    all
}

/// Waits for the messages of these shards.
async fn until(namespace: &str, wanted: &[u32]) {
    let count = u16::try_from(wanted.len()).unwrap();
    eventually("the shards have these messages", BOUND, async || {
        (depths(namespace, count).await == wanted).then_some(())
    })
    .await;
}

async fn delete(queue: &str) {
    let connection = Connection::connect(&shared_rabbit(), ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}

/// A worker that counts how often it has met each event. It defers each one once.
struct Counting {
    queue: Amqp,
    met: Arc<Mutex<BTreeMap<String, u32>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Counting {
    async fn start(namespace: &str, shards: u16) -> Self {
        let queue = worker(namespace, shards).await;
        let met = Arc::<Mutex<BTreeMap<String, u32>>>::default();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (queue, met, stop) = (queue.clone(), Arc::clone(&met), stop.clone());
            async move {
                let mut consumer = queue.consume("ledger", 16);
                while let Some(Some((message, receipt))) =
                    stop.run_until_cancelled(consumer.next()).await
                {
                    if message.attempt == 1 {
                        let again = Message { attempt: 2, ..message };
                        retried(&queue, &again).await;
                    } else {
                        let body = String::from_utf8(message.sealed.body.to_vec()).unwrap();
                        *met.lock().unwrap().entry(body).or_default() += 1;
                    }
                    receipt.ack().await;
                }
                consumer.stop().await;
                while let Some((_, receipt)) = consumer.next().await {
                    receipt.give_back().await;
                }
                consumer.finish().await;
            }
        });
        Self { queue, met, stop, task }
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.queue.close().await;
        std::mem::take(&mut *self.met.lock().unwrap()).into_keys().collect()
    }
}

async fn retried(queue: &Amqp, message: &Message) {
    eventually("a message is deferred", BOUND, async || {
        queue.retry("ledger", message, Duration::from_millis(250)).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_spread_over_the_shards_and_all_messages_of_one_delivery_are_in_one() {
    let namespace = Used::new();
    let queue = worker(&namespace, 4).await;
    for id in 0..100 {
        queue.publish(&event(&format!("evt_{id}"))).await.unwrap();
    }
    let first = depths(&namespace, 4).await;
    assert!(first.iter().all(|count| *count > 10), "{first:?}");
    assert_eq!(first.iter().sum::<u32>(), 100);

    // Copies, retries and requeued dead letters follow.
    for id in 0..100 {
        let message = Message { attempt: 2, ..Message::new(event(&format!("evt_{id}"))) };
        queue.publish(&message.sealed).await.unwrap();
        queue.retry("ledger", &message, Duration::from_millis(250)).await.unwrap();
        queue.requeue("ledger", &message).await.unwrap();
    }
    let wanted: Vec<u32> = first.iter().map(|count| 4 * count).collect();
    until(&namespace, &wanted).await;

    let mut consumer = queue.consume("ledger", 8);
    let mut met = BTreeMap::<Bytes, u32>::new();
    for _ in 0..400 {
        let next = tokio::time::timeout(BOUND, consumer.next()).await.unwrap();
        let (message, receipt) = next.unwrap();
        *met.entry(message.sealed.body).or_default() += 1;
        receipt.ack().await;
    }
    assert!(met.len() == 100 && met.values().all(|count| *count == 4), "{met:?}");
    until(&namespace, &[0; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_version_without_shards_are_delivered() {
    let namespace = Used::new();
    let queue = worker(&namespace, 3).await;
    let connection = Connection::connect(&shared_rabbit(), ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for (exchange, key) in [("in", "acme.paid"), ("retry", "ledger"), ("delay.250", "ledger")] {
        let (exchange, options) =
            (format!("{namespace}.{exchange}"), BasicPublishOptions::default());
        let properties = BasicProperties::default().with_message_id("acme/evt_1".into());
        let sent =
            channel.basic_publish(exchange.into(), key.into(), options, b"old", properties).await;
        sent.unwrap().await.unwrap();
    }
    until(&namespace, &[3, 0, 0]).await;
    assert_eq!(depth(&shared_rabbit(), &format!("{namespace}.unrouted")).await, 0);
    drop(queue);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_that_has_a_new_count_first_sends_only_where_workers_consume() {
    let namespace = Used::new();
    let old = worker(&namespace, 1).await;
    let ingress = connected(Amqp::ingress(settings(&namespace, 4))).await;
    for id in 0..20 {
        ingress.publish(&event(&format!("evt_{id}"))).await.unwrap();
    }
    until(&namespace, &[20, 0, 0, 0]).await;
    old.subscribe(counted(4)).await;
    for id in 0..100 {
        ingress.publish(&event(&format!("evt_{id}"))).await.unwrap();
    }
    let all = depths(&namespace, 4).await;
    assert!(all.iter().sum::<u32>() == 120 && all.iter().all(|count| *count > 10), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_left_behind_while_the_count_changes() {
    let namespace = Used::new();
    let ingress = connected(Amqp::ingress(settings(&namespace, 1))).await;
    let (sent, stop) =
        (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::new(AtomicBool::new(false)));
    let publishing = tokio::spawn({
        let (ingress, sent, stop) = (ingress.clone(), Arc::clone(&sent), Arc::clone(&stop));
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            for id in 0.. {
                tick.tick().await;
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let event = event(&format!("evt_{id}"));
                match ingress.publish(&event).await {
                    Ok(()) => drop(sent.lock().unwrap().insert(format!("evt_{id}"))),
                    Err(QueueError::Timeout(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    // One worker follows each change. The others have the former count and end later.
    let follower = Counting::start(&namespace, 1).await;
    let (mut met, mut former) = (BTreeSet::new(), Counting::start(&namespace, 1).await);
    for (step, count) in [4, 2, 16, 3, 1, 2].into_iter().enumerate() {
        if step % 2 == 0 {
            ingress.subscribe(counted(count)).await;
            follower.queue.subscribe(counted(count)).await;
        } else {
            follower.queue.subscribe(counted(count)).await;
            ingress.subscribe(counted(count)).await;
        }
        let next = Counting::start(&namespace, count).await;
        met.extend(std::mem::replace(&mut former, next).end().await);
    }
    stop.store(true, Ordering::Release);
    publishing.await.unwrap();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert!(sent.len() > 100, "{}", sent.len());
    eventually("each event was met", BOUND, async || {
        let mut all = met.clone();
        for worker in [&follower, &former] {
            all.extend(worker.met.lock().unwrap().keys().cloned());
        }
        sent.is_subset(&all).then_some(())
    })
    .await;
    until(&namespace, &[0; 16]).await;
    assert_eq!(depth(&shared_rabbit(), &format!("{namespace}.unrouted")).await, 0);
    follower.end().await;
    former.end().await;

    // Nothing of the former counts is bound any more: no event is sent twice.
    let queue = worker(&namespace, 2).await;
    for id in 0..50 {
        queue.publish(&event(&format!("last_{id}"))).await.unwrap();
    }
    let all = depths(&namespace, 16).await;
    assert!(all[0] > 5 && all[1] > 5 && all[0] + all[1] == 50, "{all:?}");
    assert!(all[2..].iter().all(|count| *count == 0), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn former_shards_are_consumed_in_their_order_and_deleted_ones_come_back() {
    let namespace = Used::new();
    let queue = worker(&namespace, 4).await;
    let ids: Vec<String> = (0..100).map(|id| format!("evt_{id}")).collect();
    for id in &ids {
        queue.publish(&event(id)).await.unwrap();
    }
    let mut before = Vec::new();
    for at in 0..4 {
        let mut walk = queue.walk(Place::Work("ledger", at)).await.unwrap();
        let mut bodies = Vec::new();
        while let Some((message, _)) = walk.next().await.unwrap() {
            bodies.push(message.sealed.body);
        }
        walk.finish().await.unwrap();
        assert!(bodies.len() > 10, "{bodies:?}");
        before.push(bodies);
    }
    queue.close().await;

    let queue = worker(&namespace, 1).await;
    let mut consumer = queue.consume("ledger", 1);
    let mut met = Vec::new();
    for _ in 0..100 {
        let next = tokio::time::timeout(BOUND, consumer.next()).await.unwrap();
        let (message, receipt) = next.unwrap();
        met.push(message.sealed.body);
        receipt.ack().await;
    }
    for bodies in before {
        let order: Vec<_> = met.iter().filter(|body| bodies.contains(body)).cloned().collect();
        assert_eq!(order, bodies);
    }

    // An operator deletes a former shard: nobody needs it. The first queue is declared again.
    delete(&shard(&namespace, 3)).await;
    delete(&shard(&namespace, 0)).await;
    // Until then it is unrouted.
    let receiving = tokio::spawn(async move { consumer.next().await.unwrap().0.sealed.id });
    eventually("the queue is back", BOUND, async || {
        queue.publish(&event("evt_again")).await.ok()?;
        receiving.is_finished().then_some(())
    })
    .await;
    assert_eq!(receiving.await.unwrap(), "acme/evt_again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_first_queue_was_deleted_is_kept_as_unrouted() {
    let namespace = Used::new();
    worker(&namespace, 4).await.close().await;
    let ingress = connected(Amqp::ingress(settings(&namespace, 4))).await;
    delete(&shard(&namespace, 0)).await;
    for id in 0..50 {
        ingress.publish(&event(&format!("evt_{id}"))).await.unwrap();
    }
    let mut all = depth(&shared_rabbit(), &format!("{namespace}.unrouted")).await;
    assert!(all > 5, "{all}");
    for at in 1..4 {
        all += depth(&shared_rabbit(), &shard(&namespace, at)).await;
    }
    assert_eq!(all, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_learns_what_others_applied_and_unbinds_what_was_bound_again() {
    let namespace = Used::new();
    let ingress = connected(Amqp::ingress(settings(&namespace, 1))).await;
    let stays = Counting::start(&namespace, 1).await;
    // A worker tries another number, and is rolled back.
    worker(&namespace, 4).await.close().await;
    for id in 0..50 {
        ingress.publish(&event(&format!("evt_{id}"))).await.unwrap();
    }
    eventually("each event was met", LEARNED, async || {
        (stays.met.lock().unwrap().len() == 50).then_some(())
    })
    .await;

    // All have the new number. A worker with the former one reconnects, and binds again.
    ingress.subscribe(counted(4)).await;
    stays.queue.subscribe(counted(4)).await;
    let connection = Connection::connect(&shared_rabbit(), ConnectionProperties::default()).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    for (exchange, key) in [("events", "acme.#"), ("retry", "ledger")] {
        let (queue, exchange) = (shard(&namespace, 0), format!("{namespace}.{exchange}"));
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            options,
            FieldTable::default(),
        );
        bound.await.unwrap();
    }
    let count = AtomicU32::new(0);
    let next = || format!("again_{}", count.fetch_add(1, Ordering::Relaxed));
    eventually("each event comes once", LEARNED, async || {
        let ids: Vec<String> = (0..10).map(|_| next()).collect();
        let last = next();
        let met = |id: &String| stays.met.lock().unwrap().get(id).copied();
        // The retry of a copy is due before the one of the last event.
        for ids in [ids.as_slice(), std::slice::from_ref(&last)] {
            for id in ids {
                ingress.publish(&event(id)).await.ok()?;
            }
            let all = async || ids.iter().all(|id| met(id).is_some()).then_some(());
            eventually("they are met", BOUND, all).await;
        }
        ids.iter().all(|id| met(id) == Some(1)).then_some(())
    })
    .await;
    stays.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_shards_and_moves_what_is_in_former_ones() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), "attempts = 2").await.unwrap();
    let stack = &world.stack;
    let json = |arguments: &[&str]| {
        let done = stack.zentra(arguments);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let mut first = stack.worker().await;
    stack.replace("[destination.ledger]\n", "[destination.ledger]\nshards = 4\n");
    reload(stack, &first).await;
    reload(stack, &world.ingress).await;
    first.process.terminate(BOUND).unwrap();
    for id in 0..20 {
        world
            .send(&format!("evt_{id}"), &transfer(&format!("evt_{id}"), &format!("trf_{id}"), 5))
            .await;
    }
    let queues = json(&["destination", "shards", "ledger", "--json"]);
    let queues = queues["items"].as_array().unwrap();
    let waiting = |at: usize| queues[at]["messages"].as_u64().unwrap();
    assert!(queues.len() == 4 && queues.iter().all(|queue| queue["current"] == true), "{queues:?}");
    assert!((0..4).map(waiting).sum::<u64>() == 20 && waiting(3) > 0, "{queues:?}");
    // It fails, because no worker is left.
    let status: Value =
        serde_json::from_slice(&stack.zentra(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["destinations"][0]["backlog"], 20, "{status}");

    // No worker runs, and there is one queue from now on.
    stack.replace("shards = 4\n", "shards = 1\n");
    reload(stack, &world.ingress).await;
    let former = 20 - waiting(0);
    let tried = json(&["destination", "reshard", "ledger", "--dry-run", "--json"]);
    assert_eq!(tried["moved"], former, "{tried}");
    assert_eq!(depths(&stack.namespace, 1).await[0], u32::try_from(waiting(0)).unwrap());
    let moved = stack.zentra(&["destination", "reshard", "ledger", "--because", "one is enough"]);
    let moved = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(moved.contains(&format!("{former} messages of former shards moved")), "{moved}");
    assert_eq!(depths(&stack.namespace, 4).await, [20, 0, 0, 0]);
    let audit = json(&["audit", "--json"]);
    assert!(audit.to_string().contains(&format!("{former} moved")), "{audit}");

    let _worker = stack.worker().await;
    for id in 0..20 {
        world.until(&format!("evt_{id}"), delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 20);
    let unknown = stack.zentra(&["destination", "shards", "nobody"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown destination nobody"));
}
