//! One destination with 1, 2 and 4 work queues on a cluster of three nodes, all on this machine:
//! how fast its events are accepted, and how fast two workers deliver them.

use std::time::{Duration, Instant};

use webhook_verify::Secret;
use zentra_rabbitmq::{Amqp, Settings};
use zentra_store::queue::Subscriber;
use zentra_tests::services::{self, Guarded, Rabbit, Redis};
use zentra_tests::stack::Stack;
use zentra_tests::{queue_settings, routes};

use crate::cpu;
use crate::worker::{BOUND, CONCURRENCY, EVENTS, Sink, publish};

const ROUNDS: usize = 2;
const WORKERS: usize = 2;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "\n{:<34} {:>14} {:>14} {:>18}",
        "", "accepted per s", "delivered per s", "broker's CPU s / 10,000"
    );
    let (nodes, redis) = (Rabbit::cluster()?, services::redis());
    for node in &nodes {
        node.allow_memory("3GB");
    }
    let counts = [1, 2, 4];
    let mut best = [Row::default(); 3];
    for round in 0..ROUNDS {
        for (row, shards) in best.iter_mut().zip(counts) {
            let measured = one(&nodes, &redis, shards, round).await?;
            if measured.delivered > row.delivered {
                *row = measured;
            }
        }
    }
    for (Row { accepted, delivered, broker }, shards) in best.into_iter().zip(counts) {
        let name = format!("work queues: {shards}");
        println!("{name:<34} {accepted:>14.0} {delivered:>14.0} {broker:>18.2}");
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Row {
    accepted: f64,
    delivered: f64,
    broker: f64,
}

async fn one(nodes: &[Rabbit; 3], redis: &Redis, shards: u16, round: usize) -> anyhow::Result<Row> {
    let namespace = format!("shards{shards}x{round}");
    let sink = Sink::start().await?;
    let more = format!("concurrency = {CONCURRENCY}\nshards = {shards}");
    let stack = Stack::new(&nodes[0].url(), &redis.url(), &namespace, &sink.url, &more);
    for name in ["acme", "stripe-eu", "github"] {
        stack
            .replace(&format!("[source.{name}]\n"), &format!("[source.{name}]\narchive = false\n"));
    }
    let ledger =
        Subscriber { destination: "ledger".into(), patterns: vec!["acme.#".into()], shards };
    let settings = Settings {
        urls: nodes.iter().map(|node| Secret::new(node.url())).collect(),
        routes: routes(vec![ledger]),
        lanes: 8,
        publish_timeout: Duration::from_secs(10),
        ..queue_settings(&nodes[0].url(), &namespace)
    };
    // As a worker, which binds the shards.
    let queue = Amqp::processor(settings);
    tokio::time::timeout(BOUND, queue.connected()).await??;
    let used = || nodes.iter().map(|node| cpu(node.id())).sum::<anyhow::Result<f64>>();
    let (broker, started) = (used()?, Instant::now());
    publish(&queue, &round.to_string()).await?;
    let accepted = EVENTS as f64 / started.elapsed().as_secs_f64();
    queue.close().await;

    let mut workers: Vec<Guarded> = Vec::new();
    for _ in 0..WORKERS {
        workers.push(stack.worker().await.process);
    }
    let (count, millis) = sink.delivered(EVENTS).await?;
    Ok(Row {
        accepted,
        delivered: count as f64 / (millis as f64 / 1000.0),
        broker: (used()? - broker) * 10_000.0 / count as f64,
    })
}
