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
//! given up when none comes for [`DEAD`].
//!
//! The first connection declares the topology before anything is published. A connection that was
//! made again publishes first and declares beside it, because declaring can hang for as long as any
//! node of a cluster is away.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, Event,
};
use prometheus::IntGauge;
use rand::seq::SliceRandom;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use webhook_verify::Secret;
use zentra_core::clock::millis;
use zentra_core::retry::Pauses;

use super::applied::{apply, archive, depth};
use super::lane::{self, Job};
use super::metrics::Metrics;
use super::topology::{Names, declare, short};
use super::unrouted::{self, ANSWERED_WITHIN, Asking, Unrouted};
use super::{QueueError, Routes, Settings, Subscriber, message};
use crate::error::{failed, is_missing};

/// Time to connect and log in.
const CONNECT: Duration = Duration::from_secs(3);
/// Time to declare the topology and to open the lanes. A busy broker takes seconds for new queues.
const PREPARE: Duration = Duration::from_secs(30);
/// Time to declare again what the broker seems to have lost. What it declares in that time stays.
const REPAIR: Duration = Duration::from_secs(8);
/// Pause between two attempts to declare.
const AGAIN: Duration = Duration::from_secs(5);
const CANNOT_CONNECT: &str = "cannot connect to RabbitMQ: retrying";
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one address is tried before the next one is tried beside it.
const STAGGER: Duration = Duration::from_secs(1);
/// Number of failed attempts per log line.
const LOG_EACH: Duration = Duration::from_secs(10);
/// Maximum age of the last confirm before a probe message asks for a new one.
const PROBE: Duration = Duration::from_secs(1);
/// Maximum age of the last confirm while a publish can still be expected to be confirmed.
const FRESH: Duration = Duration::from_secs(5);
/// How often queues are counted, and how often an archive that the broker could not serve is tried
/// again.
const HOUSE: Duration = Duration::from_secs(15);
/// Time limit for the first answer on a new connection.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// A connection on which nothing is answered for this long, and which is not blocked, counts as
/// dead.
pub(super) const DEAD: Duration = Duration::from_secs(5);
/// Number of publishes that may wait for the last lane.
const WAITING: usize = 4096;
const CLOSE: Duration = Duration::from_secs(2);
/// In seconds. A dead peer is noticed after twice this time.
const HEARTBEAT: u16 = 10;
const REPLY_SUCCESS: u16 = 200;

