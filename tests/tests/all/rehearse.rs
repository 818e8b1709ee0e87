//! `zentra rehearse` and `zentra demo`, on both backends and on a running Zentra.

use std::process::Output;

use serde_json::Value;
use zentra_tests::services::{folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::{namespace, shared_rabbit, shared_redis};

/// The number of built-in scenarios.
const SHIPPED: usize = 20;
const QUICK: &str =
    r#"retry = { attempts = 5, initial = "300ms", multiplier = 2.0, jitter = 0.2 }"#;

/// A scenario without a configuration file: what it starts has its own.
fn stack() -> Stack {
    Stack::new("", "", "none", "http://127.0.0.1:9/", "")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn report(output: &Output) -> Value {
    let printed = text(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{printed}"))
}

/// The scenarios with this outcome.
fn ended<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let all = report["scenarios"].as_array().unwrap().iter();
    let ended = all.filter(|played| played["outcome"] == outcome);
    ended.map(|played| played["name"].as_str().unwrap()).collect()
}

fn every_scenario_passes(backend: &str) {
    let junit = folder("junit").join("report.xml");
    let file = junit.display().to_string();
    let output = stack().zentra(&["rehearse", "--backend", backend, "--json", "--junit", &file]);
    let report = report(&output);
    assert_eq!(ended(&report, "passed").len(), SHIPPED, "{report:#}");
    assert!(output.status.success());
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains(r#"failures="0""#) && xml.contains(r#"name="duplicates""#), "{xml}");
}

#[test]
fn every_scenario_passes_on_one_file() {
    every_scenario_passes("embedded");
}

#[test]
fn every_scenario_passes_on_servers() {
    every_scenario_passes("rabbitmq");
}

#[test]
fn the_demo_shows_the_picture_and_is_plain_in_a_pipe() {
    let output = stack().zentra(&["demo"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", text(&output.stderr));
    assert!(
        !printed.contains('\u{1b}') && printed.contains("the ledger has one result"),
        "{printed}"
    );
    assert!(printed.contains("claimed again: the last claim expired unsettled"), "{printed}");
    // Variables that change the user's configuration change nothing here.
    let mut command = stack().command("zentra");
    command.args(["demo", "--json"]).env("ZENTRA__WORKER__LEASE", "no time at all");
    let output = command.output().unwrap();
    let printed = report(&output);
    assert_eq!(printed["outcome"], "passed");
    assert_eq!(printed["deliveries"][0]["record"]["state"], "delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zentra_that_runs_is_rehearsed_but_not_where_it_is_for_production() {
    let destination = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{destination}/events");
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let stack = Stack::new(&rabbit, &redis, &namespace(), &url, QUICK);
    let (ingress, _worker) = (stack.ingress().await, stack.worker().await);
    let at = ["rehearse", "--at", &ingress.listen, "--json"];
    let played = stack.zentra(&[&at[..], &["--destination", &destination]].concat());
    let printed = report(&played);
    assert!(played.status.success(), "{printed:#}");
    let own = [
        "transfer",
        "rotation",
        "beyond-the-lease",
        "outage",
        "worker-crash",
        "ingress-crash",
        "dead-letter",
    ];
    assert_eq!(ended(&printed, "skipped"), own, "{printed:#}");
    assert_eq!(ended(&printed, "passed").len(), SHIPPED - own.len());

    for source in ["acme", "stripe-eu", "github"] {
        let table = format!("[source.{source}]\n");
        stack.replace(&table, &format!("{table}environment = \"production\"\n"));
    }
    let refused = stack.zentra(&at);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("all sources are marked as production"));
    let named = stack.zentra(&[&at[..], &["--source", "acme"]].concat());
    assert!(text(&named.stderr).contains("the source acme is marked as production"));
    let forced =
        stack.zentra(&[&at[..], &["--destination", &destination, "--force", "forged"]].concat());
    assert_eq!(ended(&report(&forced), "passed"), ["forged"]);
}

#[test]
fn a_scenario_of_ones_own_is_played_and_a_broken_contract_is_told() {
    let stack = stack();
    let play = |toml: &str| {
        let file = folder("scenario").join("mine.toml");
        std::fs::write(&file, toml).unwrap();
        stack.zentra(&["rehearse", file.to_str().unwrap()])
    };
    let steps = r#"about = "Mine"
[config.destination.ledger]
retry = { attempts = 1 }
[[step]]
do = "destination"
turns = ["503"]
[[step]]
do = "send"
contract = "it is taken"
event = "a"
answer = "200"
[[step]]
do = "check"
contract = "it ends"
event = "a"
state = "dead"
"#;
    let output = play(steps);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("mine  Mine  passed"), "{}", text(&output.stdout));
    let output = play(&steps.replace(r#"answer = "200""#, r#"answer = "202""#));
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        printed.contains("✗ it is taken") && printed.contains("0 passed, 1 failed"),
        "{printed}"
    );
    // A configuration that no Zentra starts with is a failure of its scenario.
    let output = play(&steps.replace("attempts = 1", "attempts = 0"));
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(printed.contains("FAILED") && printed.contains("retry.attempts"), "{printed}");
    let output = play(&steps.replace("turns", "trns"));
    assert!(text(&output.stderr).contains("mine.toml: TOML parse error at line"));
}
