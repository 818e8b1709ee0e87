//! "The customer says that transfer trf_8172 never arrived": what an operator finds with only
//! that.

use http::Method;
use lapin::options::BasicGetOptions;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;
use crate::standalone::Shop;

fn find(stack: &Stack, text: &str) -> (Option<i32>, String) {
    let found = stack.zentra(&["event", "find", text]);
    (found.status.code(), String::from_utf8_lossy(&found.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_found_by_its_number_wherever_its_callback_is() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    // Accepted, and not claimed by a worker.
    world.send("evt_new", &transfer("evt_new", "trf_17", 1)).await;
    let (code, waits) = find(stack, "trf_17");
    assert_eq!(code, Some(0), "{waits}");
    for printed in ["acme/evt_new", "archive", "no delivery of this event is remembered"] {
        assert!(waits.contains(printed), "{printed}: {waits}");
    }
    let worker = stack.worker().await;
    world.until("evt_new", delivered).await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_8172", 1)).await;
    world.until("evt_dead", dead).await;
    let forged = transfer("evt_x", "trf_8172", 5);
    world.post(&sign::acme("evt_x", sign::now(), b"another"), &forged).await.unwrap();
    let shown = eventually("the refused one is kept", BOUND, async || {
        let (_, shown) = find(stack, "trf_8172");
        shown.contains("refused: zentra refused show").then_some(shown)
    })
    .await;
    for printed in [
        "acme/evt_dead  transfer.settled",
        "dead letters of ledger",
        "ledger/acme/evt_dead: dead (exhausted)",
        "zentra event show evt_dead",
    ] {
        assert!(shown.contains(printed), "{printed}: {shown}");
    }
    assert!(!shown.contains("evt_new"), "{shown}");
    let (code, none) = find(stack, "trf_81729");
    assert!(code == Some(1) && none.contains("no stored body contains \"trf_81729\""), "{none}");
    assert_eq!(stack.zentra(&["event", "find", ""]).status.code(), Some(64));
    drop(worker);
}

/// RabbitMQ gives up a message of a work queue after a hundred deliveries, and a look would be a
/// delivery.
#[tokio::test(flavor = "multi_thread")]
async fn no_look_takes_anything_out_of_a_work_queue() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    for at in 0..5 {
        world.send(&format!("evt_{at}"), &transfer(&format!("evt_{at}"), "trf_17", 1)).await;
    }
    let api = Api::start(stack).await;
    let viewer = api.token(&["vera", "--payloads"]);
    let headers = vec![("authorization", format!("Bearer {viewer}"))];
    let paths = [
        "/v1/events/evt_unknown",
        "/v1/events/evt_1",
        "/v1/events",
        "/v1/find?text=trf_17",
        "/v1/status",
        "/v1/destinations",
        "/v1/unrouted",
        "/v1/dead",
    ];
    for path in paths {
        let answer = stack.http.send(Method::GET, &api.url(path), &headers, "").await.unwrap();
        assert!([200, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.body);
    }
    let commands: [&[&str]; 6] = [
        &["event", "show", "evt_unknown"],
        &["event", "show", "evt_1"],
        &["event", "find", "trf_17"],
        &["event", "list"],
        &["dead", "list"],
        &["status"],
    ];
    for command in commands {
        stack.zentra(command);
    }
    let connect = Connection::connect(&stack.rabbit, ConnectionProperties::default());
    let channel = connect.await.unwrap().create_channel().await.unwrap();
    let work = format!("{}.work.ledger", stack.namespace);
    for _ in 0..5 {
        let got = channel.basic_get(work.clone().into(), BasicGetOptions::default()).await.unwrap();
        assert!(!got.unwrap().delivery.redelivered, "it was taken out and given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_is_found_by_the_archive() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    for id in ["evt_1", "evt_2"] {
        shop.send(&program, id).await;
        shop.until(id, "delivered").await;
    }
    let found = shop.stack.zentra(&["event", "find", "trf_8172", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["events"][0]["deliveries"]["ledger/acme/evt_1"], "delivered");
    assert_eq!(found["events"][1]["places"], serde_json::json!(["archive"]));
    assert_eq!((&found["archived"], &found["more"]), (&true.into(), &false.into()));
}
