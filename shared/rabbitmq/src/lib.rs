//! The queue seam of `zentra-store` on RabbitMQ 3.10 and later.

mod acks;
mod applied;
mod archive;
mod archiving;
mod connector;
mod consumer;
mod declare;
mod declaring;
mod error;
mod fetcher;
mod greeting;
mod held;
mod ladder;
mod lane;
mod link;
mod message;
mod metrics;
mod plan;
mod returns;
mod session;
mod shards;
mod topology;
mod unrouted;
mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::BasicProperties;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use webhook_verify::Secret;
use zentra_config::{ClientTls, Config};
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;
use zentra_store::queue::{
    Archive, Archived, Consumer, Delay, Fetch, Message, Operate, Place, Process, Publish,
    QueueError, Receipt, RefusedBounds, Routes, Subscribe, Subscriber, Walk,
};

pub use archive::AmqpArchived;
use archiving::TRIAL;
pub use consumer::{AmqpConsumer, AmqpReceipt};
use declare::declare;
use error::failed;
pub use fetcher::AmqpFetcher;
pub use greeting::{Greeting, greeting};
use held::{Held, Way};
use lane::Job;
use link::{Declared, Link};
use metrics::Metrics;
use session::Session;
use shards::Shards;
use topology::{Names, short};
pub use walk::{AmqpWalk, WalkReceipt};

/// Time limit for declaring new queues.
const DECLARE: Duration = Duration::from_secs(30);

/// Settings of the RabbitMQ backend.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One or more `amqp://` or `amqps://` URLs, tried in turn.
    pub urls: Vec<Secret>,
    /// For `amqps://` URLs.
    pub tls: ClientTls,
    /// The prefix of every exchange and queue.
    pub namespace: String,
    /// The routes at start. `None`: nothing is declared or changed.
    pub routes: Option<Routes>,
    /// Whether this program consumes, and so binds the shards of destinations.
    pub binds_shards: bool,
    /// Bounds of the queue of refused callbacks.
    pub refused: RefusedBounds,
    /// Time limit for a confirm.
    pub publish_timeout: Duration,
    /// Number of channels that publish, each with at most 64 messages in flight.
    pub lanes: usize,
    /// The largest body that the ingress accepts, in bytes. The broker is asked whether it accepts
    /// that size.
    pub largest_body: Option<usize>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            urls: config.rabbitmq.urls.clone(),
            tls: config.rabbitmq.tls.clone(),
            namespace: config.namespace.clone(),
            routes: Some(config.routes()),
            binds_shards: false,
            refused: config.refused.bounds.clone(),
            publish_timeout: config.rabbitmq.publish_timeout,
            lanes: config.rabbitmq.lanes,
            largest_body: config.sources.iter().map(|source| source.endpoint.max_body).max(),
        }
    }
}

/// The queue on RabbitMQ.
///
/// One connection publishes, and another one reads. During a resource alarm RabbitMQ reads nothing
/// more from a connection that has published, so acknowledgements and requests on that connection
/// would wait.
#[derive(Clone)]
pub struct Amqp {
    settings: Arc<Settings>,
    routes: Arc<watch::Sender<Option<Routes>>>,
    names: Names,
    metrics: Metrics,
    publishing: Link,
    reading: Option<Link>,
    /// Refused callbacks use a connection of their own, so they never delay an event.
    keeping: Option<Link>,
    held: Arc<Held>,
}

impl Amqp {
    /// A queue that only publishes. It connects in the background.
    pub fn publisher(settings: Settings, purpose: &'static str) -> Self {
        Self::linked(Settings { largest_body: None, ..settings }, purpose)
    }

    fn linked(settings: Settings, purpose: &'static str) -> Self {
        let settings = Arc::new(settings);
        let metrics = Metrics::new();
        let (routes, current) = watch::channel(settings.routes.clone());
        Self {
            routes: Arc::new(routes),
            names: Names::new(&settings.namespace),
            publishing: Link::start(
                settings.clone(),
                current,
                metrics.clone(),
                purpose,
                settings.lanes,
            ),
            metrics,
            reading: None,
            keeping: None,
            held: Arc::default(),
            settings,
        }
    }

    /// For the ingress, which also stores refused callbacks.
    pub fn ingress(settings: Settings) -> Self {
        let publisher = Self::linked(settings, "ingress");
        let keeping = publisher.second_link("ingress-refused", 1);
        Self { keeping: Some(keeping), ..publisher }
    }

    /// For a worker.
    pub fn processor(settings: Settings) -> Self {
        let settings = Settings { binds_shards: true, ..settings };
        let publisher = Self::publisher(settings, "worker-publish");
        let reading = publisher.second_link("worker-consume", 0);
        Self { reading: Some(reading), ..publisher }
    }

    /// For operators.
    pub fn operator(settings: Settings) -> Self {
        let publisher = Self::publisher(Settings { routes: None, ..settings }, "operator-publish");
        let reading = publisher.second_link("operator-read", 0);
        Self { reading: Some(reading), ..publisher }
    }

