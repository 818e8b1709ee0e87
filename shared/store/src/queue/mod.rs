//! The queue seam: it carries sealed events from the ingress to the workers.
//!
//! Each user has its own trait: the ingress publishes ([`Publish`]), a worker processes
//! ([`Process`]), consumers pull ([`Fetch`]), an operator requeues ([`Operate`]).

pub mod metrics;

use std::future::Future;
use std::time::Duration;

use prometheus::Registry;

use crate::storage::StorageError;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;

/// A message in a work or dead-letter queue. A foreign message has an empty envelope and seal, and
/// can't be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sealed event.
    pub sealed: Sealed,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Number of requeues, replays and releases before.
    pub generation: u32,
    /// Reason in a dead-letter queue. Not sealed: it is only additional information.
    pub dead: Option<DeadReason>,
    /// Proves attempt, generation and destination; see
    /// [`countersign`](crate::delivery::countersign). `None` for a new event.
    pub countersignature: Option<String>,
}

impl Message {
    /// The message of a new event.
    pub fn new(sealed: Sealed) -> Self {
        Self { sealed, attempt: 1, generation: 0, dead: None, countersignature: None }
    }
}

/// How long a message is deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// The nearest delay that the queue supports.
    Near(Duration),
    /// At least this long.
    AtLeast(Duration),
}

/// Errors of the queue. It is unknown whether a failed publish arrived, so a copy must be harmless.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no connection.
    #[error("the broker is not connected")]
    Disconnected,
    /// The broker has a memory or disk alarm and takes no messages.
    #[error("the broker blocks publishers: it is short of memory or disk")]
    Blocked,
    /// Confirms are overdue. Publishes fail until one arrives.
    #[error("the broker is not confirming: it is stuck or overloaded")]
    Stalled,
    /// Too many publishes are waiting.
    #[error("too many messages are waiting for the broker")]
    Overloaded,
    /// The connection was lost while the message was in flight.
    #[error("the broker connection was lost before the confirm")]
    Lost,
    /// No confirm in time.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The broker rejected the message: the queue is full, or there is no route.
    #[error("the broker rejected the message")]
    Refused,
    /// The message is larger than the broker's `max_message_size`.
    #[error("the broker accepts messages up to {0} bytes (its max_message_size)")]
    TooLarge(usize),
    /// The queue doesn't exist; no program has declared it yet.
    #[error("there is no such queue: {0}")]
    Missing(String),
    /// Another program has taken the only message of this queue and not yet returned it.
    #[error("another program is reading queue {0}: run the command again")]
    Held(String),
    /// The archive has no such position, or it is one in a former archive.
    #[error("the archive has no position {0}")]
    NoSuchPosition(String),
    /// The broker refuses this program or cannot be verified. A retry helps only after the
    /// configuration or the broker's settings have changed.
    #[error("RabbitMQ cannot be used: {0}")]
    Unusable(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// Another error of the client library.
    #[error("the broker connection failed: {0}")]
    Broker(String),
}

/// Bounds of the queue of refused callbacks. Beyond them the oldest are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBounds {
    /// Number of callbacks.
    pub count: u32,
    /// Total size of their bodies in bytes.
    pub bytes: usize,
    /// Maximum age.
    pub age: Duration,
}

/// A destination and its subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Name of the destination.
    pub destination: String,
    /// Topic patterns over `source.event_type`.
    pub patterns: Vec<String>,
    /// Number of work queues, from 1. A queue in a file has no shards and ignores it.
    pub shards: u16,
}

impl Subscriber {
    /// Whether a route (`source.event_type`) matches, by the rules of AMQP topics: `*` is one word,
    /// `#` any number of words.
    pub fn takes(&self, route: &str) -> bool {
        takes(&self.patterns, route)
    }
}

/// Whether a route matches one of these patterns.
pub fn takes(patterns: &[String], route: &str) -> bool {
    fn fits(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern, words) {
            (["#", rest @ ..], _) => {
                fits(rest, words) || (!words.is_empty() && fits(pattern, &words[1..]))
            }
            (["*", rest @ ..], [_, words @ ..]) => fits(rest, words),
            ([word, rest @ ..], [first, words @ ..]) => word == first && fits(rest, words),
            ([], []) => true,
            _ => false,
        }
    }
    let words: Vec<&str> = route.split('.').collect();
    let mut patterns = patterns.iter();
    patterns.any(|pattern| fits(&pattern.split('.').collect::<Vec<_>>(), &words))
}

