//! SIGHUP: the new configuration applies unless it is invalid, and nothing is dropped.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zentra_tests::http::Http;
use zentra_tests::ledger::{Ledger, transfer};
use zentra_tests::services::{self, folder};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::{World, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

const BOUND: Duration = Duration::from_secs(20);
const BODY: &str = r#"{"type":"transfer.settled","id":"x"}"#;
const NEW_SECRET: &str = "whsec_bmV3LXNlY3JldC1vZi1hY21l";

pub(crate) async fn reload(http: &Http, program: &Program, outcome: &str) {
    let metric = ["zentra_config_reloads_total", outcome];
    let before = program.metric(http, &metric).await;
    program.process.hang_up();
    eventually("the config is read again", BOUND, async || {
        (program.metric(http, &metric).await > before).then_some(())
    })
    .await;
}

/// A callback of `acme`, signed by this secret, on an open connection.
async fn post_on(stream: &mut TcpStream, id: &str, secret: &str) -> String {
    let now = sign::now();
    let signature = sign::standard(secret, id, now, BODY.as_bytes());
    let length = BODY.len();
    let request = format!(
        "POST /in/acme HTTP/1.1\r\nhost: x\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: {signature}\r\ncontent-length: {length}\r\n\r\n{BODY}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(BOUND, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_and_sources_come_and_go_on_open_connections_and_a_bad_file_changes_nothing()
{
    let unused = "redis://unused";
    let stack = Stack::new(&shared_rabbit(), unused, &namespace(), "http://127.0.0.1:9/", "");
    let ingress = stack.ingress().await;
    let http = &stack.http;
    let address = ingress.listen.split("://").last().unwrap();
    let mut open = TcpStream::connect(address).await.unwrap();
    assert!(post_on(&mut open, "evt_1", sign::ACME_SECRET).await.starts_with("HTTP/1.1 200"));
    assert!(post_on(&mut open, "evt_2", NEW_SECRET).await.starts_with("HTTP/1.1 401"));

    // Both secrets are valid while the provider switches. A metric shows which one was used.
    let path = folder("secrets").join("acme");
    std::fs::write(&path, NEW_SECRET).unwrap();
    let new = format!("{{ name = \"k2\", secret = \"file:{}\" }}", path.display());
    let old = "{ name = \"k1\", secret = \"env:ACME\" }";
    stack.replace(old, &format!("{new}, {old}"));
    stack.add("[source.hub]\nprovider = \"github\"\nsecrets = [{ name = \"k1\", secret = \"env:GITHUB\" }]");
    reload(http, &ingress, "ok").await;
    assert!(post_on(&mut open, "evt_3", NEW_SECRET).await.starts_with("HTTP/1.1 200"));
    assert!(post_on(&mut open, "evt_4", sign::ACME_SECRET).await.starts_with("HTTP/1.1 200"));
    let accepted = async |key: &str| {
        let key = format!("key=\"{key}\"");
        ingress.metric(http, &["zentra_ingress_accepted_total", "acme", &key]).await
    };
    assert_eq!((accepted("k1").await, accepted("k2").await), (2.0, 1.0));
    let hub = format!("{}/in/hub", ingress.listen);
    let headers = sign::github("d-1", "push", BODY.as_bytes());
    assert_eq!(http.post(&hub, &headers, BODY).await.unwrap().status, 200);

    // The old one is removed.
    stack.replace(&format!("{new}, {old}"), &new);
    reload(http, &ingress, "ok").await;
    assert!(post_on(&mut open, "evt_5", sign::ACME_SECRET).await.starts_with("HTTP/1.1 401"));
    assert!(post_on(&mut open, "evt_6", NEW_SECRET).await.starts_with("HTTP/1.1 200"));

    // An invalid file is refused as a whole, including its valid parts.
    stack.replace("[source.hub]", "[source.pub]");
    stack.add("colour = 1");
    reload(http, &ingress, "refused").await;
    assert_eq!(http.post(&hub, &headers, BODY).await.unwrap().status, 200);
    assert!(post_on(&mut open, "evt_7", NEW_SECRET).await.starts_with("HTTP/1.1 200"));
    let successful = ["zentra_config_last_reload_successful"];
    assert_eq!(ingress.metric(http, &successful).await, 0.0);
    let printed = services::output();
    assert!(printed.contains("source.pub.colour: is not a setting"), "{printed}");
    stack.replace("colour = 1", "");
    reload(http, &ingress, "ok").await;
    assert_eq!(http.post(&hub, &headers, BODY).await.unwrap().status, 404);
    assert_eq!(ingress.metric(http, &successful).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_up_a_new_destination_and_a_moved_one_while_it_works() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), "attempts = 2").await.unwrap();
    let (stack, worker) = (&world.stack, world.stack.worker().await);
    world.send("evt_1", &transfer("evt_1", "trf_1", 5)).await;
    world.until("evt_1", delivered).await;

    let second = Ledger::start(&folder("second")).await.unwrap();
    let moved = Ledger::start(&folder("moved")).await.unwrap();
    stack.replace(&format!("url = \"{}\"", world.ledger.url), &format!("url = \"{}\"", moved.url));
    let url = &second.url;
    stack.add(&format!(
        "[destination.second]\nurl = \"{url}\"\nsubscribe = [\"acme.#\"]\ntimeout = \"1s\""
    ));
    reload(&stack.http, &world.ingress, "ok").await;
    reload(&stack.http, &worker, "ok").await;
    world.send("evt_2", &transfer("evt_2", "trf_2", 5)).await;
    eventually("both have it", BOUND, async || {
        let (second, moved) = (second.rows().unwrap().len(), moved.rows().unwrap().len());
        (second == 1 && moved == 1).then_some(())
    })
    .await;
    assert_eq!(world.ledger.rows().unwrap().len(), 1, "only what came before the move");
}

#[test]
fn the_example_file_passes_the_check() {
    let stack = Stack::new("amqp://unused", "redis://unused", "check", "http://127.0.0.1:9/", "");
    let example = include_str!("../../../deploy/zentra.example.toml");
    std::fs::write(&stack.config, example).unwrap();
    let keys = r#"[{ name = "k", secret = "env:SEAL_KEY" }]"#;
    let mut command = stack.command("zentra");
    let output = command.arg("check").env("ZENTRA__SEAL__KEYS", keys).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn check_tells_all_problems_or_that_the_config_is_good_and_what_to_know() {
    let stack = Stack::new("amqp://unused", "redis://unused", "check", "http://127.0.0.1:9/", "");
    let output = stack.zentra(&["check"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && printed.contains("the configuration is valid: sources: 3"),
        "{printed}"
    );
    assert!(printed.contains("note: source.github: github signs no time"), "{printed}");
    stack.replace("lease = \"2s\"", "lease = \"1s\"\ncolour = 1");
    let output = stack.zentra(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    for key in ["worker.lease: must be at least twice", "worker.colour: is not a setting"] {
        assert!(printed.contains(key), "{printed}");
    }
}
