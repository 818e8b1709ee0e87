//! One supervised connection to the broker.
//!
//! The client library's own recovery is not reliable enough. So a connection is a generation: any
//! failure discards all of it, and the next one is made from scratch (next host, channels). Every
//! connect and close has a time limit, because both have hung for ever against a broker that was
//! starting.
//!
//! A node that is cut off from the majority keeps its connections open. So each connection is
//! watched by a request that only a majority can answer: a publish and its confirm where it
//! publishes, a `basic.get` where it reads. A connection is used only after its first answer, and
//! given up when none comes for 5 s.
//!
//! The first connection declares the topology before anything is published. A connection that was
//! made again publishes first and declares beside it, because declaring can hang for as long as any
//! node of a cluster is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prometheus::IntGauge;
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use webhook_verify::Secret;
use zentra_core::retry::Pauses;

use super::applied::Highest;
use super::metrics::Metrics;
use super::session::{CLOSE, Session, Shared};
use super::shards::Shards;
use super::unrouted::Unrouted;
use super::{QueueError, Routes, Settings};

const CANNOT_CONNECT: &str = "cannot connect to RabbitMQ: retrying";
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one address is tried before the next one is tried beside it.
const STAGGER: Duration = Duration::from_secs(1);
/// Time limit to connect and log in, and for the first answer. It doubles while there is none: a
/// program or a broker under the load that follows an outage needs longer.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
const LONGEST_ANSWER: Duration = Duration::from_secs(24);
/// Number of failed attempts per log line.
const LOG_EACH: Duration = Duration::from_secs(10);

/// A connection that is made again whenever it is lost, until the link is dropped.
#[derive(Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    declared: watch::Receiver<Option<Declared>>,
    unusable: watch::Receiver<Option<String>>,
    breakdowns: Arc<AtomicU64>,
    stop: CancellationToken,
    _stop_when_dropped: Arc<DropGuard>,
}

impl Link {
    /// Connects in the background. `purpose` names the connection at the broker. With `lanes` 0,
    /// nothing is published.
    pub(super) fn start(
        settings: Arc<Settings>,
        routes: watch::Receiver<Option<Routes>>,
        metrics: Metrics,
        purpose: &'static str,
        lanes: usize,
    ) -> Self {
        let (publish, sessions) = watch::channel(None);
        let (declare, declared) = watch::channel(None);
        let (refuse, unusable) = watch::channel(None);
        let breakdowns = Arc::<AtomicU64>::default();
        let counted = breakdowns.clone();
        let stop = CancellationToken::new();
        let _stop_when_dropped = Arc::new(stop.clone().drop_guard());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = supervise(&settings, &routes, &metrics, (purpose, lanes), &publish, (&declare, &refuse), counted) => {}
            }
            let last = publish.send_replace(None);
            if let Some(session) = last {
                session.close().await;
            }
        });
        Self { sessions, declared, unusable, breakdowns, stop, _stop_when_dropped }
    }

    /// What this link declares from now on. See [`Declarations::until`].
    pub(super) fn declarations(&self) -> Declarations {
        let mut declared = self.declared.clone();
        declared.mark_unchanged();
        Declarations(declared)
    }

    /// What was declared last, now and in future.
    pub(super) fn declared(&self) -> watch::Receiver<Option<Declared>> {
        self.declared.clone()
    }

    /// How often the broker itself failed on a connection of this link.
    pub(super) fn breakdowns(&self) -> u64 {
        self.breakdowns.load(Ordering::Acquire)
    }

    /// Closes the connection for good. What was written to it reaches the broker first, above all
    /// acknowledgements.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        // The background task drops the sender when it ends.
        let closed = async { while self.sessions.changed().await.is_ok() {} };
        let _ = timeout(CLOSE * 2, closed).await;
    }

    /// The connection, if it stands.
    pub(super) fn now(&self) -> Option<Arc<Session>> {
        self.sessions.borrow().clone().filter(|session| session.usable())
    }

    /// Waits until it is connected.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unusable`] as soon as no address can be used.
    pub(super) async fn connected(mut self) -> Result<(), QueueError> {
        let mut unusable = self.unusable.clone();
        tokio::select! {
            biased;
            _ = self.session() => Ok(()),
            Ok(why) = unusable.wait_for(Option::is_some) => {
                Err(QueueError::Unusable(why.clone().unwrap_or_default()))
            }
        }
    }

    /// The connection. Waits for it without a time limit.
    pub(super) async fn session(&mut self) -> Option<Arc<Session>> {
        let ready = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|s| s.usable());
        let found = self.sessions.wait_for(ready).await.ok()?;
        found.clone()
    }
}

