//! Consuming one work queue over any number of connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::acks::{self, BATCH, Ended, Ends};
use super::link::Link;
use super::message::read;
use super::session::Session;
use super::topology::short;
use super::{Amqp, Consumer, Message, QueueError, Receipt};
use crate::error::failed;

/// Pause after a consumer ended although its connection stands (its queue was deleted).
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// Reads a work queue. See [`Consumer`].
pub struct AmqpConsumer {
    link: Link,
    /// Used to declare the queue again after it was deleted.
    amqp: Amqp,
    queue: String,
    prefetch: u16,
    /// Number of messages that are processed at a time now.
    room: u16,
    current: Option<Current>,
    stopped: bool,
}

/// The consumers of one channel.
struct Current {
    session: Arc<Session>,
    channel: Channel,
    consumers: SelectAll<lapin::Consumer>,
    /// Consumer tags. Each may hold [`window`] unacknowledged messages.
    tags: Vec<ShortString>,
    ends: Ends,
    acknowledging: JoinHandle<()>,
}

impl Current {
    /// Consumes with this room from now on. What was fetched before goes back.
    async fn change(&mut self, queue: &str, room: u16) -> Result<(), QueueError> {
        while !self.tags.is_empty() {
            self.cancel_last().await?;
        }
        // It ends behind what was on its way.
        while let Some(fetched) = self.consumers.next().await {
            let fetched = fetched.map_err(failed)?;
            let receipt = AmqpReceipt {
                acker: fetched.acker,
                tag: fetched.delivery_tag,
                ends: self.ends.clone(),
            };
            receipt.give_back().await;
        }
        if room == 0 {
            return Ok(());
        }
        let options = BasicQosOptions::default();
        self.channel.basic_qos(window(room), options).await.map_err(failed)?;
        self.consume(queue).await
    }

    async fn consume(&mut self, queue: &str) -> Result<(), QueueError> {
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self
            .channel
            .basic_consume(short(queue).map_err(failed)?, short("").map_err(failed)?, options, none)
            .await
            .map_err(failed)?;
        self.tags.push(consumer.tag());
        self.consumers.push(consumer);
        Ok(())
    }

    /// Messages that are already being processed stay.
    async fn cancel_last(&mut self) -> Result<(), QueueError> {
        let Some(tag) = self.tags.pop() else { return Ok(()) };
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(failed)
    }
}

impl AmqpConsumer {
    pub(super) fn new(link: Link, amqp: Amqp, queue: String, prefetch: u16) -> Self {
        let room = prefetch;
        Self { link, amqp, queue, prefetch, room, current: None, stopped: false }
    }

    /// The connection does not answer any more: the broker redelivers what came over it.
    fn give_up(&mut self) {
        if let Some(current) = self.current.take() {
            tracing::warn!(queue = self.queue, after = ?ANSWER, "the broker does not answer: reconnecting");
            current.session.discard();
        }
    }

    /// Returns `None` when the link is closed for good.
    async fn open(&mut self) -> Option<Result<Current, QueueError>> {
        let session = self.link.session().await?;
        let opened = async {
            let channel = session.channel().await?;
            channel
                .basic_qos(window(self.room.max(1)), BasicQosOptions::default())
                .await
                .map_err(failed)?;
            let (ends, acknowledging) = acks::start(channel.clone());
            let (consumers, tags) = (SelectAll::new(), Vec::new());
            let session = session.clone();
            let mut current = Current { session, channel, consumers, tags, ends, acknowledging };
            current.consume(&self.queue).await?;
            Ok(current)
        };
        Some(match timeout(ANSWER, opened).await {
            Ok(result) => result,
            Err(_) => {
                session.discard();
                Err(QueueError::Timeout(ANSWER))
            }
        })
    }
}

impl Consumer for AmqpConsumer {
    type Receipt = AmqpReceipt;

    async fn next(&mut self) -> Option<(Message, AmqpReceipt)> {
        loop {
            if let Some(Current { session, consumers, ends, .. }) = &mut self.current {
                let next = tokio::select! {
                    biased;
                    // A connection that is given up can stay open for as long as a heartbeat.
                    () = session.gone.cancelled() => None,
                    next = consumers.next() => next,
                };
                match next {
                    Some(Ok(mut delivery)) => {
                        session.hear();
                        let message = read(&mut delivery);
                        let (acker, tag) = (delivery.acker, delivery.delivery_tag);
                        let receipt = AmqpReceipt { acker, tag, ends: ends.clone() };
                        return Some((message, receipt));
                    }
                    Some(Err(error)) => {
                        tracing::debug!(queue = self.queue, %error, "consumer failed")
                    }
                    // What is in progress is still acknowledged on this channel.
                    None if self.stopped => return None,
                    None => {}
                }
                self.current = None;
            }
            if self.stopped {
                return None;
            }
            match self.open().await? {
                Ok(opened) => self.current = Some(opened),
                Err(error) => {
                    tracing::warn!(queue = self.queue, %error, "cannot consume: retrying");
                    if matches!(error, QueueError::Missing(_)) {
                        match self.amqp.declare_again().await {
                            Ok(()) => {
                                tracing::warn!(
                                    queue = self.queue,
                                    "the queue was deleted: declared it again"
                                );
                                continue;
                            }
                            Err(error) => {
                                tracing::warn!(%error, "the queue was deleted and cannot be declared again")
                            }
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// By other consumers: the prefetch count of an existing consumer cannot change.
    async fn set_room(&mut self, room: usize, waiting: usize) {
        let room = u16::try_from(room).unwrap_or(u16::MAX).min(self.prefetch);
        let is_same = room == std::mem::replace(&mut self.room, room);
        // With less room than at the start, messages that wait are few.
        let waiting = if room == self.prefetch { waiting } else { 0 };
        let wanted = (waiting + usize::from(room)).div_ceil(window(room).max(1).into());
        let Some(current) = &mut self.current else {
            return;
        };
        // Not for each consumer that leaves: others may come.
        let keeps = waiting > 0 && current.tags.len() > wanted;
        if is_same && (keeps || current.tags.len() == wanted) {
            return;
        }
        let gone = current.session.gone.clone();
        let changed = async {
            if !is_same {
                current.change(&self.queue, room).await?;
            }
            while current.tags.len() < wanted {
                current.consume(&self.queue).await?;
            }
            while !keeps && current.tags.len() > wanted {
                current.cancel_last().await?;
            }
            Ok::<_, QueueError>(())
        };
        match timeout(ANSWER, gone.run_until_cancelled(changed)).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                tracing::debug!(queue = self.queue, %error, "cannot change the prefetch count");
                self.current = None;
            }
            Ok(None) => self.current = None,
            // The broker may have created a consumer that nobody reads.
            Err(_) => self.give_up(),
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
        let Some(current) = &mut self.current else {
            return;
        };
        let cancelled = async {
            while !current.tags.is_empty() {
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
