//! Fetching messages of a work queue one by one, without fetching ahead.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicGetOptions;
use tokio::time::timeout;
use zentra_config::MAX_SHARDS;
use zentra_store::queue::{Fetcher, Message, QueueError};

use super::acks::{self, Ends};
use super::consumer::AmqpReceipt;
use super::link::Link;
use super::message::read;
use super::session::Session;
use super::topology::{Names, short};
use super::unrouted::exists;
use crate::error::{failed, is_missing};

/// Time limit for one answer of the broker.
const ANSWER: Duration = Duration::from_secs(10);

/// Total size of the bodies after which no more messages are fetched at a time.
const MOST_BYTES: usize = 4 << 20;

/// Fetches with `basic.get`: a consumer would be sent more messages than were asked for, and each
/// message that goes back counts as a delivery. See [`Fetcher`].
pub struct AmqpFetcher {
    link: Link,
    names: Names,
    destination: String,
    current: Option<Current>,
}

struct Current {
    session: Arc<Session>,
    channel: Channel,
    ends: Ends,
    /// The first queue, and those of a time when the destination had several.
    queues: Vec<String>,
}

impl AmqpFetcher {
    pub(super) fn new(link: Link, names: Names, destination: &str) -> Self {
        Self { link, names, destination: destination.to_owned(), current: None }
    }

    async fn open(&mut self) -> Result<(), QueueError> {
        let session = self.link.now().ok_or(QueueError::Disconnected)?;
        let is_same = |known: &Current| Arc::ptr_eq(&known.session, &session);
        if self.current.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let mut queues = vec![self.names.work_queue(&self.destination, 0)];
        for shard in 1..MAX_SHARDS {
            let queue = self.names.work_queue(&self.destination, shard);
            if exists(&session, &queue).await? {
                queues.push(queue);
            }
        }
        let channel = session.channel().await?;
        let (ends, _) = acks::start(channel.clone());
        self.current = Some(Current { session, channel, ends, queues });
        Ok(())
    }
}

impl Current {
    async fn get(&self, queue: &str) -> Result<Option<(Message, AmqpReceipt)>, QueueError> {
        let name = short(queue).map_err(failed)?;
        let get = self.channel.basic_get(name, BasicGetOptions::default());
        // The connection has a watch of its own: perhaps only this queue is away.
        let got = timeout(ANSWER, get).await.map_err(|_| QueueError::Timeout(ANSWER))?;
        let got = got.map_err(|error| match is_missing(&error) {
            true => QueueError::Missing(queue.to_owned()),
            false => failed(error),
        })?;
        self.session.hear();
        Ok(got.map(|mut got| {
            let message = read(&mut got.delivery);
            (message, AmqpReceipt::new(got.delivery, self.ends.clone()))
        }))
    }

    /// Adds what is ready, up to `most` messages.
    async fn fetch(
        &self,
        most: usize,
        fetched: &mut Vec<(Message, AmqpReceipt)>,
    ) -> Result<(), QueueError> {
        let mut bytes = 0;
        for queue in &self.queues {
            while fetched.len() < most && bytes < MOST_BYTES {
                let Some(message) = self.get(queue).await? else { break };
                bytes += message.0.sealed.body.len();
                fetched.push(message);
            }
        }
        Ok(())
    }
}

impl Fetcher for AmqpFetcher {
    type Receipt = AmqpReceipt;

    async fn fetch(&mut self, most: usize) -> Result<Vec<(Message, AmqpReceipt)>, QueueError> {
        timeout(ANSWER, self.open()).await.map_err(|_| QueueError::Timeout(ANSWER))??;
        let Some(current) = &self.current else { return Ok(Vec::new()) };
        let mut fetched = Vec::new();
        let done = current.fetch(most, &mut fetched).await;
        if done.is_err() {
            self.current = None;
        }
        match done {
            Err(error) if fetched.is_empty() => Err(error),
            _ => Ok(fetched),
        }
    }
}
