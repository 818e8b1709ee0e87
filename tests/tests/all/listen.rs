//! `zentra listen`: events of a shared Zentra at a developer's application. Each test runs on servers
//! and on one file.

use std::process::Stdio;
use std::time::Duration;

use zentra_tests::ledger::{Ledger, Seen, Turn, transfer};
use zentra_tests::services::{self, Guarded, folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::{eventually, sign};

use crate::api::Api;
use crate::pull::{Bench, On, on_both};
use crate::standalone::words;

const BOUND: Duration = Duration::from_secs(60);

on_both! {
    copies_reach_an_application_over_breaks_without_a_gap_and_change_no_delivery
    pulled_events_are_delivered_by_the_answers_of_the_application
}

/// Starts `zentra listen` for the destination `ledger`.
fn listen(stack: &Stack, at: &str, token: &str, forward: &str, more: &[&str]) -> Guarded {
    let mut command = stack.command("zentra");
    command.args(["listen", "--at", at, "--destination", "ledger", "--forward", forward]);
    command.env("ZENTRA_TOKEN", token).args(more);
    services::start(command)
}

fn keys(application: &Ledger) -> Vec<String> {
    application.seen().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect()
}

async fn has(application: &Ledger, ids: &[&str]) {
    let wanted: Vec<String> = ids.iter().map(|id| format!("ledger/acme/{id}")).collect();
    eventually(&format!("{ids:?} are there"), BOUND, async || {
        let keys = keys(application);
        assert!(wanted.starts_with(&keys), "{keys:?}, not {wanted:?}");
        (keys == wanted).then_some(())
    })
    .await;
}

async fn copies_reach_an_application_over_breaks_without_a_gap_and_change_no_delivery(on: On) {
    let bench = Bench::start(on, "30s").await;
    let application = Ledger::start(&folder("ledger")).await.unwrap();
    let listens = format!("127.0.0.1:{}", free_port());
    let api = Api::on(&bench.stack, &listens, &[]).await;
    let token = api.token(&["dev", "--role", "consumer", "--destination", "ledger"]);
    let at = format!("http://{listens}/");
    let file = folder("position").join("position");
    let file = file.to_str().unwrap();
    let start = |more: &[&str]| {
        let signing = ["--signing", sign::LEDGER_SECRET, "--position", file];
        listen(&bench.stack, &at, &token, &application.url, &[&signing[..], more].concat())
    };
    // What is there already, in its order; a callback that came twice is one event.
    for id in ["evt_1", "evt_2", "evt_1"] {
        bench.send(id).await;
    }
    let mut first = start(&["--since", "1h"]);
    has(&application, &["evt_1", "evt_2"]).await;
    bench.send("evt_3").await;
    has(&application, &["evt_1", "evt_2", "evt_3"]).await;
    // The API is killed, and starts again at the same address.
    api.kill();
    bench.send("evt_4").await;
    let api = Api::on(&bench.stack, &listens, &[]).await;
    bench.send("evt_5").await;
    has(&application, &["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"]).await;
    // The position is written after the requests.
    let end = eventually("the position is written", BOUND, async || {
        let written = std::fs::read_to_string(file).ok()?;
        let read = api_position(&bench.stack, &at, &token, written.trim()).await;
        read.is_empty().then_some(written)
    })
    .await;
    assert!(end.starts_with("after."), "{end}");
    first.kill();
    bench.send("evt_6").await;
    let _second = start(&[]);
    has(&application, &["evt_1", "evt_2", "evt_3", "evt_4", "evt_5", "evt_6"]).await;
    let seen = application.seen();
    let Seen { headers, body } = &seen[5];
    assert_eq!(body, &transfer("evt_6", "trf_8172", 1));
    assert_eq!(
        (&headers["zentra-attempt"], &headers["ce-type"]),
        (&"1".parse().unwrap(), &"transfer.settled".parse().unwrap())
    );
    let time = seen[5].header("webhook-timestamp").parse().unwrap();
    let signed = sign::standard(sign::LEDGER_SECRET, "ledger/acme/evt_6", time, body);
    assert_eq!(seen[5].header("webhook-signature"), signed);
    // Nobody has claimed anything.
    let known = bench.stack.zentra(&["event", "list", "--json"]);
    let known = String::from_utf8(known.stdout).unwrap();
    assert!(!known.contains("evt_"), "{known}");
    let root = api.token(&["root", "--role", "admin"]);
    let (_, audit) = api.get("/v1/audit", &root).await;
    let looks = |entry: &&serde_json::Value| entry["action"] == "destination listen";
    let look = audit["items"].as_array().unwrap().iter().find(looks).unwrap();
    assert_eq!((&look["by"], &look["on"]), (&"dev".into(), &"ledger".into()));
}

/// Keys of what is behind a position.
async fn api_position(stack: &Stack, at: &str, token: &str, position: &str) -> Vec<String> {
    let headers = vec![("authorization", format!("Bearer {token}"))];
    let position = position.replace('@', "%40");
    let url = format!("{at}v1/listen/ledger?wait_seconds=0&position={position}");
    let answer = stack.http.send(http::Method::GET, &url, &headers, "").await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item["idempotency_key"].as_str().unwrap().to_owned()).collect()
}

