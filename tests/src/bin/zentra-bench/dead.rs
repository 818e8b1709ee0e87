//! The cost of looking through many dead letters: time and memory of `zentra job plan`, which
//! reads a whole dead-letter queue and leaves it unchanged. `dead 1000000` sets the number.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use webhook_verify::Secret;
use zentra_core::clock;
use zentra_core::event::{self, Envelope, Event, Identity};
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::{Key, Sealer};
use zentra_rabbitmq::Amqp;
use zentra_store::queue::{Message, Process};
use zentra_tests::ledger::transfer;
use zentra_tests::stack::Stack;
use zentra_tests::{queue_settings, services};

const NAMESPACE: &str = "bench";
const AT_A_TIME: usize = 512;
const BOUND: Duration = Duration::from_secs(3600);

pub(crate) async fn run(count: usize) -> anyhow::Result<()> {
    let (rabbit, redis) = (services::rabbit(), services::redis());
    // It keeps an index of all dead letters in memory.
    rabbit.allow_memory("4GiB");
    let stack = Stack::new(&rabbit.url(), &redis.url(), NAMESPACE, "http://127.0.0.1:9/", "");
    // It declares the queues.
    drop(stack.worker().await);
    let queue = Amqp::publisher(queue_settings(&rabbit.url(), NAMESPACE), "bench");
    queue.connected().await?;
    let key = Key { name: "k1".into(), secret: Secret::new("0123456789abcdef0123456789abcdef") };
    let sealer = Sealer::new(vec![key]).context("the key is unfit")?;
    let started = Instant::now();
    stream::iter(0..count)
        .map(|at| dead_letter(&queue, &sealer, at))
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    queue.close().await;
    println!("\ndead letters: {count} on RabbitMQ, written in {:.1?}", started.elapsed());
    for what in ["a plan", "once more"] {
        let (took, memory) = plan(&stack, count)?;
        let rate = count as f64 / took.as_secs_f64();
        let memory = memory as f64 / 1024.0;
        println!(
            "  {what:<10} {took:>8.1?}, {rate:>6.0} letters a second, {memory:.0} MiB at most"
        );
    }
    Ok(())
}

async fn dead_letter(queue: &Amqp, sealer: &Sealer, at: usize) -> anyhow::Result<()> {
    let id = format!("evt_{at:08}");
    let body = transfer(&id, "trf_8172", 1);
    let envelope = Envelope {
        v: 1,
        source: "acme".into(),
        provider: "standard-webhooks".into(),
        identity: Identity::from_id(&id).context("no id")?,
        unsigned_id: None,
        event_type: Some("transfer.settled".into()),
        content_type: Some("application/json".into()),
        received_at: clock::now(),
        provider_time: None,
        verified_with: "k1".into(),
        context: event::Context::default(),
        admitted: None,
        renders_retries: false,
        same_bytes: None,
        suspected: false,
        set_apart: None,
    };
    let (_, sealed) = sealer.seal(Event { envelope, body: body.into() })?;
    let message = Message { attempt: 8, ..Message::new(sealed) };
    Ok(queue.dead("ledger", &message, DeadReason::Exhausted, None).await?)
}

/// The duration, and the peak memory in KiB.
fn plan(stack: &Stack, count: usize) -> anyhow::Result<(Duration, u64)> {
    let mut command = stack.command("zentra");
    command
        .args(["job", "plan", "--all", "--json"])
        .env("ZENTRA_LOG", "warn")
        .stdout(Stdio::piped());
    let started = Instant::now();
    let mut running = command.spawn()?;
    let status = format!("/proc/{}/status", running.id());
    let mut most = 0;
    let ended = services::poll(BOUND, || {
        let printed = std::fs::read_to_string(&status).unwrap_or_default();
        let line = printed.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        most = most.max(now.unwrap_or_default());
        running.try_wait().ok()?
    });
    ensure!(ended.is_some(), "it doesn't come to its end");
    let took = started.elapsed();
    let job: Value = serde_json::from_slice(&running.wait_with_output()?.stdout)?;
    ensure!(job["plan"]["letters"] == count, "not all letters were found: {job}");
    Ok((took, most))
}
