//! Consuming a destination's work queues over any number of connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Ready, pending, ready};
use futures_util::stream::{Chain, Map, Once, SelectAll, once};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::acks::{self, BATCH, Ended, Ends};
use super::link::{Declared, Link};
use super::message::read;
use super::session::{Session, consume};
use super::shards::Shards;
use super::topology::Names;
use super::unrouted::exists;
use super::{Amqp, Consumer, Message, QueueError, Receipt};
use crate::error::failed;

/// Pause after a consumer ended although its connection stands (its queue was deleted).
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// Reads a destination's work queues. See [`Consumer`].
pub struct AmqpConsumer {
    link: Link,
    /// Used to declare a queue again after it was deleted.
    amqp: Amqp,
    /// Changes of the number of queues.
    declared: watch::Receiver<Option<Declared>>,
    destination: String,
    prefetch: u16,
    /// Number of messages that are processed at a time now.
    room: u16,
    current: Option<Current>,
    opening: Option<Opening>,
    stopped: bool,
}

/// Consumers that are being opened or changed. A task does it, because whoever waits for a message
/// may stop waiting at any time. Opening again each time would count as a delivery of each message
/// that was fetched.
type Opening = JoinHandle<Result<Current, QueueError>>;

/// What a consumer at the broker yields.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
enum Fetched {
    Delivery(lapin::Result<Delivery>),
    /// The end of the consumer with this tag. Nothing follows.
    End(ShortString),
}

type Fetching =
    Chain<Map<lapin::Consumer, fn(lapin::Result<Delivery>) -> Fetched>, Once<Ready<Fetched>>>;

/// The consumers of one channel.
struct Current {
    session: Arc<Session>,
    channel: Channel,
    shards: Shards,
    queues: Vec<String>,
    /// Number of messages that are processed at a time by these consumers.
    room: u16,
    consumers: SelectAll<Fetching>,
    /// Consumer tags in layers: a layer has one consumer for each queue.
    layers: Vec<Vec<ShortString>>,
    ends: Ends,
    acknowledging: JoinHandle<()>,
}

impl Current {
    async fn open(
        session: Arc<Session>,
        amqp: &Amqp,
        destination: &str,
        room: u16,
    ) -> Result<Self, QueueError> {
        let shards = amqp.shards(destination);
        let queues = queues(&session, &amqp.names, destination, shards).await?;
        let channel = session.channel().await?;
        let (ends, acknowledging) = acks::start(channel.clone());
        let mut current = Self {
            session,
            channel,
            shards,
            queues,
            room,
            consumers: SelectAll::new(),
            layers: Vec::new(),
            ends,
            acknowledging,
        };
        current.consume().await?;
        Ok(current)
    }

    /// Consumes other queues from now on.
    async fn follow(
        mut self,
        names: &Names,
        destination: &str,
        shards: Shards,
    ) -> Result<Self, QueueError> {
        self.queues = queues(&self.session, names, destination, shards).await?;
        self.shards = shards;
        self.change(self.room).await?;
        Ok(self)
    }

    /// Consumes with this room from now on. What was fetched before goes back.
    async fn change(&mut self, room: u16) -> Result<(), QueueError> {
        self.room = room;
        while !self.layers.is_empty() {
            self.cancel_last().await?;
        }
        // They end behind what was on its way.
        while let Some(fetched) = self.consumers.next().await {
            let Fetched::Delivery(fetched) = fetched else { continue };
            let fetched = fetched.map_err(failed)?;
            AmqpReceipt::new(fetched, self.ends.clone()).give_back().await;
        }
        if room == 0 {
            return Ok(());
        }
        self.consume().await
    }

    /// Adds a layer. The queues of the current number share the [`window`]; those of former numbers
    /// are empty soon. The first queue has room for all, because after a change it holds the backlog.
    async fn consume(&mut self) -> Result<(), QueueError> {
        self.layers.push(Vec::new());
        let share = window(self.room).div_ceil(self.shards.current);
        for (at, queue) in self.queues.iter().enumerate() {
            let prefetch = if at == 0 { share.max(self.room) } else { share };
            let options = BasicQosOptions::default();
            self.channel.basic_qos(prefetch, options).await.map_err(failed)?;
            let consumer = consume(&self.channel, queue, FieldTable::default()).await?;
            let tag = consumer.tag();
            self.layers.last_mut().into_iter().for_each(|layer| layer.push(tag.clone()));
            let end = once(ready(Fetched::End(tag)));
            let delivery: fn(_) -> _ = Fetched::Delivery;
            self.consumers.push(consumer.map(delivery).chain(end));
        }
        Ok(())
    }

