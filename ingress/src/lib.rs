//! The verified ingress: `POST /in/{source}`.
//!
//! A callback is read (bounded), verified on its raw bytes, judged for freshness,
//! identified, sealed and published; a 2xx goes out only when the broker has confirmed
//! it. The ingress needs RabbitMQ and nothing else.

pub mod admit;
mod bodies;
mod client;
mod connection;
mod handler;
mod head;
mod keep;
pub mod keys;
mod log;
mod metrics;
mod receive;
mod refusal;
mod reload;
mod respond;
mod server;
mod state;

use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zentra_config::Live;
use zentra_store::queue::Publish;
use zentra_telemetry::admin;

pub use refusal::Refusal;

/// Time to queue kept refused callbacks at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// Serves callbacks on `listener` and health on `admin` until `stop`.
///
/// # Errors
/// If a metric can't be registered, or the health server panicked.
pub async fn run<Q: Publish>(
    live: Live,
    queue: Q,
    listener: TcpListener,
    admin: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let registry = Registry::new();
    let by_source = live.config().ingress.source_histograms;
    let metrics = metrics::Metrics::new(&registry, by_source)?;
    live.register(&registry)?;
    queue.register(&registry)?;
    zentra_telemetry::build_info(&registry, "zentra-ingress")?;
    zentra_telemetry::otlp::register(&registry)?;
    zentra_core::clock::register(&registry)?;
    let trusted = live.config().ingress.trusted_proxies.clone();
    let bounds = live.config().ingress.bounds.clone();
    let reload::Current { gate, tls, keeping } =
        reload::follow(live, queue.clone(), metrics.clone(), stop.clone());
    let handler = handler::Handler::new(gate, &bounds, trusted, metrics);
    let ended = CancellationToken::new();
    let ready = move || std::future::ready(queue.ready());
    let health = tokio::spawn(admin::serve(admin, registry, ready, stop.clone(), ended.clone()));
    server::serve(listener, handler, tls, bounds, stop).await;
    // Kept refused callbacks are queued first.
    let _ = timeout(FLUSH, keeping.wait()).await;
    ended.cancel();
    health.await?;
    Ok(())
}
