//! The way of one message: open the seal → claim → attempt → settle → ack.
//!
//! The order makes it safe. A message is acknowledged only after its next holder has confirmed it,
//! or its outcome is in the delivery store. If a worker dies between two steps, the message is
//! redelivered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::DefaultDirectRateLimiter;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use zentra_config::Destination;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{DeliveryKey, Event, Identity, SetApart};
use zentra_core::lifecycle::{Answer, DeadReason, Outcome};
use zentra_core::redact::Redact;
use zentra_core::retry::Decision;
use zentra_core::seal::{SealError, Sealed, Sealer};
use zentra_store::delivery::{self, OpenedMessage};
use zentra_store::journal::{
    AttemptResult, Claim, Delivery, Entry, ErrorClass, First, Journal, JournalError, Settle,
};
use zentra_store::queue::{self, Delay, Message, Process, QueueError, Receipt};
use zentra_telemetry::GaugeGuard;
use zentra_telemetry::trace::within;

use crate::deliver::{AttemptRequest, Attempted, Deliver, Verdict};
use crate::gate::DestinationGate;
use crate::metrics::DestinationMetrics;
use crate::spans::{attempt_span, describe, process_span, send_span, store_span};
use crate::unpublished::Unpublished;

/// Maximum number of copies with the same signed bytes, under other unsigned ids or types, that are
/// kept as dead letters of one destination. The others are counted.
const COPIES: usize = 5;
/// Maximum number of callbacks with the same signed bytes that a destination receives within
/// [`REPEATS_WITHIN`], if nothing shows which of them are copies and no time is signed. The others
/// are suspected replays.
const REPEATS: usize = 5;
const REPEATS_WITHIN: Duration = Duration::from_secs(3600);
/// How long programs can have different configurations: an event that is younger waits until its
/// destination's worker reads the subscription,
const RELOAD: Duration = Duration::from_secs(600);
/// and is checked again after this pause.
const RELOAD_PAUSE: Duration = Duration::from_secs(5);
/// How long programs of two versions usually run beside one another: a message of a newer version that is younger is soon
/// taken by a worker of that version. This worker puts an older one aside for a longer time.
const UPGRADE: Duration = Duration::from_secs(3600);
const UPGRADE_PAUSE: Duration = Duration::from_secs(60);
/// Delay between retries while RabbitMQ or Redis is unreachable.
const PAUSE: Duration = Duration::from_millis(500);

/// Number of expired claims of one attempt after which an event is dead-lettered: it would crash
/// the next workers too, with all their messages.
const MOST_EXPIRED: u8 = 10;

/// Processes one destination's messages.
pub(crate) struct Processor<Q, J> {
    pub(crate) destination: Destination,
    pub(crate) worker: String,
    pub(crate) lease: Duration,
    /// Retention and redaction, by source.
    pub(crate) sources: Arc<HashMap<String, OfSource>>,
    /// Retention of messages without a known source.
    pub(crate) default_retention: Duration,
    pub(crate) sealer: Sealer,
    pub(crate) queue: Q,
    pub(crate) journal: J,
    pub(crate) metrics: DestinationMetrics,
    /// Messages whose retry or dead letter RabbitMQ doesn't take yet.
    pub(crate) unpublished: Unpublished,
    /// Gate of the destination.
    pub(crate) gate: Arc<DestinationGate>,
    /// Rate limit, if there is one.
    pub(crate) pace: Option<DefaultDirectRateLimiter>,
    /// Ends waiting for an unreachable broker or store.
    pub(crate) stop: CancellationToken,
}

/// Settings of a source's deliveries.
pub(crate) struct OfSource {
    pub(crate) retention: Duration,
    pub(crate) redact: Redact,
}

/// A claimed attempt of an event.
pub(crate) struct Claimed<'m> {
    pub(crate) event: &'m Event,
    /// Fence for the settlement.
    pub(crate) fence: u64,
    /// Number of earlier claims of this attempt that expired.
    pub(crate) expired: u8,
    /// When the claim was requested: its lease starts then, at the earliest.
    pub(crate) asked: Instant,
}

/// Processing was interrupted; the broker will redeliver the message.
pub(crate) struct Stopped;

