//! The queue seam: what carries sealed events from the ingress to the workers.
//!
//! One trait per user, so nobody sees more than it needs: the ingress publishes, a
//! worker processes, the operator re-queues. [`amqp`] is the RabbitMQ side.

pub mod metrics;

use std::future::Future;
use std::time::Duration;

use prometheus::Registry;

use crate::storage::StorageError;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;

/// A message in a work or dead-letter queue. A message that isn't ours has an empty
/// envelope and seal; nothing opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event as it travels.
    pub sealed: Sealed,
    /// Which attempt this message asks for, from 1.
    pub attempt: u32,
    /// How often an operator has re-queued the delivery.
    pub generation: u32,
    /// Why it is in a dead-letter queue. Not under the seal: it is believed of nothing else.
    pub dead: Option<DeadReason>,
    /// Proves attempt, generation and destination: see
    /// [`countersign`](crate::delivery::countersign). None on a new event.
    pub countersignature: Option<String>,
}

impl Message {
    /// Of a new event.
    pub fn new(sealed: Sealed) -> Self {
        Self { sealed, attempt: 1, generation: 0, dead: None, countersignature: None }
    }
}

/// How long a message is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// As near to this as the queue can do.
    Near(Duration),
    /// This or longer: until a lease has ended, or as the destination asked.
    AtLeast(Duration),
}

/// Why the queue didn't do what was asked. Whether a publish that failed has arrived
/// nevertheless is unknown; what follows must bear a copy.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no connection now.
    #[error("the broker is not connected")]
    Disconnected,
    /// The broker is out of memory or disk and takes no messages.
    #[error("the broker blocks publishers: it is short of memory or disk")]
    Blocked,
    /// Confirms are overdue, so no more is asked of the broker until one comes.
    #[error("the broker is not confirming: it is stuck or overloaded")]
    Stalled,
    /// More publishes wait than may.
    #[error("too many messages wait for the broker")]
    Overloaded,
    /// The connection was lost with the message under way.
    #[error("the broker connection was lost before the confirm")]
    Lost,
    /// No confirm within the time allowed.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The broker said no: the queue is full, or the message can't be routed.
    #[error("the broker refused the message")]
    Refused,
    /// The broker takes no message as large as this one (`max_message_size`).
    #[error("the broker takes messages up to {0} bytes (its max_message_size)")]
    TooLarge(usize),
    /// There is no such queue: no program has declared it yet.
    #[error("there is no such queue: {0}")]
    Missing(String),
    /// The storage did not take it.
    #[error(transparent)]
    Storage(StorageError),
    /// Anything else that the client library reports.
    #[error("the broker connection failed: {0}")]
    Broker(String),
}

/// What the queue of refused callbacks holds at most; beyond it the oldest go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBounds {
    /// Callbacks.
    pub count: u32,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// How long each is kept.
    pub age: Duration,
}

/// A destination and what it subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The destination's name.
    pub destination: String,
    /// Topic patterns over `source.event_type`.
    pub patterns: Vec<String>,
}

impl Subscriber {
    /// Whether an event of this route (`source.event_type`) comes to it, by the rules of
    /// an AMQP topic: `*` is one word, `#` any number.
    pub fn takes(&self, route: &str) -> bool {
        takes(&self.patterns, route)
    }
}

/// The same, by these patterns.
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

/// A log of what was accepted, for replay and reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The sources whose events it keeps.
    pub sources: Vec<String>,
    /// At most so many bytes; beyond it the oldest go.
    pub bytes: u64,
    /// How long events are kept.
    pub age: Duration,
}

/// Where accepted events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// The destinations.
    pub subscribers: Vec<Subscriber>,
    /// The archive.
    pub archive: Archive,
}

/// What a long-running program needs, whose config can change.
pub trait Subscribe {
    /// Routes events so from now on, and no longer as before; new queues are there when
    /// this returns, and old ones stay with what they hold. Without a connection, all
    /// this happens as soon as there is one.
    fn subscribe(&self, routes: Routes) -> impl Future<Output = ()> + Send;

    /// Shows the queue's own metrics.
    fn register(&self, registry: &Registry) -> prometheus::Result<()>;
}

