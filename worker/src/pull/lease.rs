//! Leases of one destination that this server has handed out, and how they end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use zentra_core::clock::{self, millis};
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::State;
use zentra_store::journal::{AttemptResult, ErrorClass, First, Journal};
use zentra_store::queue::{Fetch, Message};

use super::receipt::Receipt;
use super::{LeasedEvent, Nack, PullError, Pulling, REMEMBERED, lock};
use crate::deliver::{AttemptRequest, Attempted, Verdict, headers};
use crate::process::{Claimed, Stopped, next_trace};

/// How a lease ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Acknowledged,
    Failed(Nack),
    /// The consumer did not answer in time, or does not wait for the event.
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
    /// Returns when the outcome is stored.
    pub(super) async fn end(self, ended: Ended) -> Result<(), PullError> {
        let (stored, is_stored) = oneshot::channel();
        self.0.send(Answered { ended, stored }).map_err(|_| PullError::LeaseLost)?;
        is_stored.await.map_err(|_| PullError::Stopping)
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
        offer: UnboundedSender<LeasedEvent>,
    ) -> Result<(Attempted, Option<Waits>), Stopped> {
        let receipt = Receipt { key: key.clone(), fence: claimed.fence };
        let leased = match self.leased(message, claimed, &receipt) {
            Ok(leased) => leased,
            Err(error) => {
                let error = format!("cannot make the headers: {error}");
                return Ok((failed(ErrorClass::Request, error, claimed.asked.elapsed()), None));
            }
        };
        let (_registered, answered) = self.leases.register(receipt);
        let is_gone = offer.send(leased).is_err();
        drop(offer);
        let processor = &self.processor;
        let (ended, waits) = match is_gone {
            true => {
                let gone = "the consumer closed the connection before it received the event";
                (Ended::Unanswered(gone), None)
            }
            false => tokio::select! {
                biased;
                Ok(Answered { ended, stored }) = answered => (ended, Some(stored)),
                ended = self.over(key, claimed) => (ended?, None),
                () = processor.stop.cancelled() => return Err(Stopped),
            },
        };
        Ok((attempted(ended, claimed.asked.elapsed()), waits))
    }

    fn leased(
        &self,
        message: &Message,
        claimed: &Claimed<'_>,
        receipt: &Receipt,
    ) -> Result<LeasedEvent, http::Error> {
        let now = clock::now();
        let request = AttemptRequest {
            destination: &self.processor.destination,
            key: &receipt.key,
            event: claimed.event,
            attempt: message.attempt,
            trace: next_trace(&message.sealed),
            now,
        };
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers = headers(&request)?;
        Ok(LeasedEvent {
            receipt: receipt.to_string(),
            key: receipt.key.clone(),
            attempt: message.attempt,
            until: now.plus(self.processor.lease.saturating_sub(claimed.asked.elapsed())),
            headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            event: claimed.event.clone(),
        })
    }

    /// Waits until the lease is over. Any server may have extended or settled it, so the store
    /// decides. It is asked for durations only, because its clock can differ from this server's.
    async fn over(&self, key: &DeliveryKey, claimed: &Claimed<'_>) -> Result<Ended, Stopped> {
        let processor = &self.processor;
        let mut end = claimed.asked + processor.lease;
        loop {
            sleep_until(end.into()).await;
            let known =
                processor.retry_until_ok("look up", || processor.journal.known(key)).await?;
            let record = known.map(|delivery| delivery.record);
            match record.filter(|record| record.fence == claimed.fence) {
                Some(record) if record.state == State::Delivered => return Ok(Ended::Acknowledged),
                Some(record) if record.state == State::InFlight => {
                    // The fence is the time of the claim, by the store's clock.
                    let total = record.until.millis().saturating_sub(record.fence);
                    end = claimed.asked + Duration::from_millis(total);
                    if end <= Instant::now() {
                        return self.decided(key, claimed).await;
                    }
                }
                // Another server has the claim, or the store has forgotten it. A message more is
                // harmless, a message less is not.
                _ => return self.decided(key, claimed).await,
            }
        }
    }

    /// What a consumer answered at another server, if it was in time.
    async fn decided(&self, key: &DeliveryKey, claimed: &Claimed<'_>) -> Result<Ended, Stopped> {
        let processor = &self.processor;
        let of = First::Lease { key, fence: claimed.fence };
        let first = || processor.journal.first(of, "", REMEMBERED);
        let first = processor.retry_until_ok("lease", first).await?;
        let nack = serde_json::from_str(&first).ok();
        Ok(nack.map_or(
            Ended::Unanswered("the consumer did not answer within its lease"),
            Ended::Failed,
        ))
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