    /// Removes a layer. Messages that are already being processed stay.
    async fn cancel_last(&mut self) -> Result<(), QueueError> {
        for tag in self.layers.pop().unwrap_or_default() {
            let options = BasicCancelOptions::default();
            self.channel.basic_cancel(tag, options).await.map_err(failed)?;
        }
        Ok(())
    }

    /// The next delivery. `None` when a consumer has ended that was not cancelled here, or all have.
    async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        loop {
            match self.consumers.next().await? {
                Fetched::Delivery(delivery) => return Some(delivery),
                Fetched::End(tag) if self.layers.iter().flatten().any(|other| *other == tag) => {
                    return None;
                }
                Fetched::End(_) => {}
            }
        }
    }
}

/// What happens next.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
enum Next {
    Delivery(lapin::Result<Delivery>),
    /// The connection or a queue is gone, or nothing is left.
    Ended,
    /// The number of queues may be another one.
    Declared,
}

impl AmqpConsumer {
    pub(super) fn new(link: Link, amqp: Amqp, destination: String, prefetch: u16) -> Self {
        let (room, declared) = (prefetch, amqp.publishing.declared());
        let (current, opening, stopped) = (None, None, false);
        Self { link, amqp, declared, destination, prefetch, room, current, opening, stopped }
    }

    /// The connection does not answer any more: the broker redelivers what came over it.
    fn give_up(&mut self) {
        if let Some(current) = self.current.take() {
            let destination = &self.destination;
            tracing::warn!(destination, after = ?ANSWER, "the broker does not answer: reconnecting");
            current.session.discard();
        }
    }

    fn open(&self, session: Arc<Session>) -> Opening {
        let (amqp, destination) = (self.amqp.clone(), self.destination.clone());
        let room = self.room.max(1);
        let given_up = session.clone();
        let opening = async move { Current::open(session, &amqp, &destination, room).await };
        tokio::spawn(answered(given_up, opening))
    }

    /// Consumes the queues that were declared meanwhile.
    fn follow(&mut self) {
        let shards = self.amqp.shards(&self.destination);
        if let Some(current) = self.current.take_if(|current| current.shards != shards) {
            let (names, destination) = (self.amqp.names.clone(), self.destination.clone());
            let given_up = current.session.clone();
            let following = async move { current.follow(&names, &destination, shards).await };
            self.opening = Some(tokio::spawn(answered(given_up, following)));
        }
    }