/// What a link declared last.
#[derive(Clone)]
pub(super) struct Declared {
    pub(super) routes: Routes,
    /// Whether bindings that these routes lack were removed.
    pub(super) unbound: bool,
    pub(super) shards: Highest,
}

impl Declared {
    pub(super) fn nothing(routes: &Routes) -> Self {
        Self { routes: routes.clone(), unbound: false, shards: Highest::default() }
    }

    /// Takes over higher numbers of work queues. Returns whether there is one.
    pub(super) fn learn(&mut self, highest: Highest) -> bool {
        let mut learned = false;
        for (destination, count) in highest {
            let known = self.shards.entry(destination).or_insert(1);
            learned |= count > *known;
            *known = count.max(*known);
        }
        learned
    }

    /// Number of work queues that a destination has, and has ever had.
    pub(super) fn shards(&self, destination: &str) -> Shards {
        let mut subscribers = self.routes.subscribers.iter();
        let subscriber = subscribers.find(|subscriber| subscriber.destination == destination);
        let current = subscriber.map_or(1, |subscriber| subscriber.shards);
        let highest = self.shards.get(destination).copied().unwrap_or(1);
        Shards { current, highest: highest.max(current) }
    }
}

/// Declarations of a link.
pub(super) struct Declarations(watch::Receiver<Option<Declared>>);

impl Declarations {
    /// Waits until these routes were declared, without a time limit.
    pub(super) async fn until(mut self, routes: &Routes) {
        while self.0.changed().await.is_ok() {
            let known = self.0.borrow_and_update();
            if known.as_ref().is_some_and(|known| known.unbound && known.routes == *routes) {
                return;
            }
        }
    }
}

