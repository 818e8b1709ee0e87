//! Leases of one destination that this server has handed out, and how they end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep_until;
use zentra_core::clock::{self, millis};
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::State;
use zentra_core::trace::Trace;
use zentra_store::journal::{AttemptResult, ErrorClass, First, HistoryEvent, Journal};
use zentra_store::queue::{Fetch, Message};

use super::ready::Pending;
use super::receipt::Receipt;
use super::{LeasedEvent, Nack, Pulling, REMEMBERED, as_text, lock};
use crate::deliver::{Attempted, Verdict, headers};
use crate::process::{Claimed, Stopped};

/// How often a lease is looked up that another server may have ended: an eighth of it, within
/// these bounds.
const SOONEST_LOOK: Duration = Duration::from_secs(1);
const LATEST_LOOK: Duration = Duration::from_secs(10);

/// How a lease ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Acknowledged,
    Failed(Nack),
    /// No consumer answered in time.
    Unanswered(&'static str),
}

/// The leases whose messages this server holds.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<Receipt, oneshot::Sender<Answered>>>);

/// An answer of the consumer. The sender reports that it is stored.
struct Answered {
    ended: Ended,
    stored: oneshot::Sender<()>,
}

/// A lease that is being ended.
pub(super) struct Lease(oneshot::Sender<Answered>);

impl Lease {
    /// Returns when the outcome is stored. `false` if this server has just ended the lease
    /// otherwise: then the store decides.
    pub(super) async fn end(self, ended: Ended) -> bool {
        let (stored, is_stored) = oneshot::channel();
        self.0.send(Answered { ended, stored }).is_ok() && is_stored.await.is_ok()
    }
}

/// Removes the lease when its message is no longer held for it.
struct Registered<'l> {
    leases: &'l Leases,
    receipt: Receipt,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(&self.leases.0).remove(&self.receipt);
    }
}

impl Leases {
    pub(super) fn count(&self) -> usize {
        lock(&self.0).len()
    }

    pub(super) fn take(&self, receipt: &Receipt) -> Option<Lease> {
        lock(&self.0).remove(receipt).map(Lease)
    }

    fn register(&self, receipt: Receipt) -> (Registered<'_>, oneshot::Receiver<Answered>) {
        let (answers, answered) = oneshot::channel();
        lock(&self.0).insert(receipt.clone(), answers);
        (Registered { leases: self, receipt }, answered)
    }
}

/// Reports to a consumer that its answer is stored.
type Waits = oneshot::Sender<()>;

impl<Q: Fetch, J: Journal> Pulling<Q, J> {
    /// Hands out a claimed event, and waits for its end.
    pub(super) async fn lease(
        &self,
        message: &Message,
        key: &DeliveryKey,
        claimed: &Claimed<'_>,
        pending: Pending,
        trace: Trace,
    ) -> Result<(Attempted, Option<Waits>), Stopped> {
        if let Some(nack) = self.left_behind(key, claimed).await? {
            return Ok((attempted(Ended::Failed(nack), Duration::ZERO), None));
        }
        let receipt = Receipt { key: key.clone(), fence: claimed.fence };
        let leased = match self.leased(message, claimed, &receipt, trace) {
            Ok(leased) => leased,
            Err(error) => {
                let error = format!("cannot make the headers: {error}");
                return Ok((failed(ErrorClass::Request, error, claimed.asked.elapsed()), None));
            }
        };
        let name = leased.receipt.clone();
        let (_registered, answered) = self.leases.register(receipt);
        self.ready.put(leased);
        drop(pending);
        let (ended, waits) = tokio::select! {
            biased;
            Ok(Answered { ended, stored }) = answered => (Ok(ended), Some(stored)),
            ended = self.over(key, claimed) => (ended, None),
            () = self.processor.stop.cancelled() => (Err(Stopped), None),
        };
        let was_taken = !self.ready.remove(&name);
        let ended = match ended? {
            Ended::Unanswered(_) if !was_taken => {
                Ended::Unanswered("no consumer asked for the event within its lease")
            }
            ended => ended,
        };
        Ok((attempted(ended, claimed.asked.elapsed()), waits))
    }

