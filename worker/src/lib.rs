//! The worker: any number of deliveries, retries and crashes end in one effect.
//!
//! Per destination it consumes the work queue, opens each message's seal, claims the
//! delivery in the journal, makes one attempt, settles, and acknowledges. What a lease
//! can't exclude (the destination wrote, then the worker died) is closed at the write
//! boundary: every attempt of a delivery carries the same `Idempotency-Key`.

mod consume;
mod deliver;
mod metrics;
mod process;

use std::sync::Arc;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zentra_shared::config::Config;
use zentra_shared::journal::Journal;
use zentra_shared::queue::Process;
use zentra_shared::telemetry::admin;

/// Works for all destinations until `stop`.
///
/// # Errors
/// If the config has no destination, or TLS can't be set up.
pub async fn run<Q: Process, J: Journal>(
    config: Config,
    queue: Q,
    journal: J,
    admin: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = metrics::Metrics::new(&registry, &config.destinations)?;
    let http = deliver::http::HttpDelivery::new()?;
    anyhow::ensure!(!config.destinations.is_empty(), "there is no [destination.NAME] to work for");
    let worker = worker_name();

    let ended = CancellationToken::new();
    let ready = {
        let (queue, journal) = (queue.clone(), journal.clone());
        move || {
            let (queue, journal) = (queue.clone(), journal.clone());
            async move { queue.ready() && journal.ready().await }
        }
    };
    let health = tokio::spawn(admin::serve(admin, registry, ready, stop.clone(), ended.clone()));
    let mut loops = JoinSet::new();
    for destination in config.destinations {
        let processor = Arc::new(process::Processor {
            destination,
            worker: worker.clone(),
            lease: config.lease,
            sealer: config.seal.clone(),
            queue: queue.clone(),
            journal: journal.clone(),
            http: http.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        });
        loops.spawn(consume::consume(processor, stop.clone()));
    }
    while let Some(ended) = loops.join_next().await {
        ended?;
    }
    ended.cancel();
    health.await?;
    Ok(())
}

/// How histories name this worker: host and process.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "worker" } else { host };
    format!("{host}-{}", std::process::id())
}
