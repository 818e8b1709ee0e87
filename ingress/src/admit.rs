//! Admitting a callback: verify → fresh → identify → seal → publish.

use std::collections::HashMap;
use std::time::Instant;

use tokio::task::JoinHandle;
use zentra_shared::config::Config;
use zentra_shared::event::{Admitted, Envelope};
use zentra_shared::queue::Publish;
use zentra_shared::seal::Sealer;
use zentra_shared::trace::Trace;
use zentra_shared::verify::{Source, Unverified, Verified};

use crate::keep::Keeper;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// The one way in, for a callback that has just come and for one that was refused at
/// first and is `admitted` by an operator. Returns the event's envelope when the broker
/// has confirmed it: only then may a 2xx go out.
pub async fn admit(
    callback: &Unverified,
    source: &Source,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<Envelope, Refusal> {
    publish(callback.verify(source)?, sealer, queue, admitted).await
}

async fn publish(
    verified: Verified,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<Envelope, Refusal> {
    let mut event = verified.into_event();
    event.envelope.admitted = admitted;
    let trace = Trace::new(&mut rand::rng());
    let (envelope, mut sealed) = sealer.seal(event).map_err(|_| Refusal::Seal)?;
    sealed.trace = Some(trace);
    queue.publish(&sealed).await?;
    tracing::debug!(
        source = envelope.source,
        id = sealed.id,
        trace = trace.id(),
        "callback accepted"
    );
    Ok(envelope)
}

/// All that it takes to let a callback in.
pub(crate) struct Gate<Q> {
    sources: HashMap<String, Source>,
    sealer: Sealer,
    queue: Q,
    keeper: Keeper,
    metrics: Metrics,
}

impl<Q: Publish> Gate<Q> {
    /// As the config says. The handle ends when all that was kept is queued, after the
    /// gate is gone.
    pub(crate) fn new(config: &Config, queue: Q, metrics: &Metrics) -> (Self, JoinHandle<()>) {
        metrics.know(&config.sources);
        let sealer = config.seal.clone();
        let (keeper, keeping) = Keeper::start(
            config.refused.per_second,
            &config.sources,
            sealer.clone(),
            queue.clone(),
            metrics.clone(),
        );
        let sources = config.sources.iter().map(|source| (source.name.clone(), source.clone()));
        let metrics = metrics.clone();
        (Self { sources: sources.collect(), sealer, queue, keeper, metrics }, keeping)
    }

    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Admits a callback, or keeps it where it doesn't verify.
    pub(crate) async fn admit(
        &self,
        callback: Unverified,
        source: &Source,
    ) -> Result<Envelope, Refusal> {
        let started = Instant::now();
        let verified = callback.verify(source);
        self.metrics.verified(&source.name, started.elapsed());
        match verified {
            Ok(verified) => publish(verified, &self.sealer, &self.queue, None).await,
            Err(refusal) => {
                self.keeper.keep(callback, source, refusal);
                Err(refusal.into())
            }
        }
    }
}
