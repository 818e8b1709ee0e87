//! Pull: consumers fetch the events of a destination, instead of receiving requests.
//!
//! An event that is handed out is claimed for its consumer: the lease is the claim. The consumer
//! acknowledges it, and may extend the lease. An event that was not acknowledged in time has failed
//! an attempt, by the destination's retry policy. The server that handed an event out holds its
//! message until then. Any server takes acknowledgements, because the fence in the receipt and the
//! delivery store decide: a receipt whose claim has ended is refused.

mod held;
mod lease;
mod ready;
mod receipt;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use prometheus::Registry;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zentra_config::Config;
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::{DeliveryKey, Event};
use zentra_core::lifecycle::{Answer, Outcome, Record, State};
use zentra_core::trace::Trace;
use zentra_store::control::WorkerControl;
use zentra_store::journal::{AttemptResult, Delivery, First, Journal, JournalError, Settle};
use zentra_store::queue::{Fetch, Fetcher, Message, QueueError, Receipt as _};
use zentra_telemetry::GaugeGuard;
use zentra_telemetry::trace::within;

use crate::deliver::headers;
use crate::gate::{DestinationGate, Gates, KnownState};
use crate::metrics::Metrics;
use crate::process::{Processor, Stopped};
use crate::spans::{attempt_span, describe, process_span};
use crate::{LEAVE, Processing, worker_name};

use held::HeldMessages;
use lease::{Ended, Leases};
use ready::{Pending, Ready, Taken};
use receipt::Receipt;

/// Maximum number of events of one request.
pub const MOST: usize = 100;
/// Longest time that a request waits for events.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Longest time that a consumer has an event for itself, extensions included. RabbitMQ closes a
/// channel that holds a message for 30 minutes.
pub const LONGEST_LEASE: Duration = Duration::from_secs(20 * 60);

/// Total size of the bodies after which a request gets no more events.
const MOST_BYTES: usize = 4 << 20;
/// Number of messages that are fetched at a time.
const TOGETHER: usize = 16;
/// How often an empty queue is looked at, however many requests wait.
const LOOK: Duration = Duration::from_millis(100);
/// Time limit for the claims of fetched messages, beyond a request's wait.
const CLAIMS: Duration = Duration::from_secs(10);
/// How long a request with events waits for the claims of others.
const LINGER: Duration = Duration::from_millis(250);
/// Time limit for the operators' settings at the first request.
const SETTINGS: Duration = Duration::from_secs(2);
/// How long a destination counts as consumed after a request.
const ACTIVE: Duration = Duration::from_secs(60);
/// How long an answer is remembered for the server that holds the message: longer than a lease.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// An event that is handed out.
#[derive(Clone, Debug)]
pub struct LeasedEvent {
    /// Names the lease in acknowledgements.
    pub receipt: String,
    /// The idempotency key.
    pub key: DeliveryKey,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// End of the lease, by this server's clock.
    pub until: Timestamp,
    /// Headers that the request to an HTTP destination would have, without a signature.
    pub headers: Vec<(String, String)>,
    /// The event.
    pub event: Event,
}

/// Result of a request for events.
#[derive(Debug, Default)]
pub struct Pulled {
    /// The events, leased to the consumer.
    pub events: Vec<LeasedEvent>,
    /// Whether an operator has paused the destination.
    pub paused: bool,
}

/// A failed attempt of a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Nack {
    /// Pause before the next attempt. `None`: that of the retry policy.
    pub retry_after: Option<Duration>,
    /// Whether no retry can help: the event becomes a dead letter.
    pub permanent: bool,
    /// Error, for the history.
    pub error: Option<String>,
}

/// Why events cannot be pulled, or a lease not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No destination with `pull = true` has this name.
    #[error("no destination {0} with pull = true is configured")]
    NotPulled(String),
    /// The receipt is not one of this destination.
    #[error("the receipt is invalid, or of another destination")]
    InvalidReceipt,
    /// The claim has ended: the event is retried, or was settled.
    #[error("the lease has ended")]
    LeaseLost,
    /// The lease can be extended no further.
    #[error("a lease ends after {LONGEST_LEASE:?} at the latest")]
    LeaseLimit,
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The delivery store failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The headers of a copy of an event, as the request of a first attempt would have them, without a
/// signature.
///
/// # Errors
/// If HTTP does not allow the idempotency key as a value.
pub fn headers_of_copy(
    key: &DeliveryKey,
    event: &Event,
    trace: Option<Trace>,
) -> Result<Vec<(String, String)>, http::Error> {
    let chance = &mut rand::rng();
    let trace = trace.unwrap_or_else(|| Trace::new(chance)).next(chance);
    Ok(as_text(headers(key, event, 1, trace)?))
}

