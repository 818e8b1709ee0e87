//! The worker beside a bare loop that does only the indispensable: consume → one Redis script →
//! POST on kept connections → one script → acknowledge.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use webhook_verify::Secret;
use webhook_verify::{Endpoint, NamedSecret, Scheme, Success, Unverified};
use zentra_core::clock;
use zentra_core::event::Event;
use zentra_core::seal::{Key, Sealed, Sealer};
use zentra_core::source::Source;
use zentra_rabbitmq::Amqp;
use zentra_store::queue::{Publish, Subscriber};
use zentra_tests::http::Http;
use zentra_tests::services::{self, Guarded, Rabbit, Redis};
use zentra_tests::stack::Stack;
use zentra_tests::{queue_settings, routes, sign};

use crate::{body, cpu};

/// Events per round.
pub(crate) const EVENTS: usize = 40_000;
const ROUNDS: usize = 2;
/// Concurrent attempts.
pub(crate) const CONCURRENCY: usize = 64;
pub(crate) const BOUND: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "works";

#[derive(Clone, Copy, Default)]
struct Row {
    per_second: f64,
    cpu: f64,
    broker: f64,
    redis: f64,
    bytes: f64,
}

impl Row {
    fn better(self, other: Self) -> Self {
        if other.per_second > self.per_second { other } else { self }
    }

    fn print(self, name: &str, bare: Option<Self>) {
        let of = bare.map(|bare| format!("{:.2}", self.per_second / bare.per_second));
        let Self { per_second, cpu, broker, redis, bytes } = self;
        println!(
            "{name:<34} {per_second:>9.0} {:>12} {cpu:>14.2} {broker:>14.2} {redis:>9.2} {bytes:>9.0}",
            of.unwrap_or_default()
        );
    }
}

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "\n{:<34} {:>9} {:>12} {:>14} {:>14} {:>9} {:>9}",
        "", "per s", "of bare", "CPU s / 10,000", "broker's", "Redis's", "B/event"
    );
    let (rabbit, redis) = (services::rabbit(), services::redis());
    rabbit.allow_memory("6GB");
    let (mut bare, mut row) = (Row::default(), Row::default());
    for round in 0..ROUNDS {
        bare = bare.better(one(&rabbit, &redis, round, true).await?);
        row = row.better(one(&rabbit, &redis, round, false).await?);
    }
    bare.print("bare loop", None);
    row.print("zentra-worker", Some(bare));
    Ok(())
}

/// Fills the work queue, and measures how fast it is worked off.
async fn one(rabbit: &Rabbit, redis: &Redis, round: usize, bare: bool) -> anyhow::Result<Row> {
    let sink = Sink::start().await?;
    let stack = stack(rabbit, redis, &sink.url);
    fill(rabbit, round * 2 + usize::from(bare)).await?;
    let memory = used(redis).await?;
    let (broker, remembers) = (cpu(rabbit.id())?, cpu(redis.id())?);
    let worker = if bare {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let queue = format!("{NAMESPACE}.work.ledger");
        command.args(["bare", &rabbit.url(), &redis.url(), &queue, &sink.url]);
        services::start(command)
    } else {
        stack.worker().await.process
    };
    let (count, millis) = sink.delivered(EVENTS).await?;
    let each = 10_000.0 / count as f64;
    Ok(Row {
        per_second: count as f64 / (millis as f64 / 1000.0),
        cpu: cpu(worker.id())? * each,
        broker: (cpu(rabbit.id())? - broker) * each,
        redis: (cpu(redis.id())? - remembers) * each,
        bytes: (used(redis).await? - memory) / count as f64,
    })
}

pub(crate) fn stack(rabbit: &Rabbit, redis: &Redis, url: &str) -> Stack {
    let more = format!("concurrency = {CONCURRENCY}");
    let stack = Stack::new(&rabbit.url(), &redis.url(), NAMESPACE, url, &more);
    for name in ["acme", "stripe-eu", "github"] {
        stack
            .replace(&format!("[source.{name}]\n"), &format!("[source.{name}]\narchive = false\n"));
    }
    stack
}

/// Bytes that Redis uses.
async fn used(redis: &Redis) -> anyhow::Result<f64> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let info: redis::InfoDict = redis::cmd("INFO").query_async(&mut connection).await?;
    info.get::<f64>("used_memory").context("no used_memory")
}