    /// What a consumer answered for the previous claim, if the server that held it has ended.
    async fn left_behind(
        &self,
        key: &DeliveryKey,
        claimed: &Claimed<'_>,
    ) -> Result<Option<Nack>, Stopped> {
        if claimed.expired == 0 {
            return Ok(None);
        }
        let processor = &self.processor;
        let known = processor.retry_until_ok("look up", || processor.journal.known(key)).await?;
        let history = known.map(|delivery| delivery.history).unwrap_or_default();
        let fences = history.iter().rev().filter_map(|entry| match entry.what {
            HistoryEvent::Claimed { fence, .. } => Some(fence),
            _ => None,
        });
        match fences.into_iter().find(|fence| *fence < claimed.fence) {
            Some(fence) => self.decided(key, fence).await,
            None => Ok(None),
        }
    }

    fn leased(
        &self,
        message: &Message,
        claimed: &Claimed<'_>,
        receipt: &Receipt,
        trace: Trace,
    ) -> Result<LeasedEvent, http::Error> {
        let headers = headers(&receipt.key, claimed.event, message.attempt, trace)?;
        let left = self.processor.lease.saturating_sub(claimed.asked.elapsed());
        Ok(LeasedEvent {
            receipt: receipt.to_string(),
            key: receipt.key.clone(),
            attempt: message.attempt,
            until: clock::now().plus(left),
            headers: as_text(headers),
            event: claimed.event.clone(),
        })
    }

    /// Waits until the lease is over. Any server may have extended or settled it, so the store
    /// decides. It is asked for durations only, because its clock can differ from this server's.
    async fn over(&self, key: &DeliveryKey, claimed: &Claimed<'_>) -> Result<Ended, Stopped> {
        let processor = &self.processor;
        let look = (processor.lease / 8).clamp(SOONEST_LOOK, LATEST_LOOK);
        let mut end = claimed.asked + processor.lease;
        loop {
            sleep_until(end.min(Instant::now() + look).into()).await;
            let known =
                processor.retry_until_ok("look up", || processor.journal.known(key)).await?;
            let record = known.map(|delivery| delivery.record);
            match record.filter(|record| record.fence == claimed.fence) {
                Some(record) if record.state == State::Delivered => return Ok(Ended::Acknowledged),
                Some(record) if record.state == State::InFlight => {
                    // The fence is the time of the claim, by the store's clock.
                    let total = record.until.millis().saturating_sub(record.fence);
                    end = claimed.asked + Duration::from_millis(total);
                    if end > Instant::now() {
                        continue;
                    }
                }
                // Another server has the claim, or the store has forgotten it. A message more is
                // harmless, a message less is not.
                _ => {}
            }
            let nack = self.decided(key, claimed.fence).await?;
            let unanswered = Ended::Unanswered("the consumer did not answer within its lease");
            return Ok(nack.map_or(unanswered, Ended::Failed));
        }
    }

    /// What a consumer answered at another server. After this, it can answer nothing more.
    async fn decided(&self, key: &DeliveryKey, fence: u64) -> Result<Option<Nack>, Stopped> {
        let processor = &self.processor;
        let first = || processor.journal.first(First::Lease { key, fence }, "", REMEMBERED);
        let first = processor.retry_until_ok("lease", first).await?;
        Ok(serde_json::from_str(&first).ok())
    }
}

fn attempted(ended: Ended, took: Duration) -> Attempted {
    match ended {
        Ended::Acknowledged => {
            let result = AttemptResult { duration_ms: millis(took), ..AttemptResult::default() };
            Attempted { verdict: Verdict::Delivered, result }
        }
        Ended::Unanswered(error) => failed(ErrorClass::Timeout, error.to_owned(), took),
        Ended::Failed(Nack { retry_after, permanent, error }) => {
            let error = error.unwrap_or_else(|| "the consumer rejected the event".to_owned());
            let verdict = match permanent {
                true => Verdict::Permanent,
                false => Verdict::Failed { retry_after },
            };
            Attempted { verdict, ..failed(ErrorClass::Handler, error, took) }
        }
    }
}

fn failed(class: ErrorClass, error: String, took: Duration) -> Attempted {
    Attempted {
        verdict: Verdict::Failed { retry_after: None },
        result: AttemptResult {
            duration_ms: millis(took),
            error: Some(error),
            class: Some(class),
            ..AttemptResult::default()
        },
    }
}
