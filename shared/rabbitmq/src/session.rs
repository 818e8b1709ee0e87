//! One generation of a connection: it is opened, watched, and given up.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Event,
    ExchangeKind,
};
use prometheus::IntGauge;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use webhook_verify::Secret;
use zentra_core::clock::millis;

use super::lane::{self, Job};
use super::link::Declared;
use super::metrics::Metrics;
use super::topology::{Names, short};
use super::unrouted::{self, ANSWERED_WITHIN, Asking, Unrouted};
use super::{QueueError, Routes, Settings, connector, message};
use crate::error::{failed, is_broken, is_missing};

/// Time to declare again what the broker seems to have lost. What it declares in that time stays.
const REPAIR: Duration = Duration::from_secs(8);
/// Maximum age of the last confirm before a probe message asks for a new one.
const PROBE: Duration = Duration::from_secs(1);
/// Maximum age of the last confirm while a publish can still be expected to be confirmed.
const FRESH: Duration = Duration::from_secs(5);
/// A connection on which nothing is answered for this long, and which is not blocked, counts as
/// dead.
pub(super) const DEAD: Duration = Duration::from_secs(5);
/// Number of publishes that may wait for the last lane.
const WAITING: usize = 4096;
/// In seconds. A dead peer is noticed after twice this time.
const HEARTBEAT: u16 = 10;
pub(super) const CLOSE: Duration = Duration::from_secs(2);
const REPLY_SUCCESS: u16 = 200;

type Probe = oneshot::Receiver<Result<(), QueueError>>;

/// One generation of a connection.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// The URL of the connection.
    pub(super) url: Secret,
    /// Cancelled when this generation is given up.
    pub(super) gone: CancellationToken,
    blocked: AtomicBool,
    /// The broker's reason for blocking.
    blocked_by: Mutex<String>,
    stalled: AtomicBool,
    /// Whether the archive is bound, or none is configured.
    pub(super) archived: AtomicBool,
    started: Instant,
    /// The time of the last confirm, in milliseconds after `started`. 0 before the first one.
    confirmed: AtomicU64,
    /// One per lane.
    jobs: Vec<mpsc::Sender<Job>>,
    pub(super) metrics: Metrics,
    pub(super) names: Names,
    /// The largest body that the broker accepts, in bytes, as far as it is known.
    pub(super) largest: Arc<AtomicUsize>,
    /// How often the broker itself failed on connections of this link.
    breakdowns: Arc<AtomicU64>,
    /// Whether this connection has declared the routes.
    pub(super) declared: AtomicBool,
    /// Set when the broker lacks an exchange: the next connection declares before it publishes.
    pub(super) misses_topology: AtomicBool,
    /// Set when the address is not to blame: the next connection is made to the same one.
    pub(super) again_here: AtomicBool,
    /// Whether the first answer has come.
    answered: AtomicBool,
    /// Whether the broker has the queue of probes, as far as it has said.
    pub(super) has_probes: AtomicBool,
    /// Wakes whoever waits for the first answer: a blocked broker gives none.
    when_blocked: Notify,
    /// Held by [`Session::confirms_aside`].
    aside: tokio::sync::Mutex<()>,
    /// The time of the last delivery, in milliseconds after `started`.
    heard: AtomicU64,
    /// The channel of [`Session::ask`].
    questions: tokio::sync::Mutex<Option<Channel>>,
    pub(super) unrouted: Arc<Unrouted>,
    /// Asks whether the queue of unrouted events exists.
    asking: mpsc::Sender<Asking>,
}

/// What all connections of a link have in common.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) unrouted: Arc<Unrouted>,
    pub(super) largest: Arc<AtomicUsize>,
    pub(super) breakdowns: Arc<AtomicU64>,
}

