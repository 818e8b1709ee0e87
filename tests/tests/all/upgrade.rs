//! What former versions have stored is read by this one, and programs of two versions run beside one another.
//!
//! `tests/fixtures/stored/VERSION` has what a version stored after [`play`]: `servers.json` at RabbitMQ and Redis,
//! `zentra.db` in a file, and `shown.json`, the deliveries as that version showed them. `make fixtures` records it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use zentra_tests::http::Headers;
use zentra_tests::ledger::{Ledger, Turn, transfer};
use zentra_tests::load::Load;
use zentra_tests::recorded::Recorded;
use zentra_tests::services::{self, folder, free_port};
use zentra_tests::stack::{Program, Stack, previous};
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

/// The namespace of what is recorded.
const NAMESPACE: &str = "stored";

/// A failed attempt waits for longer than a test.
const RETRY: &str = r#"retry = { attempts = 5, initial = "1h", max = "2h" }"#;

/// A source that nobody subscribes to, and a destination that is paused.
const MORE: &str = r#"
[source.stray]
provider = "standard-webhooks"
secrets = [{ name = "k1", secret = "env:ACME" }]
[destination.audit]
url = "LEDGER"
subscribe = ["github.#"]
timeout = "1s"
"#;

/// The IDs of the events of [`play`] that have deliveries.
const EVENTS: [&str; 7] =
    ["evt_delivered", "evt_waiting", "evt_dead", "evt_requeued", "evt_drained", "push_1", "push_2"];

/// Lists of what [`play_recent`] stores.
const LISTS: [&str; 3] = ["token", "job", "incident"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stored")
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

fn read(stack: &Stack, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&stdout(&stack.zentra(&arguments))).unwrap()
}

fn items(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    read(stack, arguments)["items"].as_array().unwrap().clone()
}

/// What programs since 0.3.0 know. Its receiver never answers.
const NOTIFY: &str = r#"
[notify.chat]
kind = "slack"
url = "file:SECRET"
"#;

struct Actors {
    stack: Stack,
    ledger: Ledger,
}

impl Actors {
    async fn new(rabbit: &str, redis: &str) -> Self {
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let stack = Stack::new(rabbit, redis, NAMESPACE, &ledger.url, RETRY);
        stack.add(&MORE.replace("LEDGER", &ledger.any()));
        Self { stack, ledger }
    }

    async fn post(&self, entry: &Program, source: &str, headers: &Headers, body: &str) -> u16 {
        let url = format!("{}/in/{source}", entry.listen);
        let answer = self.stack.http.post(&url, headers, body.to_owned()).await.unwrap();
        answer.status.as_u16()
    }

    async fn send(&self, entry: &Program, source: &str, id: &str, body: &str) {
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        assert_eq!(self.post(entry, source, &headers, body).await, 200, "{id}");
    }

    /// Sends an event that the ledger answers with this status, and waits for the state.
    async fn send_until(&self, entry: &Program, id: &str, status: u16, state: &str) {
        self.ledger.take_turns([Turn::Answer(status, Vec::new())]);
        self.send(entry, "acme", id, &transfer(id, id, 1)).await;
        self.stack.until(id, state, BOUND).await;
        self.ledger.forget_turns();
    }
}

