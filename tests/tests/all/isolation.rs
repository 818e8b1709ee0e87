//! A destination that fails costs little, and delays no other destination.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use zentra_core::clock::Timestamp;
use zentra_store::journal::{Delivery, HistoryEvent};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::world::{BOUND, World, count, delivered};
use zentra_tests::{eventually, namespace, services, shared_rabbit, shared_redis};

const QUICK: &str = r#"attempts = 5, initial = "250ms", multiplier = 1.0, jitter = 0.0"#;

/// A setup whose destination has these additional settings.
async fn world(settings: &str) -> World {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), QUICK).await.unwrap();
    world.stack.replace("timeout = \"1s\"\n", &format!("timeout = \"1s\"\n{settings}\n"));
    world
}

async fn send(world: &World, id: &str) {
    world.send(id, &transfer(id, &format!("trf_{id}"), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_takes_no_messages_and_burns_no_attempts_and_closes_by_a_probe() {
    let settings =
        "concurrency = 1\ncircuit = { failures = 3, first_pause = \"2s\", pause = \"2s\" }";
    let world = world(settings).await;
    // Three in a row, and the probe.
    world.ledger.take_turns((0..4).map(|_| Turn::Answer(500, Vec::new())));
    let worker = world.stack.worker().await;
    for at in 0..3 {
        send(&world, &format!("evt_{at}")).await;
    }
    let metric = async |name: &str| worker.metric(&world.stack.http, &[name]).await;
    eventually("the circuit is open", BOUND, async || {
        (metric("zentra_worker_circuit_open{").await == 1.0).then_some(())
    })
    .await;
    let opened = Instant::now();
    for at in 3..20 {
        send(&world, &format!("evt_{at}")).await;
    }
    for at in 0..20 {
        world.until(&format!("evt_{at}"), delivered).await;
    }
    // Twice the pause, minus the time that passed before it was seen.
    assert!(opened.elapsed() > Duration::from_secs(3), "{:?}", opened.elapsed());
    assert_eq!(metric("zentra_worker_circuit_opened_total").await, 2.0);
    assert_eq!(metric("zentra_worker_circuit_open{").await, 0.0);
    let mut failed = 0;
    for at in 0..20 {
        let known = world.delivery(&format!("evt_{at}")).await.unwrap();
        failed += count(&known, |what| matches!(what, HistoryEvent::Failed { .. }));
    }
    assert_eq!((failed, world.ledger.seen().len()), (4, 24), "as many as were answered with 500");
}

/// Only one of two workers reaches the destination.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_circuit_is_open_holds_nothing_that_another_one_can_deliver() {
    const EVENTS: usize = 63;
    let circuit = "circuit = { failures = 5, first_pause = \"10m\", pause = \"10m\" }";
    let world = world(circuit).await;
    let (works, refuses) =
        (world.ledger.url.clone(), format!("http://127.0.0.1:{}/", services::free_port()));
    world.stack.replace(&works, &refuses);
    let cut_off = world.stack.worker().await;
    for at in 0..EVENTS {
        send(&world, &format!("evt_{at}")).await;
    }
    eventually("its circuit is open", BOUND, async || {
        let open = cut_off.metric(&world.stack.http, &["zentra_worker_circuit_open{"]).await;
        (open == 1.0).then_some(())
    })
    .await;
    world.stack.replace(&refuses, &works);
    let _works = world.stack.worker().await;
    eventually("all of them are delivered", BOUND, async || {
        (world.ledger.rows().ok()?.len() == EVENTS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_at_its_second_attempt_is_delivered_though_each_first_one_fails() {
    let world = world("concurrency = 8").await;
    world.ledger.fail_first_attempts(1);
    for at in 0..200 {
        send(&world, &format!("evt_{at}")).await;
    }
    // Retries queue behind waiting messages, so enough first attempts fail in a row, however fast
    // the callbacks were sent.
    let worker = world.stack.worker().await;
    let done = Duration::from_secs(180);
    eventually("all of them are delivered", done, async || {
        (world.ledger.rows().ok()?.len() == 200).then_some(())
    })
    .await;
    let opened = worker.metric(&world.stack.http, &["zentra_worker_circuit_opened_total"]).await;
    assert!(opened > 0.0, "the circuit never opened");
    assert_eq!(world.ledger.seen().len(), 400, "one failed attempt each, and one that worked");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_attempts_a_second_are_made_than_a_destination_bears() {
    let world = world("rate = 10").await;
    let worker = world.stack.worker().await;
    let started = Instant::now();
    for at in 0..25 {
        send(&world, &format!("evt_{at}")).await;
    }
    for at in 0..25 {
        world.until(&format!("evt_{at}"), delivered).await;
    }
    // Ten at once, and the others at ten per second.
    assert!(started.elapsed() > Duration::from_millis(1400), "{:?}", started.elapsed());
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stands_for_an_address_inside_is_reached_only_where_that_is_meant() {
    let world = world("").await;
    world.stack.replace("url = \"http://127.0.0.1:", "url = \"http://localhost:");
    let worker = world.stack.worker().await;
    send(&world, "evt_1").await;
    let refused = |what: &HistoryEvent| {
        matches!(what, HistoryEvent::Failed { result, .. }
            if result.error.as_ref().is_some_and(|error| error.contains("allow_private = true")))
    };
    world.until("evt_1", |d| count(d, refused) == 1).await;
    assert!(world.ledger.seen().is_empty());
    world.stack.replace("timeout = \"1s\"\n", "timeout = \"1s\"\nallow_private = true\n");
    worker.process.hang_up();
    world.until("evt_1", delivered).await;
}

/// The 99th percentile of the time from receipt to delivery.
async fn p99(world: &World, ids: std::ops::Range<usize>) -> Duration {
    let took = |known: &Delivery| {
        let end = known
            .history
            .iter()
            .find(|e| matches!(e.what, HistoryEvent::Delivered { .. }))
            .unwrap();
        let received: Timestamp = known.event.received_at.unwrap();
        end.at.since(received)
    };
    let mut all = Vec::new();
    for at in ids.clone() {
        send(world, &format!("evt_{at}")).await;
    }
    for at in ids {
        all.push(took(&world.until(&format!("evt_{at}"), delivered).await));
    }
    all.sort();
    all[all.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_and_one_that_refuses_slow_no_third_one() {
    let world = world("").await;
    let worker = world.stack.worker().await;
    let before = p99(&world, 0..100).await;

    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = hangs.local_addr().unwrap();
    let refusing = services::free_port();
    for (name, address) in
        [("hangs", hanging.to_string()), ("refuses", format!("127.0.0.1:{refusing}"))]
    {
        world.stack.add(&format!(
            "[destination.{name}]\nurl = \"http://{address}/\"\nsubscribe = [\"acme.#\"]\n\
             timeout = \"1s\"\nretry = {{ {QUICK} }}"
        ));
    }
    world.ingress.process.hang_up();
    worker.process.hang_up();
    let attempts = |name: &str| ["zentra_worker_attempts_total".to_owned(), format!("\"{name}\"")];
    eventually("both are subscribed", BOUND, async || {
        send(&world, "evt_subscribed").await;
        let mut all = 0;
        for name in ["hangs", "refuses"] {
            let [metric, name] = attempts(name);
            let failed = [&*metric, &*name, "failed"];
            all += usize::from(worker.metric(&world.stack.http, &failed).await > 0.0);
        }
        (all == 2).then_some(())
    })
    .await;
    let after = p99(&world, 100..200).await;
    // Other tests run at the same time. Behind the destination that hangs it would take a second.
    assert!(after <= before * 2 + Duration::from_millis(500), "{before:?}, then {after:?}");
}
