//! Jobs over many dead letters: planned, tried on a canary, run, halted and resumed, with crashes
//! in between.

use std::process::{Output, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zentra_store::journal::{Delivery, DeliveryStore, HistoryEvent};
use zentra_tests::ledger::{Ledger, Turn, transfer};
use zentra_tests::services;
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, count, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;
use crate::standalone::{Shop, words};

const RETRY: &str = "attempts = 1";

fn ok(Output { status, stdout, stderr }: Output) -> String {
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn done(stack: &Stack, arguments: &[&str]) -> String {
    ok(stack.zentra(arguments))
}

fn job(stack: &Stack, arguments: &[&str]) -> Value {
    let all = [&["job"], arguments, &["--json"]].concat();
    serde_json::from_str(&done(stack, &all)).unwrap()
}

fn plan(stack: &Stack, more: &[&str]) -> (String, Value) {
    let planned = job(stack, &[&["plan", "--all", "--rate", "0"], more].concat());
    (planned["id"].as_str().unwrap().to_owned(), planned)
}

/// This many events, each of them dead.
async fn dead_letter(world: &World, many: usize) {
    world.ledger.take_turns((0..many).map(|_| Turn::Answer(400, Vec::new())));
    let mut sending = JoinSet::new();
    for at in 0..many {
        let id = format!("evt_{at}");
        let body = transfer(&id, &format!("trf_{at}"), 1);
        let (http, url) = (world.stack.http.clone(), format!("{}/in/acme", world.ingress.listen));
        while sending.len() >= 64 {
            sending.join_next().await;
        }
        sending.spawn(async move {
            let headers = sign::acme(&id, sign::now(), body.as_bytes());
            let answer = http.post(&url, &headers, body).await;
            assert!(answer.is_some_and(|answer| answer.status.is_success()));
        });
    }
    sending.join_all().await;
    all_dead(&world.stack, many).await;
}

async fn all_dead(stack: &Stack, many: usize) {
    eventually("all are dead", BOUND, async || {
        let listed = stack.zentra(&["dead", "list", "--json", "--limit", "1000000"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).ok()?;
        (listed["items"].as_array()?.len() == many).then_some(())
    })
    .await;
}

fn ended(running: &mut services::Guarded) {
    services::poll(BOUND, || running.has_ended().then_some(())).unwrap();
}

fn rows(ledger: &Ledger) -> usize {
    ledger.rows().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_a_canary_and_a_run_bring_each_dead_letter_to_one_effect() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    dead_letter(&world, 12).await;
    let because = ["--canary", "5", "--by", "ada", "--because", "the ledger is mended"];
    let (id, planned) = plan(stack, &because);
    assert_eq!((&planned["stage"], &planned["plan"]["letters"]), (&"planned".into(), &12.into()));
    assert_eq!(planned["plan"]["by"]["ledger, permanent"], 12);
    assert_eq!(plan(stack, &because).0, id, "asked twice, it is the same");
    assert_eq!(rows(&world.ledger), 0, "a plan changes nothing");
    // What dies after the plan is not part of it.
    world.ledger.take_turns([Turn::Answer(400, Vec::new())]);
    world.send("late", &transfer("late", "trf_late", 1)).await;
    world.until("late", dead).await;

    let tried = job(stack, &["run", &id, "--only-canary"]);
    assert_eq!(
        (&tried["stage"], &tried["why"]),
        (&"paused".into(), &"the canary succeeded".into())
    );
    assert_eq!(
        (&tried["progress"]["requeued"], &tried["progress"]["delivered"]),
        (&5.into(), &5.into())
    );
    assert_eq!(rows(&world.ledger), 5);
    assert_eq!(plan(stack, &because).0, id, "one that has begun is left as it is");

    let ran = job(stack, &["run", &id]);
    assert_eq!((&ran["stage"], &ran["progress"]["requeued"]), (&"done".into(), &12.into()));
    assert_eq!((&ran["progress"]["failed"], &ran["runs"]), (&0.into(), &2.into()));
    assert_eq!(rows(&world.ledger), 12);
    assert_eq!(job(stack, &["run", &id]), ran, "once more, nothing happens");
    let one = world.until("evt_7", delivered).await;
    let printed = one.history.iter().find_map(|entry| match &entry.what {
        HistoryEvent::Requeued { reason, job } => {
            Some((entry.by.as_str(), reason.as_str(), job.clone()))
        }
        _ => None,
    });
    let run = printed.as_ref().and_then(|(_, _, job)| job.clone()).unwrap();
    assert!(run.starts_with(&format!("{id}/")), "{run}");
    assert_eq!(printed, Some(("ada", "the ledger is mended", Some(run))));
    assert!(dead(&world.delivery("late").await.unwrap()));

    let audit = done(stack, &["audit"]);
    for line in ["job plan", "job run"] {
        assert!(audit.contains(&format!("{line} {id} all")), "{audit}");
    }
    assert!(audit.contains("(done, 12 of 12 requeued)"), "{audit}");
    assert!(done(stack, &["job", "list"]).contains("done"));
    let shown = done(stack, &["job", "show", &id]);
    assert!(shown.contains("12; watched: ") && shown.contains("12 letters"), "{shown}");
    assert!(done(stack, &["event", "show", "evt_7"]).contains(&format!("by job {id}/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stops_by_what_fails_and_goes_on_when_it_is_mended() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    dead_letter(&world, 8).await;
    let (id, _) = plan(stack, &["--canary", "4", "--max-failures", "25"]);
    world.ledger.take_turns((0..2).map(|_| Turn::Answer(400, Vec::new())));
    let stopped = stack.zentra(&["job", "run", &id]);
    assert_eq!(stopped.status.code(), Some(1));
    let printed = String::from_utf8(stopped.stderr).unwrap();
    assert!(printed.contains("the canary: 2 of 4 failed"), "{printed}");
    assert_eq!(rows(&world.ledger), 2, "the others wait");
    all_dead(stack, 6).await;
    let ran = job(stack, &["run", &id]);
    assert_eq!((&ran["stage"], &ran["progress"]["requeued"]), (&"done".into(), &10.into()));
    assert_eq!(rows(&world.ledger), 8);

    // An event that fails again during a run is not taken again, so that the run ends.
    world.ledger.take_turns((0..3).map(|_| Turn::Answer(400, Vec::new())));
    for id in ["evt_a", "evt_b"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, dead).await;
    }
    let (id, _) = plan(stack, &["--canary", "0", "--max-failures", "100"]);
    let ran = job(stack, &["run", &id]);
    assert_eq!((&ran["progress"]["requeued"], &ran["progress"]["failed"]), (&2.into(), &1.into()));
    assert_eq!(rows(&world.ledger), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stops_also_behind_its_canary_when_too_much_fails() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    dead_letter(&world, 80).await;
    let slow = ["plan", "--all", "--canary", "2", "--rate", "20", "--max-failures", "10"];
    let planned = job(stack, &slow);
    let id = planned["id"].as_str().unwrap();
    let (good, bad) = ((0..2).map(|_| 200), (0..80).map(|_| 400));
    world.ledger.take_turns(good.chain(bad).map(|status| Turn::Answer(status, Vec::new())));
    let stopped = stack.zentra(&["job", "run", id]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    let stopped = job(stack, &["show", id]);
    let why = stopped["why"].as_str().unwrap();
    assert!(why.contains(" of the last ") && why.ends_with(" failed"), "{why}");
    assert!(stopped["progress"]["requeued"].as_u64().unwrap() < 80, "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_and_cancelled_while_it_runs_and_no_other_comes_between() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    dead_letter(&world, 20).await;
    let slow = job(stack, &["plan", "--source", "acme", "--canary", "1", "--rate", "1"]);
    let id = slow["id"].as_str().unwrap();
    assert_eq!(slow["plan"]["seconds"], 20);
    let (other, _) = plan(stack, &[]);
    let run = |id: &str| {
        let mut command = stack.command("zentra");
        command.args(["job", "run", id]).stdout(Stdio::null());
        services::start(command)
    };
    let mut running = run(id);
    let begun = async || {
        eventually("it runs", BOUND, async || {
            let job = job(stack, &["show", id]);
            (job["stage"] == "running" && job["progress"]["requeued"] != 0).then_some(())
        })
        .await;
    };
    begun().await;
    let held = stack.zentra(&["job", "plan", "--type", "transfer.settled"]);
    let printed = String::from_utf8(held.stderr).unwrap();
    assert!(
        printed.contains(&format!("Job {id} holds dead letters of its destination")),
        "{printed}"
    );
    let refused = stack.zentra(&["job", "run", &other]);
    assert_eq!(refused.status.code(), Some(1));
    let printed = String::from_utf8(refused.stderr).unwrap();
    assert!(printed.contains(&format!("job {id} is working on the same destination")), "{printed}");
    let paused = job(stack, &["pause", id, "--by", "ada"]);
    assert_eq!(paused["stage"], "paused");
    ended(&mut running);

    let mut running = run(id);
    begun().await;
    assert!(running.terminate(BOUND).is_some_and(|status| status.success()));
    assert_eq!(job(stack, &["show", id])["why"], "its runner was stopped");

    let mut running = run(id);
    begun().await;
    assert_eq!(job(stack, &["cancel", id])["stage"], "cancelled");
    ended(&mut running);
    assert!(rows(&world.ledger) < 20, "some are left");
    assert_eq!(job(stack, &["run", id])["stage"], "cancelled", "it never goes on");
    assert_eq!(job(stack, &["run", &other])["stage"], "done");
    assert_eq!(rows(&world.ledger), 20);
    let unknown = stack.zentra(&["job", "run", "0000"]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("unknown job 0000"));
    let nothing = stack.zentra(&["job", "plan", "--all"]);
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("there is nothing to run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_is_replayed_and_what_is_delivered_only_by_force_and_under_its_key() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let worker = stack.worker().await;
    dead_letter(&world, 2).await;
    done(stack, &["dead", "drain", "evt_0", "--because", "a mistake"]);
    for id in ["evt_2", "evt_3"] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, delivered).await;
    }
    drop(worker);
    world.send("evt_4", &transfer("evt_4", "evt_4", 1)).await;
    let (id, planned) = plan(stack, &["--archive", "--because", "lost", "--canary", "0"]);
    assert_eq!(planned["plan"]["by"], json!({ "ledger, dead": 2, "ledger, never run": 1 }));
    let _worker = stack.worker().await;
    world.until("evt_4", delivered).await;
    let ran = job(stack, &["run", &id]);
    assert_eq!((&ran["stage"], &ran["progress"]["requeued"]), (&"done".into(), &2.into()));
    assert_eq!(ran["progress"]["leftover"], 3, "they are delivered");
    for at in 0..5 {
        let known = world.until(&format!("evt_{at}"), delivered).await;
        let replays = count(&known, |what| matches!(what, HistoryEvent::Replayed { .. }));
        assert_eq!(replays, usize::from(at < 2), "evt_{at}");
    }
    assert_eq!(rows(&world.ledger), 5);
    // The next walk takes the dead letter that was not drained.
    let swept = done(stack, &["dead", "requeue", "--all", "--yes", "--json"]);
    let swept: Value = serde_json::from_str(&swept).unwrap();
    assert_eq!((&swept["done"], &swept["leftover"]), (&0.into(), &1.into()));

    let nothing = stack.zentra(&["job", "plan", "--archive", "--all"]);
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("replayed only with --force"));
    let force = ["job", "plan", "--archive", "--force", "--event", "evt_2", "--event", "evt_3"];
    let planned = done(stack, &[&force[..], &["--json"]].concat());
    let planned: Value = serde_json::from_str(&planned).unwrap();
    assert_eq!(planned["plan"]["by"], json!({ "ledger, delivered, forced": 2 }));
    let id = planned["id"].as_str().unwrap();
    // Its runner was killed after it had opened the first one.
    let first = world.delivery("evt_2").await.unwrap();
    let what = HistoryEvent::Replayed { reason: String::new(), job: format!("{id}/1") };
    assert_eq!(world.journal.reopen(&first.key, "ada", &what).await.unwrap(), Some(1));
    assert_eq!(job(stack, &["run", id])["progress"]["requeued"], 2);
    for id in ["evt_2", "evt_3"] {
        let twice = |known: &Delivery| {
            count(known, |what| matches!(what, HistoryEvent::Delivered { .. })) == 2
                && delivered(known)
        };
        world.until(id, twice).await;
    }
    let seen = world.ledger.seen();
    let keys: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    let of = |id: &str| keys.iter().filter(|key| key.ends_with(id)).count();
    assert_eq!((of("/evt_2"), of("/evt_3"), of("/evt_4")), (2, 2, 1));
    assert_eq!(rows(&world.ledger), 5, "the key is the same");

    // Events that fail again halt the job.
    let planned = done(stack, &[&force[..], &["--json"]].concat());
    let planned: Value = serde_json::from_str(&planned).unwrap();
    let id = planned["id"].as_str().unwrap();
    for source in ["acme", "stripe-eu", "github"] {
        let name = format!("[source.{source}]\n");
        stack.replace(&name, &format!("{name}archive = false\n"));
    }
    assert_eq!(stack.zentra(&["job", "run", id]).status.code(), Some(1));
    let halted = job(stack, &["show", id]);
    let why = "no source has an archive.";
    assert_eq!((&halted["stage"], &halted["why"]), (&"stopped".into(), &why.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_the_api_runs_what_is_released_there_also_after_a_kill() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), RETRY).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    dead_letter(&world, 12).await;
    let api = Api::start(stack).await;
    let viewer = api.token(&["grafana"]);
    let ada = api.token(&["ada", "--role", "operator"]);
    let plan = json!({ "source": "acme", "canary": 2, "rate": 4, "because": "mended" }).to_string();
    assert_eq!(api.ask(Method::POST, "/v1/jobs", &viewer, &plan).await.0, 403);
    let (code, planned) = api.ask(Method::POST, "/v1/jobs", &ada, &plan).await;
    assert_eq!((code, &planned["plan"]["letters"]), (200, &12.into()), "{planned}");
    assert_eq!((&planned["made"]["by"], &planned["stage"]), (&"ada".into(), &"planned".into()));
    let path = format!("/v1/jobs/{}", planned["id"].as_str().unwrap());
    let run = format!("{path}/run");
    assert_eq!(api.post(&run, &viewer, "").await.0, 403);
    let (code, released) = api.post(&run, &ada, "").await;
    assert_eq!((code, &released["stage"]), (200, &"canary".into()));
    let until = async |api: &Api<'_>, what: &str, wanted: &dyn Fn(&Value) -> bool| {
        eventually(what, BOUND, async || {
            let (_, job) = api.get(&path, &viewer).await;
            wanted(&job).then_some(job)
        })
        .await
    };
    until(&api, "it runs", &|job| {
        job["stage"] == "running" && job["progress"]["requeued"].as_u64() > Some(3)
    })
    .await;
    drop(api);
    let api = Api::start(stack).await;
    let ran = until(&api, "another one goes on", &|job| job["stage"] == "done").await;
    assert_eq!((&ran["runs"], rows(&world.ledger)), (&2.into(), 12));
    let (_, jobs) = api.get("/v1/jobs", &ada).await;
    assert_eq!(jobs["items"], json!([ran]));

    for id in ["evt_a", "evt_b"] {
        world.ledger.take_turns([Turn::Answer(400, Vec::new())]);
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, dead).await;
    }
    let (_, planned) =
        api.ask(Method::POST, "/v1/jobs", &ada, r#"{"canary": 1, "all": true}"#).await;
    let id = planned["id"].as_str().unwrap();
    let only = json!({ "only_canary": true }).to_string();
    api.ask(Method::POST, &format!("/v1/jobs/{id}/run"), &ada, &only).await;
    eventually("the canary succeeded", BOUND, async || {
        (job(stack, &["show", id])["stage"] == "paused").then_some(())
    })
    .await;
    let (_, cancelled) = api.post(&format!("/v1/jobs/{id}/cancel"), &ada, "").await;
    assert_eq!(cancelled["stage"], "cancelled");
    for (path, body) in [
        ("/v1/jobs/0000/run", "{}"),
        ("/v1/jobs/0000/pause", "{}"),
        ("/v1/jobs", r#"{"source": "nobody"}"#),
        ("/v1/jobs", r#"{"all": true, "canary": 101}"#),
        ("/v1/jobs", r#"{"canary": 1}"#),
        ("/v1/jobs", r#"{"all": true, "because": "a\nb"}"#),
    ] {
        let (code, problem) = api.ask(Method::POST, path, &ada, body).await;
        assert!([400, 404, 409].contains(&code), "{path} {body}: {problem}");
    }
}

/// `ZENTRA_LETTERS=10000` tests more of them.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_runs_it_whoever_delivers_and_the_broker_may_be_killed_in_the_middle() {
    let many = std::env::var("ZENTRA_LETTERS").ok().map_or(600, |many| many.parse().unwrap());
    let mut rabbit = services::rabbit();
    let world =
        World::start(&rabbit.url(), &shared_redis(), &namespace(), "attempts = 9").await.unwrap();
    let stack = &world.stack;
    let worker = stack.worker().await;
    dead_letter(&world, many).await;
    let (id, _) = plan(stack, &["--canary", "5", "--max-failures", "50"]);
    let run = || {
        let mut command = stack.command("zentra");
        command.args(["job", "run", &id]).stdout(Stdio::null());
        services::start(command)
    };
    let has = async |part: usize| {
        eventually("it goes on", BOUND, async || {
            let job = job(stack, &["show", &id]);
            (job["progress"]["requeued"].as_u64()? >= (many / 5 * part) as u64).then_some(())
        })
        .await;
    };
    let mut running = run();
    has(1).await;
    running.kill();
    let mut running = run();
    has(2).await;
    drop(worker);
    let _worker = stack.worker().await;
    has(3).await;
    rabbit.kill();
    rabbit.restart().unwrap();
    ended(&mut running);
    let ran = job(stack, &["run", &id]);
    assert_eq!(ran["stage"], "done", "{ran}");
    for at in 0..many {
        let one = world.until(&format!("evt_{at}"), delivered).await;
        let ends = count(&one, |what| matches!(what, HistoryEvent::Delivered { .. }));
        assert_eq!(ends, 1, "evt_{at} is delivered once");
    }
    assert_eq!(rows(&world.ledger), many);
    all_dead(stack, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_it_is_the_same() {
    let shop = Shop::with("", "", "shop", "retry = { attempts = 1 }").await;
    let program = shop.stack.standalone().await;
    shop.ledger.take_turns((0..9).map(|_| Turn::Answer(400, Vec::new())));
    for at in 0..6 {
        shop.send(&program, &format!("evt_{at}")).await;
        // In this order: the canary takes the first ones.
        all_dead(&shop.stack, at + 1).await;
    }
    let (id, planned) = plan(&shop.stack, &["--canary", "3"]);
    assert_eq!(planned["plan"]["letters"], 6);
    let stopped = shop.stack.zentra(&["job", "run", &id]);
    let printed = String::from_utf8(stopped.stderr).unwrap();
    assert!(printed.contains("the canary: 3 of 3 failed"), "{printed}");
    let mut command = shop.stack.command("zentra");
    command.args(["job", "run", &id, "--only-canary"]).stdout(Stdio::null());
    services::start(command).kill();
    // Its hold expires.
    let ran = job(&shop.stack, &["run", &id]);
    assert_eq!(ran["stage"], "done", "{ran}");
    eventually("all are written", Duration::from_secs(20), async || {
        (rows(&shop.ledger) == 6).then_some(())
    })
    .await;
    // What the killed run requeued may still be in the dead-letter queue.
    assert!(done(&shop.stack, &["dead", "list"]).starts_with("no dead letters\n"));
    let forced = ["job", "plan", "--archive", "--force", "--event", "evt_1"];
    let planned = done(&shop.stack, &forced);
    assert!(planned.contains("1  ledger, delivered, forced"), "{planned}");
    let id = planned.split_whitespace().nth(1).unwrap().trim_end_matches(',');
    assert_eq!(job(&shop.stack, &["run", id])["progress"]["delivered"], 1);
    assert_eq!(rows(&shop.ledger), 6);
    assert_eq!(
        words(&shop.until("evt_1", "delivered").await)[2..],
        ["requeued", "claimed", "dead", "requeued", "claimed", "delivered"]
            .into_iter()
            .chain(["replayed", "claimed", "delivered"])
            .collect::<Vec<_>>()[..]
    );
}
