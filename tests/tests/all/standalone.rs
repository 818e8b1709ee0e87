//! `zentra standalone`: everything on one file, without a server.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use zentra_tests::http::{Answer, Http};
use zentra_tests::ledger::{Ledger, Turn, transfer};
use zentra_tests::services::{self, folder};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::BOUND;
use zentra_tests::{eventually, sign};

const QUICK: &str =
    r#"retry = { attempts = 3, initial = "250ms", multiplier = 1.0, jitter = 0.0 }"#;

/// A ledger, and a configuration with a file for it.
pub(crate) struct Shop {
    pub(crate) stack: Stack,
    pub(crate) ledger: Ledger,
    pub(crate) file: PathBuf,
}

impl Shop {
    async fn new() -> Self {
        Self::with("", "", "shop", QUICK).await
    }

    /// With servers to migrate to.
    pub(crate) async fn with(rabbit: &str, redis: &str, namespace: &str, more: &str) -> Self {
        let ledger = Ledger::start(&folder("ledger")).await.unwrap();
        let stack = Stack::new(rabbit, redis, namespace, &ledger.url, more);
        let file = stack.embed();
        Self { stack, ledger, file }
    }

    async fn post(&self, shop: &Program, id: &str, body: &str) -> Option<Answer> {
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        self.stack.http.post(&format!("{}/in/acme", shop.listen), &headers, body.to_owned()).await
    }

    pub(crate) async fn send(&self, shop: &Program, id: &str) {
        let answer = self.post(shop, id, &transfer(id, "trf_8172", 1)).await;
        assert!(answer.as_ref().is_some_and(|answer| answer.status.is_success()), "{answer:?}");
    }

    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        self.stack.until(id, state, BOUND).await
    }

    fn refused(&self) -> String {
        let Output { status, stderr, .. } = self.stack.zentra(&["standalone"]);
        assert_eq!(status.code(), Some(1));
        String::from_utf8(stderr).unwrap()
    }
}