/// Hands out the events of all destinations with `pull = true`.
pub struct Pull<Q: Fetch, J> {
    destinations: BTreeMap<String, Arc<Pulling<Q, J>>>,
    journal: J,
    worker: String,
    gates: Gates,
    tasks: TaskTracker,
    stop: CancellationToken,
    longest_retention: Duration,
    /// Set by the first request: a server that nobody pulls from is no worker.
    began: Mutex<bool>,
}

/// One destination.
struct Pulling<Q: Fetch, J> {
    processor: Processor<Q, J>,
    fetching: tokio::sync::Mutex<Fetching<Q::Fetcher>>,
    /// Messages that this server holds.
    held: HeldMessages,
    ready: Arc<Ready>,
    leases: Leases,
    /// When a consumer last asked.
    asked: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

struct Fetching<F> {
    fetcher: F,
    /// When the queue was last found empty.
    empty_at: Option<Instant>,
}

impl<Q: Fetch, J: Journal + WorkerControl> Pull<Q, J> {
    /// Fetches nothing until the first request. At `stop`, requests end at once and messages go
    /// back. They are delivered again after their lease, unless they are acknowledged at another
    /// server before that.
    ///
    /// # Errors
    /// If `registry` has metrics of a worker.
    pub fn new(
        config: &Config,
        queue: Q,
        journal: J,
        registry: &Registry,
        stop: CancellationToken,
    ) -> prometheus::Result<Self> {
        let tasks = TaskTracker::new();
        let processing =
            Processing { worker: worker_name(), queue, journal, metrics: Metrics::new(registry)? };
        let sources = crate::of_sources(config);
        let pulled = config.destinations.iter().filter_map(|destination| {
            let lease = destination.pull?;
            let processor = processing.processor(config, destination, lease, &sources, &stop);
            let fetcher = processing.queue.fetcher(&destination.name);
            let pulling = Pulling {
                processor,
                fetching: Fetching { fetcher, empty_at: None }.into(),
                held: HeldMessages::default(),
                ready: Arc::default(),
                leases: Leases::default(),
                asked: Mutex::default(),
                tasks: tasks.clone(),
            };
            Some((destination.name.clone(), Arc::new(pulling)))
        });
        Ok(Self {
            destinations: pulled.collect(),
            journal: processing.journal.clone(),
            worker: processing.worker.clone(),
            gates: Gates::default(),
            tasks,
            stop,
            longest_retention: config
                .sources
                .iter()
                .map(|source| source.retention)
                .fold(config.store.retention, Duration::max),
            began: Mutex::default(),
        })
    }

