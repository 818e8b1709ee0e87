//! `make bench` measures:
//!
//! - the ingress beside the bare client library, on the same broker in the same run;
//! - the cost of verification, also of forged bodies;
//! - the latency of honest callbacks during a flood;
//! - the worker beside a bare loop;
//! - a destination with several work queues on a cluster;
//! - everything end to end;
//! - `zentra standalone` on its file;
//! - listeners of live changes;
//! - listing, and looking through dead letters.
//!
//! The setup is a private RabbitMQ with a quorum queue, signed bodies of 1 KiB, and 64 and 256
//! requests in flight. Rounds alternate, so that a slow spell of the machine affects all rows
//! alike. `wrk` creates the load. The results are printed, and no result is a failure. Arguments:
//! other numbers of requests in flight, or one part alone: `ingress`, `verify [PROVIDER]`, `hostile
//! [PROVIDER]`, `flood [KIND]`, `worker`, `shards`, `whole`, `file`, `listeners`, `list [COUNT]` or `dead [COUNT]`.

mod bare;
mod dead;
mod file;
mod flood;
mod hostile;
mod list;
mod listeners;
mod shards;
mod verify;
mod whole;
mod worker;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use zentra_tests::http::Http;
use zentra_tests::services::{self, Rabbit};
use zentra_tests::sign;
use zentra_tests::stack::{Program, Stack};

const ROUNDS: usize = 3;
/// Number of remembered deliveries for `list`.
const DELIVERIES: usize = 200_000;
/// Number of dead letters for `dead`.
const LETTERS: usize = 50_000;
const ROUND: Duration = Duration::from_secs(6);
const BODY: usize = 1024;
/// Number of different signed callbacks that the load cycles through.
const CALLBACKS: usize = 256;
/// Roughly the size of the sealed envelope.
const ENVELOPE: usize = 750;
/// Channels of the bare client. Both more and fewer are slower here.
const CHANNELS: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let ran = run().await;
    let printed = services::output();
    services::sweep();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let printed: Vec<&str> =
                printed.lines().filter(|line| line.contains("zentra")).collect();
            let last = printed.len().saturating_sub(20);
            println!("the benchmark failed: {error:#}\n{}", printed[last..].join("\n"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sink", port] => return bare::sink(port.parse()?).await,
        ["bare", rabbit, redis, queue, url] => return bare::bare(rabbit, redis, queue, url).await,
        ["ingress"] => return ingress().await,
        ["worker"] => return worker::run().await,
        ["shards"] => return shards::run().await,
        ["whole"] => return whole::run().await,
        ["file"] => return file::run().await,
        ["verify"] => return verify::run(""),
        ["verify", provider] => return verify::run(provider),
        ["hostile"] => return hostile::run(""),
        ["hostile", provider] => return hostile::run(provider),
        ["flood"] => return flood::run("").await,
        ["flood", kind] => return flood::run(kind).await,
        ["dead"] => return dead::run(LETTERS).await,
        ["dead", count] => return dead::run(count.parse()?).await,
        ["listeners"] => return listeners::run().await,
        ["list"] => return list::run(DELIVERIES).await,
        ["list", count] => return list::run(count.parse()?).await,
        _ => {}
    }
    verify::run("")?;
    hostile::run("")?;
    flood::run("").await?;
    ingress().await?;
    worker::run().await?;
    shards::run().await?;
    whole::run().await?;
    file::run().await?;
    list::run(DELIVERIES).await?;
    listeners::run().await?;
    dead::run(LETTERS).await
}

async fn ingress() -> anyhow::Result<()> {
    println!("{} cores; {BODY} B bodies; rounds of {ROUND:?}, the best of {ROUNDS}\n", cores());
    println!(
        "{:<34} {:>9} {:>12} {:>14} {:>14}",
        "", "per s", "of raw", "CPU s / 10,000", "broker's"
    );
    let script = services::folder("wrk").join("callbacks.lua");
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    for in_flight in if asked.is_empty() { vec![64, 256] } else { asked } {
        std::fs::write(&script, lua()?)?;
        throughput(&script, in_flight).await?;
    }
    println!();
    dead_broker().await
}

/// One row: its best round.
#[derive(Clone, Copy, Default)]
struct Row {
    per_second: f64,
    cpu: f64,
    broker_cpu: f64,
}

impl Row {
    fn better(self, other: Self) -> Self {
        if other.per_second > self.per_second { other } else { self }
    }

    fn print(self, name: &str, raw: Option<Self>) {
        let of_raw = raw.map(|raw| format!("{:.2}", self.per_second / raw.per_second));
        println!(
            "{name:<34} {:>9.0} {:>12} {:>14.2} {:>14.2}",
            self.per_second,
            of_raw.unwrap_or_default(),
            self.cpu,
            self.broker_cpu
        );
    }
}

