//! `zentra standalone` on its file: events accepted and delivered per second.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use zentra_sqlite::{EmbeddedQueue, Store};
use zentra_store::queue::Subscriber;
use zentra_tests::http::Http;
use zentra_tests::services;
use zentra_tests::stack::Stack;
use zentra_tests::{queue_settings, routes};

use crate::worker::{BOUND, CONCURRENCY, EVENTS, Sink, publish};
use crate::{ROUND, ROUNDS, cpu, lua};

const IN_FLIGHT: usize = 64;
/// The bound of the file.
const ROOM: u64 = 8 << 30;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!("\nzentra standalone: {:>27} {:>14}", "per s", "CPU s / 10,000");
    taken().await?;
    delivered().await
}

fn stack(url: &str) -> Stack {
    let stack = Stack::new("", "", "file", url, &format!("concurrency = {CONCURRENCY}"));
    for name in ["acme", "stripe-eu", "github"] {
        stack
            .replace(&format!("[source.{name}]\n"), &format!("[source.{name}]\narchive = false\n"));
    }
    stack
}

fn print(name: &str, per_second: f64, cpu: f64) {
    println!("{name:<34} {per_second:>11.0} {cpu:>14.2}");
}

/// 2xx per second. Each comes after its event is on the disk. No destination subscribes.
async fn taken() -> anyhow::Result<()> {
    let (mut best, mut used) = (0.0, 0.0);
    let script = services::folder("wrk").join("callbacks.lua");
    for _ in 0..ROUNDS {
        std::fs::write(&script, lua()?)?;
        let stack = stack("http://127.0.0.1:9/");
        stack.replace(
            "subscribe = [\"acme.#\", \"stripe-eu.#\", \"github.#\"]",
            "subscribe = [\"nobody.#\"]",
        );
        stack.embed();
        let program = stack.standalone().await;
        let before = cpu(program.process.id())?;
        let mut wrk = tokio::process::Command::new("wrk");
        wrk.args(["-t1", &format!("-c{IN_FLIGHT}"), &format!("-d{}s", ROUND.as_secs()), "-s"]);
        let url = format!("{}/in/acme", program.listen);
        let output = wrk.arg(&script).arg(url).output().await.context("wrk can't be run")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !printed.contains("Non-2xx"),
            "not all accepted: {printed}"
        );
        let count = printed.lines().find_map(|line| line.split_once(" requests in"));
        let count: f64 = count.context("wrk says nothing")?.0.trim().parse()?;
        let per_second = count / ROUND.as_secs_f64();
        if per_second > best {
            (best, used) = (per_second, (cpu(program.process.id())? - before) / count * 10_000.0);
        }
    }
    print(&format!("accepted, {IN_FLIGHT} in flight"), best, used);
    Ok(())
}

/// Delivers a file that is full of events.
async fn delivered() -> anyhow::Result<()> {
    let sink = Sink::start().await?;
    let stack = stack(&sink.url);
    let path = stack.embed();
    fill(&path).await?;
    let started = Instant::now();
    let program = stack.standalone().await;
    let ready = started.elapsed();
    let (http, mut tick) = (Http::default(), tokio::time::interval(Duration::from_millis(50)));
    let (count, millis) = loop {
        tick.tick().await;
        let (count, millis) = sink.count(&http).await?;
        if count >= EVENTS as u64 {
            break (count as f64, millis as f64);
        }
        ensure!(started.elapsed() < BOUND, "only {count} of {EVENTS} were delivered");
    };
    let cpu = cpu(program.process.id())? / count * 10_000.0;
    print(&format!("delivered, {CONCURRENCY} at a time"), count / millis * 1000.0, cpu);
    println!("from start to ready, with {EVENTS} events waiting: {ready:?}");
    Ok(())
}

/// Publishes events as the ingress would.
async fn fill(path: &Path) -> anyhow::Result<()> {
    let ledger =
        Subscriber { destination: "ledger".into(), patterns: vec!["acme.#".into()], shards: 1 };
    let routes = routes(vec![ledger]).context("no routes")?;
    let queue =
        EmbeddedQueue::new(Store::open(path, ROOM)?, routes, queue_settings("", "").refused);
    publish(&queue, "file").await
}
