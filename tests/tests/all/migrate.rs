//! `zentra migrate`, from one file to RabbitMQ and Redis: nothing is lost, and nothing is
//! delivered twice.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use futures_util::future::join_all;
use serde_json::Value;
use zentra_core::clock::Timestamp;
use zentra_tests::ledger::{Ledger, Turn};
use zentra_tests::services;
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::queue::depth;
use crate::routes::archived;
use crate::standalone::{Shop, words};

/// Number of messages that wait when it starts.
const FLOOD: usize = 600;
const MORE: &str = r#"rate = 10
circuit = { failures = 0 }
retry = { attempts = 3, initial = "8s", multiplier = 1.0, jitter = 0.0 }"#;

/// Number of requests per idempotency key at the ledger.
fn requests(ledger: &Ledger) -> HashMap<String, usize> {
    let mut requests = HashMap::new();
    for seen in ledger.seen() {
        *requests.entry(seen.header("idempotency-key").to_owned()).or_default() += 1;
    }
    requests
}

fn migrate(shop: &Shop, more: &[&str]) -> Value {
    let file = shop.file.display().to_string();
    let output = shop.stack.zentra(&[&["migrate", "--from", &file, "--json"], more].concat());
    let printed = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{printed}"))
}

fn refusal(shop: &Shop, arguments: &[&str]) -> String {
    let output = shop.stack.zentra(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Starts a migration, and kills it when about this many messages have left the file.
async fn broken_off(shop: &Shop, queue: &str, after: u32) {
    let mut command = shop.stack.command("zentra");
    command.arg("migrate").arg("--from").arg(&shop.file);
    let program = Mutex::new(services::start(command));
    eventually("it is on its way", BOUND, async || {
        let under_way = match after {
            0 => is_moving(&shop.file),
            _ => depth(&shop.stack.rabbit, queue).await >= after,
        };
        (under_way || program.lock().unwrap().has_ended()).then_some(())
    })
    .await;
    program.into_inner().unwrap().kill();
}

fn is_moving(file: &Path) -> bool {
    let file = rusqlite::Connection::open(file).unwrap();
    file.prepare("SELECT since FROM moving").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_every_state_move_to_servers_and_a_move_that_is_killed_goes_on() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let mut shop = Shop::with(&rabbit, &redis, &namespace(), MORE).await;
    shop.stack.replace(r#", "github.#""#, "");
    shop.stack.add("[archive]\nmax_bytes = \"16MiB\"\nmax_age = \"1h\"");
    let program = shop.stack.standalone().await;
    let url = |source: &str| format!("{}/in/{source}", program.listen);

    // Delivered, dead, waiting, unrouted, refused, and held by a consumer.
    shop.send(&program, "evt_done").await;
    shop.until("evt_done", "delivered").await;
    for (id, status, state) in [("evt_dead", 400, "dead"), ("evt_wait", 500, "waiting")] {
        shop.ledger.take_turns([Turn::Answer(status, Vec::new())]);
        shop.send(&program, id).await;
        shop.until(id, state).await;
    }
    let body = r#"{"zen":"Design for failure."}"#;
    let headers = sign::github("d-1", "push", body.as_bytes());
    assert_eq!(shop.stack.http.post(&url("github"), &headers, body).await.unwrap().status, 200);
    let stale = sign::acme("evt_stale", sign::now() - 3600, body.as_bytes());
    assert_eq!(shop.stack.http.post(&url("acme"), &stale, body).await.unwrap().status, 401);
    shop.ledger.take_turns([Turn::WriteAndHang]);
    shop.send(&program, "evt_hung").await;
    tokio::time::timeout(BOUND, shop.ledger.hung.recv()).await.unwrap();
    let flood: Vec<String> = (0..FLOOD).map(|at| format!("evt_flood_{at}")).collect();
    join_all(flood.iter().map(|id| shop.send(&program, id))).await;
    let pause = ["destination", "pause", "ledger", "--because", "we move"];
    assert!(shop.stack.zentra(&pause).status.success());
    assert!(shop.stack.zentra(&["token", "create", "grafana"]).status.success());
    let file = shop.file.display().to_string();
    assert!(refusal(&shop, &["migrate", "--from", &file]).contains("has [embedded] path"));
    shop.stack.grow_up(&shop.file);
    let running = refusal(&shop, &["migrate", "--from", &file]);
    assert!(running.contains("another Zentra uses"), "{running}");
    drop(program);
    let before = requests(&shop.ledger);

    // What the new configuration cannot hold is reported before anything is changed.
    shop.stack.replace("[destination.ledger]", "[destination.other]");
    let unknown = refusal(&shop, &["migrate", "--from", &file]);
    assert!(unknown.contains("for the destination ledger"), "{unknown}");
    shop.stack.replace("[destination.other]", "[destination.ledger]");
    let mut expected = migrate(&shop, &["--dry-run"]);
    assert!(!is_moving(&shop.file));
    assert!(expected["work"].as_u64().unwrap() > 300, "{expected}");

    let work = format!("{}.work.ledger", shop.stack.namespace);
    for after in [0, 1, 100, 300] {
        broken_off(&shop, &work, after).await;
    }
    let moved = migrate(&shop, &[]);
    let remembered =
        |of: &Value| of["deliveries"].as_u64().unwrap() + of["known"].as_u64().unwrap();
    assert_eq!(remembered(&moved), remembered(&expected));
    // Everything is on the servers, however often the migration was interrupted.
    assert!(depth(&rabbit, &work).await >= 300);
    for _ in 0..2 {
        let again = migrate(&shop, &[]);
        expected["known"] = remembered(&expected).into();
        for part in ["deliveries", "work", "dead", "unrouted", "refused", "archived"] {
            expected[part] = 0.into();
        }
        assert_eq!(again, expected);
    }
    let archive = format!("{}.archive.16777216x3600", shop.stack.namespace);
    archived(&rabbit, &archive, FLOOD + 5).await;

    // Operators' settings still apply, and were recorded once.
    let printed =
        |arguments: &[&str]| String::from_utf8(shop.stack.zentra(arguments).stdout).unwrap();
    assert!(printed(&["destination", "list"]).contains("we move"));
    assert_eq!(printed(&["audit"]).matches("destination pause").count(), 1);
    assert!(printed(&["token", "list"]).contains("grafana"));
    assert!(shop.stack.zentra(&["destination", "resume", "ledger"]).status.success());

    shop.stack.replace("rate = 10\n", "");
    let ingress = shop.stack.ingress().await;
    let _workers = [shop.stack.worker().await, shop.stack.worker().await];
    eventually("everything is delivered", BOUND * 6, async || {
        let list = ["event", "list", "--state", "delivered", "--limit", "1000", "--json"];
        let listed = String::from_utf8(shop.stack.zentra(&list).stdout).unwrap();
        let is_delivered = |id: &str| listed.contains(&format!("/{id}\""));
        let mut ids = flood.iter().map(String::as_str).chain(["evt_hung", "evt_wait"]);
        ids.all(is_delivered).then_some(())
    })
    .await;
    shop.send(&ingress, "evt_done").await;
    eventually("it is known as a copy", BOUND, async || {
        let done = shop.until("evt_done", "delivered").await;
        (words(&done) == ["claimed", "delivered", "duplicate"]).then_some(())
    })
    .await;
    let waited = shop.until("evt_wait", "delivered").await;
    // A migration that was killed may have published it twice, and the copy may have met the
    // attempt. The program that was stopped may have had the second claim.
    let mut printed: Vec<&str> =
        words(&waited).into_iter().filter(|word| *word != "busy").collect();
    printed.dedup();
    assert_eq!(printed[..4], ["claimed", "failed", "claimed", "delivered"], "{waited}");
    let history = waited["history"].as_array().unwrap();
    let time =
        |entry: &Value, name: &str| entry[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let failed = history.iter().position(|entry| entry["what"] == "failed").unwrap();
    let mut later = history[failed..].iter().filter(|entry| entry["what"] == "claimed");
    assert!(later.all(|claim| time(claim, "at") >= time(&history[failed], "next_at")), "{waited}");
    let dead = shop.until("evt_dead", "dead").await;
    assert_eq!(words(&dead)[..2], ["claimed", "dead"], "{dead}");
    let listed = shop.stack.zentra(&["dead", "list"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2);
    assert!(shop.stack.zentra(&["dead", "requeue", "evt_dead"]).status.success());
    shop.until("evt_dead", "delivered").await;
    for (what, id) in [("unrouted", "d-1"), ("refused", "timestamp_stale")] {
        let listed = String::from_utf8(shop.stack.zentra(&[what, "list"]).stdout).unwrap();
        assert!(listed.contains(id), "{what}: {listed}");
    }

    // What had been delivered was not requested again, and the rest was requested once, except for
    // requests in flight when the file's program was stopped.
    let (after, rows) = (requests(&shop.ledger), shop.ledger.rows().unwrap());
    assert_eq!(rows.len(), FLOOD + 4);
    assert_eq!(after["ledger/acme/evt_done"], 1);
    let twice = after.iter().filter(|(key, count)| key.contains("flood") && **count > 1).count();
    assert!(twice <= before.len().min(16), "{twice} came twice");

    // Nobody works on the file by mistake.
    shop.stack.shrink(&shop.file);
    assert!(refusal(&shop, &["standalone"]).contains("were migrated"));
}