    /// Leases up to `most` events (at most [`MOST`]). Waits for the first one, at most `wait`
    /// (at most [`LONGEST_WAIT`]), and returns what there is then.
    ///
    /// # Errors
    /// An unknown destination; the queue or the store is unreachable.
    pub async fn pull(&self, name: &str, most: usize, wait: Duration) -> Result<Pulled, PullError> {
        let pulling = self.destination(name)?;
        *lock(&pulling.asked) = Some(Instant::now());
        self.begin();
        self.journal.ready().await?;
        let mut gate = pulling.processor.gate.watch();
        let _ = timeout(SETTINGS, gate.wait_for(KnownState::is_known)).await;
        let (most, until) = (most.min(MOST), Instant::now() + wait.min(LONGEST_WAIT));
        let (mut taken, mut enough) = (Taken::of(pulling.ready.clone()), None);
        loop {
            let mut changed = std::pin::pin!(pulling.ready.changed());
            changed.as_mut().enable();
            taken.more(most, MOST_BYTES);
            let is_open = gate.borrow_and_update().is_open();
            let paused = gate.borrow().is_paused();
            if taken.count() >= most || taken.bytes() >= MOST_BYTES {
                return Ok(Pulled { events: taken.finish(), paused });
            }
            let wanted = (most - taken.count()).saturating_sub(pulling.ready.pending());
            // Messages without effect could go on forever.
            let goes_on = Instant::now() < until + CLAIMS && !self.stop.is_cancelled();
            if is_open && wanted > 0 && goes_on {
                match pulling.clone().fetch(wanted.min(TOGETHER)).await {
                    Ok(0) => {}
                    Ok(_) => continue,
                    Err(error) if taken.count() == 0 => return Err(error.into()),
                    Err(_) => return Ok(Pulled { events: taken.finish(), paused }),
                }
            }
            let (now, claims) = (Instant::now(), pulling.ready.pending() > 0);
            let next = match (taken.count(), claims) {
                (1.., true) => {
                    let linger = LINGER.min(pulling.processor.lease / 8);
                    *enough.get_or_insert(now + linger)
                }
                (1.., false) => now,
                (0, true) => until + CLAIMS,
                (0, false) => until,
            };
            if now >= next || self.stop.is_cancelled() {
                return Ok(Pulled { events: taken.finish(), paused });
            }
            let look = if claims { next } else { next.min(now + LOOK) };
            tokio::select! {
                () = sleep_until(look.into()) => {}
                () = changed => {}
                _ = gate.changed() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Stores that the consumer has processed an event: it is delivered.
    ///
    /// # Errors
    /// [`PullError::LeaseLost`] if the claim has ended; the event may be with another consumer.
    pub async fn ack(&self, name: &str, receipt: &str) -> Result<(), PullError> {
        let (pulling, receipt) = self.of_receipt(name, receipt)?;
        if let Some(lease) = pulling.leases.take(&receipt)
            && lease.end(Ended::Acknowledged).await
        {
            return Ok(());
        }
        let Some(delivery) = self.journal.known(&receipt.key).await? else {
            return Err(PullError::LeaseLost);
        };
        let record = &delivery.record;
        let is_done = record.state == State::Delivered && record.fence == receipt.fence;
        if !is_done {
            is_current(record, &receipt)?;
            if self.settle(&pulling, &delivery).await? == Answer::Superseded {
                return Err(PullError::LeaseLost);
            }
        }
        Ok(())
    }

    /// The event was handed out by another server, which acknowledges its message when it looks
    /// the lease up.
    async fn settle(
        &self,
        pulling: &Pulling<Q, J>,
        delivery: &Delivery,
    ) -> Result<Answer, PullError> {
        let Delivery { key, record, event, .. } = delivery;
        let taken = clock::now().since(Timestamp::from_millis(record.fence));
        let result =
            AttemptResult { duration_ms: clock::millis(taken), ..AttemptResult::default() };
        let settle = Settle {
            key,
            fence: record.fence,
            generation: record.generation,
            attempt: record.attempt,
            outcome: Outcome::Delivered,
            worker: &self.worker,
            result: &result,
            fingerprint: &record.fingerprint,
            summary: event,
            retention: pulling.processor.retention(&event.source),
        };
        Ok(self.journal.settle(&settle).await?)
    }

    /// Ends an attempt as failed: the event is retried, or becomes a dead letter. At another server
    /// than the one that handed it out, this takes effect when the lease ends, also if that server
    /// has ended meanwhile.
    ///
    /// # Errors
    /// [`PullError::LeaseLost`] if the claim has ended.
    pub async fn nack(&self, name: &str, receipt: &str, nack: Nack) -> Result<(), PullError> {
        let (pulling, receipt) = self.of_receipt(name, receipt)?;
        if let Some(lease) = pulling.leases.take(&receipt)
            && lease.end(Ended::Failed(nack.clone())).await
        {
            return Ok(());
        }
        self.current(&receipt).await?;
        let text = serde_json::to_string(&nack).unwrap_or_default();
        let of = First::Lease { key: &receipt.key, fence: receipt.fence };
        match self.journal.first(of, &text, REMEMBERED).await? == text {
            true => Ok(()),
            false => Err(PullError::LeaseLost),
        }
    }

    /// Extends a lease to the destination's `lease` from now, and returns its end, by this server's
    /// clock.
    ///
    /// # Errors
    /// [`PullError::LeaseLost`] if the claim has ended, [`PullError::LeaseLimit`].
    pub async fn extend(&self, name: &str, receipt: &str) -> Result<Timestamp, PullError> {
        let (pulling, receipt) = self.of_receipt(name, receipt)?;
        let record = self.current(&receipt).await?;
        let lease = pulling.processor.lease;
        let until = clock::now().plus(lease);
        if until.since(Timestamp::from_millis(record.fence)) > LONGEST_LEASE {
            return Err(PullError::LeaseLimit);
        }
        match self.journal.renew(&receipt.key, receipt.fence, lease).await? {
            Answer::Renewed => Ok(until),
            _ => Err(PullError::LeaseLost),
        }
    }

    /// After `stop`: returns when all messages went back, a second later at most.
    pub async fn finish(&self) {
        self.tasks.close();
        let _ = timeout(LEAVE, self.tasks.wait()).await;
        if *lock(&self.began) {
            let _ = timeout(LEAVE, self.journal.leave(&self.worker)).await;
        }
    }

    fn destination(&self, name: &str) -> Result<Arc<Pulling<Q, J>>, PullError> {
        let found = self.destinations.get(name).cloned();
        found.ok_or_else(|| PullError::NotPulled(name.to_owned()))
    }

    fn of_receipt(
        &self,
        name: &str,
        text: &str,
    ) -> Result<(Arc<Pulling<Q, J>>, Receipt), PullError> {
        let pulling = self.destination(name)?;
        let receipt = text.parse().map_err(|receipt::Invalid| PullError::InvalidReceipt);
        let receipt: Receipt = receipt?;
        match receipt.key.destination() == name {
            true => Ok((pulling, receipt)),
            false => Err(PullError::InvalidReceipt),
        }
    }

    async fn current(&self, receipt: &Receipt) -> Result<Record, PullError> {
        let known = self.journal.known(&receipt.key).await?;
        let record = known.map(|delivery| delivery.record).ok_or(PullError::LeaseLost)?;
        is_current(&record, receipt)?;
        Ok(record)
    }

    /// Starts to write heartbeats and to read desired states, at the first request.
    fn begin(&self) {
        self.gates.replace(active(&self.destinations));
        let mut began = lock(&self.began);
        if std::mem::replace(&mut *began, true) {
            return;
        }
        let (gates, journal) = (self.gates.clone(), self.journal.clone());
        let (worker, stop) = (self.worker.clone(), self.stop.clone());
        let (destinations, retention) = (self.destinations.clone(), self.longest_retention);
        self.tasks.spawn(async move {
            let heartbeats = gates.clone().heartbeat(journal.clone(), worker, clock::now());
            let forgets = async {
                loop {
                    tokio::time::sleep(ACTIVE).await;
                    gates.replace(active(&destinations));
                    // As workers do: perhaps none runs.
                    if let Err(error) = journal.tidy(retention).await {
                        tracing::debug!(%error, "cannot trim the list of deliveries");
                    }
                }
            };
            tokio::select! {
                () = heartbeats => {}
                () = forgets => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn is_current(record: &Record, receipt: &Receipt) -> Result<(), PullError> {
    match record.state == State::InFlight && record.fence == receipt.fence {
        true => Ok(()),
        false => Err(PullError::LeaseLost),
    }
}

/// The gates of destinations that consumers ask for.
fn active<Q: Fetch, J>(
    destinations: &BTreeMap<String, Arc<Pulling<Q, J>>>,
) -> BTreeMap<String, Arc<DestinationGate>> {
    let is_active = |pulling: &Pulling<Q, J>| {
        lock(&pulling.asked).is_some_and(|asked| asked.elapsed() < ACTIVE)
            || pulling.leases.count() > 0
    };
    let active = destinations.iter().filter(|(_, pulling)| is_active(pulling));
    active.map(|(name, pulling)| (name.clone(), pulling.processor.gate.clone())).collect()
}

impl<Q: Fetch, J: Journal> Pulling<Q, J> {
    /// Fetches up to `most` messages, and claims them in tasks of their own. Returns their number.
    /// A task does it, because whoever asks may go away at any time.
    async fn fetch(self: Arc<Self>, most: usize) -> Result<usize, QueueError> {
        let tasks = self.tasks.clone();
        let fetching = tasks.spawn(async move {
            let mut fetching = self.fetching.lock().await;
            if fetching.empty_at.is_some_and(|at| at.elapsed() < LOOK) {
                return Ok(0);
            }
            let mut places = self.held.reserve(most);
            if places.is_empty() {
                return Ok(0);
            }
            let messages = fetching.fetcher.fetch(places.len()).await?;
            fetching.empty_at = messages.is_empty().then(Instant::now);
            let count = messages.len();
            for (message, receipt) in messages {
                let place = places.pop().map(|place| self.held.hold(place, &message));
                let pending = self.ready.begin();
                let handing_out = self.clone().hand_out(message, receipt, pending);
                self.tasks.spawn(Box::pin(async move {
                    handing_out.await;
                    drop(place);
                }));
            }
            Ok(count)
        });
        fetching.await.unwrap_or(Err(QueueError::Disconnected))
    }

    /// Processes one message: claim → hand out → wait for the answer → settle → ack.
    async fn hand_out(
        self: Arc<Self>,
        mut message: Message,
        receipt: <Q::Fetcher as Fetcher>::Receipt,
        pending: Pending,
    ) {
        let processor = &self.processor;
        let span = process_span::<Q>(&processor.destination.name, &message);
        let done = async {
            let opened = processor.open(&message.sealed);
            let Some(claimed) = processor.judge(&mut message, &opened).await? else {
                return Ok(None);
            };
            let running = GaugeGuard::more(&processor.metrics.in_flight);
            let mut span = attempt_span(&processor.destination, message.attempt);
            let leasing = self.lease(&message, &opened.key, &claimed, pending, span.trace());
            let (attempted, waits) = within(span.trace(), pin!(leasing)).await?;
            drop(running);
            describe(&mut span, &attempted);
            drop(span);
            processor.conclude(&message, &opened, &claimed, attempted).await?;
            Ok(waits)
        };
        match within(span.trace(), pin!(done)).await {
            Ok(waits) => {
                receipt.ack().await;
                if let Some(waits) = waits {
                    let _ = waits.send(());
                }
            }
            Err(Stopped) => receipt.give_back().await,
        }
    }
}

fn as_text(headers: Vec<(HeaderName, HeaderValue)>) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
