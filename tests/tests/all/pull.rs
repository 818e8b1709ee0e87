//! Destinations that consumers pull from: leases, acknowledgements, and consumers and servers that
//! die. Each test runs on servers and on one file.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use zentra_tests::ledger::transfer;
use zentra_tests::stack::{Program, Stack};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;
use crate::standalone::words;

/// How long anything may take.
const BOUND: Duration = Duration::from_secs(40);

#[derive(Clone, Copy)]
pub(crate) enum On {
    Servers,
    File,
}

/// Makes a test of each promise, on both backends.
macro_rules! on_both {
    ($($promise:ident)*) => {
        mod servers {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise($crate::pull::On::Servers).await;
            })*
        }
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise($crate::pull::On::File).await;
            })*
        }
    };
}
pub(crate) use on_both;

on_both! {
    three_callbacks_are_one_event_and_its_history_can_be_read
    what_a_killed_consumer_had_comes_again_after_its_lease_and_its_late_ack_is_refused
    what_a_consumer_rejects_is_retried_or_a_dead_letter_with_its_error
    a_lease_that_is_extended_does_not_end
    what_a_killed_server_had_handed_out_can_be_acknowledged_and_comes_again_otherwise
    each_server_takes_the_answers_of_leases_of_another
    a_paused_destination_hands_nothing_out
    of_three_hundred_events_each_is_delivered_though_servers_are_killed
    only_its_own_consumers_pull_and_they_see_nothing_else
}

/// Zentra with one destination that consumers pull from.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) ingress: Program,
}

impl Bench {
    pub(crate) async fn start(on: On, lease: &str) -> Self {
        let url = "http://127.0.0.1:9/";
        let stack = Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), url, "");
        stack.replace(
            &format!("url = \"{url}\"\n"),
            &format!(
                "pull = true\nlease = \"{lease}\"\nretry = {{ attempts = 3, initial = \"250ms\", \
                 multiplier = 1.0, jitter = 0.0 }}\n"
            ),
        );
        stack.replace("signing = [{ name = \"k1\", secret = \"env:LEDGER_SIGNING\" }]\n", "");
        stack.replace("timeout = \"1s\"\n", "");
        stack.add("[destination.other]\npull = true\nsubscribe = [\"github.#\"]");
        let ingress = match on {
            On::Servers => stack.ingress().await,
            On::File => {
                stack.embed();
                stack.standalone().await
            }
        };
        Self { stack, ingress }
    }

    pub(crate) async fn send(&self, id: &str) {
        let body = transfer(id, "trf_8172", 1);
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        let url = format!("{}/in/acme", self.ingress.listen);
        let answer = self.stack.http.post(&url, &headers, body).await;
        assert!(answer.as_ref().is_some_and(|answer| answer.status.is_success()), "{answer:?}");
    }

    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        self.stack.until(id, state, BOUND).await
    }
}

/// A consumer at one server.
pub(crate) struct Consumer<'a> {
    api: &'a Api<'a>,
    token: String,
}

impl<'a> Consumer<'a> {
    pub(crate) fn new(api: &'a Api<'a>, name: &str) -> Self {
        let token = api.token(&[name, "--role", "consumer", "--destination", "ledger"]);
        Self { api, token }
    }

    pub(crate) async fn ask(&self, path: &str, body: Value) -> (u16, Value) {
        let path = format!("/v1/pull/ledger{path}");
        self.api.ask(Method::POST, &path, &self.token, &body.to_string()).await
    }

    /// The next events, at least one.
    async fn pull(&self, max: usize) -> Vec<Value> {
        eventually("there are events", BOUND, async || {
            let (code, pulled) = self.ask("", json!({ "max": max, "wait_seconds": 20 })).await;
            assert_eq!(code, 200, "{pulled}");
            let items = pulled["items"].as_array().unwrap().clone();
            (!items.is_empty()).then_some(items)
        })
        .await
    }

    pub(crate) async fn one(&self) -> Value {
        self.pull(1).await.swap_remove(0)
    }