/// Publishes events as the ingress would.
async fn fill(rabbit: &Rabbit, part: usize) -> anyhow::Result<()> {
    let ledger =
        Subscriber { destination: "ledger".into(), patterns: vec!["acme.#".into()], shards: 1 };
    let settings = queue_settings(&rabbit.url(), NAMESPACE);
    let settings = zentra_rabbitmq::Settings { routes: routes(vec![ledger]), ..settings };
    let queue = Amqp::publisher(settings, "bench");
    tokio::time::timeout(BOUND, queue.connected()).await??;
    publish(&queue, &part.to_string()).await?;
    queue.close().await;
    Ok(())
}

/// Events, sealed as by the ingress.
pub(crate) async fn publish(queue: &impl Publish, part: &str) -> anyhow::Result<()> {
    let (source, sealer) = (source()?, sealer()?);
    let mut publishing = JoinSet::new();
    for at in 0..EVENTS {
        let sealed = sealed(&source, &sealer, &format!("evt_{part}_{at:06}"))?;
        let queue = queue.clone();
        publishing.spawn(async move { queue.publish(&sealed).await });
        if publishing.len() >= 200 {
            publishing.join_next().await.context("nothing was published")???;
        }
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    Ok(())
}

fn sealer() -> anyhow::Result<Sealer> {
    let key = Key { name: "test".into(), secret: Secret::new("0123456789abcdef0123456789abcdef") };
    Sealer::new(vec![key]).context("no sealer")
}

fn source() -> anyhow::Result<Source> {
    let secret = Secret::new(sign::ACME_SECRET);
    Ok(Source {
        name: "acme".into(),
        endpoint: Endpoint {
            provider: "standard-webhooks".into(),
            scheme: Scheme::named("standard-webhooks").context("no such scheme")?,
            secrets: vec![NamedSecret { name: "k1".into(), secret }],
            max_body: 1 << 20,
            trusts_id: false,
            public_url: None,
            handshake_token: None,
        },
        redact: zentra_core::redact::Redact::default(),
        environment: String::new(),
        retention: Duration::from_secs(86_400),
        archive: false,
        success: Success { status: http::StatusCode::OK, body: Bytes::new() },
    })
}

fn sealed(source: &Source, sealer: &Sealer, id: &str) -> anyhow::Result<Sealed> {
    let body = body(0);
    let mut headers = HeaderMap::new();
    for (name, value) in sign::acme(id, sign::now(), body.as_bytes()) {
        headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value)?);
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let peer = Some([127, 0, 0, 1].into());
    let (query, received_at) = (None, clock::now());
    let callback = Unverified {
        method: http::Method::POST,
        headers,
        query,
        peer,
        body: body.into(),
        received_at,
        receipt: 0,
    };
    let verified = callback.verify(&source.endpoint)?.into_events().remove(0);
    let event = Event::of(source, verified);
    Ok(sealer.seal(event)?.1)
}

/// An application that does nothing, in its own process.
pub(crate) struct Sink {
    pub(crate) url: String,
    _process: Guarded,
}

impl Sink {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let port = zentra_tests::services::free_port();
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["sink", &port.to_string()]);
        let url = format!("http://127.0.0.1:{port}/");
        let sink = Self { url, _process: services::start(command) };
        let http = Http::default();
        zentra_tests::eventually("the sink answers", BOUND, async || sink.count(&http).await.ok())
            .await;
        Ok(sink)
    }

    /// Waits for this number of requests. Returns what [`Sink::count`] does.
    pub(crate) async fn delivered(&self, wanted: usize) -> anyhow::Result<(u64, u64)> {
        let (http, end) = (Http::default(), Instant::now() + BOUND);
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let (count, millis) = self.count(&http).await?;
            if count >= wanted as u64 {
                return Ok((count, millis));
            }
            ensure!(Instant::now() < end, "only {count} of {wanted} were delivered");
        }
    }

    /// The number of requests, and the milliseconds between the first and the last.
    pub(crate) async fn count(&self, http: &Http) -> anyhow::Result<(u64, u64)> {
        let answer = http.get(&self.url).await.context("the sink doesn't answer")?;
        let (count, millis) = answer.body.split_once(' ').context("the sink says nonsense")?;
        Ok((count.parse()?, millis.parse()?))
    }
}
