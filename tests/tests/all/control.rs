//! Live controls: workers obey what operators set.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_store::journal::{Delivery, HistoryEvent};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::{BOUND, World, count, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::standalone::Shop;

fn ledger(stack: &Stack) -> Value {
    let printed = stack.zentra(&["destination", "list", "--json"]);
    let all: Value = serde_json::from_slice(&printed.stdout).unwrap();
    all["items"][0].clone()
}

fn done(stack: &Stack, arguments: &[&str]) -> String {
    let done = stack.zentra(arguments);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

async fn until(stack: &Stack, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, BOUND, async || Some(ledger(stack)).filter(&wanted)).await
}

/// The backlog of the work queue, all of it ready.
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
    let printed = &status["destinations"][0];
    assert_eq!(
        (&printed["findings"][0], &printed["paused"]["because"]),
        (&"paused".into(), &"it is migrated".into())
    );

    let resumed = done(stack, &["destination", "resume", "ledger", "--by", "ada", "--json"]);
    let resumed: Value = serde_json::from_str(&resumed).unwrap();
    assert_eq!((&resumed["destination"], &resumed["pause"]), (&"ledger".into(), &Value::Null));
    for at in 1..4 {
        let done = world.until(&format!("evt_{at}"), delivered).await;
        assert_eq!(done.record.attempt, 1, "a pause burns no attempt");
    }
    let audit = done(stack, &["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let printed: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|act| &act["action"]).collect();
    assert_eq!(printed, ["destination resume", "destination pause"]);
    assert_eq!(
        (&audit["items"][1]["on"], &audit["items"][1]["because"]),
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
        "timeout = \"1s\"\ncircuit = { failures = 2, first_pause = \"1h\", pause = \"1h\" }",
    );
    // Set before the circuit opened, so it is over by then.
    let close = ["destination", "close-circuit", "ledger"];
    done(stack, &close);
    world.ledger.take_turns((0..2).map(|_| Turn::Answer(500, Vec::new())));
    let _worker = stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    until(stack, "it opens", |l| l["circuit"] == "open").await;
    let shown = done(stack, &["destination", "list"]);
    assert!(shown.contains("open     running"), "{shown}");
    assert_eq!(done(stack, &close), "ledger is attempting again\n");
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
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("The configuration has: ledger"));
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

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_with_dead_letters_is_in_the_audit_and_what_they_only_look_at_is_not() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    let _worker = stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", dead).await;
    let chosen = ["dead", "requeue", "--reason", "exhausted", "--by", "ada"];
    done(stack, &chosen);
    assert_eq!(done(stack, &["audit"]), "", "without --yes it only counts");
    let shown: Value =
        serde_json::from_str(&done(stack, &["dead", "show", "evt_1", "--json"])).unwrap();
    assert_eq!(
        (&shown["reason"], &shown["record"]["state"]),
        (&"exhausted".into(), &"dead".into())
    );
    assert_eq!(shown["letter_bytes"], transfer("evt_1", "trf_1", 1).len());
    let printed = [&chosen[..], &["--because", "it is mended", "--yes"]].concat();
    done(stack, &printed);
    world.until("evt_1", delivered).await;
    done(stack, &["unrouted", "requeue", "--source", "acme", "--by", "bob"]);
    let nothing = stack.zentra(&["refused", "admit", "17", "--by", "bob"]);
    assert_eq!(nothing.status.code(), Some(1));
    let audit = done(stack, &["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let printed: Vec<_> = audit["items"].as_array().unwrap().iter().rev().collect();
    let of =
        |at: usize, name: &str| printed[at].get(name).and_then(Value::as_str).unwrap_or_default();
    let line = |at| ["by", "action", "on", "because", "result"].map(|name| of(at, name));
    let requeue = ["ada", "dead requeue", "reason=exhausted", "it is mended"];
    assert_eq!(line(0)[..4], requeue);
    assert_eq!((&line(1)[..4], line(1)[4]), (&requeue[..], "1 of 1"));
    assert_eq!(line(2), ["bob", "unrouted requeue", "source=acme", "", ""]);
    assert_eq!(line(5), ["bob", "refused admit", "17", "", "0 of 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_tells_what_happens_and_only_of_what_is_asked() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    world.send("evt_before", &transfer("evt_before", "trf_1", 1)).await;
    world.until("evt_before", delivered).await;
    let mut tail = stack.command("zentra");
    tail.args(["tail", "--json", "--destination", "ledger"]).stdout(Stdio::piped());
    let mut tail = tail.spawn().unwrap();
    let (tell, mut printed) = tokio::sync::mpsc::unbounded_channel();
    let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    // Until it has begun to listen.
    let mut first = None;
    for at in 1..500 {
        let id = format!("evt_{at}");
        world.send(&id, &transfer(&id, "trf_1", 1)).await;
        world.until(&id, delivered).await;
        first = printed.try_recv().ok();
        if first.is_some() {
            break;
        }
    }
    // It may have begun between an event's claim and its settle. The settle comes first then.
    let mut line: Value = serde_json::from_str(&first.unwrap()).unwrap();
    let mut key = None;
    loop {
        assert_eq!(line["type"], "transfer.settled");
        match line["what"].as_str().unwrap() {
            "claimed" => key = line["delivery"].as_str().map(str::to_owned),
            "delivered" if key.is_some() => break,
            _ => {}
        }
        if key.is_none() {
            world.send("evt_after", &transfer("evt_after", "trf_1", 1)).await;
        }
        let next = tokio::time::timeout(BOUND, printed.recv()).await.unwrap().unwrap();
        line = serde_json::from_str(&next).unwrap();
    }
    let key = key.unwrap();
    assert_eq!(line["delivery"].as_str(), Some(&*key), "the end of what was claimed");
    assert_ne!(key, "ledger/acme/evt_before");
    tail.kill().unwrap();
    tail.wait().unwrap();
    // A failure to write is an error.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let tail = stack.command("zentra").arg("tail").stdout(full).spawn().unwrap();
    let tail = std::sync::Mutex::new(tail);
    let sent = AtomicUsize::new(0);
    let ended = eventually("it ends", BOUND, async || {
        let id = format!("evt_full_{}", sent.fetch_add(1, Ordering::Relaxed));
        world.send(&id, &transfer(&id, "trf_1", 1)).await;
        tail.lock().unwrap().try_wait().unwrap()
    })
    .await;
    assert_eq!(ended.code(), Some(2));
    let wrong = stack.zentra(&["tail", "--reason", "bored"]);
    assert_eq!(wrong.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_that_claim_an_event_are_told_with_it() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    let body = transfer("evt_1", "trf_1", 1);
    world.send("evt_1", &body).await;
    world.until("evt_1", delivered).await;
    let old = sign::acme("evt_1", sign::now() - 4000, body.as_bytes());
    let forged = sign::acme("evt_1", sign::now(), b"another");
    let unknown = sign::acme("evt_2", sign::now(), b"another");
    for (headers, body) in [(old, &*body), (forged, "{}"), (unknown, "{}")] {
        assert_eq!(world.post(&headers, body).await.unwrap().status, 401);
    }
    let shown = eventually("both are told", BOUND, async || {
        let shown = done(stack, &["event", "show", "ledger/acme/evt_1"]);
        (shown.matches("zentra refused show").count() == 2).then_some(shown)
    })
    .await;
    for printed in ["timestamp_stale from 127.0.0.1 at acme, the same body", "acme, another body"] {
        assert!(shown.contains(printed), "{printed}: {shown}");
    }
    let all: Value =
        serde_json::from_str(&done(stack, &["event", "show", "evt_1", "--json"])).unwrap();
    assert_eq!(
        (&all["deliveries"][0]["record"]["state"], &all["refused"][1]["state"]),
        (&"delivered".into(), &"refused".into())
    );
    let only = eventually("the other one is kept", BOUND, async || {
        let shown = stack.zentra(&["event", "show", "evt_2"]);
        shown.status.success().then(|| String::from_utf8_lossy(&shown.stdout).into_owned())
    })
    .await;
    assert!(only.contains("no callback of this event was accepted"), "{only}");
    assert!(only.contains("signature_mismatch from 127.0.0.1 at acme: zentra refused"), "{only}");
}

const SLOW: &str = "attempts = 3, initial = \"4s\", multiplier = 1.0, jitter = 0.0";

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_is_attempted_now_or_given_up_and_its_message_is_a_copy_when_it_comes() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), SLOW).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    world.ledger.take_turns((0..2).map(|_| Turn::Answer(500, Vec::new())));
    let waiting = |known: &Delivery| known.record.state == State::Waiting;
    for id in ["evt_1", "evt_2"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, waiting).await;
    }
    let release = ["event", "release", "evt_1", "--because", "it is up", "--by", "ada"];
    assert_eq!(done(stack, &release), "ledger/acme/evt_1 is attempted now\n");
    let now = world.until("evt_1", delivered).await;
    assert_eq!((now.record.attempt, now.record.generation), (2, 0), "the attempt that waited");
    let end = ["event", "end", "evt_2", "--because", "sold out", "--by", "ada"];
    assert_eq!(done(stack, &end), "ledger/acme/evt_2 is dead-lettered\n");
    let ended = world.delivery("evt_2").await.unwrap();
    assert_eq!((ended.record.state, ended.reason), (State::Dead, Some(DeadReason::Ended)));
    assert!(done(stack, &["dead", "list", "--reason", "ended"]).contains("sold out"));
    for (id, copy) in [("evt_1", HistoryEvent::Duplicate), ("evt_2", HistoryEvent::DuplicateDead)] {
        world.until(id, |known| count(known, |what| *what == copy) == 1).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
    done(stack, &["dead", "requeue", "evt_2"]);
    world.until("evt_2", delivered).await;
    let audit = done(stack, &["audit"]);
    assert!(audit.contains("ada  event release ledger/acme/evt_1: it is up"), "{audit}");
    assert!(audit.contains("ada  event end ledger/acme/evt_2: sold out"), "{audit}");
    let none = stack.zentra(&["event", "end", "evt_2", "--because", "x"]);
    let printed = String::from_utf8(none.stderr).unwrap();
    assert!(
        printed.contains("evt_2 is not waiting for an attempt:\n  ledger/acme/evt_2: "),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_on_the_file() {
    let shop = Shop::with("", "", "shop", &format!("retry = {{ {SLOW} }}")).await;
    let program = shop.stack.standalone().await;
    shop.ledger.take_turns((0..2).map(|_| Turn::Answer(500, Vec::new())));
    for id in ["evt_1", "evt_2"] {
        shop.send(&program, id).await;
        shop.until(id, "waiting").await;
    }
    done(&shop.stack, &["event", "release", "evt_1", "--because", "it is up"]);
    done(&shop.stack, &["event", "end", "evt_2", "--because", "sold out"]);
    shop.until("evt_1", "delivered").await;
    assert_eq!(shop.until("evt_2", "dead").await["reason"], "ended");
    assert_eq!(shop.ledger.rows().unwrap().len(), 1);
}
