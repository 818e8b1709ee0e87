//! `zentra status`: what an operator sees first.

use serde_json::Value;
use zentra_core::clock::Timestamp;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services;
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, sign};

use crate::standalone::Shop;

fn status(stack: &Stack) -> (Option<i32>, Value) {
    let printed = stack.zentra(&["status", "--json"]);
    (printed.status.code(), serde_json::from_slice(&printed.stdout).unwrap())
}

fn of<'a>(status: &'a Value, list: &str, name: &str) -> &'a Value {
    let all = status[list].as_array().unwrap();
    let named = |one: &&Value| one["source"] == name || one["destination"] == name;
    all.iter().find(named).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_source_each_destination_and_each_part_is_told_with_what_is_wrong() {
    let mut redis = services::redis();
    let world =
        World::start(&shared_rabbit(), &redis.url(), &namespace(), "attempts = 1").await.unwrap();
    let (code, empty) = status(&world.stack);
    assert_eq!((code, &empty["parts"][0]["up"]), (Some(2), &true.into()), "there is no worker");
    assert_eq!(empty["parts"][2]["name"], "workers");
    assert_eq!(of(&empty, "sources", "acme")["findings"][0], "nothing_seen");
    assert_eq!(of(&empty, "destinations", "ledger")["dead"], Value::Object(Default::default()));

    // One event waits for a worker.
    world.send("evt_0", &transfer("evt_0", "trf_0", 1)).await;
    let stuck = status(&world.stack).1;
    let ledger = of(&stuck, "destinations", "ledger");
    assert_eq!(ledger["findings"], serde_json::json!(["no_worker", "stuck"]));
    assert_eq!(ledger["backlog"], 1);

    let _worker = world.stack.worker().await;
    world.until("evt_0", delivered).await;
    for at in 1..9 {
        let (id, turn) = (format!("evt_{at}"), Turn::Answer(500, Vec::new()));
        world.ledger.take_turns([turn]);
        world.send(&id, &transfer(&id, "trf_1", 1)).await;
        world.until(&id, dead).await;
    }
    // Unsigned callbacks.
    let url = format!("{}/in/acme", world.ingress.listen);
    for _ in 0..6 {
        let headers = sign::acme("evt_x", sign::now(), b"another");
        let answer = world.stack.http.post(&url, &headers, "{}").await.unwrap();
        assert_eq!(answer.status, 401);
    }
    let all = eventually("the refused are kept", BOUND, async || {
        let (_, all) = status(&world.stack);
        (of(&all, "sources", "acme")["refused"]["signature_mismatch"] == 6).then_some(all)
    })
    .await;
    let acme = of(&all, "sources", "acme");
    assert_eq!(acme["findings"], serde_json::json!(["refusing"]));
    assert_eq!((&acme["events"], &acme["keys_in_use"][0]), (&9.into(), &"k1".into()));
    let accepted = acme["last_accepted"].as_str().unwrap();
    assert!(accepted.parse::<Timestamp>().is_ok(), "{acme}");
    let ledger = of(&all, "destinations", "ledger");
    assert_eq!(ledger["findings"], serde_json::json!(["failing", "dead_letters"]));
    assert_eq!((&ledger["attempts"], &ledger["succeeded"]), (&9.into(), &1.into()));
    assert_eq!((&ledger["dead"]["exhausted"], &ledger["backlog"]), (&8.into(), &0.into()));

    let shown = world.stack.zentra(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for printed in [
        "redis      up",
        "rabbitmq   up",
        "workers    up",
        "refusing",
        "failing, dead letters",
        "11 %",
    ] {
        assert!(shown.contains(printed), "{printed}: {shown}");
    }

    redis.kill();
    let (code, away) = status(&world.stack);
    assert_eq!((code, &away["parts"][0]["up"]), (Some(2), &false.into()));
    assert_eq!(away["parts"][1]["up"], true, "what is left is told: {away}");
    assert_eq!(of(&away, "destinations", "ledger")["backlog"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_it_is_told_as_well() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    shop.send(&program, "evt_1").await;
    shop.until("evt_1", "delivered").await;
    let (code, all) = status(&shop.stack);
    assert_eq!((code, all["parts"].as_array().unwrap().len()), (Some(0), 2));
    assert_eq!((&all["parts"][0]["name"], &all["parts"][1]["up"]), (&"file".into(), &true.into()));
    assert_eq!(of(&all, "sources", "acme")["findings"], Value::Array(Vec::new()));
    let ledger = of(&all, "destinations", "ledger");
    assert_eq!((&ledger["backlog"], &ledger["succeeded"]), (&0.into(), &1.into()));
    assert_eq!(of(&all, "sources", "github")["findings"][0], "nothing_seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_queue_that_was_deleted_is_told_and_declared_again() {
    let (rabbit, redis, name) = (services::rabbit(), services::redis(), namespace());
    let world = World::start(&rabbit.url(), &redis.url(), &name, "attempts = 1").await.unwrap();
    let worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;
    let queue = format!("{name}.work.ledger");
    rabbit.delete_queue(&queue);
    eventually("it is declared again", BOUND, async || {
        let ledger = of(&status(&world.stack).1, "destinations", "ledger").clone();
        ledger["backlog"].is_number().then_some(())
    })
    .await;
    world.send("evt_2", &transfer("evt_2", "trf_2", 1)).await;
    world.until("evt_2", delivered).await;
    // Without a worker, nobody declares it again.
    drop(worker);
    rabbit.delete_queue(&queue);
    let ledger = of(&status(&world.stack).1, "destinations", "ledger").clone();
    let findings = ledger["findings"].as_array().unwrap();
    assert!(findings.contains(&"queue_missing".into()), "{ledger}");
}

/// The broker confirms an event that only the archive holds. Its provider is asked to send it
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_its_queues_were_deleted_is_sent_again_and_delivered() {
    let (rabbit, redis, name) = (services::rabbit(), services::redis(), namespace());
    let world = World::start(&rabbit.url(), &redis.url(), &name, "attempts = 1").await.unwrap();
    for queue in ["work.ledger", "unrouted"] {
        rabbit.delete_queue(&format!("{name}.{queue}"));
    }
    let ids: Vec<_> = (0..50).map(|at| format!("evt_{at}")).collect();
    for id in &ids {
        let body = transfer(id, "trf_1", 1);
        let signed = sign::acme(id, sign::now(), body.as_bytes());
        eventually("it is accepted", BOUND, async || {
            let code = world.post(&signed, &body).await?.status.as_u16();
            assert!([200, 503].contains(&code), "{code}");
            (code == 200).then_some(())
        })
        .await;
    }
    let _worker = world.stack.worker().await;
    for id in &ids {
        world.until(id, delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), ids.len());
}
