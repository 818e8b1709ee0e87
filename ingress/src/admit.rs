//! The one way in: key → signature → freshness → identity → seal → publish. The ingress, `zentra refused admit` and
//! `zentra reconcile --ingest` use it.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;
use webhook_verify::Secret;
use webhook_verify::{Answered, Unverified, Verified, VerifiedEvent};
use zentra_core::clock;
use zentra_core::event::{Admitted, Envelope, Event};
use zentra_core::seal::{Sealed, Sealer};
use zentra_core::source::Source;
use zentra_core::trace::Trace;
use zentra_store::queue::Publish;
use zentra_telemetry::trace::{self, Span, SpanKind};

use crate::keys::Keys;
use crate::refusal::Refusal;

/// Maximum number of one callback's events that wait for confirms.
const AT_A_TIME: usize = 256;
/// A larger body is verified outside of the runtime: 1 MiB can take as long as a thousand small
/// callbacks.
const LARGE: usize = 64 * 1024;

/// What an admitted callback is.
pub enum Admission {
    /// Confirmed events. Only now a 2xx may be sent.
    Events(Vec<Envelope>),
    /// A handshake with its answer.
    Handshake(Box<Answered>),
}

/// Admits callbacks.
pub struct Entry<'a, Q> {
    /// Seals events.
    pub sealer: &'a Sealer,
    /// Queue for events.
    pub queue: &'a Q,
    /// The providers' published keys.
    pub keys: &'a Keys,
}

/// Limits for a callback that was just received.
pub(crate) struct Bounds<'a> {
    /// Limits the number of large bodies that are verified at a time. Waiting for a key doesn't
    /// count.
    pub(crate) turns: &'a Semaphore,
    /// Observes the duration of verification.
    pub(crate) verified: &'a (dyn Fn(Duration) + Sync),
    /// A place among the large bodies, until verification ends.
    pub(crate) _place: Option<SemaphorePermit<'a>>,
}

impl<Q: Publish> Entry<'_, Q> {
    /// Admits a callback that was refused before, or that is made from a provider's list. Freshness is judged
    /// by the callback's time of receipt. A handshake's address is visited; its answer can't reach the
    /// provider any more.
    ///
    /// # Errors
    /// Why it isn't admitted. Of several events all must be queued.
    pub async fn admit(
        &self,
        callback: &Unverified,
        source: &Source,
        admitted: Admitted,
    ) -> Result<Admission, Refusal> {
        let verified = self.verify(callback, source).await?;
        self.take(verified, callback, source, Some(admitted)).await
    }

    /// Verifies such a callback, and changes nothing.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn verify(
        &self,
        callback: &Unverified,
        source: &Source,
    ) -> Result<Verified, webhook_verify::Refusal> {
        self.verified(callback, source, None).await
    }

    /// Admits a callback that was just received.
    pub(crate) async fn admit_new(
        &self,
        callback: &Unverified,
        source: &Source,
        bounds: Bounds<'_>,
    ) -> Result<Admission, Refusal> {
        let mut span = Span::start(SpanKind::Internal, "verify");
        let verified = self.verified(callback, source, Some(&bounds)).await;
        drop(bounds);
        if let Err(refusal) = &verified {
            span.set("zentra.reason", || refusal.reason());
        }
        drop(span);
        let verified = verified?;
        self.take(verified, callback, source, None).await
    }

    /// Verifies with the published key, if there is one. If a signature doesn't fit a key set, the
    /// newest set is tried too.
    async fn verified(
        &self,
        callback: &Unverified,
        source: &Source,
        bounds: Option<&Bounds<'_>>,
    ) -> Result<Verified, webhook_verify::Refusal> {
        let key = self.keys.resolve(callback, source).await?;
        let verified = verified_by(callback, source, key.as_ref(), bounds).await;
        let (Some(key), Err(webhook_verify::Refusal::SignatureMismatch)) = (key, &verified) else {
            return verified;
        };
        match self.keys.newer(callback, source, &key).await {
            Some(newest) => verified_by(callback, source, Some(&newest), bounds).await,
            None => verified,
        }
    }

    async fn take(
        &self,
        verified: Verified,
        callback: &Unverified,
        source: &Source,
        admitted: Option<Admitted>,
    ) -> Result<Admission, Refusal> {
        let Some(answer) = verified.handshake() else {
            return self.publish(verified, source, admitted).await.map(Admission::Events);
        };
        if let Some(address) = &answer.visit {
            self.keys.visit(address, callback, source).await?;
        }
        Ok(Admission::Handshake(Box::new(answer.clone())))
    }

    async fn publish(
        &self,
        verified: Verified,
        source: &Source,
        admitted: Option<Admitted>,
    ) -> Result<Vec<Envelope>, Refusal> {
        // An operator's callback has no trace yet.
        let trace = trace::current().unwrap_or_else(|| Trace::new(&mut rand::rng()));
        let one = |verified: VerifiedEvent| {
            let mut event = Event::of(source, verified);
            let admitted = admitted.clone();
            async move {
                event.envelope.admitted = admitted;
                let (envelope, mut sealed) = self.sealer.seal(event).map_err(|_| Refusal::Seal)?;
                let mut span = publish_span::<Q>(trace, &sealed);
                sealed.trace = Some(span.trace());
                if let Err(error) = self.queue.publish(&sealed).await {
                    span.fail("unconfirmed", || error.to_string());
                    return Err(error.into());
                }
                tracing::debug!(source = envelope.source, id = sealed.id, "event accepted");
                Ok(envelope)
            }
        };
        // All or nothing for the provider: if one event can't be queued, the provider sends all
        // again, and the queued ones are copies then.
        let events = stream::iter(verified.into_events());
        events.map(one).buffered(AT_A_TIME).try_collect().await
    }
}

/// From the publication of an event to its confirm.
fn publish_span<Q: Publish>(trace: Trace, sealed: &Sealed) -> Span {
    let mut span = Span::child(trace, SpanKind::Producer, "publish events");
    span.set("messaging.system", || Q::SYSTEM);
    span.set("messaging.operation.name", || "publish");
    span.set("messaging.operation.type", || "send");
    span.set("messaging.destination.name", || "events");
    span.set("messaging.message.id", || sealed.id.clone());
    span.set("messaging.message.body.size", || {
        i64::try_from(sealed.body.len()).unwrap_or(i64::MAX)
    });
    span
}

/// Verifies with one key. A callback that was just received can be fresh by the clock before or
/// after a step.
async fn verified_by(
    callback: &Unverified,
    source: &Source,
    key: Option<&Secret>,
    bounds: Option<&Bounds<'_>>,
) -> Result<Verified, webhook_verify::Refusal> {
    let Some(bounds) = bounds else { return callback.verify_by(&source.endpoint, key) };
    let large = is_large(callback);
    let _turn = match large {
        true => bounds.turns.acquire().await.ok(),
        false => None,
    };
    let started = Instant::now();
    let verified = match large {
        true => block_in_place(|| callback.verify_by_either(&source.endpoint, key, clock::stepped)),
        false => callback.verify_by_either(&source.endpoint, key, clock::stepped),
    };
    (bounds.verified)(started.elapsed());
    verified
}

/// Whether a callback is verified outside of the runtime.
pub(crate) fn is_large(callback: &Unverified) -> bool {
    callback.body.len() > LARGE || callback.is_compressed()
}
