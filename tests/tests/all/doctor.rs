//! `zentra doctor`: names what is wrong, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use zentra_tests::ledger::Ledger;
use zentra_tests::services::{self, Rabbit, Redis, folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis};

/// The findings, as `LEVEL ABOUT: TEXT. REMEDY`, and the exit status.
fn doctor(stack: &Stack, more: &[&str]) -> (Vec<String>, i32) {
    let output = stack.zentra(&[&["doctor", "--json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let line = |one: &Value| {
        let field = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}. {}", field("level"), field("about"), field("text"), field("remedy"))
    };
    let lines = report["findings"].as_array().unwrap().iter().map(line).collect();
    (lines, output.status.code().unwrap_or(-1))
}

#[track_caller]
fn has(found: &[String], level: &str, parts: &[&str]) {
    let is =
        |line: &&String| line.starts_with(level) && parts.iter().all(|part| line.contains(part));
    assert!(found.iter().any(|line| is(&line)), "no {level} {parts:?} in {found:#?}");
}

/// RabbitMQ with its management API, and the API's URL.
fn with_management() -> (Rabbit, String) {
    let port = free_port();
    let settings = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
    let rabbit = Rabbit::start_with(settings, "[rabbitmq_management]").unwrap();
    (rabbit, format!("http://guest:guest@127.0.0.1:{port}/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_installation_is_well_until_a_policy_loses_its_events() {
    let ((rabbit, management), redis) = (with_management(), services::redis());
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new(&rabbit.url(), &redis.url(), &namespace(), &ledger.any(), "");
    let more = ["--management", &management];

    let queues = || rabbit.control(&["list_queues", "--silent", "name"]);
    let (found, _) = doctor(&stack, &more);
    has(&found, "warning", &["rabbitmq queues", "Start the ingress"]);
    has(&found, "warning", &["workers", "no"]);
    assert_eq!(queues(), "", "looking has declared a queue");

    let (_ingress, _worker) = (stack.ingress().await, stack.worker().await);
    let well = eventually("nothing is wrong", BOUND, async || {
        let (found, exit) = doctor(&stack, &more);
        (exit == 0 && found.iter().any(|line| line.contains("no policy loses"))).then_some(found)
    })
    .await;
    has(&well, "ok", &["rabbitmq node", "no alarm"]);
    has(&well, "ok", &["redis 127.0.0.1", "accepts writes"]);
    has(&well, "ok", &["workers", "1 running"]);
    has(&well, "ok", &["clock", "RabbitMQ"]);
    has(&well, "ok", &["clock", "Redis"]);
    has(&well, "ok", &["destination ledger", "accepts connections"]);
    assert!(ledger.seen().is_empty(), "the destination got a request");

    rabbit.control(&[
        "set_policy",
        "all",
        ".*",
        r#"{"message-ttl":60000}"#,
        "--apply-to",
        "queues",
    ]);
    let lost = eventually("the policy is found", BOUND, async || {
        let (found, exit) = doctor(&stack, &more);
        // RabbitMQ applies it to one queue after the other.
        let says = |line: &String| {
            line.contains("dead.ledger") && line.contains("policy all sets message-ttl")
        };
        (exit == 1 && found.iter().any(says)).then_some(found)
    })
    .await;
    has(&lost, "problem", &["dead.ledger", "events can be lost", "Exclude this queue"]);
    assert!(!lost.iter().any(|line| line.contains(".refused.")), "{lost:#?}");

    let (found, exit) = doctor(&stack, &["--management", &management.replace("guest@", "wrong@")]);
    assert_eq!(exit, 1);
    has(&found, "problem", &["rabbitmq management", "refuses the user"]);
    assert!(!found.iter().any(|line| line.contains("wrong")), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_a_line_with_what_to_do() {
    let lossy = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"];
    let lossy = Redis::with(lossy.map(str::to_owned).to_vec()).unwrap();
    let at = namespace();
    let url = "http://127.0.0.1:9/";
    let with = |rabbit: &str, redis: &str, destination: &str| {
        Stack::new(rabbit, redis, &at, destination, "")
    };
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let nobody = "127.0.0.1:1";
    for (stack, parts) in [
        (
            with(&rabbit, &redis, url),
            &["destination ledger", "refused", "Start the application"][..],
        ),
        (
            with(&rabbit, &redis, "http://nowhere.invalid/"),
            &["destination ledger", "check the host in [destination.ledger]"],
        ),
        (with(&rabbit, &redis, "http://localhost:9/"), &["destination ledger", "allow_private"]),
        (
            with(&format!("amqp://guest:secret@{nobody}/%2f"), &redis, url),
            &["rabbitmq 127.0.0.1:1", "Check [rabbitmq] urls"],
        ),
        (
            with(&rabbit.replace("guest:guest", "guest:secret"), &redis, url),
            &["rabbitmq", "check user and password"],
        ),
        (
            with(&rabbit, &format!("redis://:secret@{nobody}/"), url),
            &["redis 127.0.0.1:1", "[redis]"],
        ),
        (
            with(&redis.replace("redis", "amqp"), &redis, url),
            &["rabbitmq", "did not answer", "Check [rabbitmq] urls"],
        ),
    ] {
        let (found, exit) = doctor(&stack, &[]);
        assert_eq!(exit, 1, "{found:#?}");
        has(&found, "problem", parts);
        assert!(!found.iter().any(|line| line.contains("secret@")), "{found:#?}");
    }

    let (found, _) = doctor(&with(&rabbit, &lossy.url(), url), &[]);
    has(&found, "warning", &["redis", "set appendonly yes"]);
    has(&found, "warning", &["redis", "set maxmemory-policy noeviction"]);

    let stack = with(&rabbit, &redis, url);
    fs::set_permissions(&stack.config, fs::Permissions::from_mode(0o666)).unwrap();
    let secrets = stack.config.with_file_name(".env");
    fs::write(&secrets, "NOTHING=1\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).unwrap();
    let (found, _) = doctor(&stack, &[]);
    has(&found, "problem", &["zentra.toml", "everybody can write", "chmod o-w"]);
    has(&found, "problem", &[".env", "everybody can read", "chmod o-rwx"]);

    stack.replace("env:ACME", "env:NOT_SET");
    let (found, exit) = doctor(&stack, &[]);
    has(&found, "problem", &["zentra.toml", "NOT_SET is not set"]);
    has(&found, "ok", &["redis", "accepts writes"]);
    assert_eq!(exit, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_file_and_its_programs_are_examined() {
    let ledger = Ledger::start(&folder("ledger")).await.unwrap();
    let stack = Stack::new("", "", &namespace(), &ledger.any(), "");
    let file = stack.embed();
    let (found, exit) = doctor(&stack, &[]);
    has(&found, "skipped", &["ingress", "does not run here"]);
    assert_eq!(exit, 0, "{found:#?}");
    assert!(!file.exists(), "looking has created the file");

    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let (found, exit) = doctor(&stack, &[]);
    has(&found, "problem", &["everybody can write to it"]);
    assert_eq!(exit, 1);

    let missing = file.parent().unwrap().join("missing").join("zentra.db");
    stack.replace(&file.display().to_string(), &missing.display().to_string());
    let (found, _) = doctor(&stack, &[]);
    has(&found, "problem", &["missing does not exist", "mkdir"]);
}
