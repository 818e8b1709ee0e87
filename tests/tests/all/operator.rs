//! The `zentra` command, as an operator runs it.

use std::collections::HashSet;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::options::BasicGetOptions;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_rabbitmq::Amqp;
use zentra_store::journal::{Delivery, DeliveryStore, Entry, HistoryEvent};
use zentra_store::queue::{Consumer, Message, Operate, Place, Process, Receipt, Walk};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, folder};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, count, dead, delivered, is_copy};
use zentra_tests::{eventually, namespace, queue_settings, shared_rabbit, shared_redis, sign};

use crate::queue::depth;

/// One attempt only: a failure dead-letters at once.
const ONE: &str = r#"attempts = 1"#;

async fn world() -> World {
    World::start(&shared_rabbit(), &shared_redis(), &namespace(), ONE).await.unwrap()
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

fn fails(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn event_show_opens_with_status_attempt_and_signature_and_tells_the_whole_history() {
    let world = world().await;
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;
    let shown = stdout(&world.stack.zentra(&["event", "show", "evt_1"]));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "status     delivered");
    assert_eq!(lines[1], "attempt    1");
    assert!(lines[2].starts_with("signature  verified (standard-webhooks, secret k1), signed 2"));
    assert!(
        shown.contains("claimed") && shown.contains("delivered: 200 \"written\" in"),
        "{shown}"
    );

    let json = stdout(&world.stack.zentra(&["event", "show", "ledger/acme/evt_1", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let json = &json["deliveries"][0];
    assert_eq!(json["record"]["state"], "delivered");
    assert_eq!(json["history"][1]["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_worker_has_taken_up_is_found_where_it_waits() {
    let redis = services::redis();
    let world = World::start(&shared_rabbit(), &redis.url(), &namespace(), ONE).await.unwrap();
    let shown = |id: &str| {
        let zentra = |more: &[&str]| world.stack.zentra(&[&["event", "show", id], more].concat());
        let json: Value = serde_json::from_str(&stdout(&zentra(&["--json"]))).unwrap();
        (stdout(&zentra(&[])), json["accepted"][0].clone())
    };
    world.send("evt_0", &transfer("evt_0", "trf_0", 1)).await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let (text, json) = shown("evt_1");
    assert!(
        text.starts_with("status     accepted: it is in the archive: no worker has claimed it yet"),
        "{text}"
    );
    assert!(text.contains("signature  verified (standard-webhooks, secret k1)"), "{text}");
    assert_eq!((&json["state"], &json["place"]), (&"accepted".into(), &"archive".into()));
    assert_eq!(shown("ledger/acme/evt_1").1["place"], "archive");
    let page = stdout(&world.stack.zentra(&["event", "show", "evt_1", "--case-file", "-"]));
    assert!(page.starts_with("# Event evt_1\n") && page.contains("No worker"), "{page}");

    // The same while Redis is away.
    let mut redis = redis;
    redis.kill();
    assert_eq!(shown("evt_1").1["place"], "archive");
    let away = world.stack.zentra(&["event", "show", "evt_2"]);
    assert!(fails(&away, 2).contains("Redis"), "{away:?}");
    redis.restart().unwrap();

    // Looking has removed nothing.
    let _worker = world.stack.worker().await;
    for id in ["evt_0", "evt_1"] {
        world.until(id, delivered).await;
    }
    let gone = fails(&world.stack.zentra(&["event", "show", "evt_2"]), 1);
    assert!(gone.contains("event evt_2 is unknown") && gone.contains("refused list"), "{gone}");

    // No destination subscribes to it.
    world.stack.add("[source.other]\nprovider = \"github\"\nsecrets = [{ name = \"k1\", secret = \"env:GITHUB\" }]");
    let ingress = world.stack.ingress().await;
    let url = format!("{}/in/other", ingress.listen);
    let answer = world.stack.http.post(&url, &sign::github("d-1", "push", b"{}"), "{}").await;
    assert_eq!(answer.unwrap().status, 200);
    let (text, json) = shown("d-1");
    assert!(text.contains("no destination subscribes to it"), "{text}");
    assert_eq!(json["place"], "unrouted");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_listed_by_what_they_are_and_where_they_stand() {
    let world = world().await;
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([Turn::Answer(410, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_1", 1)).await;
    world.until("evt_dead", dead).await;
    for id in ["evt_1", "evt_2", "evt_3"] {
        world.send(id, &transfer(id, "trf_1", 1)).await;
        world.until(id, delivered).await;
    }
    let list = |more: &[&str]| world.stack.zentra(&[&["event", "list"], more].concat());
    let keys = |more: &[&str]| {
        let json: Value =
            serde_json::from_str(&stdout(&list(&[more, &["--json"]].concat()))).unwrap();
        let all = json["items"].as_array().unwrap().iter();
        let keys = all.map(|one| one["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (keys, json["next"].as_str().map(str::to_owned))
    };
    let key = |id: &str| format!("ledger/acme/{id}");
    assert_eq!(keys(&[]), (["evt_3", "evt_2", "evt_1", "evt_dead"].map(key).into(), None));
    assert_eq!(keys(&["--state", "dead", "--reason", "permanent"]).0, [key("evt_dead")]);
    assert_eq!(
        keys(&["--type", "transfer.settled", "--since", "1h", "--source", "acme"]).0.len(),
        4
    );
    assert!(keys(&["--until", "1h"]).0.is_empty() && keys(&["--destination", "mail"]).0.is_empty());
    let (first, next) = keys(&["--limit", "1", "--state", "delivered"]);
    assert_eq!(first, [key("evt_3")]);
    let after = next.unwrap();
    assert_eq!(
        keys(&["--limit", "1", "--cursor", &after, "--state", "delivered"]).0,
        [key("evt_2")]
    );
    assert_eq!(keys(&["--id", "evt_2"]).0, [key("evt_2")]);
    assert_eq!(keys(&["--id", "ledger/acme/evt_2", "--state", "delivered"]).0, [key("evt_2")]);
    assert!(keys(&["--id", "evt_2", "--state", "dead"]).0.is_empty());
    let shown = stdout(&list(&["--limit", "2"]));
    assert!(shown.contains("FIRST CLAIM") && shown.contains("more: --cursor "), "{shown}");
    assert!(fails(&list(&["--cursor", "7;x"]), 1).contains("Omit --cursor"));
    assert!(fails(&list(&["--reason", "bad"]), 1).contains("exhausted, permanent"));
    assert_eq!(list(&["--since", "yesterday"]).status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_file_tells_the_whole_history_and_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let world = world().await;
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", dead).await;
    let file = folder("case").join("case.md");
    let path = file.to_str().unwrap();
    let case = ["event", "show", "evt_1", "--case-file", path];
    stdout(&world.stack.zentra(&case));
    let page = std::fs::read_to_string(&file).unwrap();
    for printed in [
        "# Event evt_1\n",
        "| ledger/acme/evt_1 | dead (exhausted) | 1 | 0 |",
        "received from 127.0.0.1, at the signed time",
        "dead (exhausted): 500 \"not now\"",
    ] {
        assert!(page.contains(printed), "{printed}: {page}");
    }
    assert!(!page.contains("trf_1"), "the body isn't for a ticket: {page}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fails(&world.stack.zentra(&case), 1).contains("Name another file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_and_requeued_and_passes_the_same_claim() {
    let world = world().await;
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([500, 500].map(|status| Turn::Answer(status, Vec::new())));
    for id in ["evt_1", "evt_2"] {
        world.send(id, &transfer(id, "trf_1", 1)).await;
        world.until(id, dead).await;
    }
    let listed = stdout(&world.stack.zentra(&["dead", "list"]));
    assert!(listed.contains("ledger/acme/evt_1") && listed.contains("exhausted"), "{listed}");
    assert!(listed.contains("500 \"not now\""), "{listed}");
    let json = stdout(&world.stack.zentra(&["dead", "list", "--json", "--limit", "1"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 1);

    // The second in the queue, so one is skipped and stays.
    let too_long = ["dead", "requeue", "evt_2", "--because", &"x".repeat(1001)];
    fails(&world.stack.zentra(&too_long), 64);
    let because = ["dead", "requeue", "evt_2", "--by", "ada", "--because", "ledger mended"];
    let requeued = stdout(&world.stack.zentra(&because));
    assert_eq!(requeued, "requeued ledger/acme/evt_2 as generation 1\n");
    let done = world.until("evt_2", delivered).await;
    let what = HistoryEvent::Requeued { reason: "ledger mended".into(), job: None };
    assert_eq!(count(&done, |printed| *printed == what), 1);
    assert!(done.history.iter().any(|entry| entry.what == what && entry.by == "ada"));
    let printed = stdout(&world.stack.zentra(&["event", "show", "evt_2"]));
    assert!(printed.contains("requeued by an operator: ledger mended"), "{printed}");
    let dead_queue = format!("{}.dead.ledger", world.stack.namespace);
    eventually("only the other letter is left in the queue", BOUND, async || {
        (depth(&world.stack.rabbit, &dead_queue).await == 1).then_some(())
    })
    .await;
    let listed = stdout(&world.stack.zentra(&["dead", "list", "--destination", "ledger"]));
    assert!(listed.contains("evt_1") && !listed.contains("evt_2"), "{listed}");

    // A delivered event cannot be requeued, and a copy of it has no effect.
    let refused = fails(&world.stack.zentra(&["dead", "requeue", "evt_2"]), 1);
    assert!(refused.contains("is not dead") && refused.contains("event show"), "{refused}");
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_1"]));
    world.until("evt_1", delivered).await;
    assert_eq!(stdout(&world.stack.zentra(&["dead", "list"])), "no dead letters\n");
    assert_eq!(world.ledger.rows().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_letter_that_fails_again_is_dead_again_and_can_be_requeued_again() {
    let world = world().await;
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([500, 500].map(|status| Turn::Answer(status, Vec::new())));
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", dead).await;
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_1"]));
    world.until("evt_1", |d| dead(d) && d.record.generation == 1).await;
    let again = stdout(&world.stack.zentra(&["dead", "requeue", "evt_1", "--json"]));
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["done"], &again["by"]["ledger, exhausted"]), (&1.into(), &1.into()));
    let done = world.until("evt_1", delivered).await;
    assert_eq!(done.record.generation, 2);
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_too_old_is_as_young_as_its_requeue() {
    let retry =
        r#"attempts = 9, initial = "500ms", multiplier = 1.0, jitter = 0.0, max_age = "1s""#;
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), retry).await.unwrap();
    world.ledger.take_turns((0..3).map(|_| Turn::Answer(500, Vec::new())));
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let old = world.until("evt_1", dead).await;
    assert_eq!((old.reason, old.record.attempt), (Some(DeadReason::TooOld), 2));
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_1"]));
    let done = world.until("evt_1", delivered).await;
    assert_eq!((done.record.generation, done.record.attempt), (1, 2), "{:#?}", done.history);
}

/// Events that end as dead letters, in this order. No worker runs afterwards.
async fn dead_letters(world: &World, ids: &[String]) {
    let mut worker = world.stack.worker().await;
    world.ledger.take_turns(ids.iter().map(|_| Turn::Answer(400, Vec::new())));
    for id in ids {
        world.send(id, &transfer(id, &format!("trf_{id}"), 1)).await;
        world.until(id, dead).await;
    }
    // Its acknowledgements reach the broker first.
    let ended = tokio::task::spawn_blocking(move || worker.process.terminate(BOUND));
    assert!(ended.await.unwrap().is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_letters_are_counted_first_and_go_back_in_their_order_and_the_others_stay() {
    let world = world().await;
    let ids: Vec<String> = (0..6).map(|at| format!("evt_{at}")).collect();
    dead_letters(&world, &ids).await;
    let zentra = |arguments: &[&str]| stdout(&world.stack.zentra(arguments));
    let nothing = fails(&world.stack.zentra(&["dead", "requeue"]), 1);
    assert!(nothing.contains("--all"), "{nothing}");

    let (dead, work) = ("dead.ledger", "work.ledger");
    let depth = async |queue: &str| {
        depth(&world.stack.rabbit, &format!("{}.{queue}", world.stack.namespace)).await
    };
    let printed = zentra(&["dead", "requeue", "--reason", "permanent"]);
    assert!(printed.contains("6 of 6 dead letters would be requeued"), "{printed}");
    assert!(
        printed.contains("6  ledger, permanent") && printed.contains("received at 2"),
        "{printed}"
    );
    for none in [["--reason", "exhausted"], ["--source", "github"], ["--older-than", "1h"]] {
        let printed = zentra(&[&["dead", "requeue", "--yes"], &none[..]].concat());
        assert!(printed.starts_with("0 of 6"), "{printed}");
        assert_eq!(zentra(&[&["dead", "list"], &none[..]].concat()), "no dead letters\n");
    }
    assert_eq!((depth(dead).await, depth(work).await), (6, 0));

    let some = ["--newer-than", "1h", "--type", "transfer.settled", "--limit", "4", "--yes"];
    let printed = zentra(&[&["dead", "requeue", "--by", "ada"], &some[..]].concat());
    assert!(printed.starts_with("4 of 4 dead letters requeued"), "{printed}");
    eventually("two are left", BOUND, async || (depth(dead).await == 2).then_some(())).await;
    let queue = Amqp::processor(queue_settings(&world.stack.rabbit, &world.stack.namespace));
    let mut consumer = queue.consume("ledger", 10);
    for id in &ids[..4] {
        let (message, receipt) =
            tokio::time::timeout(BOUND, consumer.next()).await.unwrap().unwrap();
        assert_eq!(message.sealed.id, format!("acme/{id}"));
        assert_eq!((message.attempt, message.generation, message.dead), (1, 1, None));
        receipt.give_back().await;
    }
    drop((consumer, queue));
    let _worker = world.stack.worker().await;
    for id in &ids[..4] {
        world.until(id, delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_letters_are_in_the_file_and_in_the_history_and_nowhere_else() {
    let world = world().await;
    let ids = ["evt_1", "evt_2", "evt_3"].map(str::to_owned);
    dead_letters(&world, &ids).await;
    let file = folder("export").join("dead.jsonl");
    let path = file.to_str().unwrap();
    let bytes = world.stack.zentra(&["dead", "show", "evt_1", "--body"]).stdout;
    assert_eq!(bytes, transfer("evt_1", "trf_evt_1", 1).as_bytes());
    assert!(stdout(&world.stack.zentra(&["dead", "show", "evt_1"])).contains("letter     "));

    let drain = |more: &[&str]| {
        let fixed = ["dead", "drain", "--because", "sent twice", "--by", "ada"];
        stdout(&world.stack.zentra(&[&fixed, more].concat()))
    };
    let printed = drain(&["--all", "--export", path]);
    assert!(printed.contains("3 of 3 dead letters would be drained"), "{printed}");
    assert!(!file.exists());
    let printed = drain(&["evt_1", "evt_3", "--export", path]);
    assert!(printed.starts_with("2 of 3 dead letters drained"), "{printed}");
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["delivery"], "ledger/acme/evt_1");
    assert_eq!(lines[0]["dead"], "permanent");
    let body = STANDARD.decode(lines[0]["body_base64"].as_str().unwrap()).unwrap();
    assert_eq!(body, bytes);
    let known = world.delivery("evt_1").await.unwrap();
    let what = HistoryEvent::Discarded { reason: "sent twice".into() };
    assert!(known.history.iter().any(|entry| entry.what == what && entry.by == "ada"));

    let listed = stdout(&world.stack.zentra(&["dead", "list"]));
    assert!(listed.contains("evt_2") && !listed.contains("evt_1"), "{listed}");
    let dead_queue = format!("{}.dead.ledger", world.stack.namespace);
    eventually("one is left", BOUND, async || {
        (depth(&world.stack.rabbit, &dead_queue).await == 1).then_some(())
    })
    .await;
    let gone = fails(&world.stack.zentra(&["dead", "requeue", "evt_1"]), 1);
    assert!(gone.contains("0 of 1 dead letters were found"), "{gone}");
    drain(&["--all", "--yes"]);
    assert_eq!(stdout(&world.stack.zentra(&["dead", "list"])), "no dead letters\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_of_all_that_is_killed_in_the_middle_loses_nothing_and_doubles_nothing() {
    let world = world().await;
    let ids: Vec<String> = (0..200).map(|at| format!("evt_{at}")).collect();
    world.ledger.take_turns(ids.iter().map(|_| Turn::Answer(400, Vec::new())));
    let _worker = world.stack.worker().await;
    for id in &ids {
        world.send(id, &transfer(id, &format!("trf_{id}"), 1)).await;
    }
    let dead = async || world.journal.dead("ledger", 1000, &|_| true).await.unwrap().len();
    eventually("all are dead", BOUND, async || (dead().await == 200).then_some(())).await;
    let all = ["dead", "requeue", "--all", "--yes"];
    let mut command = world.stack.command("zentra");
    command.args(all).args(["--rate", "50"]);
    let mut requeue = services::start(command);
    eventually("some are through", BOUND, async || {
        (world.ledger.rows().unwrap().len() > 30).then_some(())
    })
    .await;
    requeue.kill();
    assert!(world.ledger.rows().unwrap().len() < 150, "it was killed in the middle");
    // The messages that it held are back once its connection is gone.
    let dead_queue = format!("{}.dead.ledger", world.stack.namespace);
    eventually("all are through, and no letter is left", BOUND, async || {
        stdout(&world.stack.zentra(&[&all[..], &["--rate", "0"]].concat()));
        let left = depth(&world.stack.rabbit, &dead_queue).await;
        (world.ledger.rows().unwrap().len() == 200 && left == 0).then_some(())
    })
    .await;
    for id in &ids {
        assert_eq!(world.until(id, delivered).await.record.generation, 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_killed_in_the_middle_has_in_its_file_what_it_took_away() {
    let world = world().await;
    let ids: Vec<String> = (0..200).map(|at| format!("evt_{at}")).collect();
    dead_letters(&world, &ids).await;
    let file = folder("export").join("dead.jsonl");
    let mut command = world.stack.command("zentra");
    command.args(["dead", "drain", "--all", "--yes", "--because", "x", "--rate", "50"]);
    let mut drain = services::start({
        command.arg("--export").arg(&file);
        command
    });
    eventually("some are gone", BOUND, async || {
        let dead = world.journal.dead("ledger", 1000, &|_| true).await.unwrap();
        (dead.len() <= 140).then_some(())
    })
    .await;
    drain.kill();
    let queue =
        Amqp::publisher(queue_settings(&world.stack.rabbit, &world.stack.namespace), "test");
    tokio::time::timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    let mut exported = HashSet::new();
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        // The last line may be cut off.
        if let Ok(line) = serde_json::from_str::<Value>(line) {
            exported.insert(line["delivery"].as_str().unwrap().replace("ledger/", ""));
        }
    }
    assert!((60..200).contains(&exported.len()), "it was killed in the middle: {}", exported.len());
    eventually("each letter is in the file or in the queue", BOUND, async || {
        let (mut walk, mut all) = (queue.walk(Place::Dead("ledger")).await.ok()?, exported.clone());
        while let Some((message, _)) = walk.next().await.ok()? {
            all.insert(message.sealed.id);
        }
        walk.finish().await.ok()?;
        (all.len() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_letter_that_has_been_dealt_with_or_is_under_way_is_not_requeued() {
    let retry = r#"attempts = 2, initial = "1m""#;
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), retry).await.unwrap();
    let ids = ["evt_done", "evt_again", "evt_busy"].map(str::to_owned);
    dead_letters(&world, &ids).await;
    let queue =
        Amqp::publisher(queue_settings(&world.stack.rabbit, &world.stack.namespace), "test");
    tokio::time::timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    let (mut walk, mut letters) = (queue.walk(Place::Dead("ledger")).await.unwrap(), Vec::new());
    while let Some((message, _)) = walk.next().await.unwrap() {
        letters.push(message);
    }
    walk.finish().await.unwrap();
    let [done, again, busy] = <[Message; 3]>::try_from(letters).unwrap();

    let _worker = world.stack.worker().await;
    world.ledger.take_turns([400, 500].map(|status| Turn::Answer(status, Vec::new())));
    let first = |d: &Delivery| d.record.generation == 1;
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_again"]));
    world.until("evt_again", |d| dead(d) && first(d)).await;
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_busy"]));
    world.until("evt_busy", |d| d.record.state == State::Waiting && first(d)).await;
    stdout(&world.stack.zentra(&["dead", "requeue", "evt_done"]));
    world.until("evt_done", |d| delivered(d) && first(d)).await;
    for copy in [done, again, Message { generation: 1, ..busy }] {
        queue.dead("ledger", &copy, DeadReason::Permanent, None).await.unwrap();
    }
    let printed = stdout(&world.stack.zentra(&["dead", "requeue", "--all", "--yes", "--json"]));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&printed["done"], &printed["leftover"], &printed["busy"]),
        (&1.into(), &2.into(), &1.into())
    );
    world.until("evt_again", |d| delivered(d) && d.record.generation == 2).await;
    assert_eq!(world.ledger.rows().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_itself_gave_up_is_counted_and_requeued_like_any_dead_letter() {
    let world = world().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let [work, dead] = ["work", "dead"].map(|q| format!("{}.{q}.ledger", world.stack.namespace));
    let none = ConnectionProperties::default();
    let connection = Connection::connect(&world.stack.rabbit, none).await.unwrap();
    // Workers that die before they can claim. RabbitMQ 4.3 does not count what they give back.
    for _ in 0..=100 {
        let channel = connection.create_channel().await.unwrap();
        eventually("it is back in the queue", BOUND, async || {
            channel.basic_get(work.clone().into(), BasicGetOptions::default()).await.unwrap()
        })
        .await;
        channel.close(200, "".into()).await.unwrap();
    }
    eventually("it is in the dead-letter queue", BOUND, async || {
        (depth(&world.stack.rabbit, &dead).await == 1).then_some(())
    })
    .await;
    let zentra = |arguments: &[&str]| stdout(&world.stack.zentra(arguments));
    let listed = zentra(&["dead", "list"]);
    assert!(listed.contains("1 more in the dead-letter queue of ledger"), "{listed}");
    let status = world.stack.zentra(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let findings = status["destinations"][0]["findings"].to_string();
    assert!(findings.contains("unlisted_letters"), "{status}");
    let printed = zentra(&["dead", "requeue", "--all"]);
    assert!(printed.contains("1  ledger, crashed"), "{printed}");
    let unknown = fails(&world.stack.zentra(&["dead", "show", "evt_1"]), 1);
    assert!(unknown.contains("zentra dead requeue --reason crashed"), "{unknown}");
    zentra(&["dead", "requeue", "--reason", "crashed", "--yes"]);
    let _worker = world.stack.worker().await;
    let done = world.until("evt_1", delivered).await;
    assert_eq!(done.record.generation, 1);
    assert!(!zentra(&["dead", "list"]).contains("more in the dead-letter queue"));
    assert_eq!(
        (world.ledger.rows().unwrap().len(), depth(&world.stack.rabbit, &dead).await),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspected_replay_has_no_effect_until_an_operator_releases_it() {
    let world = world().await;
    let worker = world.stack.worker().await;
    let body = transfer("evt_1", "trf_1", 1);
    // GitHub does not sign the delivery's ID.
    let url = format!("{}/in/github", world.ingress.listen);
    let post = async |id: &str| {
        let headers = sign::github(id, "push", body.as_bytes());
        let answer = world.stack.http.post(&url, &headers, body.clone()).await;
        assert_eq!(answer.unwrap().status, 200);
    };
    post("d-1").await;
    let first = world.until("d-1", delivered).await.key;
    post("d-1").await;
    post("d-2").await;
    let suspect = eventually("it is kept", BOUND, async || {
        world.journal.dead("ledger", 10, &|_| true).await.ok()?.pop()
    })
    .await;
    assert_eq!(suspect.reason, Some(DeadReason::SuspectedReplay));
    let printed = HistoryEvent::Suspected { kept_as: suspect.key.to_string() };
    let known = world.journal.history(&first).await.unwrap().unwrap();
    assert_eq!((count(&known, is_copy), count(&known, |what| *what == printed)), (1, 1));
    let metric = ["zentra_worker_suspected_replays_total"];
    assert_eq!(worker.metric(&world.stack.http, &metric).await, 1.0);

    let refused = fails(&world.stack.zentra(&["dead", "requeue", "d-2"]), 1);
    assert!(refused.contains("zentra event release"), "{refused}");
    let printed = stdout(&world.stack.zentra(&["dead", "requeue", "--all", "--yes"]));
    assert!(
        printed.starts_with("0 of 1") && printed.contains("1 left: suspected replays"),
        "{printed}"
    );
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
    let release = ["event", "release", "d-2", "--because", "meant so", "--by", "ada"];
    let released = stdout(&world.stack.zentra(&release));
    assert!(released.contains("released ledger/github/sha256:"), "{released}");
    let key = suspect.key.as_str();
    let done = world.until(key, delivered).await;
    let by_ada = |entry: &Entry| {
        entry.what == HistoryEvent::Released { reason: "meant so".into() } && entry.by == "ada"
    };
    assert!(done.history.iter().any(by_ada));
    let keys: Vec<_> = world.ledger.rows().unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [first.as_str(), key]);
    post("d-2").await;
    world.until(key, |d| count(d, |what| *what == HistoryEvent::Duplicate) == 1).await;
    let refused = fails(&world.stack.zentra(&release), 1);
    assert!(refused.contains("is not dead"), "{refused}");
    assert_eq!(world.ledger.rows().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_says_why_what_next_and_whose_problem_it_is() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let stack = Stack::new(&rabbit, &redis, &namespace(), "http://127.0.0.1:9/", "");
    let unknown = fails(&stack.zentra(&["event", "show", "evt_nobody"]), 1);
    assert!(unknown.contains("event evt_nobody is unknown"), "{unknown}");
    let destination = fails(&stack.zentra(&["dead", "list", "--destination", "nobody"]), 1);
    assert!(destination.contains("The configuration has: ledger"), "{destination}");
    fails(&stack.zentra(&["dead", "revive"]), 64);
    assert!(stdout(&stack.zentra(&["--help"])).contains("Usage"));
    let away = Stack::new(&rabbit, "redis://127.0.0.1:9/", "t", "http://127.0.0.1:9/", "");
    let away = fails(&away.zentra(&["event", "show", "evt_1"]), 2);
    assert!(away.contains("Check [redis], and that Redis runs"), "{away}");
}

/// Somebody who may sign for one source chooses the contents of IDs, types and headers.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_hands_control_characters_on_to_a_terminal() {
    let world = world().await;
    let _worker = world.stack.worker().await;
    let url = format!("{}/in/stripe-eu", world.ingress.listen);
    // A control character for text direction, unescaped, which JSON allows; an escape sequence
    // only as JSON writes it.
    let raw = r#"{"id":"evt_moc","type":"a\u2066b!c","note":"\u001b[2J"}"#.replace('!', "\u{202e}");
    let mut headers = sign::stripe(sign::now(), raw.as_bytes());
    headers.push(("x-note", "a\u{9b}31mb".into()));
    let query = format!("{url}?n=%1b[2J");
    assert_eq!(world.stack.http.post(&query, &headers, raw.clone()).await.unwrap().status, 200);
    assert_eq!(world.stack.http.post(&url, &headers, "forged").await.unwrap().status, 401);
    let name = "ledger/stripe-eu/evt_moc";
    let settled = async || {
        let shown = world.stack.zentra(&["event", "show", name]);
        String::from_utf8_lossy(&shown.stdout).contains("dead").then_some(())
    };
    eventually("it is dead", BOUND, settled).await;
    let commands: [&[&str]; 9] = [
        &["event", "show", name],
        &["event", "show", name, "--json"],
        &["event", "list"],
        &["event", "find", "moc"],
        &["dead", "list"],
        &["dead", "show", name],
        &["archive", "list"],
        &["refused", "list"],
        &["event", "show", "evt_\u{1b}[2Junknown"],
    ];
    let obeyed = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
    for command in commands {
        let Output { stdout, stderr, .. } = world.stack.zentra(command);
        for text in [&stdout, &stderr].map(|bytes| String::from_utf8_lossy(bytes)) {
            // Logs are on the same stream.
            let lines = text.lines().filter(|line| !line.contains(" zentra_"));
            assert!(!lines.collect::<String>().contains(obeyed), "{command:?}: {text:?}");
        }
    }
    let printed = stdout(&world.stack.zentra(&["event", "show", name, "--json"]));
    assert!(
        serde_json::from_str::<Value>(&printed).is_ok() && printed.contains("\\u202e"),
        "{printed}"
    );
    // In a file, the bytes are exact.
    assert_eq!(stdout(&world.stack.zentra(&["dead", "show", name, "--body"])), raw);

    stdout(&world.stack.zentra(&["dead", "requeue", name, "--because", "mended\u{202e}"]));
    let acts = stdout(&world.stack.zentra(&["audit", "--json"]));
    assert!(!acts.contains(obeyed) && acts.contains("moc"), "{acts}");
}
