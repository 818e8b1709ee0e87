//! Looking through a queue without taking anything from it.

use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use tokio::time::timeout;

use super::link::Session;
use super::message::read;
use super::topology::short;
use super::{AmqpReceipt, Message, QueueError, Walk};

/// How long the broker may take for one message.
const ANSWER: Duration = Duration::from_secs(10);
const REPLY_SUCCESS: u16 = 200;

/// One look through one queue; see [`Walk`]. It has a channel of its own, whose end gives
/// all back that is still held: one return for all, since each return counts.
pub struct AmqpWalk {
    channel: Channel,
    queue: ShortString,
}

impl AmqpWalk {
    pub(super) async fn start(session: &Session, queue: String) -> Result<Self, QueueError> {
        Ok(Self { channel: session.channel().await?, queue: short(&queue)? })
    }
}

impl Walk for AmqpWalk {
    type Receipt = AmqpReceipt;

    async fn next(&mut self) -> Result<Option<(Message, AmqpReceipt)>, QueueError> {
        let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions::default());
        let got = timeout(ANSWER, get).await.map_err(|_| QueueError::Timeout(ANSWER))??;
        Ok(got.map(|got| {
            let mut delivery = got.delivery;
            let message = read(&mut delivery);
            (message, AmqpReceipt::new(delivery.acker, self.channel.clone()))
        }))
    }

    async fn finish(self) -> Result<(), QueueError> {
        let close = self.channel.close(REPLY_SUCCESS, short("done")?);
        Ok(timeout(ANSWER, close).await.map_err(|_| QueueError::Timeout(ANSWER))??)
    }
}
