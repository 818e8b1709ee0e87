//! What listeners of live changes cost Redis: its commands within a time, with none, one and ten of them.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::InfoDict;
use tokio::time::{Instant, sleep_until};
use zentra_tests::ledger::{Ledger, transfer};
use zentra_tests::services::{self, Guarded, folder, free_port};
use zentra_tests::sign;
use zentra_tests::stack::{Program, Stack};

const LISTENERS: [usize; 3] = [0, 1, 10];
const WHILE: Duration = Duration::from_secs(20);
/// Deliveries within that time.
const DELIVERIES: u32 = 60;
/// The feed ends half a minute after its last listener.
const FEED_ENDS: Duration = Duration::from_secs(35);

pub(crate) async fn run() -> anyhow::Result<()> {
    let (rabbit, redis) = (services::rabbit(), services::redis());
    let ledger = Ledger::start(&folder("ledger")).await?;
    let stack = Stack::new(&rabbit.url(), &redis.url(), "bench", &ledger.url, "");
    let (ingress, _worker) = (stack.ingress().await, stack.worker().await);
    let at = format!("127.0.0.1:{}", free_port());
    let mut serve = stack.command("zentra");
    serve.args(["serve", "--listen", &at]);
    let _serve = services::start(serve);
    println!("\nlive listeners: Redis commands in {WHILE:?} with {DELIVERIES} deliveries");
    for count in LISTENERS {
        // A token has 16 tails.
        let token = stack.zentra(&["token", "create", &format!("bench-{count}")]);
        let token = String::from_utf8(token.stdout)?;
        let listening: Vec<Guarded> = (0..count).map(|_| listen(&at, token.trim())).collect();
        sleep_until(Instant::now() + Duration::from_secs(2)).await;
        let before = commands(&redis.url()).await?;
        deliver(&stack, &ingress, count).await?;
        let spent = commands(&redis.url()).await? - before;
        println!("  {count:>2} listeners: {spent:.0}");
        if !listening.is_empty() {
            drop(listening);
            sleep_until(Instant::now() + FEED_ENDS).await;
        }
    }
    Ok(())
}

fn listen(at: &str, token: &str) -> Guarded {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--no-buffer", "--retry", "5", "--retry-connrefused"]);
    curl.args(["--header", &format!("authorization: Bearer {token}")]);
    curl.arg(format!("http://{at}/v1/tail")).stdout(Stdio::null());
    services::start(curl)
}

/// Sends one callback after the other, evenly over the time.
async fn deliver(stack: &Stack, ingress: &Program, round: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    for at in 0..DELIVERIES {
        let id = format!("evt_{round}_{at}");
        let body = transfer(&id, &id, 1);
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        let answer = stack.http.post(&format!("{}/in/acme", ingress.listen), &headers, body).await;
        ensure!(answer.is_some_and(|answer| answer.status.is_success()), "{id} was not accepted");
        sleep_until(started + WHILE * (at + 1) / DELIVERIES).await;
    }
    Ok(())
}

async fn commands(redis: &str) -> anyhow::Result<f64> {
    let mut connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let stats: InfoDict = redis::cmd("INFO").arg("stats").query_async(&mut connection).await?;
    stats.get("total_commands_processed").context("no total_commands_processed")
}