/// What the ingress needs.
pub trait Publish: Subscribe + Clone + Send + Sync + 'static {
    /// Returns when the event is durable: from then on it is not lost.
    fn publish(&self, sealed: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Keeps a refused callback, sealed by [`zentra_core::refused::RefusedRecord::seal`], in a bounded
    /// place that is in no event's way.
    fn keep(&self, refused: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Whether a publish would be confirmed now, as far as can be known: connected, not
    /// blocked, and confirming.
    fn ready(&self) -> bool;
}

/// What a worker needs. Each method returns when the message is durable in its new
/// place, so that the old one may be acknowledged.
pub trait Process: Subscribe + Clone + Send + Sync + 'static {
    /// Reads one destination's work queue.
    type Consumer: Consumer;

    /// Starts to consume, for as many as `prefetch` messages to be handled at a time.
    fn consume(&self, destination: &str, prefetch: u16) -> Self::Consumer;

    /// Sets a message aside for its destination. The delay that it will have is chosen
    /// before, by [`Process::delay`], so that it can be written down first.
    fn retry(
        &self,
        destination: &str,
        message: &Message,
        delay: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The delay that [`Process::retry`] can really do for this wish.
    fn delay(&self, wanted: Delay) -> Duration;

    /// Puts a message into its destination's dead-letter queue, with the last error for
    /// whoever looks at the queue itself.
    fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
        error: Option<&str>,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Whether the broker is connected now.
    fn ready(&self) -> bool;
}

/// A stream of messages that outlives broker restarts.
pub trait Consumer: Send + 'static {
    /// Acknowledges one message.
    type Receipt: Receipt;

    /// The next message. Waits as long as it takes, over reconnects too; may be dropped
    /// at any time. `None` after [`Consumer::stop`], when nothing is left to handle.
    fn next(&mut self) -> impl Future<Output = Option<(Message, Self::Receipt)>> + Send;

    /// How many of the messages that are being handled wait for something that may take long: as
    /// many more are fetched, so that they hold up no others.
    fn set_waiting(&mut self, waiting: usize) -> impl Future<Output = ()> + Send;

    /// Takes no new messages from the broker. Those already here still come by
    /// [`Consumer::next`].
    fn stop(&mut self) -> impl Future<Output = ()> + Send;

    /// Returns when the acknowledgements of all receipts that are used up have reached the
    /// broker. To be called once no receipt is left.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// The right to acknowledge one message. Dropped unused, the message comes again once
/// the connection ends.
pub trait Receipt: Send + 'static {
    /// Gives the message up: the next holder has confirmed it. A failure is harmless:
    /// the message comes again and is recognised as a copy.
    fn ack(self) -> impl Future<Output = ()> + Send;

    /// Gives the message back, to come again.
    fn give_back(self) -> impl Future<Output = ()> + Send;
}

/// A queue that an operator looks through.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A destination's dead letters.
    Dead(&'a str),
    /// Refused callbacks.
    Refused,
    /// Accepted events that nobody subscribed to.
    Unrouted,
    /// What waits for a destination's workers. To be looked at seldom, and not far: each look
    /// counts as a delivery, and after a hundred of them RabbitMQ gives a message up.
    Work(&'a str),
}

/// What the operator needs.
pub trait Operate: Send + Sync + 'static {
    /// Why no message is taken now, as far as that is known: an alarm of the broker.
    fn blocked(&self) -> Option<String>;

    /// Looks through a queue.
    type Walk: Walk;

    /// Reads the archive.
    type Archived: Archived;

    /// Starts to look through a queue, from its head.
    fn walk(&self, place: Place<'_>)
    -> impl Future<Output = Result<Self::Walk, QueueError>> + Send;

    /// How many messages wait there, held by nobody.
    fn depth(&self, place: Place<'_>) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Starts to read the archive: what was accepted from this time on, perhaps with some that
    /// came before.
    fn archived(
        &self,
        archive: &Archive,
        from: Timestamp,
    ) -> impl Future<Output = Result<Self::Archived, QueueError>> + Send;

    /// Routes an event anew to those who subscribe to it now, and returns when it is
    /// durable. It isn't archived again.
    fn reroute(&self, sealed: &Sealed) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Puts a message into its destination's work queue and returns when it is durable.
    fn requeue(
        &self,
        destination: &str,
        message: &Message,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Looks through a queue, message by message. What is looked at is held back from others
/// meanwhile, and stays in the queue unless its receipt is acknowledged.
pub trait Walk: Send {
    /// Holds one message.
    type Receipt: Receipt;

    /// The next message; `None` at the end of the queue.
    fn next(
        &mut self,
    ) -> impl Future<Output = Result<Option<(Message, Self::Receipt)>, QueueError>> + Send;

    /// Lets go of all that is held, once acknowledgements have reached the broker.
    fn finish(self) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// Reads an archive, event by event. Takes nothing out of it.
pub trait Archived: Send {
    /// The next event, oldest first; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Sealed>, QueueError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_what_the_broker_would_route_to_it() {
        let takes = |pattern: &str, route: &str| {
            let patterns = vec![pattern.into()];
            Subscriber { destination: "d".into(), patterns }.takes(route)
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
