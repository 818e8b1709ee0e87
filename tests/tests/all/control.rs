//! Live controls: what operators say, workers hear.

use serde_json::Value;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::{BOUND, World, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis};

use crate::standalone::Shop;

fn ledger(stack: &Stack) -> Value {
    let told = stack.zentra(&["destination", "list", "--json"]);
    let all: Value = serde_json::from_slice(&told.stdout).unwrap();
    all[0].clone()
}

fn done(stack: &Stack, arguments: &[&str]) -> String {
    let done = stack.zentra(arguments);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

async fn until(stack: &Stack, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, BOUND, async || Some(ledger(stack)).filter(&wanted)).await
}

/// The backlog of the work queue, all of it ready to be taken.
async fn waits(stack: &Stack, worker: &Program, count: f64) {
    let ready = ["zentra_queue_messages", "\"work\""];
    eventually("they wait", BOUND, async || {
        (worker.metric(&stack.http, &ready).await == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_destination_is_left_alone_by_all_workers_also_new_ones_until_it_is_resumed() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let stack = &world.stack;
    let workers = [stack.worker().await, stack.worker().await];
    world.send("evt_0", &transfer("evt_0", "trf_0", 1)).await;
    world.until("evt_0", delivered).await;
    assert_eq!(until(stack, "both are seen", |l| l["workers"] == 2).await["circuit"], "closed");

    let pause = ["destination", "pause", "ledger", "--by", "ada", "--because", "it is migrated"];
    assert_eq!(done(stack, &pause), "ledger is paused\n");
    let paused = until(stack, "both have heard", |l| l["heard"] == 2).await;
    assert_eq!(paused["pause"]["by"], "ada");
    for at in 1..4 {
        let id = format!("evt_{at}");
        world.send(&id, &transfer(&id, "trf_1", 1)).await;
    }
    drop(workers);
    let worker = stack.worker().await;
    until(stack, "a new one hears it, too", |l| l["heard"] == 1 && l["workers"] == 1).await;
    waits(stack, &worker, 3.0).await;
    assert_eq!(world.ledger.seen().len(), 1, "nothing is attempted");
    let status = stack.zentra(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let told = &status["destinations"][0];
    assert_eq!(
        (&told["findings"][0], &told["paused"]["because"]),
        (&"paused".into(), &"it is migrated".into())
    );

    done(stack, &["destination", "resume", "ledger", "--by", "ada"]);
    for at in 1..4 {
        let done = world.until(&format!("evt_{at}"), delivered).await;
        assert_eq!(done.record.attempt, 1, "a pause burns no attempt");
    }
    let audit = done(stack, &["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let told: Vec<_> = audit.as_array().unwrap().iter().map(|act| &act["action"]).collect();
    assert_eq!(told, ["destination resume", "destination pause"]);
    assert_eq!(
        (&audit[1]["on"], &audit[1]["because"]),
        (&"ledger".into(), &"it is migrated".into())
    );
    let shown = done(stack, &["audit"]);
    assert!(shown.contains("ada  destination pause ledger: it is migrated"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_is_closed_by_an_operator_and_no_earlier_word_closes_it() {
    let retry = "attempts = 9, initial = \"250ms\", multiplier = 1.0, jitter = 0.0";
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let stack = &world.stack;
    stack.replace(
        "timeout = \"1s\"",
        "timeout = \"1s\"\ncircuit = { failures = 2, pause = \"1h\" }",
    );
    // Said before the circuit has opened, it is past by then.
    let close = ["destination", "close-circuit", "ledger"];
    done(stack, &close);
    world.ledger.take_turns((0..2).map(|_| Turn::Answer(500, Vec::new())));
    let _worker = stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    until(stack, "it opens", |l| l["circuit"] == "open").await;
    let shown = done(stack, &["destination", "list"]);
    assert!(shown.contains("open      runs"), "{shown}");
    assert_eq!(done(stack, &close), "ledger is told to try again\n");
    let done = world.until("evt_1", delivered).await;
    assert_eq!(done.record.attempt, 3);
    until(stack, "it is closed", |l| l["circuit"] == "closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_destination_is_told_and_nothing_is_audited() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let stack = &world.stack;
    let wrong = stack.zentra(&["destination", "pause", "ledgr"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("The config has: ledger"));
    assert_eq!(done(stack, &["audit"]), "");
    assert_eq!(ledger(stack)["workers"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_it_is_the_same() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    done(&shop.stack, &["destination", "pause", "ledger"]);
    until(&shop.stack, "it has heard", |l| l["heard"] == 1).await;
    shop.send(&program, "evt_1").await;
    waits(&shop.stack, &program, 1.0).await;
    let workers = done(&shop.stack, &["workers"]);
    assert!(workers.lines().count() == 2 && workers.contains("ledger"), "{workers}");
    done(&shop.stack, &["destination", "resume", "ledger", "--because", "done"]);
    shop.until("evt_1", "delivered").await;
    let audit = done(&shop.stack, &["audit", "--limit", "1"]);
    assert!(audit.contains("destination resume ledger: done"), "{audit}");
}
