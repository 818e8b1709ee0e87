//! The verified entrance: `POST /in/{source}`.
//!
//! A callback is read (bounded), verified on its raw bytes, judged for freshness,
//! identified, sealed and published; a 2xx goes out only when the broker has confirmed
//! it. The ingress needs RabbitMQ and nothing else.

pub mod admit;
mod connection;
mod entrance;
mod keep;
mod metrics;
mod receive;
mod refusal;
mod reload;
mod respond;
mod server;

use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zentra_shared::config::{Config, Environment};
use zentra_shared::queue::Publish;
use zentra_shared::telemetry::admin;

pub use refusal::Refusal;

/// How long what is kept of refused callbacks may take to be queued at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// Serves callbacks on `listener` and health on `admin` until `stop`.
///
/// # Errors
/// If a metric can't be registered, or the health server panicked.
pub async fn run<Q: Publish>(
    config: Config,
    environment: Environment,
    queue: Q,
    listener: TcpListener,
    admin: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = metrics::Metrics::new(&registry, &config.sources)?;
    let (per_second, sources) = (config.refused.per_second, config.sources.iter());
    let (keeper, keeping) = keep::Keeper::start(
        per_second,
        sources,
        config.seal.clone(),
        queue.clone(),
        metrics.clone(),
    );
    let sources = config.sources.into_iter().map(|source| (source.name.clone(), source)).collect();
    let gate = admit::Gate { sources, sealer: config.seal, queue: queue.clone(), keeper };
    let bounds = config.ingress.bounds;
    let entrance = entrance::Entrance::new(gate, &bounds, metrics);
    let tls = reload::certificates(config.ingress.tls, environment, stop.clone());
    let ended = CancellationToken::new();
    let ready = move || std::future::ready(queue.ready());
    let health = tokio::spawn(admin::serve(admin, registry, ready, stop.clone(), ended.clone()));
    server::serve(listener, entrance, tls, bounds, stop).await;
    // The keeper ended with the entrance; what it had taken is queued first.
    let _ = timeout(FLUSH, keeping).await;
    ended.cancel();
    health.await?;
    Ok(())
}
