//! Looking through a queue without taking anything from it.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use super::link::Session;
use super::message::read;
use super::topology::short;
use super::{AmqpReceipt, Message, QueueError, Walk};

/// How long the broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A queue that sends nothing for so long is asked whether it has anything.
const QUIET: Duration = Duration::from_millis(250);
/// So many are fetched at a time: the memory that a walk may take.
const WINDOW: u16 = 64;
const REPLY_SUCCESS: u16 = 200;

/// One look through one queue; see [`Walk`]. It has a channel of its own, whose end gives
/// all back that is still held: one return for all, since each return counts.
///
/// What is held uses up a consumer's prefetch. So a consumer is cancelled when it has brought
/// a window, which takes nothing from what is held, and the next one goes on behind it. The
/// broker doesn't give back in the order of the queue: what a walk leaves may stand in another
/// order afterwards (seen on 3.10.8; after single gets it does so wholly).
pub struct AmqpWalk {
    channel: Channel,
    queue: ShortString,
    window: Option<Window>,
}

struct Window {
    consumer: Consumer,
    brought: u16,
}

impl AmqpWalk {
    pub(super) async fn start(session: &Session, queue: String) -> Result<Self, QueueError> {
        let channel = session.channel().await?;
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
        Ok(Self { channel, queue: short(&queue)?, window: None })
    }

    /// The next one that a consumer brings; `None` if the queue is quiet.
    async fn brought(&mut self) -> Result<Option<Delivery>, QueueError> {
        loop {
            let window = match &mut self.window {
                Some(window) => window,
                None => {
                    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
                    let opening =
                        self.channel.basic_consume(self.queue.clone(), short("")?, options, none);
                    let consumer = in_time(opening).await?;
                    self.window.insert(Window { consumer, brought: 0 })
                }
            };
            match timeout(QUIET, window.consumer.next()).await {
                Err(_) => return Ok(None),
                // Cancelled, and all that it had brought is taken.
                Ok(None) => self.window = None,
                Ok(Some(delivery)) => {
                    window.brought = window.brought.saturating_add(1);
                    if window.brought == WINDOW {
                        let tag = window.consumer.tag();
                        in_time(self.channel.basic_cancel(tag, BasicCancelOptions::default()))
                            .await?;
                    }
                    return Ok(Some(delivery?));
                }
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    Ok(timeout(ANSWER, asked).await.map_err(|_| QueueError::Timeout(ANSWER))??)
}

impl Walk for AmqpWalk {
    type Receipt = AmqpReceipt;

    async fn next(&mut self) -> Result<Option<(Message, AmqpReceipt)>, QueueError> {
        let delivery = match self.brought().await? {
            Some(delivery) => Some(delivery),
            None => {
                let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions::default());
                in_time(get).await?.map(|got| got.delivery)
            }
        };
        Ok(delivery.map(|mut delivery| {
            let message = read(&mut delivery);
            (message, AmqpReceipt::new(delivery.acker, self.channel.clone()))
        }))
    }

    async fn finish(self) -> Result<(), QueueError> {
        in_time(self.channel.close(REPLY_SUCCESS, short("done")?)).await
    }
}