/// Leaves something in each stored form. Returns the deliveries as the programs show them.
async fn play(actors: &Actors, entry: &Program) -> Value {
    let stack = &actors.stack;
    let zentra = |arguments: &[&str]| stdout(&stack.zentra(arguments));
    zentra(&["destination", "pause", "audit", "--because", "maintenance", "--by", "ada"]);
    actors.send_until(entry, "evt_waiting", 500, "waiting").await;
    for id in ["evt_dead", "evt_requeued", "evt_drained"] {
        actors.send_until(entry, id, 422, "dead").await;
    }
    zentra(&["dead", "requeue", "evt_requeued", "--because", "mended", "--by", "ada"]);
    stack.until("evt_requeued", "delivered", BOUND).await;
    zentra(&["dead", "drain", "evt_drained", "--because", "a test", "--by", "ada"]);
    // A copy, and another body under the same ID.
    for amount in [1, 1, 2] {
        actors
            .send(entry, "acme", "evt_delivered", &transfer("evt_delivered", "trf_1", amount))
            .await;
        stack.until("evt_delivered", "delivered", BOUND).await;
    }
    // The same bytes under two unsigned IDs: a suspected replay, which is released.
    let push = transfer("push", "push", 1);
    for id in ["push_1", "push_2"] {
        let headers = sign::github(id, "push", push.as_bytes());
        assert_eq!(actors.post(entry, "github", &headers, &push).await, 200);
        stack.until("push_1", "delivered", BOUND).await;
    }
    stack.until("push_2", "dead", BOUND).await;
    zentra(&["event", "release", "push_2", "--because", "meant so", "--by", "ada"]);
    stack.until("push_2", "delivered", BOUND).await;
    // A replay by a job, and a job that is only planned.
    let replay =
        ["job", "plan", "--archive", "--force", "--event", "evt_requeued", "--canary", "0"];
    let job = read(stack, &[&replay[..], &["--because", "lost", "--by", "ada"]].concat());
    zentra(&["job", "run", job["id"].as_str().unwrap()]);
    zentra(&["job", "plan", "--destination", "ledger", "--reason", "permanent", "--by", "ada"]);
    actors.send(entry, "stray", "evt_stray", "{}").await;
    let forged = sign::acme("evt_forged", sign::now(), b"{ }");
    assert_eq!(actors.post(entry, "acme", &forged, "{}").await, 401);
    zentra(&["token", "create", "vera", "--payloads", "--because", "dashboards", "--by", "ada"]);
    eventually("the refused callback is kept", BOUND, async || {
        (!items(stack, &["refused", "list"]).is_empty()).then_some(())
    })
    .await;
    let shown = EVENTS.map(|id| (id, read(stack, &["event", "show", id])["deliveries"].clone()));
    json!(shown.into_iter().collect::<BTreeMap<_, _>>())
}

/// What programs since 0.3.0 also store: a consumer's token, a job of one dead letter, an incident. Returns the
/// lists as `zentra` prints them.
async fn play_recent(actors: &Actors) -> Value {
    let stack = &actors.stack;
    let address = folder("secret").join("value");
    fs::write(&address, "http://127.0.0.1:9/hooks").unwrap();
    stack.add(&NOTIFY.replace("SECRET", &address.display().to_string()));
    let consumer = ["token", "create", "puller", "--role", "consumer", "--destination", "ledger"];
    stdout(&stack.zentra(&consumer));
    read(stack, &["job", "plan", "--event", "evt_dead", "--by", "ada"]);
    let mut serve = stack.command("zentra");
    serve.args(["serve", "--listen", &format!("127.0.0.1:{}", free_port())]);
    let _serve = services::start(serve);
    eventually("an incident is open", BOUND, async || {
        (!items(stack, &["incident", "list"]).is_empty()).then_some(())
    })
    .await;
    let lists = LISTS.map(|list| (list, json!(items(stack, &[list, "list"]))));
    json!(lists.into_iter().collect::<BTreeMap<_, _>>())
}

/// Each field of `former` is in `now`. Later versions add fields.
fn holds(now: &Value, former: &Value, at: &str) {
    match (now, former) {
        (Value::Object(now), Value::Object(former)) => {
            for (name, former) in former {
                let now = now.get(name).unwrap_or(&Value::Null);
                holds(now, former, &format!("{at}.{name}"));
            }
        }
        (Value::Array(now), Value::Array(former)) => {
            assert_eq!(now.len(), former.len(), "{at}: {now:?}");
            for (number, (now, former)) in now.iter().zip(former).enumerate() {
                holds(now, former, &format!("{at}[{number}]"));
            }
        }
        _ => assert_eq!(now, former, "{at}"),
    }
}