    fn second_link(&self, purpose: &'static str, lanes: usize) -> Link {
        // Only the first link declares the topology.
        let (_, nothing) = watch::channel(None);
        Link::start(self.settings.clone(), nothing, self.metrics.clone(), purpose, lanes)
    }

    /// Waits until the broker is connected and the topology is declared, without a time limit.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unusable`] as soon as no address can be used, for another reason than an outage.
    pub async fn connected(&self) -> Result<(), QueueError> {
        self.publishing.clone().connected().await?;
        match self.reading.clone() {
            Some(reading) => reading.connected().await,
            None => Ok(()),
        }
    }

    /// Closes the connections for good, as soon as nothing uses them any more.
    pub async fn close(self) {
        let links = [self.keeping, self.reading, Some(self.publishing)];
        join_all(links.into_iter().flatten().map(Link::close)).await;
    }

    /// The connection that reads, if it stands.
    fn reader(&self) -> Result<Arc<Session>, QueueError> {
        let link = self.reading.as_ref().unwrap_or(&self.publishing);
        link.now().ok_or(QueueError::Disconnected)
    }

    /// Puts an event into the queue of unrouted events, even if a destination subscribes to it
    /// now.
    pub async fn leave_unrouted(&self, sealed: &Sealed) -> Result<(), QueueError> {
        let (properties, body) = (message::new(sealed).map_err(failed)?, sealed.body.clone());
        self.send(&self.publishing, &self.names.unrouted(), &sealed.route, body, properties).await
    }

    /// Puts an event into the archive only. An event whose source is not archived is stored
    /// nowhere.
    pub async fn archive(&self, sealed: &Sealed) -> Result<(), QueueError> {
        let (properties, body) = (message::new(sealed).map_err(failed)?, sealed.body.clone());
        let exchange = self.names.archived();
        self.send(&self.publishing, &exchange, &sealed.route, body, properties).await
    }

    async fn send(
        &self,
        link: &Link,
        exchange: &str,
        key: &str,
        body: Bytes,
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let session = link.now().ok_or(QueueError::Disconnected)?;
        if session.blocked() {
            return Err(QueueError::Blocked);
        }
        if session.stalled() {
            return Err(QueueError::Stalled);
        }
        // The broker would close the channel, and the outcome of everything in flight on it would
        // be unknown.
        if body.len() > session.largest() {
            return Err(QueueError::TooLarge(session.largest()));
        }
        let (done, confirmed) = oneshot::channel();
        let (exchange, key) = (short(exchange).map_err(failed)?, short(key).map_err(failed)?);
        session.put(Job { exchange, key, body, properties, done })?;
        let (started, limit) = (Instant::now(), self.settings.publish_timeout);
        match timeout(limit, confirmed).await {
            Ok(Ok(result)) => {
                self.metrics.confirm_seconds.observe(started.elapsed().as_secs_f64());
                result
            }
            // The lane ended with its connection.
            Ok(Err(_)) => Err(QueueError::Lost),
            Err(_) if session.blocked() => Err(QueueError::Blocked),
            Err(_) => Err(QueueError::Timeout(limit)),
        }
    }

    /// What was declared last, or will be first.
    fn shards(&self, destination: &str) -> Shards {
        let declared = self.publishing.declared().borrow().clone();
        let routes = self.routes.borrow().clone();
        let known = declared.or_else(|| routes.map(|routes| Declared::nothing(&routes)));
        known.map_or(Shards { current: 1, highest: 1 }, |known| known.shards(destination))
    }

    /// Declares exchanges and queues again, because one of them no longer exists.
    pub(crate) async fn declare_again(&self) -> Result<(), QueueError> {
        let routes = self.routes.borrow().clone().ok_or(QueueError::Disconnected)?;
        let session = self.reader()?;
        let declare = async {
            // This link resends what has to be resent.
            let publishing = self.publishing.now().ok_or(QueueError::Disconnected)?;
            publishing.look_for_unrouted(&routes).await?;
            declare(&session.connection, &self.names, &self.settings, &routes)
                .await
                .map_err(failed)?;
            Ok(())
        };
        timeout(DECLARE, declare).await.map_err(|_| QueueError::Timeout(DECLARE))?
    }

    async fn send_message(
        &self,
        exchange: &str,
        key: &str,
        message: &Message,
        error: Option<&str>,
    ) -> Result<(), QueueError> {
        let properties = message::properties(message, error).map_err(failed)?;
        let sealed = &message.sealed;
        self.send(&self.publishing, exchange, key, sealed.body.clone(), properties).await
    }
}

impl Subscribe for Amqp {
    const SYSTEM: &'static str = "rabbitmq";

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    async fn subscribe(&self, routes: Routes) {
        let declarations = self.publishing.declarations();
        self.routes.send_replace(Some(routes.clone()));
        if routes.archive.sources.is_empty() {
            // No event would ever show that it works again.
            self.archive_works();
        }
        if self.publishing.now().is_none() {
            return;
        }
        if timeout(DECLARE, declarations.until(&routes)).await.is_err() {
            tracing::warn!("the routes are not declared yet: retrying");
        }
    }
}

