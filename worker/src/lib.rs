//! The worker: any number of deliveries, retries and crashes end in one effect.
//!
//! `zentra-worker` is this library without handlers. A worker of your own calls [`Worker`]
//! with an async function per destination; see `examples/` and [`inbox`].
//!
//! Per destination it consumes the work queue, opens each message's seal, claims the
//! delivery in the journal, makes one attempt, settles, and acknowledges. What a lease
//! can't exclude (the destination wrote, then the worker died) is closed at the write
//! boundary: every attempt of a delivery carries the same `Idempotency-Key`.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod circuit;
mod consume;
mod deliver;
mod gate;
pub mod inbox;
mod metrics;
mod process;
mod program;
pub mod pull;
mod spans;
mod tally;
#[cfg(test)]
mod tests;
mod unpublished;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zentra_config::{Config, Destination, Live};
use zentra_core::clock;
use zentra_store::control::WorkerControl;
use zentra_store::journal::{Journal, JournalError};
use zentra_store::queue::Process;
use zentra_telemetry::admin;

use circuit::Circuit;
use deliver::Deliver;
use deliver::handler::Handlers;
use gate::{DestinationGate, Gates};
use process::Processor;
use unpublished::Unpublished;

pub use deliver::handler::{Delivery, Failed};
pub use program::Worker;
pub use zentra_core::event::{DeliveryKey, Envelope, Event};

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long saying so may take, when the worker stops.
const LEAVE: Duration = Duration::from_secs(1);

/// Works for all destinations until `stop`, and for those of a new config from when it is
/// in force.
///
/// # Errors
/// If cannot set up TLS.
async fn run<Q: Process, J: Journal + WorkerControl>(
    mut live: Live,
    queue: Q,
    journal: J,
    handlers: Handlers,
    admin: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let registry = Registry::new();
    live.register(&registry)?;
    queue.register(&registry)?;
    zentra_telemetry::build_info(&registry, "zentra-worker")?;
    zentra_telemetry::otlp::register(&registry)?;
    zentra_core::clock::register(&registry)?;
    let metrics = metrics::Metrics::new(&registry)?;
    let store_metrics = metrics::StoreMetrics::new(&registry)?;
    let http = deliver::http::HttpDelivery::new()?;

    let ended = CancellationToken::new();
    let ready = {
        let (queue, journal) = (queue.clone(), journal.clone());
        move || {
            let (queue, journal) = (queue.clone(), journal.clone());
            async move { queue.ready() && journal.ready().await.is_ok() }
        }
    };
    let health = tokio::spawn(admin::serve(admin, registry, ready, stop.clone(), ended.clone()));
    let looked = watch(journal.clone(), live.clone(), store_metrics);
    let watching = AbortOnDropHandle::new(tokio::spawn(looked));
    let (worker, gates) = (worker_name(), Gates::default());
    let heartbeats = gates.clone().heartbeat(journal.clone(), worker.clone(), clock::now());
    let heartbeat = AbortOnDropHandle::new(tokio::spawn(heartbeats));
    let control = journal.clone();
    let processing = Processing { worker, queue, journal, metrics };
    let pool = WorkerPool { processing, gates, http, handlers };
    let mut loops = JoinSet::new();
    let mut generation = stop.child_token();
    pool.start(&live.config(), &generation, &mut loops)?;
    loop {
        tokio::select! {
            Some(ended) = loops.join_next() => {
                ended?;
                if loops.is_empty() {
                    break;
                }
            }
            () = stop.cancelled(), if loops.is_empty() => break,
            new = live.next(), if !stop.is_cancelled() => {
                pool.processing.queue.subscribe(new.routes()).await;
                // Attempts under way end as they began; the new shift takes the next ones.
                let old = std::mem::replace(&mut generation, stop.child_token());
                pool.start(&new, &generation, &mut loops)?;
                old.cancel();
                live.in_force();
            }
        }
    }
    drop((watching, heartbeat));
    // Otherwise operators see it a little longer.
    let _ = tokio::time::timeout(LEAVE, control.leave(&pool.processing.worker)).await;
    ended.cancel();
    health.await?;
    Ok(())
}