    /// Waits for consumers that are being opened. Can be dropped at any time.
    async fn opened(&mut self) -> Result<(), QueueError> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        let opened = opening.await;
        self.opening = None;
        self.current = Some(opened.unwrap_or(Err(QueueError::Lost))?);
        Ok(())
    }

    /// Declares a queue again that was deleted, or waits before the next attempt.
    async fn recover(&self, error: &QueueError) {
        tracing::warn!(destination = self.destination, %error, "cannot consume: retrying");
        if let QueueError::Missing(queue) = error {
            match self.amqp.declare_again().await {
                Ok(()) => {
                    tracing::warn!(queue, "the queue was deleted: declared it again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue was deleted and cannot be declared again")
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn changed(&mut self, changed: Result<Option<Result<(), QueueError>>, Elapsed>) {
        match changed {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                tracing::debug!(destination = self.destination, %error, "cannot change the consumers");
                self.current = None;
            }
            Ok(None) => self.current = None,
            // The broker may have created a consumer that nobody reads.
            Err(_) => self.give_up(),
        }
    }

    async fn following(&mut self) -> Next {
        let Some(current) = &mut self.current else { return Next::Ended };
        let session = current.session.clone();
        tokio::select! {
            biased;
            // A connection that is given up can stay open for as long as a heartbeat.
            () = session.gone.cancelled() => Next::Ended,
            () = declared(&mut self.declared), if !self.stopped => Next::Declared,
            next = current.next() => next.map_or(Next::Ended, Next::Delivery),
        }
    }
}

/// The queues to consume: those of former counts only while they exist.
async fn queues(
    session: &Session,
    names: &Names,
    destination: &str,
    shards: Shards,
) -> Result<Vec<String>, QueueError> {
    let name = |shard| names.work_queue(destination, shard);
    let mut queues: Vec<String> = (0..shards.current).map(name).collect();
    for queue in (shards.current..shards.highest).map(name) {
        if exists(session, &queue).await? {
            queues.push(queue);
        }
    }
    Ok(queues)
}

/// Gives the connection up if the broker does not answer in time.
async fn answered(
    session: Arc<Session>,
    opening: impl Future<Output = Result<Current, QueueError>>,
) -> Result<Current, QueueError> {
    match timeout(ANSWER, session.gone.run_until_cancelled(opening)).await {
        Ok(opened) => opened.unwrap_or(Err(QueueError::Lost)),
        Err(_) => {
            session.discard();
            Err(QueueError::Timeout(ANSWER))
        }
    }
}

/// Waits for the next declaration.
async fn declared(declared: &mut watch::Receiver<Option<Declared>>) {
    if declared.changed().await.is_err() {
        // The link is closed.
        pending().await
    }
}

impl Consumer for AmqpConsumer {
    type Receipt = AmqpReceipt;

    async fn next(&mut self) -> Option<(Message, AmqpReceipt)> {
        loop {
            if self.opening.is_some() {
                if let Err(error) = self.opened().await {
                    self.recover(&error).await;
                }
                continue;
            }
            if self.current.is_none() {
                if self.stopped {
                    return None;
                }
                let session = self.link.session().await?;
                self.opening = Some(self.open(session));
                continue;
            }
            match self.following().await {
                Next::Delivery(Ok(mut delivery)) => {
                    let Some(Current { session, ends, .. }) = &self.current else { continue };
                    session.hear();
                    let message = read(&mut delivery);
                    return Some((message, AmqpReceipt::new(delivery, ends.clone())));
                }
                Next::Delivery(Err(error)) => {
                    tracing::debug!(destination = self.destination, %error, "consumer failed");
                    self.current = None;
                }
                Next::Declared => self.follow(),
                // What is in progress is still acknowledged on this channel.
                Next::Ended if self.stopped => return None,
                Next::Ended => self.current = None,
            }
        }
    }

    /// By other consumers: the prefetch count of an existing consumer cannot change.
    async fn set_room(&mut self, room: usize, waiting: usize) {
        let room = u16::try_from(room).unwrap_or(u16::MAX).min(self.prefetch);
        self.room = room;
        // Nobody asks for the next message meanwhile.
        if room == 0 {
            let _ = self.opened().await;
        }
        // With less room than at the start, messages that wait are few.
        let waiting = if room == self.prefetch { waiting } else { 0 };
        let wanted = (waiting + usize::from(room)).div_ceil(window(room).max(1).into());
        let Some(current) = &mut self.current else {
            return;
        };
        let is_same = room == current.room;
        // Not for each consumer that leaves: others may come.
        let keeps = waiting > 0 && current.layers.len() > wanted;
        if is_same && (keeps || current.layers.len() == wanted) {
            return;
        }
        let gone = current.session.gone.clone();
        let changed = async {
            if !is_same {
                current.change(room).await?;
            }
            while current.layers.len() < wanted {
                current.consume().await?;
            }
            while !keeps && current.layers.len() > wanted {
                current.cancel_last().await?;
            }
            Ok::<_, QueueError>(())
        };
        let changed = timeout(ANSWER, gone.run_until_cancelled(changed)).await;
        self.changed(changed);
    }

    async fn stop(&mut self) {
        self.stopped = true;
        let _ = self.opened().await;
        let Some(current) = &mut self.current else {
            return;
        };
        let cancelled = async {
            while !current.layers.is_empty() {
                current.cancel_last().await?;
            }
            Ok::<_, QueueError>(())
        };
        match timeout(ANSWER, cancelled).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.current = None,
            Err(_) => self.give_up(),
        }
    }

    async fn finish(self) {
        if let Some(Current { ends, acknowledging, .. }) = self.current {
            drop(ends);
            let _ = timeout(ANSWER, acknowledging).await;
        }
    }
}

/// The prefetch count for a number of messages that are processed at a time. It is above that
/// number: acknowledgements are sent late and together, and the broker needs a while to fill the
/// room that they make.
fn window(room: u16) -> u16 {
    room.saturating_add(room.min(2 * BATCH))
}

/// The right to acknowledge one delivery. See [`Receipt`]. The delivery is acknowledged by its
/// tag, together with others.
pub struct AmqpReceipt {
    acker: Acker,
    tag: u64,
    ends: Ends,
}

impl AmqpReceipt {
    pub(super) fn new(delivery: Delivery, ends: Ends) -> Self {
        Self { acker: delivery.acker, tag: delivery.delivery_tag, ends }
    }
}

impl Receipt for AmqpReceipt {
    async fn ack(self) {
        // If nobody receives this, the channel is gone and the broker redelivers the message.
        let _ = self.ends.send(Ended::Done(self.tag));
    }

    async fn give_back(self) {
        let options = BasicNackOptions { requeue: true, multiple: false };
        // A failure means that the connection is gone, which returns the message as well.
        let _ = self.acker.nack(options).await;
        // Only now may an acknowledgement be sent.
        let _ = self.ends.send(Ended::Passed(self.tag));
    }
}