    /// Whether there is nothing now.
    async fn is_empty(&self) -> bool {
        let (code, pulled) = self.ask("", json!({ "wait_seconds": 0 })).await;
        assert_eq!(code, 200, "{pulled}");
        pulled["items"].as_array().unwrap().is_empty()
    }

    async fn ack(&self, event: &Value) -> (u16, Value) {
        self.ask("/ack", json!({ "receipts": [event["receipt"]] })).await
    }

    pub(crate) async fn is_acknowledged(&self, event: &Value) {
        let (code, answer) = self.ack(event).await;
        assert_eq!((code, &answer["items"][0]["done"]), (200, &true.into()), "{answer}");
    }

    async fn is_refused(&self, event: &Value) {
        let (code, answer) = self.ack(event).await;
        assert_eq!((code, &answer["code"]), (409, &"lease_lost".into()), "{answer}");
    }
}

fn header<'v>(event: &'v Value, name: &str) -> Option<&'v str> {
    let headers = event["headers"].as_array().unwrap();
    headers.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

async fn three_callbacks_are_one_event_and_its_history_can_be_read(on: On) {
    let bench = Bench::start(on, "30s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    assert!(consumer.is_empty().await);
    bench.send("evt_1").await;
    bench.send("evt_1").await;
    let event = consumer.one().await;
    assert_eq!(event["idempotency_key"], "ledger/acme/evt_1");
    assert_eq!((&event["attempt"], &event["source"]), (&1.into(), &"acme".into()));
    let body = STANDARD.decode(event["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, transfer("evt_1", "trf_8172", 1).as_bytes());
    assert_eq!(header(&event, "idempotency-key"), Some("ledger/acme/evt_1"));
    assert_eq!(header(&event, "content-type"), Some("application/json"));
    assert_eq!(header(&event, "ce-type"), Some("transfer.settled"));
    assert_eq!(header(&event, "webhook-signature"), None, "{event}");
    consumer.is_acknowledged(&event).await;
    // Once more: it is done.
    consumer.is_acknowledged(&event).await;
    bench.send("evt_1").await;
    assert!(consumer.is_empty().await);
    let shown = eventually("the copies are recorded", BOUND, async || {
        assert!(consumer.is_empty().await);
        let shown = bench.until("evt_1", "delivered").await;
        (words(&shown).len() >= 4).then_some(shown)
    })
    .await;
    let words = words(&shown);
    assert_eq!(words.iter().filter(|word| **word == "claimed").count(), 1, "{words:?}");
    assert_eq!(words.iter().filter(|word| **word == "delivered").count(), 1, "{words:?}");
}

async fn what_a_killed_consumer_had_comes_again_after_its_lease_and_its_late_ack_is_refused(
    on: On,
) {
    let bench = Bench::start(on, "2s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    bench.send("evt_1").await;
    // A process of its own that has the event, and is killed.
    let script = "curl -sS -X POST -H \"authorization: Bearer $TOKEN\" \
                  -H 'content-type: application/json' -d '{}' \"$URL\" && sleep 60";
    let mut process = tokio::process::Command::new("bash")
        .args(["-c", script])
        .env("TOKEN", &consumer.token)
        .env("URL", api.url("/v1/pull/ledger"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut printed, mut read) = (process.stdout.take().unwrap(), Vec::new());
    let answer = async {
        loop {
            printed.read_buf(&mut read).await.unwrap();
            if let Ok(answer) = serde_json::from_slice::<Value>(&read) {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(BOUND, answer).await.unwrap();
    let first = answer["items"][0].clone();
    process.kill().await.unwrap();
    let second = consumer.one().await;
    assert_eq!((&first["attempt"], &second["attempt"]), (&1.into(), &2.into()));
    assert_eq!(first["idempotency_key"], second["idempotency_key"]);
    assert_ne!(first["receipt"], second["receipt"]);
    consumer.is_refused(&first).await;
    let (code, answer) = consumer.ask("/extend", json!({ "receipts": [first["receipt"]] })).await;
    assert_eq!((code, &answer["code"]), (409, &"lease_lost".into()));
    let nack = json!({ "receipts": [first["receipt"]], "permanent": true });
    assert_eq!(consumer.ask("/nack", nack).await.0, 409);
    consumer.is_acknowledged(&second).await;
    let shown = bench.until("evt_1", "delivered").await;
    assert_eq!(words(&shown), ["claimed", "failed", "claimed", "delivered"]);
    assert_eq!(shown["history"][1]["class"], "timeout", "{shown}");
}

async fn what_a_consumer_rejects_is_retried_or_a_dead_letter_with_its_error(on: On) {
    let bench = Bench::start(on, "30s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    for id in ["evt_1", "evt_2", "evt_3"] {
        bench.send(id).await;
        let event = consumer.one().await;
        let permanent = id == "evt_2";
        let nack = match id {
            "evt_1" => json!({ "receipts": [event["receipt"]], "retry_after_seconds": 1 }),
            _ => {
                json!({ "receipts": [event["receipt"]], "permanent": permanent, "error": "no account" })
            }
        };
        let (code, answer) = consumer.ask("/nack", nack).await;
        assert_eq!((code, &answer["items"][0]["done"]), (200, &true.into()), "{answer}");
        // Its lease has ended.
        consumer.is_refused(&event).await;
        if permanent {
            let shown = bench.until(id, "dead").await;
            assert_eq!(shown["reason"], "permanent");
            assert_eq!(words(&shown), ["claimed", "dead"]);
            assert_eq!(shown["history"][1]["error"], "no account", "{shown}");
            continue;
        }
        let again = consumer.one().await;
        assert_eq!(
            (&again["attempt"], &again["idempotency_key"]),
            (&2.into(), &event["idempotency_key"])
        );
        consumer.is_acknowledged(&again).await;
    }
    // The last attempt of the policy makes a dead letter.
    bench.send("evt_4").await;
    for attempt in 1..=3 {
        let event = consumer.one().await;
        assert_eq!(event["attempt"], attempt);
        let nack = json!({ "receipts": [event["receipt"]] });
        assert_eq!(consumer.ask("/nack", nack).await.0, 200);
    }
    assert_eq!(bench.until("evt_4", "dead").await["reason"], "exhausted");
    // A requeued one is pulled again.
    let requeued = bench.stack.zentra(&["dead", "requeue", "evt_4", "--because", "mended"]);
    assert!(requeued.status.success(), "{requeued:?}");
    let event = consumer.one().await;
    assert_eq!(
        (&event["attempt"], &event["idempotency_key"]),
        (&1.into(), &"ledger/acme/evt_4".into())
    );
    consumer.is_acknowledged(&event).await;
}

async fn a_lease_that_is_extended_does_not_end(on: On) {
    let bench = Bench::start(on, "2s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    bench.send("evt_1").await;
    let event = consumer.one().await;
    let receipts = json!({ "receipts": [event["receipt"]] });
    for _ in 0..4 {
        // Half of the lease: nobody else gets the event.
        let (code, pulled) = consumer.ask("", json!({ "wait_seconds": 1 })).await;
        assert_eq!((code, &pulled["items"]), (200, &json!([])));
        let (code, extended) = consumer.ask("/extend", receipts.clone()).await;
        assert_eq!((code, &extended["items"][0]["done"]), (200, &true.into()), "{extended}");
        assert!(extended["items"][0]["lease_until"].is_string(), "{extended}");
    }
    consumer.is_acknowledged(&event).await;
    let shown = bench.until("evt_1", "delivered").await;
    assert_eq!(words(&shown), ["claimed", "delivered"]);
}

async fn what_a_killed_server_had_handed_out_can_be_acknowledged_and_comes_again_otherwise(on: On) {
    let bench = Bench::start(on, "5s").await;
    let (acknowledged, abandoned, rejected) = {
        let api = Api::start(&bench.stack).await;
        let consumer = Consumer::new(&api, "app");
        let mut events = Vec::new();
        for id in ["evt_1", "evt_2", "evt_3"] {
            bench.send(id).await;
            events.push(consumer.one().await);
        }
        // `kill -9`.
        api.kill();
        (events.remove(0), events.remove(0), events.remove(0))
    };
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app2");
    consumer.is_acknowledged(&acknowledged).await;
    let nack = json!({ "receipts": [rejected["receipt"]], "permanent": true, "error": "no" });
    let (code, answer) = consumer.ask("/nack", nack).await;
    assert_eq!((code, &answer["items"][0]["done"]), (200, &true.into()), "{answer}");
    let again = consumer.one().await;
    assert_eq!(again["idempotency_key"], abandoned["idempotency_key"]);
    consumer.is_refused(&abandoned).await;
    consumer.is_acknowledged(&again).await;
    for event in [&acknowledged, &abandoned] {
        let key = event["idempotency_key"].as_str().unwrap();
        let shown = bench.until(key, "delivered").await;
        let delivered = words(&shown).into_iter().filter(|word| *word == "delivered").count();
        assert_eq!(delivered, 1, "{shown}");
    }
    assert!(consumer.is_empty().await);
    let shown = bench.until("evt_3", "dead").await;
    assert_eq!(
        (&shown["reason"], &shown["history"].as_array().unwrap().last().unwrap()["error"]),
        (&"permanent".into(), &"no".into()),
        "{shown}"
    );
}

async fn each_server_takes_the_answers_of_leases_of_another(on: On) {
    let bench = Bench::start(on, "3s").await;
    let (api, other) = (Api::start(&bench.stack).await, Api::start(&bench.stack).await);
    let consumer = Consumer::new(&api, "app");
    let elsewhere = Consumer { api: &other, token: consumer.token.clone() };
    // Acknowledged there, it does not come again after the lease.
    bench.send("evt_1").await;
    let event = consumer.one().await;
    elsewhere.is_acknowledged(&event).await;
    consumer.is_acknowledged(&event).await;
    // Extended there, it is held here.
    bench.send("evt_2").await;
    let event = consumer.one().await;
    let receipts = json!({ "receipts": [event["receipt"]] });
    for _ in 0..4 {
        let (_, pulled) = consumer.ask("", json!({ "wait_seconds": 1 })).await;
        assert_eq!(pulled["items"], json!([]));
        assert_eq!(elsewhere.ask("/extend", receipts.clone()).await.0, 200);
    }
    consumer.is_acknowledged(&event).await;
    // Rejected there, it is retried after the lease, and nobody can acknowledge it then.
    bench.send("evt_3").await;
    let event = consumer.one().await;
    let nack = json!({ "receipts": [event["receipt"]], "error": "no account" });
    assert_eq!(elsewhere.ask("/nack", nack).await.0, 200);
    let again = consumer.one().await;
    assert_eq!(again["attempt"], 2);
    elsewhere.is_refused(&event).await;
    elsewhere.is_acknowledged(&again).await;
    let shown = bench.until("evt_3", "delivered").await;
    assert_eq!(words(&shown), ["claimed", "failed", "claimed", "delivered"]);
    assert_eq!(shown["history"][1]["error"], "no account", "{shown}");
    for id in ["evt_1", "evt_2"] {
        assert_eq!(words(&bench.until(id, "delivered").await), ["claimed", "delivered"], "{id}");
    }
    assert!(consumer.is_empty().await && elsewhere.is_empty().await);
}

/// A destination that had several queues is pulled from all of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_queues_of_a_former_number_is_pulled_too() {
    let url = "http://127.0.0.1:9/";
    let stack = Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), url, "shards = 4");
    let worker = stack.worker().await;
    drop(worker);
    let bench = Bench { ingress: stack.ingress().await, stack };
    for at in 0..20 {
        bench.send(&format!("evt_{at}")).await;
    }
    for unused in [
        format!("url = \"{url}\"\n"),
        "signing = [{ name = \"k1\", secret = \"env:LEDGER_SIGNING\" }]\n".into(),
        "timeout = \"1s\"\n".into(),
    ] {
        bench.stack.replace(&unused, "");
    }
    bench.stack.replace("shards = 4", "pull = true");
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    let mut left = 20;
    while left > 0 {
        let events = consumer.pull(100).await;
        for event in &events {
            consumer.is_acknowledged(event).await;
        }
        left -= events.len();
    }
}

async fn a_paused_destination_hands_nothing_out(on: On) {
    let bench = Bench::start(on, "30s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    bench.send("evt_1").await;
    let paused = bench.stack.zentra(&["destination", "pause", "ledger", "--because", "a release"]);
    assert!(paused.status.success(), "{paused:?}");
    let (code, pulled) = consumer.ask("", json!({ "wait_seconds": 1 })).await;
    assert_eq!((code, &pulled["paused"], &pulled["items"]), (200, &true.into(), &json!([])));
    let status = bench.stack.zentra(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let of = |name: &str| {
        let all = status["destinations"].as_array().unwrap();
        all.iter().find(|one| one["destination"] == name).unwrap()["findings"].clone()
    };
    assert_eq!(of("other"), json!(["no_consumer"]), "{status}");
    assert_eq!(of("ledger"), json!(["paused", "stuck"]), "{status}");
    let resumed = bench.stack.zentra(&["destination", "resume", "ledger"]);
    assert!(resumed.status.success(), "{resumed:?}");
    let event = consumer.one().await;
    consumer.is_acknowledged(&event).await;
    let viewer = api.token(&["grafana"]);
    let headers = vec![("authorization", format!("Bearer {viewer}"))];
    let page = bench.stack.http.send(Method::GET, &api.url("/v1/metrics"), &headers, "").await;
    let page = page.unwrap().body;
    let line = "zentra_worker_attempts_total{destination=\"ledger\",outcome=\"delivered\"} 1";
    assert!(page.contains(line), "{page}");
}

async fn of_three_hundred_events_each_is_delivered_though_servers_are_killed(on: On) {
    let bench = Bench::start(on, "2s").await;
    let all: BTreeSet<String> = (0..300).map(|at| format!("evt_{at}")).collect();
    for id in &all {
        bench.send(id).await;
    }
    // The application: it writes under the idempotency key, and acknowledges then.
    let (mut written, mut acknowledged) = (BTreeMap::<String, u32>::new(), BTreeSet::new());
    let token = {
        let api = Api::start(&bench.stack).await;
        Consumer::new(&api, "app").token
    };
    for round in 0..60 {
        let api = Api::start(&bench.stack).await;
        let consumer = Consumer { api: &api, token: token.clone() };
        for pull in 0..5 {
            let asked = json!({ "max": 20, "wait_seconds": 3 });
            let (code, pulled) = consumer.ask("", asked).await;
            assert_eq!(code, 200, "{pulled}");
            let items = pulled["items"].as_array().unwrap();
            for item in items {
                let key = item["idempotency_key"].as_str().unwrap().to_owned();
                *written.entry(key).or_default() += 1;
            }
            if pull == 4 || items.is_empty() {
                // Killed before the acknowledgement.
                break;
            }
            let receipts: Vec<_> = items.iter().map(|item| item["receipt"].clone()).collect();
            let (code, answer) = consumer.ask("/ack", json!({ "receipts": receipts })).await;
            assert_eq!(code, 200, "{answer}");
            for (item, done) in items.iter().zip(answer["items"].as_array().unwrap()) {
                assert_eq!(item["receipt"], done["receipt"]);
                if done["done"] == true {
                    let key = item["idempotency_key"].as_str().unwrap().to_owned();
                    assert!(acknowledged.insert(key), "delivered twice: {item}");
                }
            }
        }
        api.kill();
        if acknowledged.len() == all.len() {
            break;
        }
        assert!(round < 59, "only {} of {}", acknowledged.len(), all.len());
    }
    let keys: BTreeSet<String> = all.iter().map(|id| format!("ledger/acme/{id}")).collect();
    assert_eq!(written.keys().cloned().collect::<BTreeSet<_>>(), keys);
    assert!(written.values().any(|times| *times > 1), "no event was with a killed server");
    let listed = bench.stack.zentra(&["event", "list", "--limit", "1000", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let items = listed["items"].as_array().unwrap();
    let delivered = items.iter().filter(|item| item["record"]["state"] == "delivered").count();
    assert_eq!(delivered, all.len(), "{}", items[0]);
}

async fn only_its_own_consumers_pull_and_they_see_nothing_else(on: On) {
    let bench = Bench::start(on, "30s").await;
    let api = Api::start(&bench.stack).await;
    let consumer = Consumer::new(&api, "app");
    let admin = api.token(&["root", "--role", "admin", "--payloads"]);
    for (path, token, code) in [
        ("/v1/pull/other", &consumer.token, "destination_denied"),
        ("/v1/pull/ledger", &admin, "role_required"),
        ("/v1/pull/ledger/ack", &admin, "role_required"),
        ("/v1/jobs", &consumer.token, "role_required"),
    ] {
        let (status, answer) = api.ask(Method::POST, path, token, "{}").await;
        assert_eq!((status, &answer["code"]), (403, &code.into()), "{path}");
    }
    for path in ["/v1/status", "/v1/events", "/v1/dead", "/v1/archive", "/v1/tail", "/v1/metrics"] {
        let (status, answer) = api.get(path, &consumer.token).await;
        assert_eq!((status, &answer["code"]), (403, &"role_required".into()), "{path}");
    }
    bench.send("evt_1").await;
    let event = consumer.one().await;
    // Another destination's receipt, and no receipt at all.
    let both = api.token(&[
        "both",
        "--role",
        "consumer",
        "--destination",
        "other",
        "--destination",
        "ledger",
    ]);
    let receipts = json!({ "receipts": [event["receipt"]] }).to_string();
    let (status, answer) = api.ask(Method::POST, "/v1/pull/other/ack", &both, &receipts).await;
    assert_eq!((status, &answer["code"]), (400, &"invalid_request".into()), "{answer}");
    for (path, body, code) in [
        ("", json!({ "max": 0 }), 400),
        ("", json!({ "max": 101 }), 400),
        ("", json!({ "wait_seconds": 21 }), 400),
        ("", json!({ "colour": 1 }), 400),
        ("/ack", json!({ "receipts": [] }), 400),
        ("/ack", json!({ "receipts": ["x"] }), 400),
        ("/ack", json!({ "receipts": vec!["x"; 101] }), 400),
        ("/nack", json!({ "receipts": ["x"], "retry_after_seconds": 86_401 }), 400),
        ("/nack", json!({ "receipts": ["x"], "error": "e".repeat(1001) }), 400),
        ("/nack", json!({ "receipts": ["x"], "permanent": true, "retry_after_seconds": 1 }), 400),
    ] {
        let (status, answer) = consumer.ask(path, body.clone()).await;
        assert_eq!(status, code, "{path} {body}: {answer}");
    }
    // Of several, each has its own result.
    let receipts = json!({ "receipts": ["x", event["receipt"]] });
    let (status, answer) = consumer.ask("/ack", receipts).await;
    let problems = [&answer["items"][0]["problem"], &answer["items"][1]["problem"]];
    assert_eq!((status, problems), (200, [&"invalid_request".into(), &Value::Null]));
    // An unknown destination, and roles that have none.
    for arguments in [
        ["eve", "--role", "consumer", "--destination", "ledgr"],
        ["eve", "--role", "viewer", "--destination", "ledger"],
        ["eve", "--role", "consumer", "--payloads", "--expires-in=1d"],
    ] {
        let made = bench.stack.zentra(&[&["token", "create"][..], &arguments].concat());
        assert_eq!(made.status.code(), Some(1), "{made:?}");
    }
    tokio::time::timeout(Duration::from_secs(60), bench.until("evt_1", "delivered")).await.unwrap();
}