/// Looks at the journal now and then, for Prometheus.
async fn watch<J: Journal>(journal: J, live: Live, metrics: metrics::StoreMetrics) {
    let mut tick = tokio::time::interval(LOOK);
    let mut was_ready = true;
    loop {
        tick.tick().await;
        let ready = journal.ready().await;
        match &ready {
            Err(error @ JournalError::Unusable(_)) => {
                tracing::error!(%error, "the worker waits: retrying");
            }
            Err(error) if was_ready => tracing::warn!(%error, "the worker waits: retrying"),
            Ok(()) if !was_ready => tracing::info!("the delivery store takes claims again"),
            _ => {}
        }
        was_ready = ready.is_ok();
        let away = matches!(ready, Err(JournalError::Unavailable(_) | JournalError::Unusable(_)));
        metrics.up.set((!away).into());
        metrics.writable.set(ready.is_ok().into());
        if let Ok(Some(usage)) = journal.usage().await {
            metrics.set_usage(usage);
        }
        for destination in &live.config().destinations {
            if let Ok(oldest) = journal.oldest_dead(&destination.name).await {
                let at = oldest.map_or(0, |at| i64::try_from(at.secs()).unwrap_or(i64::MAX));
                metrics.oldest_dead.with_label_values(&[&destination.name]).set(at);
            }
        }
        let config = live.config();
        let of_sources = config.sources.iter().map(|source| source.retention);
        let longest = of_sources.fold(config.store.retention, Duration::max);
        if let Err(error) = journal.tidy(longest).await {
            tracing::debug!(%error, "cannot trim the list of deliveries");
        }
    }
}

/// What the processors of all destinations share.
pub(crate) struct Processing<Q, J> {
    pub(crate) worker: String,
    pub(crate) queue: Q,
    pub(crate) journal: J,
    pub(crate) metrics: metrics::Metrics,
}

impl<Q: Clone, J: Clone> Processing<Q, J> {
    /// The processor of one destination. `stop` ends waiting for an unreachable broker or store.
    pub(crate) fn processor(
        &self,
        config: &Config,
        destination: &Destination,
        lease: Duration,
        sources: &Arc<HashMap<String, process::OfSource>>,
        stop: &CancellationToken,
    ) -> Processor<Q, J> {
        let names = config.sources.iter().map(|source| source.name.as_str());
        let names = names.filter(|source| destination.can_take(source));
        let metrics = self.metrics.of(&destination.name, names);
        let circuit = Circuit::new(
            destination.circuit.clone(),
            destination.concurrency,
            metrics.circuit_open.clone(),
        );
        let rate = NonZeroU32::new(destination.rate);
        Processor {
            unpublished: Unpublished::new(metrics.unpublished.clone()),
            gate: Arc::new(DestinationGate::new(circuit, metrics.in_flight.clone())),
            pace: rate.map(|rate| RateLimiter::direct(Quota::per_second(rate))),
            destination: destination.clone(),
            worker: self.worker.clone(),
            lease,
            sources: sources.clone(),
            default_retention: config.store.retention,
            sealer: config.seal.clone(),
            queue: self.queue.clone(),
            journal: self.journal.clone(),
            metrics,
            stop: stop.clone(),
        }
    }
}

/// Settings of each source's deliveries, by name.
pub(crate) fn of_sources(config: &Config) -> Arc<HashMap<String, process::OfSource>> {
    let sources = config.sources.iter().map(|source| {
        let redact = source.redact.clone();
        (source.name.clone(), process::OfSource { retention: source.retention, redact })
    });
    Arc::new(sources.collect())
}

/// What the loops of all destinations share.
struct WorkerPool<Q, J> {
    processing: Processing<Q, J>,
    gates: Gates,
    http: deliver::http::HttpDelivery,
    handlers: Handlers,
}

impl<Q: Process, J: Journal> WorkerPool<Q, J> {
    /// Starts to work for each destination until `stop`.
    ///
    /// # Errors
    /// If cannot set up TLS.
    fn start(
        &self,
        config: &Config,
        stop: &CancellationToken,
        loops: &mut JoinSet<()>,
    ) -> Result<(), rustls::Error> {
        let sources = of_sources(config);
        let mut gates = BTreeMap::new();
        for destination in &config.destinations {
            let pulled = destination.pull.is_some();
            let processor =
                self.processing.processor(config, destination, config.lease, &sources, stop);
            let Some(deliver) = self.deliver(destination)? else {
                let destination = destination.name.as_str();
                let why = match pulled {
                    true => "consumers pull its events from zentra serve",
                    false => "another program has its handler",
                };
                tracing::info!(destination, why, "skipped");
                continue;
            };
            gates.insert(destination.name.clone(), processor.gate.clone());
            loops.spawn(consume::consume(processor.into(), deliver.into(), stop.clone()));
        }
        self.gates.replace(gates);
        Ok(())
    }
}

impl<Q, J> WorkerPool<Q, J> {
    /// How a destination is delivered to. `None` if another program has its handler, or consumers
    /// pull its events.
    fn deliver(&self, destination: &Destination) -> Result<Option<Deliver>, rustls::Error> {
        Ok(match destination.url {
            Some(_) => Some(Deliver::Http(Box::new(self.http.of(destination)?))),
            None => self.handlers.of(&destination.name).map(Deliver::Handler),
        })
    }
}

/// How histories name this worker: host and process.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "worker" } else { host };
    format!("{host}-{}", std::process::id())
}
