//! Settings for callbacks: sources, secrets, seal and bounds of one configuration. A reload
//! replaces all.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use webhook_verify::Unverified;
use zentra_config::Config;
use zentra_core::seal::Sealer;
use zentra_core::source::Source;
use zentra_store::queue::Publish;

use crate::admit::{Admission, Bounds, Entry, is_large};
use crate::keep::RefusedRecorder;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::refusal::Refusal;

/// Settings of one configuration.
pub(crate) struct IngressState<Q> {
    sources: HashMap<String, Source>,
    sealer: Sealer,
    queue: Q,
    keeper: RefusedRecorder,
    keys: Keys,
    /// Limits the number of large bodies that are verified at a time, so that small ones have a
    /// core.
    large: Semaphore,
    /// Those that are verified or wait for it: they leave most of `max_in_flight` to the small ones.
    large_waiting: Semaphore,
    metrics: Metrics,
}

impl<Q: Publish> IngressState<Q> {
    /// As the config says. The handle ends when all that was kept is queued, after the
    /// state is gone.
    pub(crate) fn new(config: &Config, queue: Q, metrics: &Metrics) -> (Self, JoinHandle<()>) {
        metrics.know(&config.sources);
        let sealer = config.seal.clone();
        let (keeper, keeping) = RefusedRecorder::start(
            &config.refused,
            &config.sources,
            sealer.clone(),
            queue.clone(),
            metrics.clone(),
        );
        let sources = config.sources.iter().map(|source| (source.name.clone(), source.clone()));
        let (keys, metrics) = (Keys::default(), metrics.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let state = Self {
            sources: sources.collect(),
            sealer,
            queue,
            keeper,
            keys,
            large: Semaphore::new(cores.div_ceil(2)),
            large_waiting: Semaphore::new((config.ingress.bounds.max_in_flight / 4).max(1) as usize),
            metrics,
        };
        (state, keeping)
    }

    pub(crate) fn source(&self, name: &str) -> Result<&Source, Refusal> {
        self.sources.get(name).ok_or(Refusal::UnknownSource)
    }

    /// Admits a callback, or keeps it if it doesn't verify.
    pub(crate) async fn admit(
        &self,
        callback: Unverified,
        source: &Source,
    ) -> Result<Admission, Refusal> {
        let _place = match is_large(&callback) {
            true => Some(self.large_waiting.try_acquire().map_err(|_| Refusal::Overloaded)?),
            false => None,
        };
        let Self { sealer, queue, keys, large, metrics, .. } = self;
        let verified = |took: Duration| metrics.verified(&source.name, took);
        let bounds = Bounds { turns: large, verified: &verified, _place };
        let entry = Entry { sealer, queue, keys };
        let refusal = match entry.admit_new(&callback, source, bounds).await {
            Err(Refusal::Verify(refusal)) => refusal,
            admitted => return admitted,
        };
        let answer = match refusal {
            webhook_verify::Refusal::SignatureMissing => {
                callback.unsigned_handshake(&Method::POST, &source.endpoint)
            }
            _ => None,
        };
        // It may hold what the operator has to see: a new secret, for one.
        self.keeper.keep(callback, source, refusal);
        answer.map(|answer| Admission::Handshake(Box::new(answer))).ok_or(Refusal::Verify(refusal))
    }
}