impl<Q: Process, J: Journal> Processor<Q, J> {
    /// Processes one message, and acknowledges or returns it.
    pub(crate) async fn handle(
        &self,
        mut message: Message,
        receipt: impl Receipt,
        deliver: &Deliver,
    ) {
        if let Some(pace) = &self.pace {
            tokio::select! {
                () = pace.until_ready() => {}
                () = self.stop.cancelled() => return receipt.give_back().await,
            }
        }
        let span = process_span::<Q>(&self.destination.name, &message);
        let done = async {
            let opened = self.open(&message.sealed);
            match self.judge(&mut message, &opened).await? {
                Some(claimed) => self.attempt(&message, &opened, claimed, deliver).await,
                None => Ok(()),
            }
        };
        match within(span.trace(), pin!(done)).await {
            Ok(()) => receipt.ack().await,
            Err(Stopped) => receipt.give_back().await,
        }
    }

    /// Defers a message without an attempt.
    pub(crate) async fn put_aside(&self, message: Message, receipt: impl Receipt, pause: Duration) {
        match self.defer(&message, pause).await {
            Ok(()) => receipt.ack().await,
            Err(Stopped) => receipt.give_back().await,
        }
    }

    /// Opens a message. Its summary is redacted.
    pub(crate) fn open(&self, sealed: &Sealed) -> OpenedMessage {
        let mut opened = delivery::open(&self.sealer, &self.destination.name, sealed);
        if let Err((reason, error)) = &opened.event {
            let reason = reason.as_str();
            match awaits_newer(error).is_some() {
                true => tracing::warn!(key = %opened.key, %error, "message deferred"),
                false => tracing::error!(key = %opened.key, reason, %error, "message refused"),
            }
        }
        if let Some(source) = self.sources.get(&opened.summary.source) {
            source.redact.context(&mut opened.summary.context);
        }
        opened
    }