/// Everything of [`play`] is readable, and goes on.
async fn goes_on(actors: &Actors, entry: &Program, shown: &Value) {
    let stack = &actors.stack;
    for id in EVENTS {
        holds(&read(stack, &["event", "show", id])["deliveries"], &shown[id], id);
    }
    for list in LISTS {
        for former in shown[list].as_array().into_iter().flatten() {
            let id = if list == "token" { "name" } else { "id" };
            let now = items(stack, &[list, "list"]).into_iter().find(|one| one[id] == former[id]);
            holds(&now.unwrap_or_default(), former, list);
        }
    }
    let by = |items: &[Value], field: &str| -> Vec<String> {
        items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(by(&items(stack, &["token", "list"]), "name").contains(&"vera".to_owned()));
    let mut stages = by(&items(stack, &["job", "list"]), "stage");
    stages.sort();
    assert_eq!(stages[..2], ["done", "planned"]);
    let audit = by(&items(stack, &["audit"]), "action");
    for action in ["token create", "job plan", "dead drain", "destination pause"] {
        assert!(audit.iter().any(|one| one == action), "{action}: {audit:?}");
    }
    let audited = items(stack, &["destination", "list"]);
    let paused = audited.iter().find(|one| one["destination"] == "audit").unwrap();
    assert_eq!(paused["pause"]["because"], "maintenance", "{paused}");
    assert_eq!(items(stack, &["unrouted", "list"]).len(), 1);
    let refused = items(stack, &["refused", "list"]);
    assert_eq!(by(&refused, "reason"), ["signature_mismatch"]);
    // Its exit status says that it would be refused.
    let id = refused[0]["id"].as_str().unwrap();
    let explained = stack.zentra(&["refused", "explain", id, "--json"]).stdout;
    let explained: Value = serde_json::from_slice(&explained).unwrap();
    assert_eq!(explained["reason"], "signature_mismatch", "{explained}");
    let archived = by(&items(stack, &["archive", "list"]), "source");
    assert_eq!(archived.iter().filter(|source| *source == "acme").count(), 7, "{archived:?}");
    let dead = by(&items(stack, &["dead", "list"]), "reason");
    assert!(
        dead.contains(&"permanent".to_owned()) && dead.contains(&"conflict".to_owned()),
        "{dead:?}"
    );

    // A copy of what is delivered has no effect.
    actors.send(entry, "acme", "evt_delivered", &transfer("evt_delivered", "trf_1", 1)).await;
    stdout(&stack.zentra(&["dead", "requeue", "evt_dead", "--because", "mended"]));
    stdout(&stack.zentra(&["event", "release", "evt_waiting", "--because", "at once"]));
    for id in ["evt_dead", "evt_waiting"] {
        stack.until(id, "delivered", BOUND).await;
    }
    stdout(&stack.zentra(&["destination", "resume", "audit"]));
    eventually("the paused destination goes on", BOUND, async || {
        let seen = actors.ledger.seen();
        let pushes =
            seen.iter().filter(|seen| seen.header("idempotency-key").starts_with("audit/"));
        (pushes.count() > 0).then_some(())
    })
    .await;
    let copies = |delivery: &Value| {
        let history = delivery["history"].as_array().unwrap();
        history.iter().filter(|line| line["what"] == "duplicate").count()
    };
    eventually("the copy is recognised", BOUND, async || {
        let now = stack.shown("evt_delivered")?;
        (copies(&now) > copies(&shown["evt_delivered"][0])).then_some(())
    })
    .await;
    let written: Vec<String> =
        actors.ledger.rows().unwrap().into_iter().map(|row| row.transfer).collect();
    assert_eq!(written, ["evt_dead", "evt_waiting"], "nothing else is delivered again");
}

/// The folders with what former versions, and this one, have stored.
fn versions() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_version_has_stored_at_the_servers_is_read_and_goes_on() {
    let rabbit = services::rabbit();
    for version in versions() {
        let redis = services::redis();
        let actors = Actors::new(&rabbit.url(), &redis.url()).await;
        let recorded: Recorded =
            serde_json::from_value(json_of(&version.join("servers.json"))).unwrap();
        rabbit.forget(&[NAMESPACE.to_owned()]);
        recorded.restore_keys(&redis.url()).await.unwrap();
        let entry = actors.stack.ingress().await;
        recorded.restore_messages(&rabbit.url()).await.unwrap();
        let _worker = actors.stack.worker().await;
        goes_on(&actors, &entry, &json_of(&version.join("shown.json"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_version_has_stored_in_a_file_is_read_and_goes_on() {
    for version in versions() {
        let actors = Actors::new("", "").await;
        let path = actors.stack.embed();
        fs::copy(version.join("zentra.db"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        shift(&path);
        let looked = actors.stack.zentra(&["event", "list"]);
        let plan = read_plan(&actors.stack);
        if plan["changes"][0]["action"] == "upgrade" {
            // Looking changes nothing.
            assert!(!looked.status.success());
            let why = String::from_utf8_lossy(&looked.stderr).into_owned();
            assert!(why.contains("Start `zentra standalone` of this version"), "{why}");
        } else {
            stdout(&looked);
            assert_eq!(plan["changes"], json!([]));
        }
        // It starts again before `zentra standalone` has upgraded the file.
        let at = format!("127.0.0.1:{}", free_port());
        let mut serve = actors.stack.command("zentra");
        serve.args(["serve", "--listen", &at]);
        let _serve = services::start(serve);
        let entry = actors.stack.standalone().await;
        eventually("zentra serve answers", STOP, async || {
            let answer = actors.stack.http.get(&format!("http://{at}/v1/status")).await?;
            (answer.status == 401).then_some(())
        })
        .await;
        goes_on(&actors, &entry, &json_of(&version.join("file.json"))).await;
        let plan = read_plan(&actors.stack);
        assert_eq!(plan["changes"], json!([]));
        assert_eq!(plan["workers"][0]["version"], env!("CARGO_PKG_VERSION"), "{plan}");
    }
}

fn read_plan(stack: &Stack) -> Value {
    serde_json::from_slice(&stack.zentra(&["plan", "--json"]).stdout).unwrap()
}

/// Moves the times at which things are forgotten, as if the file had been written today.
fn shift(path: &Path) {
    let file = Connection::open(path).unwrap();
    let later = i64::try_from(sign::now() * 1000 + 7 * 24 * 3_600_000).unwrap();
    for set in [
        "delivery SET until = ?1 WHERE until IS NOT NULL",
        "archive SET at = ?1 - 604800000",
        // The event that waits for its second attempt.
        "message SET due = ?1 WHERE queue LIKE 'work/%' AND attempt > 1",
    ] {
        file.execute(&format!("UPDATE {set}"), [later]).unwrap();
    }
}

/// Records what programs store: those of this version, or of the previous one. Compares it with nothing; the tests above
/// read it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_can_be_recorded() {
    let target = std::env::var_os("ZENTRA_RECORD").map(PathBuf::from);
    let record = target.clone().unwrap_or_else(|| folder("recorded"));
    let programs = std::env::var_os("ZENTRA_PROGRAMS").map(PathBuf::from);
    let (rabbit, redis) = (services::rabbit(), services::redis());
    let mut actors = Actors::new(&rabbit.url(), &redis.url()).await;
    actors.stack.programs.clone_from(&programs);
    let (entry, worker) = (actors.stack.ingress().await, actors.stack.worker().await);
    let mut shown = play(&actors, &entry).await;
    if actors.stack.programs.is_none() {
        let lists = play_recent(&actors).await;
        shown.as_object_mut().unwrap().extend(lists.as_object().unwrap().clone());
    }
    drop((entry, worker));
    let recorded = Recorded::read(&rabbit, &redis.url(), NAMESPACE).await.unwrap();
    for queue in ["archive", "dead.ledger", "work.audit", "unrouted", "refused", "applied", "delay"]
    {
        let name = format!("{NAMESPACE}.{queue}");
        assert!(recorded.queues.keys().any(|known| known.starts_with(&name)), "{queue} is empty");
    }
    write(&record.join("servers.json"), &serde_json::to_value(&recorded).unwrap());
    write(&record.join("shown.json"), &shown);

    let mut actors = Actors::new("", "").await;
    actors.stack.programs = programs;
    let path = actors.stack.embed();
    let entry = actors.stack.standalone().await;
    let mut shown = play(&actors, &entry).await;
    if actors.stack.programs.is_none() {
        let lists = play_recent(&actors).await;
        shown.as_object_mut().unwrap().extend(lists.as_object().unwrap().clone());
    }
    drop(entry);
    write(&record.join("file.json"), &shown);
    let copy = record.join("zentra.db");
    let _ = fs::remove_file(&copy);
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{value:#}\n")).unwrap();
}

/// How long a program may take to stop.
const STOP: Duration = Duration::from_secs(30);

/// The versions of the running workers, by `zentra workers` of this version.
fn running(stack: &Stack) -> Vec<String> {
    let workers = items(stack, &["workers"]);
    let mut versions: Vec<String> =
        workers.iter().map(|one| one["version"].as_str().unwrap().to_owned()).collect();
    versions.sort();
    versions.dedup();
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_two_versions_run_beside_one_another_under_load_and_back_again() {
    let Some((version, programs)) = previous() else {
        eprintln!("skipped: this clone has no history of the previous release");
        return;
    };
    let this = env!("CARGO_PKG_VERSION");
    assert_ne!(version, this);
    let (rabbit, redis, namespace) = (shared_rabbit(), shared_redis(), namespace());
    let ledger = Arc::new(Ledger::start(&folder("ledger")).await.unwrap());
    // What one version sends to a retry, any of them takes up.
    ledger.fail_first_attempts(1);
    let retry = r#"retry = { initial = "500ms", max = "1s" }"#;
    let new = Stack::new(&rabbit, &redis, &namespace, &ledger.url, retry);
    let mut old = Stack::new(&rabbit, &redis, &namespace, &ledger.url, retry);
    old.programs = Some(programs);

    let mut entry = old.ingress().await;
    let (listen, mut workers) = (entry.listen.clone(), [old.worker().await, old.worker().await]);
    let address = listen.strip_prefix("http://").unwrap();
    let load = Load::start(&entry, &ledger);
    load.flows(30).await;
    stdout(&old.zentra(&["token", "create", "vera"]));
    stdout(&old.zentra(&["destination", "pause", "ledger", "--because", "a test"]));

    // A new worker obeys what an old command has asked for, and the other way round.
    let beside = new.worker().await;
    load.flows(30).await;
    assert_eq!(running(&new), [version.as_str(), this]);
    let plan = read_plan(&new);
    assert_eq!(
        (&plan["changes"], plan["workers"].as_array().unwrap().len()),
        (&json!([]), 3),
        "{plan}"
    );
    let paused = &items(&new, &["destination", "list"])[0];
    assert_eq!(paused["pause"]["because"], "a test", "{paused}");
    stdout(&new.zentra(&["destination", "resume", "ledger"]));
    stdout(&new.zentra(&["token", "create", "grafana"]));
    for stack in [&old, &new] {
        assert_eq!(items(stack, &["token", "list"]).len(), 2);
        assert!(items(stack, &["audit"]).len() >= 4);
        assert!(!items(stack, &["event", "list"]).is_empty());
    }

    // Worker by worker, and the ingress at the same address.
    assert!(workers[0].process.terminate(STOP).is_some());
    load.flows(30).await;
    assert!(entry.process.terminate(STOP).is_some());
    entry = new.ingress_at(address).await;
    load.flows(30).await;
    assert!(workers[1].process.terminate(STOP).is_some());
    load.flows(30).await;
    assert_eq!(running(&new), [this]);

    // Back again.
    let _back = old.worker().await;
    load.flows(30).await;
    drop(beside);
    assert!(entry.process.terminate(STOP).is_some());
    let _entry = old.ingress_at(address).await;
    load.flows(30).await;
    let sent = load.settle().await.unwrap();
    assert!(sent >= 200, "{sent}");
    for stack in [&old, &new] {
        assert!(items(stack, &["dead", "list"]).is_empty());
    }
}

/// The changes of a plan: each its action and object.
fn changes(stack: &Stack) -> Vec<(String, String)> {
    let plan = read_plan(stack);
    let text = |change: &Value, field: &str| {
        change[field].as_str().unwrap().replace(&stack.namespace, "NS")
    };
    let changes = plan["changes"].as_array().unwrap().iter();
    changes.map(|change| (text(change, "action"), text(change, "object"))).collect()
}

/// Somebody else holds the record of what was applied: another look, or a program that is stuck.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_another_program_holds_is_not_taken_for_nothing() {
    let (rabbit, namespace) = (shared_rabbit(), namespace());
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new(&rabbit, &shared_redis(), &namespace, &ledger.url, "");
    drop(stack.ingress().await);
    let connection = lapin::Connection::connect(&rabbit, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let record = format!("{namespace}.applied");
    let options = lapin::options::BasicGetOptions::default();
    let held = channel.basic_get(record.as_str().into(), options).await.unwrap();
    assert!(held.is_some());

    let refused = stack.zentra(&["plan"]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains(&record) && why.contains("run the command again"), "{why}");

    // A program that starts meanwhile is ready, and unbinds later what nobody needs any more.
    stack.replace(r#""github.#"]"#, r#""github.push"]"#);
    let _ingress = stack.ingress().await;
    connection.close(200, "".into()).await.unwrap();
    eventually("the former binding is gone", STOP, async || {
        (!is_bound(&rabbit, &namespace, "github.ping").await).then_some(())
    })
    .await;
    assert!(is_bound(&rabbit, &namespace, "github.push").await);
    assert_eq!(changes(&stack), []);
}

/// What a newer version has declared stays, and what an older one adds is known to it later.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_only_adds_to_the_topology_of_a_newer_one() {
    let (rabbit, namespace) = (shared_rabbit(), namespace());
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new(&rabbit, &shared_redis(), &namespace, &ledger.url, "");
    drop(stack.ingress().await);
    let of_newer = |record: &Value| {
        let mut record = record.clone();
        record["v"] = json!(99);
        record
    };
    let first = records(&rabbit, &namespace, of_newer).await;
    assert_eq!(first.len(), 1);

    stack.replace(r#""github.#"]"#, r#""github.push"]"#);
    let planned = changes(&stack);
    assert!(planned.iter().all(|(action, _)| action != "unbind"), "{planned:?}");
    for _ in 0..2 {
        drop(stack.ingress().await);
    }
    assert!(is_bound(&rabbit, &namespace, "github.ping").await);
    let records = records(&rabbit, &namespace, Value::clone).await;
    let versions: Vec<_> = records.iter().map(|record| record["v"].as_u64().unwrap()).collect();
    assert_eq!(versions, [99, 1], "one record is added, however many starts there are");
    assert!(records[1]["bindings"].to_string().contains("github.push"), "{}", records[1]);
}

/// Whether an event of this type reaches the queue of the ledger. Nobody consumes it.
async fn is_bound(rabbit: &str, namespace: &str, key: &str) -> bool {
    let connection = lapin::Connection::connect(rabbit, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let depth = async |name: &str| {
        let passive = lapin::options::QueueDeclareOptions {
            passive: true,
            ..lapin::options::QueueDeclareOptions::durable()
        };
        let name = format!("{namespace}.{name}");
        let none = lapin::types::FieldTable::default();
        channel.queue_declare(name.as_str().into(), passive, none).await.unwrap().message_count()
    };
    let before = (depth("work.ledger").await, depth("unrouted").await);
    let (exchange, options) = (format!("{namespace}.events"), Default::default());
    let properties = lapin::BasicProperties::default();
    let sent =
        channel.basic_publish(exchange.as_str().into(), key.into(), options, b"", properties);
    sent.await.unwrap().await.unwrap();
    let bound = eventually("the event is in a queue", STOP, async || {
        let after = (depth("work.ledger").await, depth("unrouted").await);
        (after != before).then_some(after.0 > before.0)
    })
    .await;
    connection.close(200, "".into()).await.unwrap();
    bound
}

/// The records of what was applied, each replaced by what `become` makes of it.
async fn records(rabbit: &str, namespace: &str, replaced: fn(&Value) -> Value) -> Vec<Value> {
    let connection = lapin::Connection::connect(rabbit, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = format!("{namespace}.applied");
    let mut records = Vec::new();
    let options = lapin::options::BasicGetOptions { no_ack: true };
    while let Some(got) = channel.basic_get(queue.as_str().into(), options).await.unwrap() {
        records.push(serde_json::from_slice(&got.delivery.data).unwrap());
    }
    for record in &records {
        let body = replaced(record).to_string().into_bytes();
        let properties = lapin::BasicProperties::default().with_delivery_mode(2);
        let options = lapin::options::BasicPublishOptions::default();
        let sent =
            channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties);
        sent.await.unwrap().await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_a_start_changes_and_changes_nothing() {
    let (rabbit, namespace) = (shared_rabbit(), namespace());
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new(&rabbit, &shared_redis(), &namespace, &ledger.url, "");
    let change = |action: &str, object: &str| (action.to_owned(), object.to_owned());
    let first = changes(&stack);
    for (action, object) in [
        ("create", "exchange NS.in"),
        ("create", "queue NS.work.ledger"),
        ("create", "queue NS.delay.250"),
        ("bind", "NS.events to NS.work.ledger, by github.#"),
    ] {
        assert!(first.contains(&change(action, object)), "{object}: {first:?}");
    }
    assert!(first.iter().all(|(action, _)| action == "create" || action == "bind"), "{first:?}");
    assert_eq!(changes(&stack), first, "the first look has changed nothing");

    drop(stack.ingress().await);
    assert_eq!(changes(&stack), []);
    stack.replace(r#""github.#"]"#, r#""github.push"]"#);
    stack.add(
        "[destination.crm]\nurl = \"http://127.0.0.1:1\"\nsubscribe = [\"acme.#\"]\ntimeout = \"1s\"\n\
         [refused]\nmax_count = 77",
    );
    let changed = changes(&stack);
    let refused = |change: &&(String, String)| change.1.starts_with("queue NS.refused.");
    let kept: Vec<&str> = changed.iter().filter(refused).map(|change| change.0.as_str()).collect();
    assert_eq!(kept, ["create", "keep"], "{changed:?}");
    let others: Vec<_> = changed.iter().filter(|change| !refused(change)).cloned().collect();
    let expected = [
        change("create", "queue NS.dead.crm"),
        change("create", "queue NS.work.crm"),
        change("bind", "NS.events to NS.work.crm, by acme.#"),
        change("bind", "NS.events to NS.work.ledger, by github.push"),
        change("unbind", "NS.events to NS.work.ledger, by github.#"),
    ];
    assert_eq!(others, expected);

    // A queue of that name that somebody else has made.
    let connection = lapin::Connection::connect(&rabbit, lapin::ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions::durable();
    let name = format!("{namespace}.work.crm");
    channel
        .queue_declare(name.as_str().into(), options, lapin::types::FieldTable::default())
        .await
        .unwrap();
    assert!(changes(&stack).contains(&change("conflict", "queue NS.work.crm")));
    let shown = stack.zentra(&["plan"]);
    assert_eq!(shown.status.code(), Some(1));
    let (out, err) =
        (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(out.contains("inequivalent arg") && err.contains("a start would fail"), "{out}{err}");
}
