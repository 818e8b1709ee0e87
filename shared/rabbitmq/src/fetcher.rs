//! Fetching messages of a work queue one by one, without fetching ahead.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicGetOptions;
use tokio::time::timeout;
use zentra_store::queue::{Fetcher, Message, QueueError};

use super::acks::{self, Ends};
use super::consumer::AmqpReceipt;
use super::link::Link;
use super::message::read;
use super::session::Session;
use super::topology::short;
use crate::error::{failed, is_missing};

/// Time limit for one answer of the broker.
const ANSWER: Duration = Duration::from_secs(10);

/// Fetches with `basic.get`: a consumer would be sent more messages than were asked for, and each
/// message that goes back counts as a delivery. See [`Fetcher`].
pub struct AmqpFetcher {
    link: Link,
    queue: String,
    current: Option<Current>,
}

struct Current {
    session: Arc<Session>,
    channel: Channel,
    ends: Ends,
}

impl AmqpFetcher {
    pub(super) fn new(link: Link, queue: String) -> Self {
        Self { link, queue, current: None }
    }

    async fn open(&mut self) -> Result<&Current, QueueError> {
        let session = self.link.now().ok_or(QueueError::Disconnected)?;
        let is_same =
            |known: &Current| Arc::ptr_eq(&known.session, &session) && !session.gone.is_cancelled();
        let current = match self.current.take().filter(is_same) {
            Some(current) => current,
            None => {
                let channel = session.channel().await?;
                let (ends, _) = acks::start(channel.clone());
                Current { session, channel, ends }
            }
        };
        Ok(self.current.insert(current))
    }

    async fn get(&mut self) -> Result<Option<(Message, AmqpReceipt)>, QueueError> {
        let queue = self.queue.clone();
        let name = short(&queue).map_err(failed)?;
        let Current { session, channel, ends } = self.open().await?;
        let get = channel.basic_get(name, BasicGetOptions::default());
        let Ok(got) = timeout(ANSWER, get).await else {
            session.discard();
            return Err(QueueError::Timeout(ANSWER));
        };
        let got = got.map_err(|error| match is_missing(&error) {
            true => QueueError::Missing(queue),
            false => failed(error),
        })?;
        session.hear();
        Ok(got.map(|mut got| {
            let message = read(&mut got.delivery);
            (message, AmqpReceipt::new(got.delivery, ends.clone()))
        }))
    }
}

impl Fetcher for AmqpFetcher {
    type Receipt = AmqpReceipt;

    async fn fetch(&mut self, most: usize) -> Result<Vec<(Message, AmqpReceipt)>, QueueError> {
        let mut fetched = Vec::new();
        while fetched.len() < most {
            match self.get().await {
                Ok(Some(message)) => fetched.push(message),
                Ok(None) => break,
                Err(error) => {
                    self.current = None;
                    match fetched.is_empty() {
                        true => return Err(error),
                        false => break,
                    }
                }
            }
        }
        Ok(fetched)
    }
}