/// The archive of accepted events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Sources whose events are archived.
    pub sources: Vec<String>,
    /// Maximum size in bytes. Beyond it the oldest events are dropped.
    pub bytes: u64,
    /// Maximum age.
    pub age: Duration,
}

/// Routes of accepted events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// The destinations.
    pub subscribers: Vec<Subscriber>,
    /// The archive.
    pub archive: Archive,
}

/// What a long-running program uses; its configuration can change.
pub trait Subscribe {
    /// The attribute `messaging.system` of spans, such as `rabbitmq`.
    const SYSTEM: &'static str;

    /// Replaces the routes. New queues exist when this returns; old queues keep their messages.
    /// Without a connection, it happens when there is one.
    fn subscribe(&self, routes: Routes) -> impl Future<Output = ()> + Send;

    /// Registers the queue's metrics.
    fn register(&self, registry: &Registry) -> prometheus::Result<()>;
}

/// What the ingress uses.
pub trait Publish: Subscribe + Clone + Send + Sync + 'static {
    /// Publishes an event. Returns when it is durable.
    fn publish(&self, sealed: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Stores a refused callback, sealed by [`zentra_core::refused::RefusedRecord::seal`], in a
    /// bounded queue. Doesn't delay events.
    fn keep(&self, refused: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Whether a publish would probably be confirmed now: connected, not blocked, confirming.
    fn ready(&self) -> bool;
}

/// What a worker uses. Each method returns when the message is durable in its new place, so the old
/// one can be acknowledged.
pub trait Process: Subscribe + Clone + Send + Sync + 'static {
    /// Consumes one destination's work queue.
    type Consumer: Consumer;

    /// Starts to consume with up to `prefetch` messages in progress.
    fn consume(&self, destination: &str, prefetch: u16) -> Self::Consumer;

    /// Defers a message. The caller gets the delay from [`Process::delay`] first, so that the
    /// history can have it.
    fn retry(
        &self,
        destination: &str,
        message: &Message,
        delay: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The delay that [`Process::retry`] will use for this request.
    fn delay(&self, wanted: Delay) -> Duration;

    /// Moves a message to its destination's dead-letter queue, with the last error as a header.
    fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
        error: Option<&str>,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Whether the broker is connected.
    fn ready(&self) -> bool;
}

/// A stream of messages that survives broker restarts.
pub trait Consumer: Send + 'static {
    /// Acknowledges one message.
    type Receipt: Receipt;

    /// The next message. Waits without limit, across reconnects. Can be dropped at any time. `None`
    /// after [`Consumer::stop`], when no message is left.
    fn next(&mut self) -> impl Future<Output = Option<(Message, Self::Receipt)>> + Send;

    /// Sets how many messages are processed at a time, at most as many as at the start. At a change
    /// what was fetched and not returned by [`Consumer::next`] goes back at once, so that other
    /// workers can take it. With 0 nothing is fetched; do not call `next` then. `waiting` of the
    /// messages in progress wait for something slow: that many more are fetched.
    fn set_room(&mut self, room: usize, waiting: usize) -> impl Future<Output = ()> + Send;

    /// Stops fetching. Messages that are already here are still returned by [`Consumer::next`].
    fn stop(&mut self) -> impl Future<Output = ()> + Send;

    /// Returns when all acknowledgements have reached the broker. Called when no receipt is left.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// The right to acknowledge one message. If it is dropped unused, the message is redelivered when
/// the connection ends.
pub trait Receipt: Send + 'static {
    /// Acknowledges the message: its next holder has confirmed it. A failure is harmless: the
    /// redelivered message is recognised as a copy.
    fn ack(self) -> impl Future<Output = ()> + Send;

    /// Returns the message to the queue.
    fn give_back(self) -> impl Future<Output = ()> + Send;
}

/// What hands out messages on request, without fetching ahead.
pub trait Fetch: Process {
    /// Fetches from one destination's work queue.
    type Fetcher: Fetcher;

    /// A fetcher. It connects when it is first used.
    fn fetcher(&self, destination: &str) -> Self::Fetcher;
}