async fn supervise(
    settings: &Settings,
    routes: &watch::Receiver<Option<Routes>>,
    metrics: &Metrics,
    (purpose, lanes): (&'static str, usize),
    publish: &watch::Sender<Option<Arc<Session>>>,
    (declared, unusable): (&watch::Sender<Option<Declared>>, &watch::Sender<Option<String>>),
    breakdowns: Arc<AtomicU64>,
) {
    let unrouted = Arc::new(Unrouted::default());
    let largest = Arc::new(AtomicUsize::new(usize::MAX));
    let up = metrics.up.with_label_values(&[purpose]);
    let blocked = metrics.blocked.with_label_values(&[purpose]);
    let connects = metrics.connects.with_label_values(&[purpose]);
    metrics.lanes.add(i64::try_from(lanes).unwrap_or(i64::MAX));
    // In random order, so that the connections spread over the nodes.
    let mut urls: Vec<&Secret> = settings.urls.iter().collect();
    urls.shuffle(&mut rand::rng());
    let shared = Shared { unrouted: unrouted.clone(), largest, breakdowns };
    let connector = Connector {
        settings,
        routes,
        metrics,
        purpose: (purpose, lanes),
        declared,
        unusable,
        shared,
        blocked: blocked.clone(),
        urls,
    };
    let mut turns = Turns::default();
    loop {
        let (session_at, session, mut lost) = connector.connect(&mut turns).await;
        tracing::info!(purpose, "connected to RabbitMQ");
        connects.inc();
        up.set(1);
        blocked.set(session.blocked().into());
        publish.send_replace(Some(session.clone()));
        let cause = tokio::select! {
            cause = &mut lost => cause.unwrap_or_else(|error| error.to_string()),
            never = session.keep_declared(purpose, settings, routes, declared) => match never {},
            never = session.keep_house(settings, routes, declared) => match never {},
            never = unrouted.watch(&session, settings, routes) => match never {},
        };
        publish.send_replace(None);
        up.set(0);
        blocked.set(0);
        turns.declare_first = session.misses_topology.load(Ordering::Acquire);
        tracing::warn!(purpose, cause, "lost the connection to RabbitMQ");
        session.close_behind();
        turns.next = Instant::now() + turns.pauses.next_pause();
        if session.again_here.load(Ordering::Acquire) {
            turns.at = session_at;
        }
    }
}

/// Makes connections to the addresses in turn.
struct Connector<'a> {
    settings: &'a Settings,
    routes: &'a watch::Receiver<Option<Routes>>,
    metrics: &'a Metrics,
    purpose: (&'static str, usize),
    declared: &'a watch::Sender<Option<Declared>>,
    /// Why none of the addresses can be used.
    unusable: &'a watch::Sender<Option<String>>,
    shared: Shared,
    blocked: IntGauge,
    urls: Vec<&'a Secret>,
}

/// Which address is next, and when.
struct Turns {
    at: usize,
    /// Whether to declare before anything is published, although it was declared before.
    declare_first: bool,
    next: Instant,
    pauses: Pauses,
    /// Time limit of an attempt.
    limit: Duration,
    failures: Failures,
    /// How many addresses in a row could not be used.
    unusable: usize,
}

impl Default for Turns {
    fn default() -> Self {
        let (pauses, failures) = (Pauses::new(PAUSE, LONGEST_PAUSE), Failures::default());
        let (limit, next, unusable) = (FIRST_ANSWER, Instant::now(), 0);
        Self { at: 0, declare_first: false, next, pauses, limit, failures, unusable }
    }
}

/// The turn of an address, its connection, and a task that waits for the loss.
type Connected = (usize, Arc<Session>, JoinHandle<String>);

impl Connector<'_> {
    /// Tries the addresses until one works. An address that does not answer is left to itself after
    /// [`STAGGER`], and the next one is tried beside it: a frozen node costs that time only. While
    /// nothing is declared yet, one is tried at a time.
    async fn connect(&self, turns: &mut Turns) -> Connected {
        let mut trying = FuturesUnordered::new();
        loop {
            let first = turns.declare_first;
            let is_new = first || self.declared.borrow().is_none();
            let declares = self.routes.borrow().is_some() && is_new;
            let most = if declares { 1 } else { self.urls.len() };
            tokio::select! {
                biased;
                Some(tried) = trying.next() => match tried {
                    Ok(connected) => {
                        turns.pauses.reset();
                        turns.limit = FIRST_ANSWER;
                        turns.declare_first = false;
                        turns.failures = Failures::default();
                        turns.unusable = 0;
                        self.unusable.send_replace(None);
                        return connected;
                    }
                    Err(error) => {
                        if matches!(error, QueueError::Timeout(limit) if limit == turns.limit) {
                            turns.limit = LONGEST_ANSWER.min(turns.limit * 2);
                        }
                        turns.failures.log(CANNOT_CONNECT, self.purpose.0, &error);
                        self.count_unusable(turns, error);
                        turns.next = Instant::now() + turns.pauses.next_pause();
                    }
                },
                () = sleep_until(turns.next.into()), if trying.len() < most => {
                    trying.push(self.attempt(turns.at, first, turns.limit));
                    turns.at = turns.at.wrapping_add(1);
                    turns.next = Instant::now() + STAGGER;
                }
            }
        }
    }

    fn count_unusable(&self, turns: &mut Turns, error: QueueError) {
        let QueueError::Unusable(why) = error else {
            turns.unusable = 0;
            self.unusable.send_replace(None);
            return;
        };
        turns.unusable += 1;
        if turns.unusable >= self.urls.len() {
            self.unusable.send_replace(Some(why));
        }
    }

    async fn attempt(
        &self,
        at: usize,
        declare_first: bool,
        limit: Duration,
    ) -> Result<Connected, QueueError> {
        let url = self.urls[at % self.urls.len()];
        let (settings, metrics) = (self.settings, self.metrics);
        let opened =
            Session::open(url, settings, metrics, self.purpose, self.shared.clone(), limit);
        let (session, inboxes) = opened.await?;
        let opening = Opening(Some(session.clone()));
        let declaring = (self.declared, declare_first);
        let mut lost = tokio::spawn({
            let (session, blocked) = (session.clone(), self.blocked.clone());
            async move { session.lost(&blocked).await }
        });
        tokio::select! {
            cause = &mut lost => Err(QueueError::Broker(cause.unwrap_or_default())),
            prepared = session.prepare(settings, self.routes, declaring, inboxes, limit) => {
                prepared?;
                opening.keep();
                Ok((at, session, lost))
            }
        }
    }
}

/// Closes a connection that is not used after all.
struct Opening(Option<Arc<Session>>);

impl Opening {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.close_behind();
        }
    }
}

/// The first failures are normal: programs and broker are often started at the same time.
#[derive(Default)]
pub(super) struct Failures {
    logged: Option<Instant>,
    left_out: u32,
}

impl Failures {
    /// The first one, and then one in [`LOG_EACH`].
    pub(super) fn log(&mut self, message: &str, purpose: &str, error: &QueueError) {
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_EACH) {
            self.left_out += 1;
            return;
        }
        let left_out = self.left_out;
        match error {
            QueueError::Unusable(_) => tracing::error!(purpose, %error, left_out, "{message}"),
            _ => tracing::warn!(purpose, %error, left_out, "{message}"),
        }
        *self = Self { logged: Some(Instant::now()), left_out: 0 };
    }
}