/// A connection that is made again whenever it is lost, until the link is dropped.
#[derive(Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    declared: watch::Receiver<Option<Declared>>,
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
        let stop = CancellationToken::new();
        let _stop_when_dropped = Arc::new(stop.clone().drop_guard());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = supervise(&settings, &routes, &metrics, (purpose, lanes), &publish, &declare) => {}
            }
            let last = publish.send_replace(None);
            if let Some(session) = last {
                session.close().await;
            }
        });
        Self { sessions, declared, stop, _stop_when_dropped }
    }

    /// What this link declares from now on. See [`Declarations::until`].
    pub(super) fn declarations(&self) -> Declarations {
        let mut declared = self.declared.clone();
        declared.mark_unchanged();
        Declarations(declared)
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
    routes: Routes,
    /// Whether bindings that these routes lack were removed.
    unbound: bool,
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
    declared: &watch::Sender<Option<Declared>>,
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
    let shared = (unrouted.clone(), largest);
    let connector = Connector {
        settings,
        routes,
        metrics,
        purpose: (purpose, lanes),
        declared,
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
            never = session.keep_house(routes) => match never {},
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
    shared: (Arc<Unrouted>, Arc<AtomicUsize>),
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
    failures: Failures,
}

impl Default for Turns {
    fn default() -> Self {
        let (pauses, failures) = (Pauses::new(PAUSE, LONGEST_PAUSE), Failures::default());
        Self { at: 0, declare_first: false, next: Instant::now(), pauses, failures }
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
                        turns.declare_first = false;
                        turns.failures = Failures::default();
                        return connected;
                    }
                    Err(error) => {
                        turns.failures.log(CANNOT_CONNECT, self.purpose.0, &error);
                        turns.next = Instant::now() + turns.pauses.next_pause();
                    }
                },
                () = sleep_until(turns.next.into()), if trying.len() < most => {
                    trying.push(self.attempt(turns.at, first));
                    turns.at = turns.at.wrapping_add(1);
                    turns.next = Instant::now() + STAGGER;
                }
            }
        }
    }

    async fn attempt(&self, at: usize, declare_first: bool) -> Result<Connected, QueueError> {
        let url = self.urls[at % self.urls.len()];
        let (settings, metrics) = (self.settings, self.metrics);
        let opened = Session::open(url, settings, metrics, self.purpose, self.shared.clone());
        let (session, inboxes) = opened.await?;
        let opening = Opening(Some(session.clone()));
        let declaring = (self.declared, declare_first);
        let mut lost = tokio::spawn({
            let (session, blocked) = (session.clone(), self.blocked.clone());
            async move { session.lost(&blocked).await }
        });
        tokio::select! {
            cause = &mut lost => Err(QueueError::Broker(cause.unwrap_or_default())),
            prepared = session.prepare(settings, self.routes, declaring, inboxes) => {
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
struct Failures {
    logged: Option<Instant>,
    left_out: u32,
}

impl Failures {
    /// The first one, and then one in [`LOG_EACH`].
    fn log(&mut self, message: &str, purpose: &str, error: &QueueError) {
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_EACH) {
            self.left_out += 1;
            return;
        }
        let left_out = self.left_out;
        tracing::warn!(purpose, %error, left_out, "{message}");
        *self = Self { logged: Some(Instant::now()), left_out: 0 };
    }
}

type Probe = oneshot::Receiver<Result<(), QueueError>>;

/// One generation of a connection.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Cancelled when this generation is given up.
    pub(super) gone: CancellationToken,
    blocked: AtomicBool,
    /// The broker's reason for blocking.
    blocked_by: Mutex<String>,
    stalled: AtomicBool,
    /// Whether the archive is bound, or none is configured.
    archived: AtomicBool,
    started: Instant,
    /// The time of the last confirm, in milliseconds after `started`. 0 before the first one.
    confirmed: AtomicU64,
    /// One per lane.
    jobs: Vec<mpsc::Sender<Job>>,
    pub(super) metrics: Metrics,
    names: Names,
    /// The largest body that the broker accepts, in bytes, as far as it is known.
    largest: Arc<AtomicUsize>,
    /// Whether this connection has declared the routes.
    declared: AtomicBool,
    /// Set when the broker lacks an exchange: the next connection declares before it publishes.
    misses_topology: AtomicBool,
    /// Set when the address is not to blame: the next connection is made to the same one.
    again_here: AtomicBool,
    /// Wakes whoever waits for the first answer: a blocked broker gives none.
    when_blocked: Notify,
    /// Held by [`Session::confirms_aside`].
    aside: tokio::sync::Mutex<()>,
    /// The time of the last delivery, in milliseconds after `started`.
    heard: AtomicU64,
    /// The channel of [`Session::ask`].
    questions: tokio::sync::Mutex<Option<Channel>>,
    unrouted: Arc<Unrouted>,
    /// Asks whether the queue of unrouted events exists.
    asking: mpsc::Sender<Asking>,
}

impl Session {
    /// A connection, and the inboxes of its lanes.
    async fn open(
        url: &Secret,
        settings: &Settings,
        metrics: &Metrics,
        (purpose, lanes): (&'static str, usize),
        (unrouted, largest): (Arc<Unrouted>, Arc<AtomicUsize>),
    ) -> Result<(Arc<Self>, Vec<mpsc::Receiver<Job>>), QueueError> {
        let connect = timeout(CONNECT, connect(url, settings, purpose)).await;
        let connection = connect.map_err(|_| QueueError::Timeout(CONNECT))?.map_err(failed)?;
        let room = |lane| if lane + 1 == lanes { WAITING } else { lane::WINDOW };
        let (jobs, inboxes): (Vec<_>, Vec<_>) =
            (0..lanes).map(|lane| mpsc::channel(room(lane))).unzip();
        let (asking, asked) = mpsc::channel(WAITING);
        let session = Arc::new(Self {
            connection,
            gone: CancellationToken::new(),
            blocked: AtomicBool::new(false),
            blocked_by: Mutex::default(),
            stalled: AtomicBool::new(false),
            archived: AtomicBool::new(true),
            started: Instant::now(),
            confirmed: AtomicU64::new(0),
            jobs,
            metrics: metrics.clone(),
            names: Names::new(&settings.namespace),
            largest,
            declared: AtomicBool::new(false),
            misses_topology: AtomicBool::new(false),
            again_here: AtomicBool::new(false),
            when_blocked: Notify::new(),
            aside: tokio::sync::Mutex::new(()),
            heard: AtomicU64::new(0),
            questions: tokio::sync::Mutex::new(None),
            unrouted,
            asking,
        });
        tokio::spawn(unrouted::answer(session.clone(), session.names.clone(), asked));
        Ok((session, inboxes))
    }

    /// Declares routes that are new, opens the lanes, and waits for the first answer.
    async fn prepare(
        self: &Arc<Self>,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        (declared, declare_first): (&watch::Sender<Option<Declared>>, bool),
        inboxes: Vec<mpsc::Receiver<Job>>,
    ) -> Result<(), QueueError> {
        if declare_first {
            self.declare_now(settings, routes, declared).await?;
        }
        self.declare_new(settings, routes, declared).await?;
        let answer = timeout(FIRST_ANSWER, self.open_lanes(settings, inboxes)).await;
        let has_queues = answer.unwrap_or(Err(QueueError::Timeout(FIRST_ANSWER)))?;
        // The broker has lost what was declared, or has no leader for it yet.
        if !has_queues {
            let repair = timeout(REPAIR, self.declare_now(settings, routes, declared)).await;
            repair.unwrap_or(Err(QueueError::Timeout(REPAIR)))?;
        }
        // The routes may have changed meanwhile.
        self.declare_new(settings, routes, declared).await
    }

    async fn declare_now(
        &self,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        let wanted = routes.borrow().clone();
        match wanted {
            Some(wanted) => self.declare_within(settings, &wanted, declared).await,
            None => Ok(()),
        }
    }

    /// Declares routes that this link has not declared yet.
    async fn declare_new(
        &self,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        loop {
            let wanted = routes.borrow().clone();
            let known = declared.borrow().as_ref().map(|known| known.routes.clone());
            if wanted.is_none() || wanted == known {
                return Ok(());
            }
            self.declare_now(settings, routes, declared).await?;
        }
    }

    async fn declare_within(
        &self,
        settings: &Settings,
        routes: &Routes,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        let declare = timeout(PREPARE, self.declare(settings, routes, declared)).await;
        declare.unwrap_or(Err(QueueError::Timeout(PREPARE)))
    }

    /// Opens the lanes, and waits for the first answer. Returns whether the broker has the queue of
    /// probes.
    async fn open_lanes(
        self: &Arc<Self>,
        settings: &Settings,
        inboxes: Vec<mpsc::Receiver<Job>>,
    ) -> Result<bool, QueueError> {
        // All of them before the first publish: a broker in alarm reads nothing after that.
        let mut channels = Vec::new();
        for _ in &inboxes {
            channels.push(lane::open(self).await.map_err(failed)?);
        }
        for (channel, inbox) in channels.into_iter().zip(inboxes) {
            tokio::spawn(lane::run(self.clone(), channel, inbox, settings.publish_timeout));
        }
        self.first_answer().await
    }

    /// A connection that was made again only adds bindings: an older program that is shutting down
    /// must not unbind what a newer one bound.
    async fn declare(
        &self,
        settings: &Settings,
        routes: &Routes,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        self.unrouted.look(self, &self.names, routes).await?;
        let known = declared.borrow().clone();
        let unbound = known.is_some_and(|known| known.unbound && known.routes == *routes);
        let unbound = match unbound {
            true => {
                declare(&self.connection, &self.names, settings, routes).await.map_err(failed)?;
                true
            }
            false => apply(&self.connection, &self.names, settings, routes).await?,
        };
        self.attach_archive(routes).await?;
        if let Some(wanted) = settings.largest_body {
            self.measure(wanted).await?;
        }
        self.declared.store(true, Ordering::Release);
        declared.send_replace(Some(Declared { routes: routes.clone(), unbound }));
        Ok(())
    }

    fn has_declared(&self, routes: &Routes, declared: &watch::Sender<Option<Declared>>) -> bool {
        let known = declared.borrow();
        let is_done = known.as_ref().is_some_and(|known| known.unbound && known.routes == *routes);
        is_done && self.declared.load(Ordering::Acquire)
    }

    /// Declares on a connection that was made again, and whenever the routes change.
    async fn keep_declared(
        &self,
        purpose: &str,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Infallible {
        let mut routes = routes.clone();
        let mut failures = Failures::default();
        let mut asked = false;
        loop {
            let wanted = routes.borrow_and_update().clone();
            let Some(wanted) = wanted else { return pending().await };
            if asked || !self.has_declared(&wanted, declared) {
                let declare = self.declare_within(settings, &wanted, declared).await;
                if let Err(error) = &declare {
                    failures.log("cannot declare the routes: retrying", purpose, error);
                }
                if declare.is_err() || !self.has_declared(&wanted, declared) {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            // Operators also reload to have everything declared again.
            asked = true;
            if routes.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Asks the broker whether it accepts a body of this size, by a message to a queue that does
    /// not exist. The broker checks the size first, and then drops the message.
    async fn measure(&self, wanted: usize) -> Result<(), QueueError> {
        let channel = lane::open(self).await.map_err(failed)?;
        let (exchange, nowhere) = (
            short("").map_err(failed)?,
            short(&format!("{}.nowhere", self.names.probe())).map_err(failed)?,
        );
        let (options, body) = (BasicPublishOptions::default(), vec![0; wanted]);
        let properties = BasicProperties::default();
        let asked = async {
            channel.basic_publish(exchange, nowhere, options, &body, properties).await?.await
        };
        match asked.await {
            Ok(_) => {
                self.largest.store(usize::MAX, Ordering::Release);
                channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)
            }
            Err(error) => {
                let most = most_told(&error).ok_or(error).map_err(failed)?;
                self.largest.store(most, Ordering::Release);
                tracing::error!(
                    max_message_size = most,
                    max_body = wanted,
                    "rabbitmq takes no messages as large as the sources' max_body: larger callbacks \
                     are refused (413); raise max_message_size in rabbitmq.conf or lower max_body"
                );
                Ok(())
            }
        }
    }

    /// The largest body that the broker accepts, in bytes, as far as it is known.
    pub(super) fn largest(&self) -> usize {
        self.largest.load(Ordering::Acquire)
    }

    /// Notices that the queue of unrouted events was deleted. Call this before declaring it again.
    pub(super) async fn look_for_unrouted(&self, routes: &Routes) -> Result<(), QueueError> {
        self.unrouted.look(self, &self.names, routes).await
    }

    /// Whether a confirmed event may be in the archive alone, because the queue of unrouted events
    /// is missing. If the broker does not answer in time, the queue counts as existing.
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if the connection is lost before the answer.
    pub(super) async fn only_archived(&self) -> Result<bool, QueueError> {
        let (ask, answer) = oneshot::channel();
        if self.asking.try_send(ask).is_err() {
            return Ok(false);
        }
        match timeout(ANSWERED_WITHIN, answer).await {
            Ok(Ok(exists)) => Ok(!exists),
            Ok(Err(_)) if !self.usable() => Err(QueueError::Lost),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    /// Binds the archive if the broker can serve it. See [`archive`].
    async fn attach_archive(&self, routes: &Routes) -> Result<(), QueueError> {
        let attached = archive(&self.connection, &self.names, routes).await?;
        self.archived.store(attached, Ordering::Release);
        self.metrics.archive.attach(attached);
        Ok(())
    }

    fn usable(&self) -> bool {
        !self.gone.is_cancelled() && self.connection.status().connected()
    }

    /// Whether the broker takes no messages now.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Why the broker takes no messages now.
    pub(super) fn blocked_by(&self) -> Option<String> {
        let reason = || self.blocked_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.blocked().then(reason)
    }

    /// Whether confirms are overdue.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Records that the broker lacks an exchange.
    pub(super) fn miss_topology(&self) {
        self.misses_topology.store(true, Ordering::Release);
    }

    /// Records a delivery.
    pub(super) fn hear(&self) {
        self.heard.store(millis(self.started.elapsed()), Ordering::Release);
    }

    fn has_heard_within(&self, time: Duration) -> bool {
        let at = Duration::from_millis(self.heard.load(Ordering::Acquire));
        !at.is_zero() && self.started.elapsed().saturating_sub(at) < time
    }

    pub(super) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    /// Records a confirm.
    pub(super) fn confirmed(&self) {
        self.confirmed.store(millis(self.started.elapsed()).max(1), Ordering::Release);
        self.stalled.store(false, Ordering::Release);
    }

    fn since_confirm(&self) -> Duration {
        match self.confirmed.load(Ordering::Acquire) {
            0 => Duration::MAX,
            at => self.started.elapsed().saturating_sub(Duration::from_millis(at)),
        }
    }

    /// Whether a publish can be expected to be confirmed.
    pub(super) fn ready(&self) -> bool {
        self.usable() && !self.blocked() && !self.stalled() && self.since_confirm() < FRESH
    }

    /// Hands a job to the first lane that has room. A few lanes with many messages each are
    /// cheaper than many lanes with few. Fails at once if too many jobs wait on every lane.
    pub(super) fn put(&self, mut job: Job) -> Result<(), QueueError> {
        for lane in &self.jobs {
            match lane.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => job = back,
            }
        }
        Err(QueueError::Overloaded)
    }

    /// Gives this generation up: after one failure, nothing on it is trusted.
    pub(super) fn discard(&self) {
        self.gone.cancel();
    }

    /// Discards this generation for a new one to the same address.
    pub(super) fn renew(&self) {
        self.again_here.store(true, Ordering::Release);
        self.discard();
    }

    /// Waits until the connection is lost or discarded, and returns the reason.
    async fn lost(&self, blocked: &IntGauge) -> String {
        tokio::select! {
            () = self.gone.cancelled() => "discarded after a failure".into(),
            cause = self.closed(blocked) => cause,
            cause = self.silent() => cause,
        }
    }

    /// Waits until the connection is closed. Keeps track of the broker's alarms.
    async fn closed(&self, blocked: &IntGauge) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(reason, "RabbitMQ blocks publishers");
                    *self.blocked_by.lock().unwrap_or_else(PoisonError::into_inner) = reason;
                    self.blocked.store(true, Ordering::Release);
                    blocked.set(1);
                    self.when_blocked.notify_one();
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("RabbitMQ accepts messages again");
                    self.blocked.store(false, Ordering::Release);
                    blocked.set(0);
                }
                // The end of one channel, which its user has noticed.
                Event::Error(error) if error.is_amqp_soft_error() => {}
                Event::Error(error) => return error.to_string(),
                _ => {}
            }
        }
        "closed".into()
    }

    /// Asks for an answer where nothing else does. Returns when none comes in time; where messages
    /// are published, their lanes judge that.
    async fn silent(&self) -> String {
        let mut tick = tokio::time::interval(PROBE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = None;
        loop {
            tick.tick().await;
            if !self.connection.status().connected() {
                return "closed".into();
            }
            if !self.jobs.is_empty() {
                if self.since_confirm() >= PROBE {
                    probe = self.probe(probe);
                }
                continue;
            }
            match timeout(DEAD, self.ask()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                // Answers queue behind large deliveries on a slow network.
                Err(_) if self.has_heard_within(DEAD) => {}
                Err(_) => return format!("no answer within {DEAD:?}"),
            }
        }
    }

    /// Waits until the broker answers what only a majority of its nodes can answer, or says that it
    /// blocks publishers. Returns whether it has the queue of probes.
    async fn first_answer(&self) -> Result<bool, QueueError> {
        let answer = async {
            if self.jobs.is_empty() {
                return self.ask().await;
            }
            let (done, answer) = oneshot::channel();
            self.put(message::probe(&self.names, done)?)?;
            answer.await.map(|sent| sent.is_ok()).map_err(|_| QueueError::Lost)
        };
        tokio::select! {
            answer = answer => answer,
            () = self.when_blocked.notified() => Ok(true),
        }
    }

    /// A request that only a majority of the nodes can answer, and that a broker in alarm answers
    /// too: `basic.get` on the queue of probes. What it takes is a probe that has been confirmed.
    /// Returns whether the queue exists.
    async fn ask(&self) -> Result<bool, QueueError> {
        let mut questions = self.questions.lock().await;
        let channel = match questions.take() {
            Some(channel) => channel,
            None => self.channel().await?,
        };
        let (queue, options) =
            (short(&self.names.probe()).map_err(failed)?, BasicGetOptions { no_ack: true });
        match channel.basic_get(queue, options).await {
            Ok(_) => {
                *questions = Some(channel);
                Ok(true)
            }
            // Nothing is declared yet. The answer closed the channel.
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Counts the messages that wait in queues, and tries again an archive that the broker could
    /// not serve.
    async fn keep_house(&self, routes: &watch::Receiver<Option<Routes>>) -> Infallible {
        let mut tick = tokio::time::interval(HOUSE);
        loop {
            tick.tick().await;
            let routes = routes.borrow().clone();
            let Some(routes) = routes else {
                continue;
            };
            let _ = timeout(HOUSE, self.count(&routes)).await;
            if !self.archived.load(Ordering::Acquire)
                && let Err(error) = self.attach_archive(&routes).await
            {
                tracing::debug!(%error, "the broker still cannot serve the archive");
            }
        }
    }

    async fn count(&self, routes: &Routes) {
        if let Some(messages) = depth(&self.connection, &self.names.unrouted()).await {
            self.metrics.depths.unrouted.set(messages.into());
        }
        for Subscriber { destination, .. } in &routes.subscribers {
            let queues = [
                ("work", self.names.work_queue(destination)),
                ("dead", self.names.dead_queue(destination)),
            ];
            for (queue, name) in queues {
                if let Some(messages) = depth(&self.connection, &name).await {
                    let labels = [destination.as_str(), queue];
                    self.metrics.depths.waiting.with_label_values(&labels).set(messages.into());
                }
            }
        }
    }

    /// Publishes a message on a channel of its own, beside the lanes. Returns whether it was
    /// confirmed within this time; `false` while another one is published so.
    pub(super) async fn confirms_aside(
        &self,
        limit: Duration,
        (exchange, key): (&str, &str),
        body: &[u8],
        properties: BasicProperties,
    ) -> bool {
        let Ok(_alone) = self.aside.try_lock() else { return false };
        let sent = async {
            let channel = lane::open(self).await?;
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let (exchange, key) = (short(exchange)?, short(key)?);
            let confirm = channel.basic_publish(exchange, key, options, body, properties).await?;
            let confirm = confirm.await?;
            channel.close(REPLY_SUCCESS, short("")?).await?;
            lapin::Result::Ok(matches!(confirm, Confirmation::Ack(None)))
        };
        matches!(timeout(limit, sent).await, Ok(Ok(true)))
    }

    /// Publishes a message that reaches no queue, for its confirm, unless the last one is in
    /// flight.
    fn probe(&self, last: Option<Probe>) -> Option<Probe> {
        if let Some(mut last) = last
            && matches!(last.try_recv(), Err(TryRecvError::Empty))
        {
            return Some(last);
        }
        let (done, answer) = oneshot::channel();
        message::probe(&self.names, done).and_then(|job| self.put(job)).ok()?;
        Some(answer)
    }

    /// Closes a connection that is lost. Nobody waits for it.
    fn close_behind(self: &Arc<Self>) {
        let session = self.clone();
        tokio::spawn(async move { session.close().await });
    }

    async fn close(&self) {
        self.gone.cancel();
        if let Ok(text) = short("done") {
            // A blocked broker does not read it.
            let most = if self.blocked() { CLOSE / 10 } else { CLOSE };
            let _ = timeout(most, self.connection.close(REPLY_SUCCESS, text)).await;
        }
    }

    /// A channel without confirms.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        self.connection.create_channel().await.map_err(failed)
    }
}

/// The limit in "message size 3145728 is larger than configured max size 2097152".
fn most_told(error: &lapin::Error) -> Option<usize> {
    let ErrorKind::ProtocolError(reply) = error.kind() else { return None };
    let precondition = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
    let text = reply.get_message().to_string();
    let size = text.contains("message size") && *reply.kind() == precondition;
    size.then(|| text.rsplit(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()))
        .flatten()?
        .parse()
        .ok()
}

async fn connect(url: &Secret, settings: &Settings, purpose: &str) -> lapin::Result<Connection> {
    let url = String::from_utf8_lossy(url.expose()).into_owned();
    let mut uri: lapin::uri::AMQPUri =
        url.parse().map_err(|_| std::io::Error::other("cannot parse a [rabbitmq] url"))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let name = format!("{}-{purpose}", settings.namespace);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connect_uri(uri, properties).await
}
