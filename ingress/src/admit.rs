//! Admitting a callback: verify → fresh → identify → seal → publish.

use std::collections::HashMap;

use tokio::task::JoinHandle;
use zentra_shared::config::Config;
use zentra_shared::event::Admitted;
use zentra_shared::queue::Publish;
use zentra_shared::seal::Sealer;
use zentra_shared::verify::{Source, Unverified, Verified};

use crate::keep::Keeper;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// The one way in, for a callback that has just come and for one that was refused at
/// first and is `admitted` by an operator. Returns when the broker has confirmed the
/// event: only then may a 2xx go out.
pub async fn admit(
    callback: &Unverified,
    source: &Source,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<Taken, Refusal> {
    publish(callback.verify(source)?, sealer, queue, admitted).await
}

/// An event that is durable.
pub struct Taken {
    /// The name of the secret that verified it.
    pub key: String,
}

async fn publish(
    verified: Verified,
    sealer: &Sealer,
    queue: &impl Publish,
    admitted: Option<Admitted>,
) -> Result<Taken, Refusal> {
    let mut event = verified.into_event();
    event.envelope.admitted = admitted;
    let taken = Taken { key: event.envelope.verified_with.clone() };
    let sealed = sealer.seal(event).map_err(|_| Refusal::Seal)?;
    queue.publish(&sealed).await?;
    Ok(taken)
}

/// All that it takes to let a callback in.
pub(crate) struct Gate<Q> {
    sources: HashMap<String, Source>,
    sealer: Sealer,
    queue: Q,
    keeper: Keeper,
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
        (Self { sources: sources.collect(), sealer, queue, keeper }, keeping)
    }

    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Admits a callback, or keeps it where it doesn't verify.
    pub(crate) async fn admit(
        &self,
        callback: Unverified,
        source: &Source,
    ) -> Result<Taken, Refusal> {
        match callback.verify(source) {
            Ok(verified) => publish(verified, &self.sealer, &self.queue, None).await,
            Err(refusal) => {
                self.keeper.keep(callback, source, refusal);
                Err(refusal.into())
            }
        }
    }
}
