//! Reads the archive, which is a stream.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
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

/// Reads one archive. See [`Archived`].
pub struct AmqpArchived(Consumer);

impl AmqpArchived {
    pub(super) async fn start(
        session: &Session,
        stream: &str,
        from: Timestamp,
    ) -> Result<Self, QueueError> {
        let channel = session.channel().await?;
        // Streams require a prefetch count.
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await.map_err(failed)?;
        let offset = match from.secs() {
            0 => AMQPValue::LongString(LongString::from("first")),
            // Reading starts at the chunk that contains this time, so a few earlier messages come
            // first.
            secs => AMQPValue::Timestamp(secs),
        };
        let mut arguments = FieldTable::default();
        arguments.insert(short("x-stream-offset").map_err(failed)?, offset);
        Ok(Self(consume(&channel, stream, arguments).await?))
    }
}

impl Archived for AmqpArchived {
    async fn next(&mut self) -> Result<Option<Sealed>, QueueError> {
        match timeout(END, self.0.next()).await {
            Err(_) => Ok(None),
            Ok(None) => Err(QueueError::Lost),
            Ok(Some(delivery)) => {
                let mut delivery = delivery.map_err(failed)?;
                // Removes nothing: on a stream, an acknowledgement only makes room for the next
                // message.
                delivery.acker.ack(BasicAckOptions::default()).await.map_err(failed)?;
                Ok(Some(read(&mut delivery).sealed))
            }
        }
    }
}