/// The kinds of a history's lines.
pub(crate) fn words(shown: &Value) -> Vec<&str> {
    let lines = shown["history"].as_array().unwrap();
    lines.iter().map(|line| line["what"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_callbacks_a_failed_attempt_and_a_kill_end_in_one_row_and_a_whole_history() {
    let mut shop = Shop::new().await;
    let mut program = shop.stack.standalone().await;
    shop.ledger.take_turns([Turn::Answer(500, Vec::new()), Turn::WriteAndHang]);
    shop.send(&program, "evt_1").await;
    shop.send(&program, "evt_1").await;
    // Its second attempt has written and not answered.
    tokio::time::timeout(BOUND, shop.ledger.hung.recv()).await.unwrap();
    program.process.kill();
    let program = shop.stack.standalone().await;
    let done = shop.until("evt_1", "delivered").await;
    shop.send(&program, "evt_1").await;
    eventually("the third is recorded as a copy", BOUND, async || {
        let shown = shop.stack.shown("evt_1")?;
        words(&shown).ends_with(&["duplicate"]).then_some(())
    })
    .await;
    let printed = words(&done);
    assert_eq!(printed.iter().filter(|word| **word == "failed").count(), 1, "{printed:?}");
    assert_eq!(printed.iter().filter(|word| **word == "claimed").count(), 3, "{printed:?}");
    assert_eq!(shop.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_requeues_and_drains_while_it_works() {
    let shop = Shop::new().await;
    let unknown = shop.stack.zentra(&["dead", "list"]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("does not exist"));
    let program = shop.stack.standalone().await;
    shop.ledger.take_turns((0..3).map(|_| Turn::Answer(400, Vec::new())));
    for id in ["evt_1", "evt_2", "evt_3"] {
        shop.send(&program, id).await;
        shop.until(id, "dead").await;
    }
    let zentra = |arguments: &[&str]| {
        let output = shop.stack.zentra(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(zentra(&["dead", "list"]).lines().count(), 4);
    eventually("they are counted", BOUND, async || {
        let dead = ["zentra_queue_messages", "queue=\"dead\""];
        (program.metric(&shop.stack.http, &dead).await == 3.0).then_some(())
    })
    .await;
    let page = include_str!("../../../docs/metrics.md");
    let (_, page) = page.split_once("## zentra standalone").unwrap();
    let (page, _) = page.split_once("## zentra serve").unwrap();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `zentra_")) {
        let name = format!("zentra_{}", row.split('`').next().unwrap());
        assert!(program.metric(&shop.stack.http, &[&name]).await > 0.0, "{name} isn't shown");
    }
    assert_eq!(zentra(&["dead", "show", "evt_1", "--body"]), transfer("evt_1", "trf_8172", 1));
    assert_eq!(zentra(&["archive", "list", "--newer-than", "1h"]).lines().count(), 4);
    assert_eq!(zentra(&["archive", "show", "evt_1", "--body"]), transfer("evt_1", "trf_8172", 1));
    assert!(zentra(&["archive", "list", "--source", "github"]).contains("no archived events"));
    zentra(&["dead", "requeue", "evt_2", "--because", "mended"]);
    let done = shop.until("evt_2", "delivered").await;
    assert_eq!(words(&done), ["claimed", "dead", "requeued", "claimed", "delivered"]);
    zentra(&["dead", "drain", "evt_3", "--because", "a test"]);
    let printed = zentra(&["dead", "requeue", "--all", "--yes"]);
    assert!(printed.contains("requeued ledger/acme/evt_1 as generation 1"), "{printed}");
    shop.until("evt_1", "delivered").await;
    assert_eq!(zentra(&["dead", "list"]), "no dead letters\n");
    assert_eq!(zentra(&["unrouted", "list"]), "no unrouted events\n");
    assert_eq!(shop.ledger.rows().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_pass_held_is_there_for_the_next_at_once() {
    let shop = Shop::new().await;
    let program = shop.stack.standalone().await;
    shop.ledger.take_turns((0..10).map(|_| Turn::Answer(400, Vec::new())));
    for at in 0..10 {
        let id = format!("evt_{at}");
        shop.send(&program, &id).await;
        shop.until(&id, "dead").await;
    }
    let mut pass = shop.stack.command("zentra");
    pass.args(["dead", "requeue", "--all", "--yes", "--rate", "1"]);
    let mut pass = services::start(pass);
    eventually("one is on its way again", BOUND, async || {
        (shop.ledger.rows().ok()?.len() == 1).then_some(())
    })
    .await;
    pass.kill();
    let rest = shop.stack.zentra(&["dead", "requeue", "--all", "--yes"]);
    assert!(rest.status.success(), "{rest:?}");
    for at in 0..10 {
        shop.until(&format!("evt_{at}"), "delivered").await;
    }
    assert_eq!(shop.ledger.rows().unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_bound_callbacks_get_503_and_what_was_accepted_is_delivered() {
    let shop = Shop::new().await;
    let size = format!("path = \"{}\"\nmax_size = \"16MiB\"", shop.file.display());
    shop.stack.replace(&format!("path = \"{}\"", shop.file.display()), &size);
    shop.stack.replace("attempts = 3, initial = \"250ms\"", "attempts = 20, initial = \"2s\"");
    shop.stack.replace("timeout = \"1s\"\n", "timeout = \"1s\"\ncircuit = { failures = 0 }\n");
    let program = shop.stack.standalone().await;
    // However long the sending takes, nothing is delivered meanwhile.
    shop.ledger.fail_first_attempts(u32::MAX);
    let large = |id: &str| transfer(id, &"x".repeat(900_000), 1);
    let mut accepted = Vec::new();
    for at in 0..40 {
        let id = format!("evt_{at}");
        match shop.post(&program, &id, &large(&id)).await.unwrap().status.as_u16() {
            200 => accepted.push(id),
            status => {
                assert_eq!(status, 503);
                break;
            }
        }
    }
    assert!((8..20).contains(&accepted.len()), "{} were accepted", accepted.len());
    shop.ledger.fail_first_attempts(0);
    for id in &accepted {
        shop.until(id, "delivered").await;
    }
    eventually("there is room again", BOUND, async || {
        let answer = shop.post(&program, "evt_later", &large("evt_later")).await?;
        answer.status.is_success().then_some(())
    })
    .await;
    shop.until("evt_later", "delivered").await;
    assert_eq!(shop.ledger.rows().unwrap().len(), accepted.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cant_be_used_is_told_and_left_as_it_is() {
    let shop = Shop::new().await;
    let program = shop.stack.standalone().await;
    shop.send(&program, "evt_1").await;
    shop.until("evt_1", "delivered").await;
    assert!(shop.refused().contains("another Zentra uses"));
    drop(program);

    let mode = std::fs::metadata(&shop.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner can read it");
    let good = std::fs::read(&shop.file).unwrap();
    let newer = {
        let file = rusqlite::Connection::open(&shop.file).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        file.close().unwrap();
        std::fs::read(&shop.file).unwrap()
    };
    let mut broken = good.clone();
    broken[..64].fill(0xff);
    for (bytes, found, what_to_do) in [
        (newer, "its tables have version 99", "run that version"),
        (broken, "not a database", "Restore the file from a backup"),
    ] {
        std::fs::write(&shop.file, &bytes).unwrap();
        for wal in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{wal}", shop.file.display()));
        }
        let printed = shop.refused();
        assert!(printed.contains(found) && printed.contains(what_to_do), "{printed}");
        assert!(printed.contains(shop.file.to_str().unwrap()), "{printed}");
        assert_eq!(std::fs::read(&shop.file).unwrap(), bytes);
    }
    let name = shop.file.with_extension("other");
    let other = rusqlite::Connection::open(&name).unwrap();
    std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o600)).unwrap();
    other.execute_batch("CREATE TABLE theirs (id INTEGER)").unwrap();
    let path = shop.file.display().to_string();
    shop.stack.replace(&path, &path.replace(".db", ".other"));
    assert!(shop.refused().contains("of another program"));
}

/// Sends callbacks one after the other until nobody answers. Returns those that got a 2xx.
async fn provider(http: Http, url: String, name: String, printed: UnboundedSender<String>) {
    for at in 0.. {
        let id = format!("evt_{name}_{at}");
        let body = transfer(&id, "trf_1", 1);
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        match http.post(&url, &headers, body).await {
            Some(answer) if answer.status.is_success() => drop(printed.send(id)),
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_a_2xx_is_delivered_once_however_often_the_program_is_killed() {
    const KILLS: usize = 200;
    let shop = Shop::new().await;
    let (printed, mut accepted) = unbounded_channel();
    let mut all = Vec::new();
    for round in 0..KILLS {
        let mut program = shop.stack.standalone().await;
        let url = format!("{}/in/acme", program.listen);
        let mut providers = JoinSet::new();
        for one in 0..8 {
            let (http, name) = (shop.stack.http.clone(), format!("{round}_{one}"));
            providers.spawn(provider(http, url.clone(), name, printed.clone()));
        }
        // Killed at a different moment each time.
        for _ in 0..rand::random_range(1..80) {
            all.push(tokio::time::timeout(BOUND, accepted.recv()).await.unwrap().unwrap());
        }
        program.process.kill();
        tokio::time::timeout(BOUND, providers.join_all()).await.unwrap();
    }
    drop(printed);
    while let Some(id) = accepted.recv().await {
        all.push(id);
    }
    let _program = shop.stack.standalone().await;
    eventually("each has its row", BOUND, async || {
        let rows = shop.ledger.rows().ok()?;
        let rows: HashSet<String> = rows.into_iter().map(|row| row.key).collect();
        all.iter().all(|id| rows.contains(&format!("ledger/acme/{id}"))).then_some(())
    })
    .await;
    for id in all.iter().step_by(all.len() / 20 + 1) {
        let done = shop.until(id, "delivered").await;
        assert_eq!(words(&done).iter().filter(|word| **word == "delivered").count(), 1, "{done}");
    }
}
