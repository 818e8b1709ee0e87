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

/// How long the broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A queue that sends nothing for so long is asked whether it has anything.
const QUIET: Duration = Duration::from_millis(250);
/// So many are fetched at a time: the memory that a walk may take.
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
    /// How many there have been. What one has brought is a window, and so is a single get.
    windows: u32,
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
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
        Ok(Self {
            channel,
            queue: short(&queue)?,
            consumer: None,
            windows: 0,
            held: Held::default(),
            again: false,
        })
    }

    /// The next one that a consumer brings; `None` if the queue is quiet.
    async fn brought(&mut self) -> Result<Option<Delivery>, QueueError> {
        loop {
            if self.is_full() {
                self.cancel().await?;
            }
            let consumer = match &mut self.consumer {
                Some(consumer) => consumer,
                None => {
                    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
                    let opening =
                        self.channel.basic_consume(self.queue.clone(), short("")?, options, none);
                    let consumer = in_time(opening).await?;
                    self.windows += 1;
                    self.consumer.insert(consumer)
                }
            };
            match timeout(QUIET, consumer.next()).await {
                Err(_) => return Ok(None),
                // The broker ended it.
                Ok(None) => self.consumer = None,
                Ok(Some(delivery)) => {
                    let delivery = delivery?;
                    self.hold(&delivery);
                    return Ok(Some(delivery));
                }
            }
        }
    }

    fn hold(&mut self, delivery: &Delivery) {
        held(&self.held).insert(delivery.delivery_tag, self.windows);
        self.again = delivery.redelivered;
    }

    /// Whether the consumer holds all that it may: only then nothing is on its way. What comes
    /// to one that is cancelled meanwhile, the broker takes back, out of order.
    fn is_full(&self) -> bool {
        let held = held(&self.held);
        let of_it = held.values().rev().take_while(|window| **window == self.windows);
        of_it.take(WINDOW.into()).count() == usize::from(WINDOW)
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let Some(consumer) = self.consumer.take() else { return Ok(()) };
        in_time(self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await
    }

    /// One by itself, from a queue that is quiet.
    async fn got(&mut self) -> Result<Option<Delivery>, QueueError> {
        let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions::default());
        let got = in_time(get).await?;
        if let Some(got) = &got {
            // It is held by itself: not with what came before, nor with what comes after it.
            self.cancel().await?;
            self.windows += 1;
            self.hold(&got.delivery);
        }
        Ok(got.map(|got| got.delivery))
    }

    /// Gives back what is held, so that it stands in the queue as before. When others take from
    /// the queue meanwhile, there is no order to keep.
    async fn give_back(&mut self) -> Result<(), QueueError> {
        // Behind what came back before, and until nothing is on its way.
        while (self.again || !self.is_full()) && self.brought().await?.is_some() {}
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
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(self.queue.clone(), options, FieldTable::default());
        Ok(in_time(asked).await?.message_count())
    }
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
    Ok(timeout(ANSWER, asked).await.map_err(|_| QueueError::Timeout(ANSWER))??)
}

impl Walk for AmqpWalk {
    type Receipt = WalkReceipt;

    async fn next(&mut self) -> Result<Option<(Message, WalkReceipt)>, QueueError> {
        let delivery = match self.brought().await? {
            Some(delivery) => Some(delivery),
            None => self.got().await?,
        };
        Ok(delivery.map(|mut delivery| {
            let (message, tag) = (read(&mut delivery), delivery.delivery_tag);
            let (acker, held) = (delivery.acker, Arc::clone(&self.held));
            (message, WalkReceipt { acker, tag, held, _channel: self.channel.clone() })
        }))
    }

    async fn finish(mut self) -> Result<(), QueueError> {
        self.give_back().await?;
        in_time(self.channel.close(REPLY_SUCCESS, short("done")?)).await
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
