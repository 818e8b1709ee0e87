//! Looks through a queue without removing anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Consumer};
use tokio::time::{Instant, sleep, timeout};

use super::message::read;
use super::session::{Session, consume};
use super::topology::short;
use super::{Message, QueueError, Receipt, Walk};
use crate::error::failed;

/// Time limit for one answer of the broker.
const ANSWER: Duration = Duration::from_secs(10);
/// After this long without a message, the broker is asked whether the queue holds any.
const QUIET: Duration = Duration::from_millis(250);
/// Number of messages per fetch. It bounds the memory of a walk.
const WINDOW: u16 = 64;
/// Number of messages returned with one command. RabbitMQ reads them from an Erlang map, which is
/// ordered up to 32 entries (`rabbit_fifo`).
const TOGETHER: u32 = 32;
/// Number of such commands before the broker is asked whether the queue has the messages back.
/// With more than 32 unanswered commands, RabbitMQ buffers what a channel sends and changes the
/// order (`SOFT_LIMIT` in `rabbit_fifo_client`).
const UNANSWERED: usize = 16;
/// Time limit for returned messages to be in the queue again.
const BACK: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);
const REPLY_SUCCESS: u16 = 200;

/// One look through one queue. See [`Walk`]. It has its own channel. When the channel closes, the
/// broker takes back all messages that it still holds.
///
/// Held messages use up a consumer's prefetch count. So a consumer that holds a full window is
/// cancelled, which keeps its messages, and the next consumer continues behind it.
///
/// RabbitMQ puts returned messages before those that never left the queue, and behind those that
/// were returned earlier. So [`Walk::finish`] first reads on behind everything that was returned
/// before, and then returns a few messages at a time. Closing the channel would return them in no
/// order.
pub struct AmqpWalk {
    channel: Channel,
    queue: ShortString,
    consumer: Option<Consumer>,
    /// The messages of one consumer are a window, and so is a single `basic.get`. This is their
    /// number.
    windows: u32,
    /// Number of messages that the consumer delivered.
    window: u32,
    /// Held and not handed out yet: other messages may stand before it.
    ahead: Option<Delivery>,
    held: Held,
    /// Whether the last one had been delivered before, to this or another channel.
    again: bool,
}

/// Returns all held messages up to this tag.
struct Command {
    last: u64,
    count: u32,
}

/// Delivered and not acknowledged: delivery tags in the queue's order, each with the number of its
/// window.
type Held = Arc<Mutex<BTreeMap<u64, u32>>>;

impl AmqpWalk {
    pub(super) async fn start(session: &Session, queue: String) -> Result<Self, QueueError> {
        let channel = session.channel().await?;
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await.map_err(failed)?;
        Ok(Self {
            channel,
            queue: short(&queue).map_err(failed)?,
            consumer: None,
            windows: 0,
            window: 0,
            ahead: None,
            held: Held::default(),
            again: false,
        })
    }

