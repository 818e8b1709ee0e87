//! Compares what the provider lists with what arrived.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use zentra_store::journal::HistoryEvent;
use zentra_tests::http::Headers;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::folder;
use zentra_tests::stack::Stack;
use zentra_tests::world::{World, count, dead, delivered};
use zentra_tests::{namespace, shared_rabbit, shared_redis, sign};

use crate::standalone::Shop;

fn printed(stack: &Stack, arguments: &[&str], token: Option<(&str, &str)>) -> (Option<i32>, Value) {
    let mut command = stack.command("zentra");
    command.arg("reconcile").args(arguments).arg("--json").envs(token);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let report = serde_json::from_slice(&stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (status.code(), report)
}

fn refused(stack: &Stack, arguments: &[&str]) -> String {
    let output = stack.zentra(&[&["reconcile"], arguments].concat());
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn file(lines: &[String]) -> PathBuf {
    let path = folder("list").join("events");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_dead_or_different_is_told_and_what_is_missing_comes_in_as_itself() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    let worker = stack.worker().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    for (id, end) in [("evt_dead", dead as fn(&_) -> bool), ("evt_1", delivered)] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, end).await;
    }
    drop(worker);
    world.send("evt_waits", &transfer("evt_waits", "evt_waits", 1)).await;
    let ids = ["evt_1", "evt_dead", "evt_waits", "evt_lost", "evt_1"];
    let mut lines: Vec<_> = ids.iter().map(|id| transfer(id, id, 1)).collect();
    let other = transfer("evt_1", "evt_1", 1).replace("transfer.settled", "transfer.failed");
    let list = file(&lines);
    let list = list.to_str().unwrap();
    let (code, report) = printed(stack, &["acme", "--list", list], None);
    assert_eq!(code, Some(1));
    let counts = json!({ "received": 1, "dead": 1, "accepted": 1, "missing": 1 });
    assert_eq!(report["counts"], counts);
    let first = &report["events"][0];
    assert_eq!((&first["id"], &first["state"]), (&"evt_lost".into(), &"missing".into()));
    assert_eq!(world.delivery("evt_lost").await, None, "nothing is brought in unasked");

    let _worker = stack.worker().await;
    let ingest = ["acme", "--list", list, "--ingest", "--by", "ada", "--because", "an outage"];
    let (code, report) = printed(stack, &ingest, None);
    assert_eq!((code, &report["counts"]["ingested"]), (Some(1), &1.into()), "one is still dead");
    let lost = world.until("evt_lost", delivered).await;
    assert_eq!(lost.event.admitted.as_ref().unwrap().by, "ada");
    let shown = stack.zentra(&["event", "show", "evt_lost"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("ingested by ada at "), "{shown}");
    // The late callback has other bytes and is a copy. So is the listed event that had arrived.
    world.send("evt_lost", &transfer("evt_lost", "evt_lost", 1).replace(": ", " : ")).await;
    let copied = world
        .until("evt_lost", |known| {
            count(known, |what| matches!(what, HistoryEvent::Duplicate)) == 1
        })
        .await;
    assert_eq!(count(&copied, |what| matches!(what, HistoryEvent::Conflict { .. })), 0);
    let (_, report) = printed(stack, &ingest, None);
    assert_eq!(report["counts"], json!({ "received": 3, "dead": 1 }), "once more, nothing");
    assert_eq!(world.ledger.rows().unwrap().len(), 3);
    let audit = String::from_utf8(stack.zentra(&["audit"]).stdout).unwrap();
    assert!(audit.contains("reconcile ingest acme (1 events): an outage"), "{audit}");
    let digest = hex::encode(Sha256::digest(transfer("evt_lost", "evt_lost", 1)));
    let named = format!("reconcile ingest acme (evt_lost sha256:{digest}): an outage");
    assert!(audit.contains(&named), "{audit}");

    lines.push(other);
    lines.reverse();
    let list = file(&lines);
    let (_, report) = printed(stack, &["acme", "--list", list.to_str().unwrap()], None);
    assert_eq!(report["counts"]["differing"], 1);
    let table = file(&["id,kind".into(), "evt_1,transfer.settled".into(), "evt_x,x".into()]);
    let table = table.to_str().unwrap();
    let csv = ["acme", "--list", table, "--format", "csv", "--type", "kind", "--ingest"];
    let (code, report) = printed(stack, &csv, None);
    assert_eq!((code, &report["counts"]), (Some(1), &json!({ "received": 1, "missing": 1 })));
    assert!(report["events"][0]["detail"].as_str().unwrap().contains("only its ID"), "{report}");
    let shown = stack.zentra(&["reconcile", "acme", "--list", table, "--format", "csv"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("2 events of acme in the provider's list"), "{shown}");
    for (arguments, wanted) in [
        (&["nobody"][..], "unknown source nobody"),
        (&["acme"], "Zentra does not know the API of standard-webhooks"),
        (&["stripe-eu"], "STRIPE_API_KEY"),
        (&["github", "--list", list.to_str().unwrap(), "--ingest"], "ids of github are not signed"),
        (&["acme", "--list", "/nowhere"], "/nowhere: No such file"),
    ] {
        let printed = refused(stack, arguments);
        assert!(printed.contains(wanted), "{printed}");
    }
}

/// The requests to a provider's API, and its responses in turn.
#[derive(Default)]
struct Played {
    answers: Mutex<VecDeque<(String, Headers)>>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Played {
    fn answer(&self, body: &Value, headers: Headers) {
        self.answers.lock().unwrap().push_back((body.to_string(), headers));
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        let line = format!("{} {}", request.method(), request.uri());
        self.asked.lock().unwrap().push((line, token));
        let next = self.answers.lock().unwrap().pop_front();
        let mut response = Response::builder();
        let Some((body, headers)) = next else {
            return response.status(401).body(Full::default()).unwrap();
        };
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(Full::new(body.into())).unwrap()
    }
}

async fn provider() -> (Arc<Played>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let played = Arc::new(Played::default());
    let serving = played.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let played = serving.clone();
            let service = service_fn(move |request| {
                let answer = played.respond(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (played, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_list_is_read_page_by_page_and_githubs_sends_again() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    let (played, at) = provider().await;
    let old = sign::now() - 3600;
    let event = |id: &str, created: u64| {
        let mut event: Value = serde_json::from_str(&transfer(id, id, 1)).unwrap();
        event["created"] = created.into();
        event
    };
    let body = event("evt_1", old).to_string();
    let url = format!("{}/in/stripe-eu", world.ingress.listen);
    let headers = sign::stripe(sign::now(), body.as_bytes());
    assert!(stack.http.post(&url, &headers, body).await.unwrap().status.is_success());
    world.until("evt_1", delivered).await;
    let pages = || {
        let data = [event("evt_new", sign::now()), event("evt_2", old)];
        played.answer(&json!({ "data": data, "has_more": true }), Vec::new());
        played.answer(&json!({ "data": [event("evt_1", old)], "has_more": false }), Vec::new());
    };
    pages();
    let key = Some(("STRIPE_API_KEY", "rk_test_1"));
    let (code, report) = printed(stack, &["stripe-eu", "--at", &at, "--since", "2h"], key);
    let counts = json!({ "received": 1, "missing": 1, "young": 1 });
    assert_eq!((code, &report["counts"]), (Some(1), &counts));
    let asked = played.asked();
    assert!(asked[0].0.starts_with("GET /v1/events?limit=100&created%5Bgte%5D="), "{asked:?}");
    assert!(asked[1].0.ends_with("&starting_after=evt_2"), "{asked:?}");
    assert!(asked.iter().all(|(_, token)| token == "Bearer rk_test_1"));
    pages();
    let (code, report) = printed(stack, &["stripe-eu", "--at", &at, "--ingest"], key);
    assert_eq!((code, &report["counts"]["ingested"]), (Some(0), &1.into()));
    world.until("evt_2", delivered).await;
    let mut wrong = stack.command("zentra");
    wrong.args(["reconcile", "stripe-eu", "--at", &at]).env("STRIPE_API_KEY", "wrong-key");
    let told_wrong = String::from_utf8(wrong.output().unwrap().stderr).unwrap();
    assert!(told_wrong.contains("Check the token in STRIPE_API_KEY"), "{told_wrong}");
    assert!(!told_wrong.contains("wrong-key"), "{told_wrong}");

    played.asked();
    let body = r#"{"zen":"once"}"#;
    let url = format!("{}/in/github", world.ingress.listen);
    let headers = sign::github("guid-1", "push", body.as_bytes());
    assert!(stack.http.post(&url, &headers, body).await.unwrap().status.is_success());
    let delivery = |id: u64, guid: &str| json!({ "id": id, "guid": guid, "event": "push", "delivered_at": "2026-11-26T00:00:00Z" });
    let hook = format!("{at}/repos/o/r/hooks/7");
    let link = format!("<{hook}/deliveries?cursor=v1_2>; rel=\"next\"");
    played.answer(&json!([delivery(11, "guid-2"), delivery(10, "guid-2")]), vec![("link", link)]);
    let elsewhere = "<http://127.0.0.1:9/deliveries>; rel=\"next\"".to_owned();
    played.answer(&json!([delivery(9, "guid-1")]), vec![("link", elsewhere)]);
    played.answer(&json!({}), Vec::new());
    world
        .until("guid-1", |known| {
            count(known, |what| matches!(what, HistoryEvent::Dead { .. })) == 1
        })
        .await;
    let again = ["github", "--at", &hook, "--since", "3650days", "--ingest"];
    let (code, report) = printed(stack, &again, Some(("GITHUB_TOKEN", "ghp_1")));
    assert_eq!((code, &report["counts"]), (Some(1), &json!({ "asked_for": 1, "dead": 1 })));
    let asked: Vec<_> = played.asked().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        asked,
        [
            "GET /repos/o/r/hooks/7/deliveries?per_page=100",
            "GET /repos/o/r/hooks/7/deliveries?cursor=v1_2",
            "POST /repos/o/r/hooks/7/deliveries/11/attempts",
        ],
        "the token goes nowhere else"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_it_is_the_same() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    shop.send(&program, "evt_1").await;
    shop.until("evt_1", "delivered").await;
    let lines: Vec<_> = ["evt_1", "evt_2"].iter().map(|id| transfer(id, "trf_1", 1)).collect();
    let list = file(&lines);
    let list = ["acme", "--list", list.to_str().unwrap(), "--ingest"];
    let (code, report) = printed(&shop.stack, &list, None);
    assert_eq!((code, &report["counts"]), (Some(0), &json!({ "received": 1, "ingested": 1 })));
    shop.until("evt_2", "delivered").await;
    shop.send(&program, "evt_2").await;
    let (code, report) = printed(&shop.stack, &list, None);
    assert_eq!((code, &report["counts"]), (Some(0), &json!({ "received": 2 })));
}