/// Fetches messages of one work queue.
pub trait Fetcher: Send + 'static {
    /// Acknowledges one message.
    type Receipt: Receipt;

    /// Takes up to `most` messages that are ready now: fewer if the queue has no more. It does not
    /// wait for messages. Others don't get them until they are given back. Must not be dropped
    /// before it has returned: what it took would stay hidden until the connection ends.
    ///
    /// # Errors
    /// If nothing was taken.
    fn fetch(
        &mut self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<(Message, Self::Receipt)>, QueueError>> + Send;
}

/// A queue that operators read.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A destination's dead letters.
    Dead(&'a str),
    /// Refused callbacks.
    Refused,
    /// Accepted events without a subscriber.
    Unrouted,
    /// One of a destination's work queues, from 0. A queue in a file has only the first. Read it
    /// rarely: each read counts as a delivery, and RabbitMQ dead-letters a message after 100.
    Work(&'a str, u16),
}

/// What operators use.
pub trait Operate: Send + Sync + 'static {
    /// The broker's alarm, if there is one: why it takes no messages.
    fn blocked(&self) -> Option<String>;

    /// Reads a queue.
    type Walk: Walk;

    /// Reads the archive.
    type Archived: Archived;

    /// Starts to read a queue from its head.
    fn walk(&self, place: Place<'_>)
    -> impl Future<Output = Result<Self::Walk, QueueError>> + Send;

    /// Number of messages that are ready in a queue.
    fn depth(&self, place: Place<'_>) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Starts to read the archive from this time on. Some earlier events can be included.
    fn archived(
        &self,
        archive: &Archive,
        from: Timestamp,
    ) -> impl Future<Output = Result<Self::Archived, QueueError>> + Send;

    /// Starts to read the archive behind a position of [`Archived::position`].
    ///
    /// # Errors
    /// [`QueueError::NoSuchPosition`] if it is not a position in this archive.
    fn archived_after(
        &self,
        archive: &Archive,
        position: &str,
    ) -> impl Future<Output = Result<Self::Archived, QueueError>> + Send;

    /// Routes an event to its current subscribers, and returns when it is durable. It isn't
    /// archived again.
    fn reroute(&self, sealed: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Publishes a message to its destination's work queue, and returns when it is durable.
    fn requeue(
        &self,
        destination: &str,
        message: &Message,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Reads a queue message by message. Messages that were read are hidden from others meanwhile, and
/// stay in the queue unless their receipt is acknowledged.
pub trait Walk: Send {
    /// Holds one message.
    type Receipt: Receipt;

    /// The next message; `None` at the end of the queue.
    fn next(
        &mut self,
    ) -> impl Future<Output = Result<Option<(Message, Self::Receipt)>, QueueError>> + Send;

    /// Releases all held messages, after acknowledgements have reached the broker.
    fn finish(self) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Reads the archive event by event. Removes nothing.
pub trait Archived: Send {
    /// The next event, oldest first; `None` at the end. It can be called again then, for events
    /// that were archived meanwhile. If it is dropped before it has returned, this reader can miss
    /// an event; a new one behind [`Archived::position`] misses none.
    fn next(&mut self) -> impl Future<Output = Result<Option<Sealed>, QueueError>> + Send;

    /// The position of the last event that [`Archived::next`] returned. `None` before the first one.
    fn position(&self) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_what_the_broker_would_route_to_it() {
        let takes = |pattern: &str, route: &str| {
            let patterns = vec![pattern.into()];
            Subscriber { destination: "d".into(), patterns, shards: 1 }.takes(route)
        };
        for (pattern, route) in [
            ("acme.#", "acme"),
            ("acme.#", "acme.a.b"),
            ("#", ""),
            ("#", "a.b.c"),
            ("*.charge.*", "stripe.charge.paid"),
            ("#.paid", "stripe.charge.paid"),
            ("a.#.z", "a.z"),
            ("a.#.#.z", "a.b.c.z"),
        ] {
            assert!(takes(pattern, route), "{pattern} {route}");
        }
        for (pattern, route) in [
            ("acme.*", "acme"),
            ("acme.*", "acme.a.b"),
            ("acme", "acme.a"),
            ("a.#.z", "a.b"),
            ("*", "a.b"),
            ("acme.#", "acme2.x"),
        ] {
            assert!(!takes(pattern, route), "{pattern} {route}");
        }
    }
}