impl Publish for Amqp {
    async fn publish(&self, sealed: &Sealed) -> Result<(), QueueError> {
        if !self.archives(sealed) {
            let properties = message::new(sealed).map_err(failed)?;
            let (exchange, body) = (self.names.ingress_exchange(), sealed.body.clone());
            return self.send(&self.publishing, &exchange, &sealed.route, body, properties).await;
        }
        match self.held.way(TRIAL) {
            Way::Archived => {}
            Way::Trial => {
                tokio::spawn(self.clone().try_archive(sealed.clone()));
                return self.publish_without_archive(sealed).await;
            }
            Way::Without => return self.publish_without_archive(sealed).await,
        }
        if !self.publish_archived(sealed).await? {
            return Ok(());
        }
        let session = self.publishing.now().ok_or(QueueError::Lost)?;
        match session.only_archived().await? {
            true => Err(QueueError::Refused),
            false => Ok(()),
        }
    }

    async fn keep(&self, refused: &Sealed) -> Result<(), QueueError> {
        let properties = message::new(refused).map_err(failed)?;
        let (link, queue) = (&self.keeping, self.names.refused(&self.settings.refused));
        let link = link.as_ref().ok_or(QueueError::Disconnected)?;
        self.send(link, &self.names.internal(), &queue, refused.body.clone(), properties).await
    }

    fn ready(&self) -> bool {
        self.publishing.now().is_some_and(|session| session.ready())
    }
}

impl Process for Amqp {
    type Consumer = AmqpConsumer;

    fn consume(&self, destination: &str, prefetch: u16) -> AmqpConsumer {
        let link = self.reading.as_ref().unwrap_or(&self.publishing).clone();
        AmqpConsumer::new(link, self.clone(), destination.into(), prefetch)
    }

    async fn retry(
        &self,
        destination: &str,
        message: &Message,
        delay: Duration,
    ) -> Result<(), QueueError> {
        let rung = ladder::rung(Delay::Near(delay)).as_millis();
        let exchange = self.names.delay(u64::try_from(rung).unwrap_or(u64::MAX));
        self.send_message(&exchange, destination, message, None).await
    }

    fn delay(&self, wanted: Delay) -> Duration {
        ladder::rung(wanted)
    }

    async fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
        error: Option<&str>,
    ) -> Result<(), QueueError> {
        let dead = Message { dead: Some(reason), ..message.clone() };
        self.send_message(&self.names.dead(), destination, &dead, error).await
    }

    fn ready(&self) -> bool {
        let connected = |link: &Link| link.now().is_some();
        connected(&self.publishing) && self.reading.as_ref().is_none_or(connected)
    }
}

impl Fetch for Amqp {
    type Fetcher = AmqpFetcher;

    fn fetcher(&self, destination: &str) -> AmqpFetcher {
        let link = self.reading.as_ref().unwrap_or(&self.publishing).clone();
        AmqpFetcher::new(link, self.names.clone(), destination)
    }
}

impl Amqp {
    fn queue_of(&self, place: Place<'_>) -> String {
        match place {
            Place::Dead(destination) => self.names.dead_queue(destination),
            Place::Unrouted => self.names.unrouted(),
            Place::Work(destination, shard) => self.names.work_queue(destination, shard),
            Place::Refused => self.names.refused(&self.settings.refused),
        }
    }
}

impl Operate for Amqp {
    type Walk = AmqpWalk;
    type Archived = AmqpArchived;

    fn blocked(&self) -> Option<String> {
        self.publishing.now()?.blocked_by()
    }

    async fn archived(
        &self,
        archive: &Archive,
        from: Timestamp,
    ) -> Result<AmqpArchived, QueueError> {
        AmqpArchived::start(&*self.reader()?, &self.names.archive(archive), from).await
    }

    async fn archived_after(
        &self,
        archive: &Archive,
        position: &str,
    ) -> Result<AmqpArchived, QueueError> {
        AmqpArchived::after(&*self.reader()?, &self.names.archive(archive), position).await
    }

    async fn walk(&self, place: Place<'_>) -> Result<AmqpWalk, QueueError> {
        AmqpWalk::start(&*self.reader()?, self.queue_of(place)).await
    }

    async fn depth(&self, place: Place<'_>) -> Result<u64, QueueError> {
        walk::depth(&*self.reader()?, self.queue_of(place)).await
    }

    async fn reroute(&self, sealed: &Sealed) -> Result<(), QueueError> {
        let properties = message::new(sealed).map_err(failed)?;
        let (exchange, body) = (self.names.events(), sealed.body.clone());
        self.send(&self.publishing, &exchange, &sealed.route, body, properties).await
    }

    async fn requeue(&self, destination: &str, message: &Message) -> Result<(), QueueError> {
        self.send_message(&self.names.retry(), destination, message, None).await
    }
}