    /// What a message says of its attempt and generation counts if it is countersigned, or a new
    /// event's. Otherwise the journal says where it stands: an older version has sent it on, or somebody
    /// whose seal key isn't known here yet. An event that the journal doesn't know begins anew. A new
    /// event goes on if its destination subscribes to it. Returns the claim if an attempt is to be made.
    pub(crate) async fn judge<'m>(
        &self,
        message: &mut Message,
        opened: &'m OpenedMessage,
    ) -> Result<Option<Claimed<'m>>, Stopped> {
        if let Some(pause) = opened.event.as_ref().err().and_then(|(_, error)| awaits_newer(error))
        {
            self.defer(message, pause).await?;
            return Ok(None);
        }
        let name = self.destination.name.as_str();
        if delivery::is_countersigned(&self.sealer, name, message) {
            return self.process(message, opened, None).await;
        }
        if (message.generation, message.attempt) != (0, 1) {
            let known = self.retry_until_ok("look up", || self.journal.known(&opened.key)).await?;
            (message.generation, message.attempt) = stand(known.as_ref(), message);
            if known.is_some() {
                return self.process(message, opened, None).await;
            }
        }
        let Ok(Event { envelope, .. }) = &opened.event else {
            return self.process(message, opened, None).await;
        };
        if queue::takes(&self.destination.subscribe, &envelope.route()) {
            return self.process(message, opened, None).await;
        }
        tracing::warn!(key = %opened.key, "the destination does not subscribe to this event");
        match clock::now().since(envelope.received_at) < RELOAD {
            true => self.defer(message, RELOAD_PAUSE).await?,
            false => return self.process(message, opened, Some(DeadReason::NotSubscribed)).await,
        }
        Ok(None)
    }

    /// The claim, if an attempt is to be made. Otherwise the message can be acknowledged. With a
    /// reason it is dead-lettered, if the store grants the claim.
    async fn process<'m>(
        &self,
        message: &Message,
        opened: &'m OpenedMessage,
        refused: Option<DeadReason>,
    ) -> Result<Option<Claimed<'m>>, Stopped> {
        if refused.is_none() && self.has_another_type(opened).await? {
            self.metrics.suspected(&opened.summary.source);
            self.set_apart(message, opened, SetApart::Type).await?;
            return Ok(None);
        }
        if refused.is_none() && self.came_too_often(message, opened).await? {
            self.metrics.suspected(&opened.summary.source);
            self.set_apart(message, opened, SetApart::Repeat).await?;
            return Ok(None);
        }
        let claim = Claim {
            key: &opened.key,
            generation: message.generation,
            attempt: message.attempt,
            lease: self.lease,
            worker: &self.worker,
            fingerprint: &opened.fingerprint,
            summary: &opened.summary,
            retention: self.retention(&opened.summary.source),
        };
        // The lease starts when the claim was requested, at the earliest.
        let ask = || async {
            let asked = Instant::now();
            Ok::<_, JournalError>((asked, self.journal.claim(&claim).await?))
        };
        let mut span = store_span::<J>("claim");
        let (asked, answer) = self.retry_until_ok("claim", ask).await?;
        span.set("zentra.answer", || answer.as_str());
        drop(span);
        let source = opened.summary.source.as_str();
        // A released event has a newer generation.
        let event = opened.event.as_ref().ok().filter(|_| message.generation == 0);
        let waits_for = event.and_then(|event| event.envelope.waits_for()).or(refused);
        match answer {
            Answer::Claimed { fence, expired } => match (&opened.event, waits_for) {
                (Err((reason, _)), _) => {
                    let none = AttemptResult::default();
                    self.dead_letter(message, opened, fence, *reason, &none).await?;
                }
                // It waits until an operator releases or requeues it.
                (Ok(_), Some(reason)) => {
                    self.dead_letter(message, opened, fence, reason, &AttemptResult::default())
                        .await?;
                }
                (Ok(_), None) if expired >= MOST_EXPIRED => {
                    let error = format!("{expired} claims expired: their workers crashed or hung");
                    let class = Some(ErrorClass::Crash);
                    let result =
                        AttemptResult { error: Some(error), class, ..AttemptResult::default() };
                    self.dead_letter(message, opened, fence, DeadReason::Crashed, &result).await?;
                }
                // The claim took so long that an attempt could outlast its lease.
                (Ok(_), None) if asked.elapsed() + self.needed() > self.lease => {
                    self.defer(message, self.lease).await?;
                }
                (Ok(event), None) => {
                    if message.attempt == 1 {
                        self.gate.tallies.count(source, |counts| counts.taken += 1);
                    }
                    return Ok(Some(Claimed { event, fence, expired, asked }));
                }
            },
            Answer::Busy { remaining } => {
                self.metrics.busy.inc();
                self.defer(message, remaining).await?;
            }
            Answer::Suspected => {
                self.metrics.suspected(source);
                self.set_apart(message, opened, SetApart::Id).await?;
            }
            Answer::Conflict => self.conflict(message, opened).await?,
            Answer::Done => self.metrics.duplicate(source, "delivered"),
            Answer::Dead => self.metrics.duplicate(source, "dead"),
            _ => self.metrics.duplicate(source, "overtaken"),
        }
        Ok(None)
    }

    /// How much of a lease an attempt needs. A consumer gets at least half of it.
    fn needed(&self) -> Duration {
        self.destination.pull.map_or(self.destination.timeout, |lease| lease / 2)
    }

    pub(crate) fn retention(&self, source: &str) -> Duration {
        let source = self.sources.get(source);
        source.map_or(self.default_retention, |source| source.retention)
    }

    /// Whether the same identity came with another type before, at any destination. If the type is
    /// unsigned, somebody who has seen a callback could send it to subscribers of another type.
    async fn has_another_type(&self, opened: &OpenedMessage) -> Result<bool, Stopped> {
        let Ok(Event { envelope, .. }) = &opened.event else { return Ok(false) };
        if !envelope.context.type_unsigned || envelope.waits_for().is_some() {
            return Ok(false);
        }
        let (source, kind) = (envelope.source.as_str(), envelope.event_type.as_deref());
        let (kind, retention) = (kind.unwrap_or_default(), self.retention(&opened.summary.source));
        let of = First::Type { source, identity: &envelope.identity };
        let first = || self.journal.first(of, kind, retention);
        Ok(self.retry_until_ok("first type", first).await? != kind)
    }

    /// Whether the same signed bytes came [`REPEATS`] times in the hour of receipt, if nothing
    /// shows which of them are copies. Otherwise somebody who has seen one could have it delivered
    /// without end.
    async fn came_too_often(
        &self,
        message: &Message,
        opened: &OpenedMessage,
    ) -> Result<bool, Stopped> {
        let Ok(Event { envelope, .. }) = &opened.event else { return Ok(false) };
        let Some(same_bytes) = &envelope.same_bytes else { return Ok(false) };
        // Retries and requeued or released events were counted before.
        let fresh = message.generation == 0 && message.attempt == 1;
        if !fresh || envelope.waits_for().is_some() {
            return Ok(false);
        }
        let (source, destination) = (envelope.source.as_str(), self.destination.name.as_str());
        let (identity, retention) =
            (envelope.identity.as_str(), self.retention(&opened.summary.source));
        let same_bytes = &within_an_hour(same_bytes, envelope.received_at);
        for place in 0..REPEATS {
            let of = First::Repeat { destination, source, same_bytes, place };
            let first = || self.journal.first(of, identity, retention);
            if self.retry_until_ok("repeat", first).await? == identity {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Another body under a known id. If the id is shown to name an event, it is a rendered retry.
    /// Otherwise it can be another event, and an operator decides.
    async fn conflict(&self, message: &Message, opened: &OpenedMessage) -> Result<(), Stopped> {
        let Ok(event) = &opened.event else { return Ok(()) };
        let source = opened.summary.source.as_str();
        if event.envelope.renders_retries {
            tracing::info!(key = %opened.key, "a retry with another body: no effect");
            self.metrics.rendered_retry(source);
            return Ok(());
        }
        self.metrics.conflict(source);
        let sha256 = opened.summary.body_sha256.clone();
        self.set_apart(message, opened, SetApart::Body { sha256 }).await
    }

    /// Whether the same signed bytes were set apart fewer than [`COPIES`] times before. Otherwise
    /// somebody who has seen one callback could fill the dead letters.
    async fn has_place(&self, event: &Event, opened: &OpenedMessage) -> Result<bool, Stopped> {
        let envelope = &event.envelope;
        let source = envelope.source.as_str();
        let repeats = envelope.same_bytes.as_ref();
        let identity = &match repeats {
            Some(same_bytes) => within_an_hour(same_bytes, envelope.received_at),
            None => envelope.identity.clone(),
        };
        let destination = self.destination.name.as_str();
        let kind = envelope.event_type.as_deref().unwrap_or_default();
        let id = envelope.event_id().unwrap_or_default();
        let differs = match &envelope.same_bytes {
            Some(_) => envelope.identity.as_str().to_owned(),
            None => format!("{kind} {id}"),
        };
        let retention = self.retention(&opened.summary.source);
        for place in 0..COPIES {
            let of = First::Copy { destination, source, identity, place };
            let first = || self.journal.first(of, &differs, retention);
            if self.retry_until_ok("set apart", first).await? == differs {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets apart an event that differs from a known one with the same identity. It becomes a
    /// delivery of its own, sealed as such, in the dead-letter queue.
    async fn set_apart(
        &self,
        message: &Message,
        opened: &OpenedMessage,
        differs: SetApart,
    ) -> Result<(), Stopped> {
        let Ok(event) = &opened.event else {
            return Ok(());
        };
        // It was set apart before, is counted and in the history. Setting it apart again would
        // never end.
        if event.envelope.waits_for().is_some() {
            return Ok(());
        }
        if !matches!(differs, SetApart::Body { .. }) && !self.has_place(event, opened).await? {
            self.metrics.not_kept(&opened.summary.source);
            return Ok(());
        }
        let mut event = event.clone();
        event.envelope.set_apart = Some(differs);
        let seal = || ready(self.sealer.seal(event.clone()));
        let (_, sealed) = self.retry_until_ok("seal", seal).await?;
        let sealed = Sealed { trace: message.sealed.trace, ..sealed };
        let opened = self.open(&sealed);
        tracing::warn!(key = %opened.key, "dead-lettered for an operator's decision: see zentra dead list");
        // It waits for an operator, so no attempt is made.
        Box::pin(self.process(&Message::new(sealed), &opened, None)).await?;
        Ok(())
    }

    /// Defers the same attempt for at least this time. It is never dropped: it can be the original
    /// of a worker that is about to crash.
    async fn defer(&self, message: &Message, time: Duration) -> Result<(), Stopped> {
        let delay = self.queue.delay(Delay::AtLeast(time));
        let name = &self.destination.name;
        self.publish("defer", message, || self.queue.retry(name, message, delay)).await
    }

    async fn attempt(
        &self,
        message: &Message,
        opened: &OpenedMessage,
        claimed: Claimed<'_>,
        deliver: &Deliver,
    ) -> Result<(), Stopped> {
        let mut span = attempt_span(&self.destination, message.attempt);
        let request = AttemptRequest {
            trace: span.trace(),
            destination: &self.destination,
            key: &opened.key,
            event: claimed.event,
            attempt: message.attempt,
            now: clock::now(),
        };
        let running = GaugeGuard::more(&self.metrics.in_flight);
        let epoch = self.gate.circuit.epoch();
        let attempting = async {
            tokio::select! {
                attempted = deliver.deliver(&request) => attempted,
                never = self.renew(&opened.key, claimed.fence) => match never {},
            }
        };
        let attempted = within(span.trace(), pin!(attempting)).await;
        drop(running);
        describe(&mut span, &attempted);
        drop(span);
        let worked = !matches!(attempted.verdict, Verdict::Failed { .. });
        if let Some(pause) = self.gate.circuit.attempted(worked, epoch, Instant::now()) {
            let destination = self.destination.name.as_str();
            tracing::warn!(destination, ?pause, "most attempts failed: the circuit opens");
            self.metrics.circuit_opened.inc();
        }
        self.conclude(message, opened, &claimed, attempted).await
    }

    /// Settles an attempt. Before that, its retry or dead letter is published.
    pub(crate) async fn conclude(
        &self,
        message: &Message,
        opened: &OpenedMessage,
        claimed: &Claimed<'_>,
        attempted: Attempted,
    ) -> Result<(), Stopped> {
        let Attempted { verdict, result } = attempted;
        let (event, fence) = (claimed.event, claimed.fence);
        let name = self.destination.name.as_str();
        let (outcome, count) = match verdict {
            Verdict::Delivered => ("delivered", &self.metrics.delivered),
            Verdict::Failed { .. } => ("failed", &self.metrics.failed),
            Verdict::Permanent => ("permanent", &self.metrics.permanent),
        };
        tracing::debug!(key = %opened.key, attempt = message.attempt, outcome, "concluded");
        count.inc();
        self.gate.tallies.count(&opened.summary.source, |counts| match verdict {
            Verdict::Delivered => counts.delivered += 1,
            Verdict::Failed { .. } | Verdict::Permanent => counts.failed += 1,
        });
        let seconds = Duration::from_millis(result.duration_ms).as_secs_f64();
        self.metrics.seconds.observe(seconds);
        let retry_after = match verdict {
            Verdict::Delivered => {
                self.metrics.delivered_attempts.observe(message.attempt.into());
                let took = clock::now().since(event.envelope.received_at).as_secs_f64();
                self.metrics.delivery_seconds.observe(took);
                return self.settle(message, opened, fence, Outcome::Delivered, &result).await;
            }
            Verdict::Permanent => {
                let reason = DeadReason::Permanent;
                return self.dead_letter(message, opened, fence, reason, &result).await;
            }
            Verdict::Failed { retry_after } => retry_after,
        };
        let now = clock::now();
        // The age of a requeued event starts with the requeue.
        let received_at = match message.generation {
            0 => event.envelope.received_at,
            _ => now,
        };
        let chance = rand::rng().random();
        let policy = &self.destination.retry;
        match policy.after_failure(message.attempt, received_at, now, chance, retry_after) {
            Decision::Dead(reason) => {
                self.dead_letter(message, opened, fence, reason, &result).await
            }
            Decision::Retry(delay) => {
                let delay = self.queue.delay(match retry_after {
                    Some(_) => Delay::AtLeast(delay),
                    None => Delay::Near(delay),
                });
                let next = Message { attempt: message.attempt + 1, ..message.clone() };
                let sign = || ready(delivery::countersign(&self.sealer, name, next.clone()));
                let next = self.retry_until_ok("countersign", sign).await?;
                let due = Instant::now() + delay;
                self.publish("retry", &next, || self.queue.retry(name, &next, delay)).await?;
                self.gate.circuit.comes_back(due, next.attempt);
                self.metrics.retries.inc();
                self.metrics.retry_delay.observe(delay.as_secs_f64());
                let next_at = clock::now().plus(delay);
                self.settle(message, opened, fence, Outcome::Retry { next_at }, &result).await
            }
        }
    }

    /// Renews the claim of a running attempt.
    async fn renew(&self, key: &DeliveryKey, fence: u64) -> Infallible {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            match self.journal.renew(key, fence, self.lease).await {
                Ok(Answer::Lost) => {
                    tracing::warn!(%key, "another worker has the claim");
                    self.metrics.leases_lost.inc();
                    std::future::pending::<()>().await;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%key, %error, "cannot renew the claim"),
            }
        }
    }

    /// Publishes the dead letter, and then settles.
    async fn dead_letter(
        &self,
        message: &Message,
        opened: &OpenedMessage,
        fence: u64,
        reason: DeadReason,
        result: &AttemptResult,
    ) -> Result<(), Stopped> {
        let name = self.destination.name.as_str();
        let status = result.status.map(|status| format!("the destination responded {status}"));
        let error = result.error.as_deref().or(status.as_deref());
        let dead = || self.queue.dead(name, message, reason, error);
        self.publish("dead-letter", message, dead).await?;
        self.metrics.dead_letter(reason);
        self.gate.tallies.count(&opened.summary.source, |counts| counts.dead += 1);
        tracing::error!(key = %opened.key, reason = reason.as_str(), "dead-lettered");
        self.settle(message, opened, fence, Outcome::Dead(reason), result).await
    }

    async fn settle(
        &self,
        message: &Message,
        opened: &OpenedMessage,
        fence: u64,
        outcome: Outcome,
        result: &AttemptResult,
    ) -> Result<(), Stopped> {
        let settle = Settle {
            key: &opened.key,
            fence,
            generation: message.generation,
            attempt: message.attempt,
            outcome,
            worker: &self.worker,
            result,
            fingerprint: &opened.fingerprint,
            summary: &opened.summary,
            retention: self.retention(&opened.summary.source),
        };
        let mut span = store_span::<J>("settle");
        span.set("zentra.outcome", || outcome.as_str());
        let answer = self.retry_until_ok("settle", || self.journal.settle(&settle)).await?;
        drop(span);
        if answer != Answer::Settled {
            tracing::warn!(key = %opened.key, ?answer, "settled after its claim had expired");
        }
        Ok(())
    }

    /// Publishes a message, with retries until it works. Meanwhile it doesn't count as running, if
    /// there is room: during an alarm RabbitMQ takes no messages, but delivers them.
    async fn publish<F: Future<Output = Result<(), QueueError>>>(
        &self,
        step: &'static str,
        message: &Message,
        mut ask: impl FnMut() -> F,
    ) -> Result<(), Stopped> {
        let _span = send_span::<Q>(step, message);
        let Err(error) = ask().await else { return Ok(()) };
        tracing::debug!(step, %error, "not published yet");
        let _held = self.unpublished.hold(message.sealed.body.len());
        self.retry_until_ok(step, ask).await
    }

    /// Retries until it works. While broker or store are unreachable, the message is held, not
    /// returned: each return counts against the queue's delivery limit.
    pub(crate) async fn retry_until_ok<
        T,
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    >(
        &self,
        step: &'static str,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, Stopped> {
        let mut logged = false;
        loop {
            match ask().await {
                Ok(done) => return Ok(done),
                Err(error) if logged => tracing::debug!(step, %error, "trying again"),
                Err(error) => {
                    tracing::warn!(step, %error, "retrying");
                    logged = true;
                }
            }
            self.metrics.step_failed(step);
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// Identity of callbacks with the same bytes within one hour of their receipt, not of their
/// processing.
fn within_an_hour(same_bytes: &Identity, received_at: Timestamp) -> Identity {
    let hour = received_at.secs() / REPEATS_WITHIN.as_secs();
    Identity::from_text(&format!("{}/{hour}", same_bytes.as_str()))
}

/// How long a genuine message that only a worker of a newer version can read is put aside. It is never a dead letter:
/// the event is sound.
fn awaits_newer(error: &SealError) -> Option<Duration> {
    let SealError::Newer { received_at, .. } = error else { return None };
    match clock::now().since(*received_at) < UPGRADE {
        true => Some(RELOAD_PAUSE),
        false => Some(UPGRADE_PAUSE),
    }
}

/// Generation and attempt of a message that isn't countersigned: those of the store, or a newer
/// generation that an operator has started.
fn stand(known: Option<&Delivery>, message: &Message) -> (u32, u32) {
    let Some(Delivery { record, history, .. }) = known else { return (0, 1) };
    let begun = |entry: &&Entry| entry.generation == message.generation && entry.what.sends_on();
    let newer = message.generation > record.generation;
    match history.iter().find(begun).filter(|_| newer) {
        Some(entry) => (entry.generation, 1),
        None => (record.generation, record.attempt),
    }
}