async fn throughput(script: &Path, in_flight: usize) -> anyhow::Result<()> {
    let rabbit = services::rabbit();
    // Rounds fill queues faster than the broker frees memory. Its alarm is not measured here.
    rabbit.allow_memory("6GB");
    let off = stack(&rabbit, "bench", "archive = false");
    let on = stack(&rabbit, "archived", "");
    let (ingress, archived) = (off.ingress().await, on.ingress().await);
    let (mut raw, mut row, mut with) = (Row::default(), Row::default(), Row::default());
    let mut sealed = Row::default();
    for _ in 0..ROUNDS {
        raw = raw.better(bare(&rabbit, "bench", in_flight, 0).await?);
        sealed = sealed.better(bare(&rabbit, "bench", in_flight, ENVELOPE).await?);
        row = row.better(load(&rabbit, "bench", &ingress, script, in_flight).await?);
        with = with.better(load(&rabbit, "archived", &archived, script, in_flight).await?);
    }
    raw.print(&format!("raw publish + confirm, {in_flight} in flight"), None);
    sealed.print(&format!("the same, {ENVELOPE} B of headers, {in_flight}"), Some(raw));
    row.print(&format!("zentra-ingress, {in_flight} in flight"), Some(raw));
    with.print(&format!("the same, archive on, {in_flight} in flight"), Some(raw));
    Ok(())
}

fn stack(rabbit: &Rabbit, namespace: &str, source: &str) -> Stack {
    let url = "http://127.0.0.1:9/";
    let stack = Stack::new(&rabbit.url(), "redis://unused", namespace, url, "");
    for name in ["acme", "stripe-eu", "github"] {
        stack.replace(&format!("[source.{name}]\n"), &format!("[source.{name}]\n{source}\n"));
    }
    stack
}

/// The bare client library: the same body to the same exchange, confirmed.
async fn bare(
    rabbit: &Rabbit,
    namespace: &str,
    in_flight: usize,
    envelope: usize,
) -> anyhow::Result<Row> {
    let connection = connect(rabbit).await?;
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + ROUND;
    let (own, broker) = (cpu(std::process::id())?, cpu(rabbit.id())?);
    let mut publishing = tokio::task::JoinSet::new();
    for _ in 0..CHANNELS {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (done, exchange) = (done.clone(), format!("{namespace}.in"));
        publishing.spawn(one_channel(channel, exchange, in_flight / CHANNELS, envelope, end, done));
    }
    while let Some(ended) = publishing.join_next().await {
        ended??;
    }
    let row = row(done.load(Ordering::Relaxed), own, std::process::id(), broker, rabbit)?;
    purge(&connection, namespace).await?;
    Ok(row)
}

async fn one_channel(
    channel: Channel,
    exchange: String,
    in_flight: usize,
    envelope: usize,
    end: Instant,
    done: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(in_flight));
    let body = vec![b'x'; BODY];
    let mut headers = FieldTable::default();
    if envelope > 0 {
        let envelope = LongString::from(vec![b'x'; envelope]);
        headers.insert("zentra-envelope".into(), AMQPValue::LongString(envelope));
    }
    while Instant::now() < end {
        let place = places.clone().acquire_owned().await?;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let properties = properties.with_headers(headers.clone());
        let (exchange, key) = (exchange.as_str().into(), "acme.transfer.settled".into());
        let confirm = channel.basic_publish(exchange, key, options, &body, properties).await?;
        let done = done.clone();
        tokio::spawn(async move {
            if matches!(confirm.await, Ok(Confirmation::Ack(None))) {
                done.fetch_add(1, Ordering::Relaxed);
            }
            drop(place);
        });
    }
    let all = u32::try_from(in_flight)?;
    drop(places.acquire_many(all).await?);
    Ok(())
}

/// The ingress under `wrk`.
async fn load(
    rabbit: &Rabbit,
    namespace: &str,
    ingress: &Program,
    script: &Path,
    in_flight: usize,
) -> anyhow::Result<Row> {
    let accepted = async || -> f64 {
        ingress.metric(&Http::default(), &["zentra_ingress_accepted_total", "acme"]).await
    };
    let (before, own, broker) = (accepted().await, cpu(ingress.process.id())?, cpu(rabbit.id())?);
    let url = format!("{}/in/acme", ingress.listen);
    let mut wrk = tokio::process::Command::new("wrk");
    wrk.args(["-t1", &format!("-c{in_flight}"), &format!("-d{}s", ROUND.as_secs()), "-s"]);
    let output = wrk.arg(script).arg(&url).output().await.context("wrk can't be run")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {printed}");
    ensure!(!printed.contains("Non-2xx"), "not all were accepted: {printed}");
    let count = (accepted().await - before) as u64;
    let row = row(count, own, ingress.process.id(), broker, rabbit)?;
    purge(&connect(rabbit).await?, namespace).await?;
    Ok(row)
}