    /// The next message in the queue's order. `None` at the end of the queue.
    async fn following(&mut self) -> Result<Option<Delivery>, QueueError> {
        let waited = match self.ahead.is_some() {
            true => None,
            false => self.brought(QUIET).await?,
        };
        if waited.is_some() {
            return Ok(waited);
        }
        if self.ahead.is_none() {
            // Only a `basic.get` shows that a queue is empty and not slow.
            let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions::default());
            if let Some(got) = in_time(get).await? {
                self.windows += 1;
                self.hold(&got.delivery, self.windows);
                self.ahead = Some(got.delivery);
            }
            // When this is answered, everything on its way to the consumer has arrived.
            self.ready().await?;
        }
        // The consumer's messages may stand before or behind the one from `basic.get`.
        let brought = self.brought(Duration::ZERO).await?;
        Ok(match (brought, self.ahead.take()) {
            (Some(brought), Some(ahead)) if ahead.delivery_tag < brought.delivery_tag => {
                self.ahead = Some(brought);
                Some(ahead)
            }
            (Some(brought), ahead) => {
                self.ahead = ahead;
                Some(brought)
            }
            (None, ahead) => ahead,
        })
    }

    /// The next message that a consumer delivers within this time.
    async fn brought(&mut self, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        loop {
            if self.is_full() {
                self.cancel().await?;
            }
            let consumer = match &mut self.consumer {
                Some(consumer) => consumer,
                None => {
                    let opening =
                        consume(&self.channel, self.queue.as_str(), FieldTable::default());
                    let consumer = timeout(ANSWER, opening)
                        .await
                        .map_err(|_| QueueError::Timeout(ANSWER))??;
                    self.windows += 1;
                    self.window = self.windows;
                    self.consumer.insert(consumer)
                }
            };
            match timeout(wait, consumer.next()).await {
                Err(_) => return Ok(None),
                // The broker ended the consumer.
                Ok(None) => self.consumer = None,
                Ok(Some(delivery)) => {
                    let delivery = delivery.map_err(failed)?;
                    self.hold(&delivery, self.window);
                    return Ok(Some(delivery));
                }
            }
        }
    }

    fn hold(&mut self, delivery: &Delivery, window: u32) {
        held(&self.held).insert(delivery.delivery_tag, window);
        self.again = delivery.redelivered;
    }

    /// Whether the consumer holds its full prefetch count. Only then is nothing on its way. The
    /// broker takes back what is on its way to a cancelled consumer, out of order.
    fn is_full(&self) -> bool {
        let (held, window) = (held(&self.held), usize::from(WINDOW));
        // Messages from `basic.get` stand between.
        held.values().rev().take(2 * window).filter(|of| **of == self.window).count() == window
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let Some(consumer) = self.consumer.take() else { return Ok(()) };
        in_time(self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await
    }

    /// Returns what is held, so that it stands in the queue as before. While others read the
    /// queue, there is no order to keep.
    async fn give_back(&mut self) -> Result<(), QueueError> {
        // Behind what was returned before, until nothing is on its way.
        while (self.again || !self.is_full()) && self.following().await?.is_some() {}
        self.cancel().await?;
        let commands = commands(&held(&self.held));
        let mut ready = self.ready().await?;
        for some in commands.chunks(UNANSWERED) {
            for Command { last, count } in some {
                let options = BasicNackOptions { multiple: true, requeue: true };
                in_time(self.channel.basic_nack(*last, options)).await?;
                ready = ready.saturating_add(*count);
            }
            let until = Instant::now() + BACK;
            while self.ready().await? < ready {
                if Instant::now() > until {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Number of messages that are in the queue and held by nobody.
    async fn ready(&self) -> Result<u32, QueueError> {
        waiting(&self.channel, self.queue.clone()).await
    }
}

/// Number of messages that are in a queue and held by nobody.
pub(super) async fn depth(session: &Session, queue: String) -> Result<u64, QueueError> {
    let channel = session.channel().await?;
    let depth = waiting(&channel, short(&queue).map_err(failed)?).await?;
    in_time(channel.close(REPLY_SUCCESS, short("done").map_err(failed)?)).await?;
    Ok(depth.into())
}

async fn waiting(channel: &Channel, queue: ShortString) -> Result<u32, QueueError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue, options, FieldTable::default());
    Ok(in_time(asked).await?.message_count())
}

fn commands(held: &BTreeMap<u64, u32>) -> Vec<Command> {
    let (mut commands, mut current) = (Vec::<Command>::new(), None);
    for (tag, window) in held {
        match commands.last_mut() {
            Some(command) if current == Some(window) && command.count < TOGETHER => {
                (command.last, command.count) = (*tag, command.count + 1);
            }
            _ => commands.push(Command { last: *tag, count: 1 }),
        }
        current = Some(window);
    }
    commands
}

fn held(held: &Held) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn in_time<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    timeout(ANSWER, asked).await.map_err(|_| QueueError::Timeout(ANSWER))?.map_err(failed)
}

impl Walk for AmqpWalk {
    type Receipt = WalkReceipt;

    async fn next(&mut self) -> Result<Option<(Message, WalkReceipt)>, QueueError> {
        Ok(self.following().await?.map(|mut delivery| {
            let (message, tag) = (read(&mut delivery), delivery.delivery_tag);
            let (acker, held) = (delivery.acker, Arc::clone(&self.held));
            (message, WalkReceipt { acker, tag, held, _channel: self.channel.clone() })
        }))
    }

    async fn finish(mut self) -> Result<(), QueueError> {
        self.give_back().await?;
        in_time(self.channel.close(REPLY_SUCCESS, short("done").map_err(failed)?)).await
    }
}

/// The right to acknowledge one message that a walk holds. See [`Receipt`].
pub struct WalkReceipt {
    acker: Acker,
    tag: u64,
    held: Held,
    /// Keeps the channel open: closing it would return the message.
    _channel: Channel,
}

impl Receipt for WalkReceipt {
    async fn ack(self) {
        held(&self.held).remove(&self.tag);
        if !matches!(self.acker.ack(BasicAckOptions::default()).await, Ok(true)) {
            tracing::debug!("an acknowledgement came too late; the broker redelivers the message");
        }
    }

    async fn give_back(self) {
        held(&self.held).remove(&self.tag);
        let options = BasicNackOptions { requeue: true, multiple: false };
        // A failure means that the connection is gone, which returns the message as well.
        let _ = self.acker.nack(options).await;
    }
}
