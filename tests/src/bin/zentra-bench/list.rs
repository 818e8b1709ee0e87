//! The cost of listing: pages from a Redis that remembers many deliveries, and the memory of the
//! list. `list 1000000` sets the number.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use redis::InfoDict;
use zentra_config::ClientTls;
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::{Answer, DeadReason, Fingerprint, Outcome, State};
use zentra_redis::RedisJournal;
use zentra_store::journal::list::Query;
use zentra_store::journal::{AttemptResult, Claim, DeliveryStore, Journal, Settle, Summary};
use zentra_tests::services::free_port;
use zentra_tests::stack::Stack;
use zentra_tests::{eventually, one_server, services};

const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
const AT_A_TIME: usize = 256;
/// One of this many is dead, and one is of another type.
const RARE: usize = 10_000;
const PAGES: usize = 300;
/// A small number of deliveries, for comparison.
const FEW: usize = 100;
/// Requests of the console.
const ROUNDS: usize = 51;

pub(crate) async fn run(count: usize) -> anyhow::Result<()> {
    let redis = services::redis();
    let journal =
        RedisJournal::new(&one_server(redis.url()), &ClientTls::default(), "bench", RETENTION)?;
    let before = used(&redis.url(), None).await?;
    let started = Instant::now();
    let few = FEW.min(count);
    for at in 0..few {
        one(&journal, at).await?;
    }
    let page_of_few = console(&redis.url()).await?;
    stream::iter(few..count)
        .map(|at| one(&journal, at))
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    let took = started.elapsed();
    let all = used(&redis.url(), None).await? - before;
    let stream = used(&redis.url(), Some("bench:taken")).await?;
    let each = |bytes: f64| bytes / count as f64;
    println!("\nlisting: {count} deliveries in Redis, written in {took:.1?}");
    println!("  {:.0} B a delivery, of which {:.0} B for the list", each(all), each(stream));
    let page_of_all = console(&redis.url()).await?;
    println!(
        "  the console's list opens in {page_of_few:.1?} with {few} and in {page_of_all:.1?} with all"
    );
    let (some, named) = (Query::default(), |text: &str| Some(text.to_owned()));
    for (name, query) in [
        ("any, 100 a page", some.clone()),
        ("of one source", Query { source: named("source-1"), ..some.clone() }),
        ("of a rare type", Query { kind: named("rare"), ..some.clone() }),
        ("dead, one of 10,000", Query { state: Some(State::Dead), ..some.clone() }),
        ("none of all", Query { destination: named("nowhere"), ..some.clone() }),
    ] {
        pages(&journal, name, &query).await?;
    }
    Ok(())
}

/// Median of the time in which `zentra serve` answers with the first page of the console's list.
async fn console(redis: &str) -> anyhow::Result<Duration> {
    // It needs no broker.
    let stack =
        Stack::new("amqp://guest:guest@127.0.0.1:1", redis, "bench", "http://127.0.0.1:9", "");
    let at = format!("127.0.0.1:{}", free_port());
    let mut serve = stack.command("zentra");
    serve.args(["serve", "--listen", &at]);
    let _serve = services::start(serve);
    let created = stack.zentra(&["token", "create", &format!("bench-{at}")]);
    let token = format!("Bearer {}", String::from_utf8(created.stdout)?.trim());
    let (url, headers) =
        (format!("http://{at}/v1/events?limit=100"), vec![("authorization", token)]);
    let mut took = Vec::new();
    eventually("zentra serve answers", Duration::from_secs(20), async || {
        stack.http.send(Method::GET, &url, &headers, "").await
    })
    .await;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let answer = stack.http.send(Method::GET, &url, &headers, "").await;
        took.push(started.elapsed());
        ensure!(answer.is_some_and(|answer| answer.status.is_success()), "no list");
        // Fewer requests per second than a token's limit.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    took.sort();
    Ok(took[ROUNDS / 2])
}

/// A delivery that was delivered, or is dead.
async fn one(journal: &RedisJournal, at: usize) -> anyhow::Result<()> {
    let (source, id) = (format!("source-{}", at % 10), format!("evt_1NG8Du2eZvKYlo2C{at:08}"));
    let kind = if at % RARE == 1 { "rare" } else { "transfer.settled" };
    let key = DeliveryKey::new("ledger", &source, &Identity::from_id(&id).context("no id")?);
    let summary = Summary {
        source,
        provider: "stripe".into(),
        verified_with: "k1".into(),
        event_id: Some(id),
        event_type: Some(kind.into()),
        ..Summary::default()
    };
    let fingerprint = Fingerprint { body: [7; 32], id: None };
    let (lease, worker) = (Duration::from_secs(60), "worker-1");
    let claim = Claim {
        key: &key,
        generation: 0,
        attempt: 1,
        lease,
        worker,
        fingerprint: &fingerprint,
        summary: &summary,
        retention: RETENTION,
    };
    let Answer::Claimed { fence, .. } = journal.claim(&claim).await? else {
        anyhow::bail!("{key} isn't claimed")
    };
    let outcome = match at % RARE {
        0 => Outcome::Dead(DeadReason::Exhausted),
        _ => Outcome::Delivered,
    };
    let result = AttemptResult { duration_ms: 12, status: Some(200), ..AttemptResult::default() };
    let settle = Settle {
        key: &key,
        fence,
        generation: 0,
        attempt: 1,
        outcome,
        worker,
        result: &result,
        fingerprint: &fingerprint,
        summary: &summary,
        retention: RETENTION,
    };
    ensure!(journal.settle(&settle).await? == Answer::Settled, "{key} isn't settled");
    Ok(())
}

/// Page by page, from the newest on.
async fn pages(journal: &RedisJournal, name: &str, query: &Query) -> anyhow::Result<()> {
    let (mut took, mut found, mut cursor) = (Vec::new(), 0, None::<String>);
    while took.len() < PAGES {
        let started = Instant::now();
        let page = journal.list(query, cursor.as_deref(), 100).await?;
        took.push(started.elapsed());
        found += page.items.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    println!(
        "  {name:<20} {found:>6} in {:>3} pages: p50 {:>8.2?}, p99 {:>8.2?}",
        took.len(),
        at(50),
        at(99)
    );
    Ok(())
}

/// Bytes of one key, or of all keys.
async fn used(url: &str, key: Option<&str>) -> anyhow::Result<f64> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    match key {
        Some(key) => {
            let mut usage = redis::cmd("MEMORY");
            usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            Ok(usage.query_async(&mut connection).await?)
        }
        None => {
            let info: InfoDict =
                redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
            info.get::<f64>("used_memory").context("no used_memory")
        }
    }
}