fn row(count: u64, own: f64, process: u32, broker: f64, rabbit: &Rabbit) -> anyhow::Result<Row> {
    ensure!(count > 0, "nothing was confirmed");
    let per_10_000 = 10_000.0 / count as f64;
    Ok(Row {
        per_second: count as f64 / ROUND.as_secs_f64(),
        cpu: (cpu(process)? - own) * per_10_000,
        broker_cpu: (cpu(rabbit.id())? - broker) * per_10_000,
    })
}

/// The time of a 503 after the broker is known to be dead, and while a connect to it hangs.
async fn dead_broker() -> anyhow::Result<()> {
    let mut rabbit = services::rabbit();
    let stack = stack(&rabbit, "dead", "archive = false");
    let ingress = stack.ingress().await;
    rabbit.kill();
    let (p50, worst) = refusals(&ingress).await?;
    println!("503, broker dead: median {p50:?}, slowest of 2000 {worst:?}");
    // Accepts connections and sends nothing.
    let url = rabbit.url();
    let address = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
    let silent = TcpListener::bind(address.unwrap_or_default()).await?;
    let _hanging = tokio::time::timeout(Duration::from_secs(20), silent.accept()).await??;
    let (p50, worst) = refusals(&ingress).await?;
    println!("503, connect hangs: median {p50:?}, slowest of 2000 {worst:?}");
    Ok(())
}

async fn refusals(ingress: &Program) -> anyhow::Result<(Duration, Duration)> {
    let http = Http::default();
    let url = format!("{}/in/acme", ingress.listen);
    let body = body(0);
    let headers = sign::acme("evt_0", sign::now(), body.as_bytes());
    // Until the ingress knows that the broker is dead.
    while http.post(&url, &headers, body.clone()).await.is_none_or(|a| a.status != 503) {}
    let mut took = Vec::new();
    for _ in 0..2000 {
        let started = Instant::now();
        let answer = http.post(&url, &headers, body.clone()).await.context("no answer")?;
        took.push(started.elapsed());
        ensure!(answer.status == 503, "{answer:?}");
    }
    took.sort();
    Ok((took[took.len() / 2], took.last().copied().unwrap_or_default()))
}

/// Signed now, so the callbacks are fresh for five minutes. `wrk.format` needs the target, which
/// is known only once a thread begins.
fn lua() -> anyhow::Result<String> {
    let mut script = String::from("local all = {}\nlocal at = 0\ninit = function()\n");
    for at in 0..CALLBACKS {
        let body = body(at);
        let mut headers = String::new();
        for (name, value) in sign::acme(&format!("evt_{at}"), sign::now(), body.as_bytes()) {
            write!(headers, "[\"{name}\"] = \"{value}\", ")?;
        }
        let body = body.replace('"', "\\\"");
        writeln!(script, "  all[{at}] = wrk.format(\"POST\", nil, {{ {headers} }}, \"{body}\")")?;
    }
    writeln!(script, "end\nrequest = function()\n  at = (at + 1) % {CALLBACKS}")?;
    writeln!(script, "  return all[at]\nend")?;
    Ok(script)
}

fn body(at: usize) -> String {
    let head = format!(r#"{{"type":"transfer.settled","id":"evt_{at}","fill":""#);
    let fill = "x".repeat(BODY - head.len() - 2);
    format!("{head}{fill}\"}}")
}

async fn connect(rabbit: &Rabbit) -> anyhow::Result<Connection> {
    let url = rabbit.url();
    let connect = Connection::connect(&url, ConnectionProperties::default());
    Ok(tokio::time::timeout(Duration::from_secs(20), connect).await??)
}

async fn purge(connection: &Connection, namespace: &str) -> anyhow::Result<()> {
    let channel = connection.create_channel().await?;
    let queue = format!("{namespace}.work.ledger");
    channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?;
    Ok(())
}

/// CPU seconds of a process so far: user and system time of all its threads.
fn cpu(process: u32) -> anyhow::Result<f64> {
    /// USER_HZ, the unit in which Linux reports CPU time.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = (ticks(12).context("no utime")?, ticks(13).context("no stime")?);
    Ok((user + system) / TICKS)
}

fn cores() -> usize {
    let output = Command::new("nproc").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().trim().parse().unwrap_or(0)
}
