//! One supervised connection to the broker.
//!
//! The client library recovers nothing by itself that we could rely on, so a connection
//! is a generation: any failure discards it whole, and the next is made from scratch
//! (next host, topology, channels). Every connect and close has a time limit: both have
//! been seen to hang for ever against a broker that was just starting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::topology::{Names, Subscriber, declare, short};
use super::{QueueError, Settings};
use crate::retry::Pauses;
use crate::secret::Secret;

/// Time to connect, log in and declare; a busy broker takes seconds for new queues.
const CONNECT: Duration = Duration::from_secs(30);
const CLOSE: Duration = Duration::from_secs(2);
/// Seconds; a dead peer shows after twice this.
const HEARTBEAT: u16 = 10;
const REPLY_SUCCESS: u16 = 200;

/// A connection that is made again whenever it is lost, until the link is dropped.
#[derive(Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    stop: CancellationToken,
    _stop_when_dropped: Arc<DropGuard>,
}

impl Link {
    /// Starts to connect in the background. `purpose` names the connection at the broker.
    pub(super) fn start(settings: Arc<Settings>, purpose: &'static str, lanes: usize) -> Self {
        let (publish, sessions) = watch::channel(None);
        let stop = CancellationToken::new();
        let _stop_when_dropped = Arc::new(stop.clone().drop_guard());
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = supervise(&settings, purpose, lanes, &publish) => {}
            }
            let last = publish.send_replace(None);
            if let Some(session) = last {
                session.close().await;
            }
        });
        Self { sessions, stop, _stop_when_dropped }
    }

    /// Closes the connection for good: what was written to it, acknowledgements above
    /// all, reaches the broker first.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        // The sender goes when the background task ends.
        let closed = async { while self.sessions.changed().await.is_ok() {} };
        let _ = timeout(CLOSE * 2, closed).await;
    }

    /// The connection, if there is one now.
    pub(super) fn now(&self) -> Option<Arc<Session>> {
        self.sessions.borrow().clone().filter(|session| session.usable())
    }

    /// The connection, waiting for one as long as it takes.
    pub(super) async fn session(&mut self) -> Option<Arc<Session>> {
        let ready = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|s| s.usable());
        let found = self.sessions.wait_for(ready).await.ok()?;
        found.clone()
    }
}

async fn supervise(
    settings: &Settings,
    purpose: &'static str,
    lanes: usize,
    publish: &watch::Sender<Option<Arc<Session>>>,
) {
    let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
    // Without an end: the config has at least one URL.
    for url in settings.urls.iter().cycle() {
        match timeout(CONNECT, Session::open(url, settings, purpose, lanes)).await {
            Ok(Ok(session)) => {
                tracing::info!(purpose, "connected to rabbitmq");
                pauses.reset();
                let session = Arc::new(session);
                publish.send_replace(Some(session.clone()));
                let cause = session.lost().await;
                publish.send_replace(None);
                tracing::warn!(purpose, cause, "lost the connection to rabbitmq");
                session.close().await;
            }
            Ok(Err(error)) => tracing::warn!(purpose, %error, "can't connect to rabbitmq"),
            Err(_) => tracing::warn!(purpose, limit = ?CONNECT, "rabbitmq didn't answer in time"),
        }
        tokio::time::sleep(pauses.next_pause()).await;
    }
}

/// One generation of a connection.
pub(super) struct Session {
    connection: Connection,
    blocked: AtomicBool,
    broken: AtomicBool,
    discard: Notify,
    lanes: Semaphore,
    idle: Mutex<Vec<Channel>>,
}

impl Session {
    async fn open(
        url: &Secret,
        settings: &Settings,
        purpose: &str,
        lanes: usize,
    ) -> lapin::Result<Self> {
        let url = String::from_utf8_lossy(url.expose()).into_owned();
        let mut uri: lapin::uri::AMQPUri =
            url.parse().map_err(|_| std::io::Error::other("a [rabbitmq] url can't be read"))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let name = format!("{}-{purpose}", settings.namespace);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect_uri(uri, properties).await?;
        let channel = connection.create_channel().await?;
        let names = Names::new(&settings.namespace);
        let subscribers: &[Subscriber] = &settings.subscribers;
        declare(&channel, &names, subscribers).await?;
        channel.close(REPLY_SUCCESS, short("")?).await?;
        Ok(Self {
            connection,
            blocked: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            discard: Notify::new(),
            lanes: Semaphore::new(lanes),
            idle: Mutex::new(Vec::new()),
        })
    }

    fn usable(&self) -> bool {
        !self.broken.load(Ordering::Acquire) && self.connection.status().connected()
    }

    /// Whether the broker takes no messages now.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Gives this generation up: something on it failed, so nothing on it is trusted.
    pub(super) fn discard(&self) {
        self.broken.store(true, Ordering::Release);
        self.discard.notify_one();
    }

    /// Waits until the connection is lost or discarded, and says why.
    async fn lost(&self) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.discard.notified() => return "discarded after a failure".into(),
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "rabbitmq blocks publishers");
                        self.blocked.store(true, Ordering::Release);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!("rabbitmq takes messages again");
                        self.blocked.store(false, Ordering::Release);
                    }
                    Some(Event::Error(error)) => return error.to_string(),
                    Some(_) => {}
                    None => return "closed".into(),
                },
                // The net below the events.
                _ = look.tick() => if !self.connection.status().connected() {
                    return "closed".into();
                },
            }
        }
    }

    async fn close(&self) {
        self.broken.store(true, Ordering::Release);
        if let Ok(text) = short("done") {
            let _ = timeout(CLOSE, self.connection.close(REPLY_SUCCESS, text)).await;
        }
    }

    /// A plain channel.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        Ok(self.connection.create_channel().await?)
    }

    /// A channel in confirm mode for one publish. On one channel the client library can
    /// match a returned message to the wrong confirm, so a lane has one publish at a time.
    pub(super) async fn lane(&self) -> Result<Lane<'_>, QueueError> {
        let permit = self.lanes.acquire().await.map_err(|_| QueueError::Disconnected)?;
        let idle = self.idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => {
                let channel = self.connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channel
            }
        };
        Ok(Lane { session: self, channel, _permit: permit })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A confirm channel that is in use. Dropped, its channel is closed; only one whose
/// publish came to its end is put back.
pub(super) struct Lane<'a> {
    session: &'a Session,
    pub(super) channel: Channel,
    _permit: SemaphorePermit<'a>,
}

impl Lane<'_> {
    pub(super) fn put_back(self) {
        self.session.idle().push(self.channel);
    }
}