async fn pulled_events_are_delivered_by_the_answers_of_the_application(on: On) {
    let bench = Bench::start(on, "30s").await;
    let application = Ledger::start(&folder("ledger")).await.unwrap();
    application.take_turns([500, 422].map(|status| Turn::Answer(status, Vec::new())));
    let api = Api::start(&bench.stack).await;
    let token = api.token(&["dev", "--role", "consumer", "--destination", "ledger"]);
    let _listening = listen(&bench.stack, &api.url(""), &token, &application.url, &["--pull"]);
    bench.send("evt_1").await;
    let shown = bench.until("evt_1", "dead").await;
    assert_eq!(words(&shown), ["claimed", "failed", "claimed", "dead"]);
    assert_eq!(shown["reason"], "permanent", "{shown}");
    let error = shown["history"][1]["error"].as_str().unwrap();
    assert!(error.contains("500"), "{shown}");
    bench.send("evt_2").await;
    let shown = bench.until("evt_2", "delivered").await;
    assert_eq!(words(&shown), ["claimed", "delivered"]);
    assert_eq!(application.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_says_why_and_ends() {
    let bench = Bench::start(On::File, "30s").await;
    bench.stack.add("[destination.quiet]\npull = true\nsubscribe = [\"github.#\"]");
    bench.stack.replace("[source.github]", "[source.github]\narchive = false");
    let api = Api::start(&bench.stack).await;
    let token = api.token(&["dev", "--role", "consumer", "--destination", "quiet"]);
    let viewer = api.token(&["grafana"]);
    let run = async |at: &str, destination: &str, token: &str, more: &[&str]| {
        let mut command = tokio::process::Command::from(bench.stack.command("zentra"));
        command.args(["listen", "--at", at, "--destination", destination]);
        command.args(["--forward", "http://127.0.0.1:9/"]).args(more);
        command.env("ZENTRA_TOKEN", token).stdin(Stdio::null());
        let ran = tokio::time::timeout(BOUND, command.output()).await.unwrap().unwrap();
        let printed = String::from_utf8(ran.stderr).unwrap();
        assert!(!printed.contains(token), "{printed}");
        (ran.status.code(), printed)
    };
    let at = api.url("");
    for (at, destination, token, more, what) in [
        (&*at, "quiet", "zentra_0000000000000000_x", &[][..], "a valid token is needed"),
        (&at, "quiet", &viewer, &[], "requires the role consumer"),
        (&at, "ledger", &token, &[], "not for the destination ledger"),
        (&at, "quiet", &token, &[], "no source of the destination quiet is archived"),
        (&at, "Quiet/..", &token, &[], "--destination is not a name"),
        ("http://zentra.example", "quiet", &token, &[], "--at must start with https://"),
        ("zentra.example", "quiet", &token, &[], "--at is not an address"),
        (&at, "quiet", &token, &["--signing", "?"], "--signing is not a Standard Webhooks key"),
        (&bench_url(&bench), "quiet", &token, &[], "is --at the address of zentra serve?"),
    ] {
        let (code, printed) = run(at, destination, token, more).await;
        assert_eq!(code, Some(1), "{what}: {printed}");
        assert!(printed.to_lowercase().contains(&what.to_lowercase()), "{what}: {printed}");
    }
}

/// An address at which something else answers.
fn bench_url(bench: &Bench) -> String {
    bench.ingress.listen.clone()
}
