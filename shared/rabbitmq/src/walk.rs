//! Looking through a queue without taking anything from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Consumer};
use tokio::time::{Instant, sleep, timeout};

use super::link::Session;
use super::message::read;
use super::topology::short;
use super::{Message, QueueError, Receipt, Walk};
use crate::error::failed;

/// How long the broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A queue that sends nothing for so long is asked whether it has anything.
const QUIET: Duration = Duration::from_millis(250);
/// Number of messages per fetch; it bounds the memory of a walk.
const WINDOW: u16 = 64;
/// So many are given back by one command. RabbitMQ reads its messages from a map, which has an
/// order up to 32 (`rabbit_fifo`).
const TOGETHER: u32 = 32;
/// So many commands are sent before the broker is asked whether the queue has what they gave
/// back. Beyond 32 that the queue has not answered, RabbitMQ collects what a channel asks for
/// and changes its order (`SOFT_LIMIT` in `rabbit_fifo_client`).
const UNANSWERED: usize = 16;
/// How long what was given back may take to be in the queue again.
const BACK: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);
const REPLY_SUCCESS: u16 = 200;

/// One look through one queue; see [`Walk`]. It has a channel of its own, whose end gives
/// all back that is still held.
///
/// What is held uses up a consumer's prefetch. So a consumer is cancelled when it holds a
/// window, which takes nothing from what is held, and the next one goes on behind it.
///
/// RabbitMQ puts what comes back before all that never left the queue, and behind what came back
/// earlier. So a walk that comes to its [`Walk::finish`] goes on behind all that has come back
/// before, and then gives back a few at a time; the end of a channel does so in no order.
pub struct AmqpWalk {
    channel: Channel,
    queue: ShortString,
    consumer: Option<Consumer>,
    /// What one consumer has brought is a window, and so is a single get: how many there were.
    windows: u32,
    /// The consumer's.
    window: u32,
    /// Held, and not given out yet: others may stand before it.
    ahead: Option<Delivery>,
    held: Held,
    /// Whether the last one had been brought before, to this or another channel.
    again: bool,
}

/// Gives back all that is held up to this tag.
struct Command {
    last: u64,
    count: u32,
}

/// What was brought and not acknowledged: delivery tags, in the queue's order, each with the
/// number of its window.
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

    /// The next one, in the queue's order; `None` at its end.
    async fn following(&mut self) -> Result<Option<Delivery>, QueueError> {
        let waited = match self.ahead.is_some() {
            true => None,
            false => self.brought(QUIET).await?,
        };
        if waited.is_some() {
            return Ok(waited);
        }
        if self.ahead.is_none() {
            // Only this tells that a queue is empty, and not slow.
            let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions::default());
            if let Some(got) = in_time(get).await? {
                self.windows += 1;
                self.hold(&got.delivery, self.windows);
                self.ahead = Some(got.delivery);
            }
            // What was on its way to the consumer is here when this is answered.
            self.ready().await?;
        }
        // What the consumer has may stand before what was got, or behind it.
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

    /// The next one that a consumer brings within this time.
    async fn brought(&mut self, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        loop {
            if self.is_full() {
                self.cancel().await?;
            }
            let consumer = match &mut self.consumer {
                Some(consumer) => consumer,
                None => {
                    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
                    let opening = self.channel.basic_consume(
                        self.queue.clone(),
                        short("").map_err(failed)?,
                        options,
                        none,
                    );
                    let consumer = in_time(opening).await?;
                    self.windows += 1;
                    self.window = self.windows;
                    self.consumer.insert(consumer)
                }
            };
            match timeout(wait, consumer.next()).await {
                Err(_) => return Ok(None),
                // The broker ended it.
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

    /// Whether the consumer holds all that it may: only then nothing is on its way. What comes
    /// to one that is cancelled meanwhile, the broker takes back, out of order.
    fn is_full(&self) -> bool {
        let (held, window) = (held(&self.held), usize::from(WINDOW));
        // Those that were got stand between.
        held.values().rev().take(2 * window).filter(|of| **of == self.window).count() == window
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let Some(consumer) = self.consumer.take() else { return Ok(()) };
        in_time(self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await
    }

    /// Gives back what is held, so that it stands in the queue as before. When others take from
    /// the queue meanwhile, there is no order to keep.
    async fn give_back(&mut self) -> Result<(), QueueError> {
        // Behind what came back before, and until nothing is on its way.
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

    /// How many are in the queue and held by nobody.
    async fn ready(&self) -> Result<u32, QueueError> {
        waiting(&self.channel, self.queue.clone()).await
    }
}

/// How many are in a queue and held by nobody.
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

/// The right to acknowledge one message that a walk holds; see [`Receipt`].
pub struct WalkReceipt {
    acker: Acker,
    tag: u64,
    held: Held,
    /// Keeps it open: closing it would give the message back.
    _channel: Channel,
}

impl Receipt for WalkReceipt {
    async fn ack(self) {
        held(&self.held).remove(&self.tag);
        if !matches!(self.acker.ack(BasicAckOptions::default()).await, Ok(true)) {
            tracing::debug!("an acknowledgement came too late; the message comes again");
        }
    }

    async fn give_back(self) {
        held(&self.held).remove(&self.tag);
        let options = BasicNackOptions { requeue: true, multiple: false };
        // A failure means that the connection is gone, which gives it back as well.
        let _ = self.acker.nack(options).await;
    }
}