impl Session {
    /// A connection, and the inboxes of its lanes.
    pub(super) async fn open(
        url: &Secret,
        settings: &Settings,
        metrics: &Metrics,
        (purpose, lanes): (&'static str, usize),
        Shared { unrouted, largest, breakdowns }: Shared,
        limit: Duration,
    ) -> Result<(Arc<Self>, Vec<mpsc::Receiver<Job>>), QueueError> {
        let connect = timeout(limit, connect(url, settings, purpose)).await;
        let connection = connect.map_err(|_| QueueError::Timeout(limit))?.map_err(failed)?;
        let room = |lane| if lane + 1 == lanes { WAITING } else { lane::WINDOW };
        let (jobs, inboxes): (Vec<_>, Vec<_>) =
            (0..lanes).map(|lane| mpsc::channel(room(lane))).unzip();
        let (asking, asked) = mpsc::channel(WAITING);
        let session = Arc::new(Self {
            connection,
            url: url.clone(),
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
            breakdowns,
            declared: AtomicBool::new(false),
            misses_topology: AtomicBool::new(false),
            again_here: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            has_probes: AtomicBool::new(false),
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
    pub(super) async fn prepare(
        self: &Arc<Self>,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        (declared, declare_first): (&watch::Sender<Option<Declared>>, bool),
        inboxes: Vec<mpsc::Receiver<Job>>,
        limit: Duration,
    ) -> Result<(), QueueError> {
        if declare_first {
            self.declare_now(settings, routes, declared).await?;
        }
        self.declare_new(settings, routes, declared).await?;
        let answer = timeout(limit, self.open_lanes(settings, inboxes)).await;
        let has_queues = answer.unwrap_or(Err(QueueError::Timeout(limit)))?;
        // The broker has lost what was declared, or has no leader for it yet.
        if !has_queues {
            let repair = timeout(REPAIR, self.declare_now(settings, routes, declared)).await;
            repair.unwrap_or(Err(QueueError::Timeout(REPAIR)))?;
        }
        // The routes may have changed meanwhile.
        self.declare_new(settings, routes, declared).await
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
            channels.push(lane::open(&self.connection).await.map_err(failed)?);
        }
        for (channel, inbox) in channels.into_iter().zip(inboxes) {
            tokio::spawn(lane::run(self.clone(), channel, inbox, settings.publish_timeout));
        }
        self.first_answer().await
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

    pub(super) fn usable(&self) -> bool {
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

    /// Records what the end of a connection means for the next one.
    pub(super) fn learn(&self, error: &lapin::Error) {
        if is_missing(error) {
            self.misses_topology.store(true, Ordering::Release);
        }
        if is_broken(error) {
            self.breakdowns.fetch_add(1, Ordering::AcqRel);
        }
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
    pub(super) async fn lost(&self, blocked: &IntGauge) -> String {
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
                Event::Error(error) => {
                    self.learn(&error);
                    return error.to_string();
                }
                _ => {}
            }
        }
        "closed".into()
    }

    /// Asks for an answer where nothing else does, from the first answer on. Returns when none
    /// comes in time; where messages are published, their lanes judge that.
    async fn silent(&self) -> String {
        let mut tick = tokio::time::interval(PROBE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = None;
        loop {
            tick.tick().await;
            if !self.connection.status().connected() {
                return "closed".into();
            }
            if !self.answered.load(Ordering::Acquire) {
                continue;
            }
            if !self.jobs.is_empty() && self.has_probes.load(Ordering::Acquire) {
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
            if !self.ask().await? || self.jobs.is_empty() {
                return Ok(self.has_probes.load(Ordering::Acquire));
            }
            let (done, answer) = oneshot::channel();
            self.put(message::probe(&self.names, done)?)?;
            answer.await.map(|sent| sent.is_ok()).map_err(|_| QueueError::Lost)
        };
        let has_queues = tokio::select! {
            answer = answer => answer,
            () = self.when_blocked.notified() => Ok(true),
        };
        self.answered.store(true, Ordering::Release);
        has_queues
    }

    /// A request that only a majority of the nodes can answer, and that a broker in alarm answers
    /// too: `basic.get` on the queue of probes. What it takes is a probe that has been confirmed.
    /// Returns whether the queue exists, and its exchange.
    async fn ask(&self) -> Result<bool, QueueError> {
        let mut questions = self.questions.lock().await;
        let channel = match questions.take() {
            Some(channel) => channel,
            None => self.channel().await?,
        };
        let (queue, options) =
            (short(&self.names.probe()).map_err(failed)?, BasicGetOptions { no_ack: true });
        match channel.basic_get(queue, options).await {
            Ok(_) => {}
            // Nothing is declared yet. The answer closed the channel.
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        if !self.has_probes.load(Ordering::Acquire) {
            // A probe without its exchange would close a lane, and all that is in flight on it.
            let options =
                ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let (name, none) =
                (short(&self.names.internal()).map_err(failed)?, FieldTable::default());
            match channel.exchange_declare(name, ExchangeKind::Direct, options, none).await {
                Ok(()) => self.has_probes.store(true, Ordering::Release),
                Err(error) if is_missing(&error) => return Ok(false),
                Err(error) => return Err(failed(error)),
            }
        }
        *questions = Some(channel);
        Ok(true)
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
        let sent = publish_alone(&self.connection, (exchange, key), body, properties);
        matches!(timeout(limit, sent).await, Ok(Ok(true)))
    }

    /// Publishes to the queue of probes, for the confirm, unless the last one is in flight.
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
    pub(super) fn close_behind(self: &Arc<Self>) {
        let session = self.clone();
        tokio::spawn(async move { session.close().await });
    }

    pub(super) async fn close(&self) {
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

/// Starts to consume a queue. If the caller stops waiting, the consumer is cancelled as soon as it
/// exists. The client library would keep it, with all that it fetches, for as long as the
/// connection.
pub(super) async fn consume(
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
) -> Result<Consumer, QueueError> {
    let (channel, queue) = (channel.clone(), short(queue).map_err(failed)?);
    let tag = short("").map_err(failed)?;
    let started = tokio::spawn(async move {
        channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments).await
    });
    started.await.map_err(|_| QueueError::Lost)?.map_err(failed)
}

/// Publishes a message on a channel of its own. Returns whether it was routed and confirmed.
pub(super) async fn publish_alone(
    connection: &Connection,
    (exchange, key): (&str, &str),
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<bool> {
    let channel = lane::open(connection).await?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, key, none) = (short(exchange)?, short(key)?, short("")?);
    let sent = channel.basic_publish(exchange, key, options, body, properties).await?;
    let confirmation = sent.await?;
    tokio::spawn(async move { channel.close(REPLY_SUCCESS, none).await });
    Ok(matches!(confirmation, Confirmation::Ack(None)))
}

/// Closes a connection for one purpose. Nobody waits for it.
pub(super) fn close_aside(connection: Connection) {
    tokio::spawn(async move {
        if let Ok(text) = short("done") {
            let _ = timeout(CLOSE, connection.close(REPLY_SUCCESS, text)).await;
        }
    });
}

pub(super) async fn connect(
    url: &Secret,
    settings: &Settings,
    purpose: &str,
) -> lapin::Result<Connection> {
    let url = String::from_utf8_lossy(url.expose()).into_owned();
    let mut uri = connector::uri(&url)
        .ok_or_else(|| std::io::Error::other("cannot parse a [rabbitmq] url"))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let name = format!("{}-{purpose}", settings.namespace);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    connector::connect(uri, settings.tls.clone(), properties).await
}
