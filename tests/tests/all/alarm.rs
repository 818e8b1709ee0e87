//! A memory alarm of RabbitMQ: the broker accepts no messages, and still delivers those that it
//! has.

use std::process::Output;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use zentra_store::journal::DeliveryStore;
use zentra_tests::ledger::Turn;
use zentra_tests::services;
use zentra_tests::world::{BOUND, World, dead};
use zentra_tests::{eventually, namespace, shared_redis};

use crate::faults::{Provider, RETRY, event, is_transfer};

const EVENTS: usize = 300;
/// More events fail than there are slots and prefetched messages.
const FAIL_FIRST: usize = 100;
/// Time limit for each operator command.
const ANSWER: Duration = Duration::from_secs(20);

async fn accept(world: &World) {
    let provider = Provider::of(world);
    let mut sending = JoinSet::new();
    for at in 0..EVENTS {
        let provider = provider.clone();
        sending.spawn(async move { provider.callback(at).await });
    }
    sending.join_all().await;
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_during_an_alarm_and_operators_commands_answer() {
    let rabbit = services::rabbit();
    let world = World::start(&rabbit.url(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    // A machine that stalls for a second is not an attempt that timed out: each would count twice.
    world.stack.replace("lease = \"2s\"\n", "lease = \"60s\"\n");
    let few = "timeout = \"20s\"\nconcurrency = 4\ncircuit = { failures = 0 }\n";
    world.stack.replace("timeout = \"1s\"\n", few);
    let first = world.stack.worker().await;
    world.send("evt_dead", r#"{"id": "evt_dead", "type": "other"}"#).await;
    world.until("evt_dead", dead).await;
    drop(first);
    world.ledger.take_turns((0..FAIL_FIRST).map(|_| Turn::Answer(500, Vec::new())));
    accept(&world).await;
    let others = (0..EVENTS).filter(|at| !is_transfer(*at)).count();

    rabbit.alarm(true);
    let worker = world.stack.worker().await;
    let seen = || world.ledger.seen().len() - 1;
    eventually("each is attempted once", BOUND, async || (seen() >= EVENTS).then_some(())).await;
    let unpublished =
        async || worker.metric(&world.stack.http, &["zentra_worker_unpublished"]).await as usize;
    let least = FAIL_FIRST.max(others);
    eventually("their next places are waited for", BOUND, async || {
        (unpublished().await >= least).then_some(())
    })
    .await;

    let name = format!("ledger/acme/{}", event(1));
    let requeue = ["dead", "requeue", "--destination", "ledger", "--all", "--yes"];
    let commands: [(&[&str], i32, &str); 8] = [
        (&["status"], 2, "accepts no messages"),
        (&["event", "show", &name], 0, "claimed"),
        (&["event", "show", "ledger/acme/unknown"], 1, "is unknown"),
        (&["dead", "list", "--destination", "ledger"], 0, "evt_dead"),
        (&requeue, 2, "give RabbitMQ more memory or disk"),
        (&["refused", "list"], 0, "no refused callbacks"),
        (&["unrouted", "list"], 0, "no unrouted"),
        (&["event", "find", "trf_0001"], 0, "evt_0001"),
    ];
    for (command, exit, says) in commands {
        let started = Instant::now();
        let output = world.stack.zentra(command);
        let (took, text) = (started.elapsed(), text(&output));
        assert!(took < ANSWER, "{command:?} took {took:?}");
        assert_eq!(output.status.code(), Some(exit), "{command:?}: {text}");
        assert!(text.contains(says), "{command:?}: {text}");
    }

    rabbit.alarm(false);
    let rows = || world.ledger.rows().unwrap().len();
    eventually("each transfer has its row", BOUND * 2, async || {
        (rows() >= EVENTS - others).then_some(())
    })
    .await;
    eventually("all others are dead", BOUND, async || {
        let letters = world.journal.dead("ledger", EVENTS, &|_| true).await.ok()?;
        (letters.len() > others).then_some(())
    })
    .await;
    eventually("none waits to be published", BOUND, async || {
        (unpublished().await == 0).then_some(())
    })
    .await;
    assert_eq!(rows(), EVENTS - others);
    assert_eq!(seen(), EVENTS + FAIL_FIRST, "each is attempted once a rung");
}
