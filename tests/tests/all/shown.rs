//! The commands that the reference pages show work. Their placeholders stand for something that is there.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use zentra_core::lifecycle::State;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::world::{World, dead};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::documentation::commands;

const OLD_SECRET: &str = "whsec_b2xkLXNlY3JldC1vZi1hY21l";
/// How long a command may run, in seconds. One of them ends only with its reader.
const WHILE: &str = "10";
/// The exit status of `timeout`, if it ended the command.
const STOPPED: i32 = 124;

/// A world with something for each command: dead letters, waiting events, and a refused callback.
async fn eventful() -> World {
    let retry = "attempts = 2, initial = \"200ms\", max = \"200ms\"";
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let later = || Turn::Answer(503, vec![("retry-after", "3600".into())]);
    world.ledger.take_turns([later(), later()]);
    let _worker = world.stack.worker().await;
    for id in ["wait_1", "wait_2"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, |delivery| delivery.record.state == State::Waiting).await;
    }
    for id in ["dead_1", "dead_2", "dead_3"] {
        world.ledger.take_turns([Turn::Answer(500, Vec::new()), Turn::Answer(500, Vec::new())]);
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, dead).await;
    }
    let (body, now) = (transfer("evt_1", "trf_1", 1), sign::now());
    let mut headers = sign::acme("evt_1", now, body.as_bytes());
    headers.retain(|(name, _)| *name != "webhook-signature");
    let signature = sign::standard(OLD_SECRET, "evt_1", now, body.as_bytes());
    headers.push(("webhook-signature", signature));
    assert_eq!(world.post(&headers, &body).await.unwrap().reason(), "signature_mismatch");
    eventually("the refused callback is kept", Duration::from_secs(20), async || {
        let kept = ["zentra_ingress_refused_kept_total", "acme"];
        (world.ingress.metric(&world.stack.http, &kept).await > 0.0).then_some(())
    })
    .await;
    // The secret is corrected.
    world.stack.replace(
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [",
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [{ name = \"old\", secret = \"env:OLD\" }, ",
    );
    world
}

/// The command, ended after a while if it does not end.
fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg(WHILE).arg(command.get_program()).args(command.get_args());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

/// What a placeholder of a command stands for.
fn meant<'a>(words: &[&'a str], refused: &'a str, job: &'a str) -> Vec<&'a str> {
    let id = match words[..2] {
        ["refused", _] => refused,
        ["job", _] => job,
        ["event", "release"] => "wait_1",
        ["event", "end"] => "wait_2",
        ["dead", "drain"] => "dead_2",
        _ => "dead_1",
    };
    let meant = words.iter().map(|word| match word.trim_end_matches('…') {
        "ID" => id,
        "NAME" => "ledger",
        "TEXT" => "trf_1",
        word => word,
    });
    meant.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_page_about_operating_works() {
    let world = eventful().await;
    let _worker = world.stack.worker().await;
    let run = |words: &[&str]| {
        let mut command = world.stack.command("zentra");
        let output = bounded(command.env("OLD", OLD_SECRET).args(words)).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (_, listed, _) = run(&["refused", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let refused = listed["items"][0]["id"].as_str().unwrap();
    let mut job = String::new();
    let lines = commands("operating.md");
    assert!(lines.len() > 30, "{lines:?}");
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().skip(1).chain([""]).collect();
        let words = meant(&words, refused, &job);
        let words = &words[..words.len() - 1];
        let (code, printed, errors) = run(words);
        let fits = match words[0] {
            // A server of the tests may have a problem.
            "doctor" => matches!(code, Some(0 | 1)),
            "tail" => code == Some(STOPPED),
            _ => code == Some(0),
        };
        assert!(fits, "{words:?}: {code:?}: {printed}{errors}");
        if words.starts_with(&["job", "plan"]) {
            let id = printed.split_whitespace().nth(1).unwrap_or_default();
            job = id.trim_end_matches(',').to_owned();
        }
    }
}
