//! The queue on RabbitMQ, 3.10 and later.

mod consumer;
mod ladder;
mod lane;
mod link;
mod message;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Consumer, Delay, Message, Operate, Process, Publish, QueueError, Receipt};
use crate::lifecycle::DeadReason;
use crate::seal::Sealed;
use crate::secret::Secret;
pub use consumer::{AmqpConsumer, AmqpReceipt};
use lane::Job;
use link::Link;
pub use topology::Subscriber;
use topology::{Names, short};

/// How long looking through dead letters may take.
const LOOK: Duration = Duration::from_secs(60);

/// What the RabbitMQ side needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One or more `amqp://` or `amqps://` URLs, tried in turn.
    pub urls: Vec<Secret>,
    /// The prefix of every exchange and queue.
    pub namespace: String,
    /// The destinations and what they subscribe to.
    pub subscribers: Vec<Subscriber>,
    /// How long a publish may take until its confirm.
    pub publish_timeout: Duration,
    /// Channels that publish, each with up to 64 messages under way.
    pub lanes: usize,
}

/// RabbitMQ behind the seam. One connection publishes; consuming has one of its own, so
/// that a broker which blocks publishers still hears acknowledgements.
#[derive(Clone)]
pub struct Amqp {
    settings: Arc<Settings>,
    names: Names,
    publishing: Link,
    consuming: Option<Link>,
}

impl Amqp {
    /// For the ingress and the operator. Connects in the background.
    pub fn publisher(settings: Settings, purpose: &'static str) -> Self {
        let settings = Arc::new(settings);
        Self {
            names: Names::new(&settings.namespace),
            publishing: Link::start(settings.clone(), purpose, settings.lanes),
            consuming: None,
            settings,
        }
    }

    /// For a worker.
    pub fn processor(settings: Settings) -> Self {
        let publisher = Self::publisher(settings, "worker-publish");
        let consuming = Link::start(publisher.settings.clone(), "worker-consume", 0);
        Self { consuming: Some(consuming), ..publisher }
    }

    /// Waits until the broker is connected and the topology declared.
    pub async fn connected(&self) {
        let mut publishing = self.publishing.clone();
        publishing.session().await;
        if let Some(mut consuming) = self.consuming.clone() {
            consuming.session().await;
        }
    }

    /// Closes the connections for good, once nothing uses them any more.
    pub async fn close(self) {
        if let Some(consuming) = self.consuming {
            consuming.close().await;
        }
        self.publishing.close().await;
    }

    async fn send(
        &self,
        exchange: &str,
        key: &str,
        body: Bytes,
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let session = self.publishing.now().ok_or(QueueError::Disconnected)?;
        if session.blocked() {
            return Err(QueueError::Blocked);
        }
        if session.stalled() {
            return Err(QueueError::Stalled);
        }
        let (done, confirmed) = oneshot::channel();
        let (exchange, key) = (short(exchange)?, short(key)?);
        session.put(Job { exchange, key, body, properties, done })?;
        let limit = self.settings.publish_timeout;
        match timeout(limit, confirmed).await {
            Ok(Ok(result)) => result,
            // The lane is gone with its connection.
            Ok(Err(_)) => Err(QueueError::Lost),
            Err(_) if session.blocked() => Err(QueueError::Blocked),
            Err(_) => Err(QueueError::Timeout(limit)),
        }
    }

    async fn send_message(
        &self,
        exchange: &str,
        key: &str,
        message: &Message,
        dead: Option<DeadReason>,
    ) -> Result<(), QueueError> {
        let Message { sealed, attempt, generation } = message;
        let properties = message::properties(sealed, *attempt, *generation, dead)?;
        self.send(exchange, key, sealed.body.clone(), properties).await
    }
}

impl Publish for Amqp {
    async fn publish(&self, sealed: &Sealed) -> Result<(), QueueError> {
        let properties = message::properties(sealed, 1, 0, None)?;
        let exchange = self.names.entrance();
        self.send(&exchange, &sealed.route, sealed.body.clone(), properties).await
    }

    fn ready(&self) -> bool {
        self.publishing.now().is_some_and(|session| session.ready())
    }
}

impl Process for Amqp {
    type Consumer = AmqpConsumer;

    fn consume(&self, destination: &str, prefetch: u16) -> AmqpConsumer {
        let link = self.consuming.as_ref().unwrap_or(&self.publishing).clone();
        AmqpConsumer::new(link, self.names.work_queue(destination), prefetch)
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

    fn delay(&self, wish: Delay) -> Duration {
        ladder::rung(wish)
    }

    async fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
    ) -> Result<(), QueueError> {
        self.send_message(&self.names.dead(), destination, message, Some(reason)).await
    }

    fn ready(&self) -> bool {
        let connected = |link: &Link| link.now().is_some();
        connected(&self.publishing) && self.consuming.as_ref().is_none_or(connected)
    }
}

impl Operate for Amqp {
    type Receipt = AmqpReceipt;

    async fn find_dead(
        &self,
        destination: &str,
        limit: usize,
        wanted: impl Fn(&Message) -> bool + Send + Sync,
    ) -> Result<Option<(Message, AmqpReceipt)>, QueueError> {
        let session = self.publishing.now().ok_or(QueueError::Disconnected)?;
        let queue = self.names.dead_queue(destination);
        let look = async {
            let channel = session.channel().await?;
            let mut last = None;
            let mut found = None;
            for _ in 0..limit {
                let options = BasicGetOptions::default();
                let Some(got) = channel.basic_get(short(&queue)?, options).await? else {
                    break;
                };
                let mut delivery = got.delivery;
                let message = message::read(&mut delivery);
                if wanted(&message) {
                    found = Some((message, AmqpReceipt::new(delivery.acker, channel.clone())));
                    break;
                }
                last = Some(delivery.delivery_tag);
            }
            // One return for all that were only looked at: each return counts.
            if let Some(tag) = last {
                let options = BasicNackOptions { requeue: true, multiple: true };
                channel.basic_nack(tag, options).await?;
            }
            Ok::<_, QueueError>(found)
        };
        timeout(LOOK, look).await.map_err(|_| QueueError::Timeout(LOOK))?
    }

    async fn requeue(&self, destination: &str, message: &Message) -> Result<(), QueueError> {
        self.send_message(&self.names.retry(), destination, message, None).await
    }
}

impl From<lapin::Error> for QueueError {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.to_string())
    }
}
