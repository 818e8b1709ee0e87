//! Keeping refused callbacks for an operator to see: never in an event's way.
//!
//! Each source has an allowance per second, so that a flood of forgeries can't drown
//! what else is refused. What doesn't fit, or can't be queued, is dropped and counted.

use std::collections::HashMap;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zentra_shared::queue::Publish;
use zentra_shared::refused::Kept;
use zentra_shared::seal::Sealer;
use zentra_shared::verify::{self, Source, Unverified};

use crate::metrics::Metrics;

/// Refused callbacks that wait to be queued.
const WAITING: usize = 64;

/// Takes refused callbacks, as far as there is room.
pub(crate) struct Keeper {
    allowances: HashMap<String, DefaultDirectRateLimiter>,
    waiting: mpsc::Sender<(Kept, Unverified)>,
    metrics: Metrics,
}

impl Keeper {
    /// Starts to queue what is kept, until the keeper is dropped and all is queued.
    pub(crate) fn start<Q: Publish>(
        per_second: u32,
        sources: &[Source],
        sealer: Sealer,
        queue: Q,
        metrics: Metrics,
    ) -> (Self, JoinHandle<()>) {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let allowances = sources
            .iter()
            .filter_map(|source| Some((source.name.clone(), RateLimiter::direct(quota?))))
            .collect();
        let (waiting, inbox) = mpsc::channel(WAITING);
        let keeping = tokio::spawn(queue_all(inbox, sealer, queue, metrics.clone()));
        (Self { allowances, waiting, metrics }, keeping)
    }

    /// Keeps a callback if there is room; returns at once.
    pub(crate) fn keep(&self, callback: Unverified, source: &Source, refusal: verify::Refusal) {
        let dropped = |why| {
            self.metrics.dropped(&source.name, why);
        };
        let allowed =
            self.allowances.get(&source.name).is_some_and(|allowance| allowance.check().is_ok());
        if !allowed {
            return dropped("rate");
        }
        let kept = Kept::of(&callback, source, refusal);
        if self.waiting.try_send((kept, callback)).is_err() {
            dropped("full");
        }
    }
}

async fn queue_all<Q: Publish>(
    mut inbox: mpsc::Receiver<(Kept, Unverified)>,
    sealer: Sealer,
    queue: Q,
    metrics: Metrics,
) {
    while let Some((kept, callback)) = inbox.recv().await {
        let source = kept.source.as_str();
        let queued = match kept.seal(&sealer, &callback) {
            Ok(sealed) => queue.keep(&sealed).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match queued {
            Ok(()) => metrics.kept(source),
            Err(error) => {
                tracing::debug!(source, id = kept.id, error, "a refused callback wasn't kept");
                metrics.dropped(source, "queue");
            }
        }
    }
}
