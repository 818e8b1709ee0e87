//! Reads the archive, which is a stream.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use tokio::time::timeout;
use zentra_core::clock::Timestamp;
use zentra_core::seal::Sealed;

use super::message::read;
use super::session::{Session, consume};
use super::topology::short;
use super::{Archived, QueueError};
use crate::error::failed;

/// A stream does not signal its end. It counts as read when it delivers nothing for this long.
const END: Duration = Duration::from_secs(2);
/// Prefetch count.
const WINDOW: u16 = 256;

/// The offset of a message in its stream.
const OFFSET: &str = "x-stream-offset";

/// Reads one archive. See [`Archived`].
pub struct AmqpArchived {
    consumer: Consumer,
    /// Name of the stream. Its offsets are meaningless in another one.
    stream: String,
    /// Offset of the last event that was returned, or behind which reading starts.
    last: Option<i64>,
}

impl AmqpArchived {
    pub(super) async fn start(
        session: &Session,
        stream: &str,
        from: Timestamp,
    ) -> Result<Self, QueueError> {
        let offset = match from.secs() {
            0 => AMQPValue::LongString(LongString::from("first")),
            // Reading starts at the chunk that contains this time, so a few earlier messages come
            // first.
            secs => AMQPValue::Timestamp(secs),
        };
        Self::at(session, stream, offset, None).await
    }

    pub(super) async fn after(
        session: &Session,
        stream: &str,
        position: &str,
    ) -> Result<Self, QueueError> {
        let unknown = || QueueError::NoSuchPosition(position.to_owned());
        let (offset, of) = position.split_once('@').ok_or_else(unknown)?;
        let offset: i64 = offset.parse().map_err(|_| unknown())?;
        if of != stream || offset < 0 {
            return Err(unknown());
        }
        let next = AMQPValue::LongLongInt(offset.saturating_add(1));
        Self::at(session, stream, next, Some(offset)).await
    }

    async fn at(
        session: &Session,
        stream: &str,
        offset: AMQPValue,
        last: Option<i64>,
    ) -> Result<Self, QueueError> {
        let channel = session.channel().await?;
        // Streams require a prefetch count.
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await.map_err(failed)?;
        let mut arguments = FieldTable::default();
        arguments.insert(short(OFFSET).map_err(failed)?, offset);
        let consumer = consume(&channel, stream, arguments).await?;
        Ok(Self { consumer, stream: stream.to_owned(), last })
    }
}

/// The offset of a delivery from a stream.
fn offset(delivery: &Delivery) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get(OFFSET)? {
        AMQPValue::LongLongInt(offset) => Some(*offset),
        _ => None,
    }
}

impl Archived for AmqpArchived {
    async fn next(&mut self) -> Result<Option<Sealed>, QueueError> {
        loop {
            let mut delivery = match timeout(END, self.consumer.next()).await {
                Err(_) => return Ok(None),
                Ok(None) => return Err(QueueError::Lost),
                Ok(Some(delivery)) => delivery.map_err(failed)?,
            };
            // Removes nothing: on a stream, an acknowledgement only makes room for the next
            // message.
            delivery.acker.ack(BasicAckOptions::default()).await.map_err(failed)?;
            let at = offset(&delivery);
            // Reading starts with a chunk, which can have earlier ones.
            if self.last.is_some_and(|last| at.is_some_and(|at| at <= last)) {
                continue;
            }
            self.last = at;
            return Ok(Some(read(&mut delivery).sealed));
        }
    }

    fn position(&self) -> Option<String> {
        Some(format!("{}@{}", self.last?, self.stream))
    }
}
