//! A user's own worker, with a Rust handler and an inbox.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use zentra_core::lifecycle::DeadReason;
use zentra_store::journal::HistoryEvent;
use zentra_tests::databases::Database;
use zentra_tests::ledger::transfer;
use zentra_tests::services::folder;
use zentra_tests::stack::Program;
use zentra_tests::world::{BOUND, World, count, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};
use zentra_worker::inbox;

const QUICK: &str = r#"attempts = 3, initial = "250ms", multiplier = 1.0, jitter = 0.0"#;

/// A setup whose destination has a handler, and the handler's database.
async fn world() -> (World, PathBuf) {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), QUICK).await.unwrap();
    let url = format!("url = \"{}\"", world.ledger.url);
    world.stack.replace(&url, "handler = true");
    (world, folder("handler").join("booked.db"))
}

async fn worker(world: &World, database: &Path) -> Program {
    let mut command = world.stack.command("zentra-test-handlers");
    command.env("HANDLER_DB", database).env("RUST_BACKTRACE", "0");
    world.stack.start(command).await
}

fn booked(database: &Path) -> Vec<String> {
    let database = Connection::open(database).unwrap();
    let mut select = database.prepare("SELECT id FROM booked ORDER BY id").unwrap();
    select.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_called_as_an_application_would_be_and_its_failures_are_judged() {
    let (world, database) = world().await;
    let worker = worker(&world, &database).await;
    let ids = ["good_1", "panics_1", "slow_1", "fails_1", "never_1"];
    for id in ids {
        world.send(id, &transfer(id, "trf_1", 1)).await;
    }
    world.send("good_1", &transfer("good_1", "trf_1", 1)).await;
    let never = world.until("never_1", dead).await;
    assert_eq!(never.reason, Some(DeadReason::Permanent));
    assert!(matches!(&never.history[1].what,
        HistoryEvent::Dead { result, .. } if result.error.as_deref() == Some("not mine")));
    for (id, printed) in [
        ("panics_1", "the handler panicked: no ledger today"),
        ("slow_1", "the handler took longer than 1s"),
        ("fails_1", "not yet"),
    ] {
        let done = world.until(id, delivered).await;
        let failed = |what: &HistoryEvent| matches!(what, HistoryEvent::Failed { result, .. } if result.error.as_deref() == Some(printed));
        assert_eq!((count(&done, failed), done.record.attempt), (1, 2), "{id}");
    }
    let failed = world.delivery("fails_1").await.unwrap().history;
    assert!(failed[2].at.since(failed[1].at) >= Duration::from_millis(900), "it asked to wait");
    world.until("good_1", |d| count(d, |what| *what == HistoryEvent::Duplicate) == 1).await;
    assert_eq!(booked(&database), ["fails_1", "good_1", "panics_1", "slow_1"]);
    let outcome = ["zentra_worker_attempts_total", "outcome=\"permanent\""];
    assert_eq!(worker.metric(&world.stack.http, &outcome).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_the_providers_headers_and_query() {
    let (world, database) = world().await;
    let _worker = worker(&world, &database).await;
    let body = transfer("tells_1", "trf_1", 1);
    let mut headers = sign::acme("tells_1", sign::now(), body.as_bytes());
    headers.push(("x-shop", "ann".into()));
    let url = format!("{}/in/acme?tenant=7", world.ingress.listen);
    assert_eq!(world.stack.http.post(&url, &headers, body).await.unwrap().status, 200);
    let printed = world.until("tells_1", dead).await.history;
    let HistoryEvent::Dead { result, .. } = &printed[1].what else { panic!("{printed:?}") };
    assert_eq!(result.error.as_deref(), Some(r#"Some("tenant=7") Some(("x-shop", "ann"))"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_its_handlers_commit_leaves_one_effect() {
    let (world, database) = world().await;
    let _doomed = worker(&world, &database).await;
    world.send("dies_1", &transfer("dies_1", "trf_1", 1)).await;
    eventually("the row is written", BOUND, async || (!booked(&database).is_empty()).then_some(()))
        .await;
    let _heir = worker(&world, &database).await;
    let done = world.until("dies_1", delivered).await;
    assert_eq!(
        count(&done, |what| matches!(what, HistoryEvent::Claimed { reclaimed: true, .. })),
        1
    );
    assert_eq!(booked(&database), ["dies_1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_the_handlers_table_and_inbox_on_postgresql() {
    let (postgres, (world, _)) = (Database::postgres().await, world().await);
    let (client, connection) =
        tokio_postgres::connect(&postgres.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE booked (id text NOT NULL)").await.unwrap();
    let start = async || {
        let mut command = world.stack.command("zentra-test-handlers");
        command.env("HANDLER_PG", postgres.url());
        world.stack.start(command).await
    };
    let booked = async || -> Vec<String> {
        let rows = client.query("SELECT id FROM booked ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let _doomed = start().await;
    world.send("dies_1", &transfer("dies_1", "trf_1", 1)).await;
    eventually("the row is written", BOUND, async || (!booked().await.is_empty()).then_some(()))
        .await;
    let _heir = start().await;
    world.send("good_1", &transfer("good_1", "trf_1", 1)).await;
    for id in ["dies_1", "good_1"] {
        world.until(id, delivered).await;
    }
    assert_eq!(booked().await, ["dies_1", "good_1"]);
    let forgotten = inbox::postgres::forget(&client, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(forgotten, 0);
    assert_eq!(inbox::postgres::forget(&client, Duration::ZERO).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_worker_leaves_a_handlers_destination_alone_and_a_url_needs_none() {
    let (world, database) = world().await;
    let _stock = world.stack.worker().await;
    world.send("good_1", &transfer("good_1", "trf_1", 1)).await;
    let url = format!("url = \"{}\"", world.ledger.url);
    world.stack.replace("handler = true", &url);
    let mut command = world.stack.command("zentra-test-handlers");
    let refused = command.env("HANDLER_DB", &database).output().unwrap();
    let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && printed.contains("handler = true"), "{printed}");
    assert!(world.ledger.seen().is_empty());
    assert!(world.delivery("good_1").await.is_none());
    world.stack.replace(&url, "handler = true");
    let _own = worker(&world, &database).await;
    world.until("good_1", delivered).await;
}
