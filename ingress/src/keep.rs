//! Keeps refused callbacks for operators, without delaying events.
//!
//! Each source has an allowance per second and a share of the total, so that one source's flood
//! can't displace another's callbacks. What doesn't fit, or can't be queued, is dropped and
//! counted.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use webhook_verify::Unverified;
use zentra_core::refused::RefusedRecord;
use zentra_core::seal::Sealer;
use zentra_core::source::Source;
use zentra_store::queue::Publish;

use crate::metrics::Metrics;

/// Maximum number of refused callbacks that wait to be queued.
const WAITING: usize = 64;

/// Unit of the share of bytes.
const KIB: usize = 1024;

/// Allowance of one source.
struct Allowance {
    per_second: DefaultDirectRateLimiter,
    /// Of `max_count` and `max_bytes` (in KiB), in `max_age`.
    count: DefaultDirectRateLimiter,
    bytes: DefaultDirectRateLimiter,
}

impl Allowance {
    fn new(refused: &zentra_config::Refused, sources: usize) -> Option<Self> {
        let bounds = &refused.bounds;
        // Half of the share at once, and half in the time after which the first of it is gone.
        let share = |of: usize| {
            let half = u32::try_from(of / sources.max(1) / 2).unwrap_or(u32::MAX).max(1);
            let half = NonZeroU32::new(half)?;
            let period = (bounds.age / half.get()).max(Duration::from_nanos(1));
            Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(half)))
        };
        Some(Self {
            per_second: RateLimiter::direct(Quota::per_second(NonZeroU32::new(
                refused.per_second,
            )?)),
            count: share(bounds.count as usize)?,
            bytes: share(bounds.bytes / KIB)?,
        })
    }

    /// Why a body of this size isn't kept, if it isn't.
    fn denies(&self, bytes: usize) -> Option<&'static str> {
        if self.per_second.check().is_err() {
            return Some("rate");
        }
        let kib = u32::try_from(bytes.div_ceil(KIB).max(1)).ok().and_then(NonZeroU32::new);
        let fits = |kib| self.bytes.check_n(kib).is_ok_and(|checked| checked.is_ok());
        match self.count.check().is_ok() && kib.is_some_and(fits) {
            true => None,
            false => Some("share"),
        }
    }
}

/// Keeps refused callbacks, as far as there is room.
pub(crate) struct RefusedRecorder {
    allowances: HashMap<String, Allowance>,
    waiting: mpsc::Sender<(RefusedRecord, Unverified)>,
    metrics: Metrics,
}

impl RefusedRecorder {
    /// Starts to queue what is kept, until the keeper is dropped and all is queued.
    pub(crate) fn start<Q: Publish>(
        refused: &zentra_config::Refused,
        sources: &[Source],
        sealer: Sealer,
        queue: Q,
        metrics: Metrics,
    ) -> (Self, JoinHandle<()>) {
        let allowance =
            |source: &Source| Some((source.name.clone(), Allowance::new(refused, sources.len())?));
        let allowances = sources.iter().filter_map(allowance).collect();
        let (waiting, inbox) = mpsc::channel(WAITING);
        let keeping = tokio::spawn(queue_all(inbox, sealer, queue, metrics.clone()));
        (Self { allowances, waiting, metrics }, keeping)
    }

    /// Keeps a callback if there is room; returns at once.
    pub(crate) fn keep(
        &self,
        callback: Unverified,
        source: &Source,
        refusal: webhook_verify::Refusal,
    ) {
        let dropped = |why| {
            self.metrics.dropped(&source.name, why);
        };
        let denied = match self.allowances.get(&source.name) {
            Some(allowance) => allowance.denies(callback.body.len()),
            None => Some("rate"),
        };
        if let Some(why) = denied {
            return dropped(why);
        }
        let kept = RefusedRecord::of(&callback, source, refusal);
        if self.waiting.try_send((kept, callback)).is_err() {
            dropped("full");
        }
    }
}

async fn queue_all<Q: Publish>(
    mut inbox: mpsc::Receiver<(RefusedRecord, Unverified)>,
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
                tracing::debug!(source, id = kept.id, error, "cannot store a refused callback");
                metrics.dropped(source, "queue");
            }
        }
    }
}
