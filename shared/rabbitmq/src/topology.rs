//! Every exchange and queue, declared in one place, under one namespace.
//!
//! ```text
//! in ─▶ archived ─(sources)─▶ archive.<bounds> (stream)
//! in ─▶ events ─(subscriptions)─▶ work.<destination> ─(delivery limit)─▶ dead.<destination>
//! delay.<ms> (fanout) ─▶ delay.<ms> (queue, TTL) ─▶ retry ─(destination)─▶ work.<destination>
//! dead ─(destination)─▶ dead.<destination>      unroutable messages ─▶ unrouted
//! internal ─(queue)─▶ refused.<bounds> (refused callbacks), probe, applied
//! ```
//!
//! A destination with more than one work queue: see [`shards`](super::shards).
//!
//! Nothing uses the default exchange: permission for it is permission for every queue.
//!
//! Declaring a queue again with other arguments is an error (406), so arguments that may change
//! are part of the queue's name.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use serde::{Deserialize, Serialize};
use zentra_core::clock::millis;

use super::ladder::RUNGS;
use super::shards::{BUCKET, BUCKETS};
use super::{Archive, RefusedBounds, Routes, Settings, Subscriber};

/// Spreads the leaders of queues over the nodes. Without it, all are on the node that declared
/// them.
const LEADER_LOCATOR: &str = "x-queue-leader-locator";
const REPLY_SUCCESS: u16 = 200;
/// Number of returns after which a message of a crash loop is dead-lettered.
const WORK_DELIVERY_LIMIT: i64 = 100;
/// Practically unlimited. Never -1: RabbitMQ 3.10 then drops a message at its first return.
const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// The names under one namespace.
#[derive(Clone, Debug)]
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into() }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The exchange that the ingress publishes to.
    pub(super) fn ingress_exchange(&self) -> String {
        format!("{}.in", self.namespace)
    }

    /// The exchange that routes to the destinations, without the archive.
    pub(super) fn events(&self) -> String {
        format!("{}.events", self.namespace)
    }

    /// The queue, and the exchange, of events that no destination subscribes to.
    pub(super) fn unrouted(&self) -> String {
        format!("{}.unrouted", self.namespace)
    }

    /// The queue of refused callbacks. Its bounds are part of its name, because a queue cannot be
    /// declared again with other arguments.
    pub(super) fn refused(&self, bounds: &RefusedBounds) -> String {
        let RefusedBounds { count, bytes, age } = bounds;
        format!("{}.refused.{count}x{bytes}x{}", self.namespace, age.as_secs())
    }

    /// The exchange to the archive.
    pub(super) fn archived(&self) -> String {
        format!("{}.archived", self.namespace)
    }

    /// Whether a queue is an archive, of this configuration or a former one.
    pub(super) fn is_archive(&self, queue: &str) -> bool {
        queue.starts_with(&format!("{}.archive.", self.namespace))
    }

    /// The stream of accepted events. Its bounds are part of its name too.
    pub(super) fn archive(&self, archive: &Archive) -> String {
        let Archive { bytes, age, .. } = archive;
        format!("{}.archive.{bytes}x{}", self.namespace, age.as_secs())
    }

    /// The exchange to queues that no event reaches, keyed by queue.
    pub(super) fn internal(&self) -> String {
        format!("{}.internal", self.namespace)
    }

    /// The queue that stores which bindings were applied.
    pub(super) fn applied(&self) -> String {
        format!("{}.applied", self.namespace)
    }

    /// A queue of one message. Publishing to it shows whether the broker confirms.
    pub(super) fn probe(&self) -> String {
        format!("{}.probe", self.namespace)
    }

    /// The exchange to the work queues, keyed by destination.
    pub(super) fn retry(&self) -> String {
        format!("{}.retry", self.namespace)
    }

    /// The exchange to the dead-letter queues, keyed by destination.
    pub(super) fn dead(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// A destination's dead-letter queue.
    pub(super) fn dead_queue(&self, destination: &str) -> String {
        format!("{}.dead.{destination}", self.namespace)
    }

    /// The exchange and the queue of one step of the ladder.
    pub(super) fn delay(&self, millis: u64) -> String {
        format!("{}.delay.{millis}", self.namespace)
    }
}

/// Declares the queue that stores which bindings were applied.
pub(super) async fn declare_record(connection: &Connection, names: &Names) -> lapin::Result<()> {
    let mut declare = Declare::new(connection, names).await?;
    declare.exchange(&names.internal(), ExchangeKind::Direct, None).await?;
    declare.internal(&names.applied(), plain(NO_DELIVERY_LIMIT)).await?;
    declare.end().await
}

/// Declares exchanges and queues. Idempotent.
pub(super) async fn declare(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> lapin::Result<()> {
    let mut declare = Declare::new(connection, names).await?;
    declare.exchange(&names.unrouted(), ExchangeKind::Fanout, None).await?;
    declare.queue(&names.unrouted(), plain(NO_DELIVERY_LIMIT)).await?;
    declare.bind(&names.unrouted(), &names.unrouted(), "").await?;

    let unrouted = names.unrouted();
    let rescued = Some(unrouted.as_str());
    declare.exchange(&names.events(), ExchangeKind::Topic, rescued).await?;
    declare.exchange(&names.retry(), ExchangeKind::Direct, rescued).await?;
    declare.exchange(&names.dead(), ExchangeKind::Direct, rescued).await?;

    declare.exchange(&names.internal(), ExchangeKind::Direct, None).await?;
    declare.internal(&names.probe(), probe()).await?;
    declare.internal(&names.refused(&settings.refused), refused(&settings.refused)).await?;
    declare.internal(&names.applied(), plain(NO_DELIVERY_LIMIT)).await?;
    for subscriber in &routes.subscribers {
        declare.destination(subscriber, settings.binds_shards).await?;
    }
    for millis in RUNGS {
        declare.rung(millis).await?;
    }
    for binding in subscriptions(names, routes) {
        declare.subscribe(&binding).await?;
    }
    // Last, so that no event is published before it can reach its subscribers.
    declare.exchange(&names.ingress_exchange(), ExchangeKind::Fanout, rescued).await?;
    declare.exchange_bind(&names.events(), &names.ingress_exchange(), "").await?;
    declare.end().await
}

/// Declares the archive after everything else, because the broker may not support it.
///
/// The archive is bound to the ingress's exchange by an exchange of its own. Bound to `events`, it
/// would match every event, and no event would ever be unrouted.
pub(super) async fn declare_archive(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
) -> lapin::Result<()> {
    let mut declare = Declare::new(connection, names).await?;
    declare.queue(&names.archive(&routes.archive), stream(&routes.archive)).await?;
    declare.exchange(&names.archived(), ExchangeKind::Topic, None).await?;
    for binding in archived(names, routes) {
        declare.subscribe(&binding).await?;
    }
    declare.exchange_bind(&names.archived(), &names.ingress_exchange(), "").await?;
    declare.end().await
}

/// Unbinds the archive from the ingress: an archive that the broker cannot write to would keep
/// every event from being confirmed.
pub(super) async fn detach_archive(connection: &Connection, names: &Names) -> lapin::Result<()> {
    let declare = Declare::new(connection, names).await?;
    declare.exchange(&names.archived(), ExchangeKind::Topic, None).await?;
    let (archived, ingress) = (names.archived(), names.ingress_exchange());
    unbind(&declare.channel, &Binding::to_exchange(archived, ingress, "".into())).await?;
    declare.end().await
}

/// Unbinds what leads to a destination's work queues if there were this many.
pub(super) async fn unbind_shards(
    connection: &Connection,
    names: &Names,
    subscriber: &Subscriber,
    count: u16,
) -> lapin::Result<()> {
    let declare = Declare::new(connection, names).await?;
    let former = Subscriber { shards: count, ..subscriber.clone() };
    if count > 1 {
        declare.shards_exchange(&former).await?;
    }
    let name = &subscriber.destination;
    unbind(&declare.channel, &to_work(names, &former, names.retry(), name)).await?;
    for pattern in &subscriber.patterns {
        unbind(&declare.channel, &to_work(names, &former, names.events(), pattern)).await?;
    }
    declare.end().await
}

/// One binding that a change of the configuration can remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Binding {
    /// The queue, or the exchange, that it leads to.
    pub(super) queue: String,
    pub(super) exchange: String,
    pub(super) pattern: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) to_exchange: bool,
}

impl Binding {
    fn to_queue(queue: String, exchange: String, pattern: String) -> Self {
        Self { queue, exchange, pattern, to_exchange: false }
    }

    fn to_exchange(target: String, exchange: String, pattern: String) -> Self {
        Self { queue: target, exchange, pattern, to_exchange: true }
    }
}

/// The bindings that these routes need.
pub(super) fn bindings(names: &Names, routes: &Routes) -> Vec<Binding> {
    subscriptions(names, routes).chain(archived(names, routes)).collect()
}

fn subscriptions(names: &Names, routes: &Routes) -> impl Iterator<Item = Binding> {
    routes.subscribers.iter().flat_map(|subscriber| {
        subscriber
            .patterns
            .iter()
            .map(|pattern| to_work(names, subscriber, names.events(), pattern))
    })
}

/// A binding to a destination's work queue, or to the exchange to its shards.
fn to_work(names: &Names, subscriber: &Subscriber, exchange: String, pattern: &str) -> Binding {
    let Subscriber { destination, shards, .. } = subscriber;
    match shards {
        1 => Binding::to_queue(names.work_queue(destination, 0), exchange, pattern.into()),
        _ => Binding::to_exchange(names.shards(destination, *shards), exchange, pattern.into()),
    }
}

fn archived(names: &Names, routes: &Routes) -> impl Iterator<Item = Binding> {
    let (stream, exchange) = (names.archive(&routes.archive), names.archived());
    routes.archive.sources.iter().map(move |source| {
        Binding::to_queue(stream.clone(), exchange.clone(), format!("{source}.#"))
    })
}

pub(super) async fn unbind(channel: &Channel, binding: &Binding) -> lapin::Result<()> {
    let Binding { queue, exchange, pattern, to_exchange } = binding;
    let (target, exchange, pattern) = (short(queue)?, short(exchange)?, short(pattern)?);
    let none = FieldTable::default();
    match to_exchange {
        true => {
            let options = ExchangeUnbindOptions::default();
            channel.exchange_unbind(target, exchange, pattern, options, none).await
        }
        false => channel.queue_unbind(target, exchange, pattern, none).await,
    }
}

struct Declare<'a> {
    connection: &'a Connection,
    names: &'a Names,
    channel: Channel,
    /// Whether queues have [`LEADER_LOCATOR`]: an older version declared them without it.
    located: bool,
}

impl<'a> Declare<'a> {
    async fn new(connection: &'a Connection, names: &'a Names) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, names, channel, located: true })
    }

    async fn end(self) -> lapin::Result<()> {
        self.channel.close(REPLY_SUCCESS, short("")?).await
    }

    async fn destination(
        &mut self,
        subscriber: &Subscriber,
        binds_shards: bool,
    ) -> lapin::Result<()> {
        let (names, name) = (self.names, &subscriber.destination);
        let dead = names.dead_queue(name);
        self.queue(&dead, plain(NO_DELIVERY_LIMIT)).await?;
        self.bind(&dead, &names.dead(), name).await?;

        let mut arguments = dead_lettering(WORK_DELIVERY_LIMIT, &names.dead());
        insert(&mut arguments, "x-dead-letter-routing-key", text(name));
        for shard in 0..subscriber.shards {
            // No older version has declared it.
            self.located |= shard > 0;
            self.queue(&names.work_queue(name, shard), arguments.clone()).await?;
        }
        if subscriber.shards > 1 {
            let unrouted = names.unrouted();
            self.exchange(&names.unsharded(name), ExchangeKind::Fanout, Some(&unrouted)).await?;
            self.bind(&names.work_queue(name, 0), &names.unsharded(name), "").await?;
            self.shards_exchange(subscriber).await?;
            if binds_shards {
                self.bind_shards(subscriber).await?;
            }
        }
        self.subscribe(&to_work(names, subscriber, names.retry(), name)).await
    }

    async fn shards_exchange(&self, subscriber: &Subscriber) -> lapin::Result<()> {
        let Subscriber { destination, shards, .. } = subscriber;
        let rest = self.names.unsharded(destination);
        let exchange = self.names.shards(destination, *shards);
        self.exchange(&exchange, ExchangeKind::Headers, Some(&rest)).await
    }

    async fn bind_shards(&self, subscriber: &Subscriber) -> lapin::Result<()> {
        let Subscriber { destination, shards, .. } = subscriber;
        let exchange = self.names.shards(destination, *shards);
        for bucket in 0..BUCKETS {
            let queue = self.names.work_queue(destination, u16::from(bucket) % shards);
            let mut arguments = FieldTable::default();
            insert(&mut arguments, "x-match", text("all"));
            insert(&mut arguments, BUCKET, text(&bucket.to_string()));
            self.bind_with(&queue, &exchange, "", arguments).await?;
        }
        Ok(())
    }

    async fn subscribe(&self, binding: &Binding) -> lapin::Result<()> {
        let Binding { queue, exchange, pattern, to_exchange } = binding;
        match to_exchange {
            true => self.exchange_bind(queue, exchange, pattern).await,
            false => self.bind(queue, exchange, pattern).await,
        }
    }

    async fn exchange_bind(&self, to: &str, from: &str, key: &str) -> lapin::Result<()> {
        let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
        self.channel.exchange_bind(short(to)?, short(from)?, short(key)?, options, none).await
    }

    /// A queue that is reached by its name.
    async fn internal(&mut self, name: &str, arguments: FieldTable) -> lapin::Result<()> {
        self.queue(name, arguments).await?;
        self.bind(name, &self.names.internal(), name).await
    }

    /// The message keeps the destination's routing key, because the queue sets no dead-letter
    /// routing key of its own.
    async fn rung(&mut self, millis: u64) -> lapin::Result<()> {
        let name = self.names.delay(millis);
        let unrouted = self.names.unrouted();
        self.exchange(&name, ExchangeKind::Fanout, Some(&unrouted)).await?;
        let mut arguments = dead_lettering(NO_DELIVERY_LIMIT, &self.names.retry());
        let ttl = i64::try_from(millis).unwrap_or(i64::MAX);
        insert(&mut arguments, "x-message-ttl", AMQPValue::LongLongInt(ttl));
        self.queue(&name, arguments).await?;
        self.bind(&name, &name, "").await
    }

    /// What an exchange cannot route goes to its `alternate` exchange, so nothing is lost.
    async fn exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        alternate: Option<&str>,
    ) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            insert(&mut arguments, "alternate-exchange", text(alternate));
        }
        self.channel.exchange_declare(short(name)?, kind, options, arguments).await
    }

    /// A queue that exists without a leader locator stays so: its arguments cannot change.
    async fn queue(&mut self, name: &str, arguments: FieldTable) -> lapin::Result<()> {
        let declared = self.queue_as(name, arguments.clone()).await;
        match declared {
            Err(error) if is_about(&error, LEADER_LOCATOR) => {
                // The refusal closed the channel.
                self.channel = self.connection.create_channel().await?;
                self.located = !self.located;
                self.queue_as(name, arguments).await
            }
            declared => declared,
        }
    }

    async fn queue_as(&self, name: &str, mut arguments: FieldTable) -> lapin::Result<()> {
        if self.located {
            insert(&mut arguments, LEADER_LOCATOR, text("balanced"));
        }
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(short(name)?, options, arguments).await.map(drop)
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
        self.bind_with(queue, exchange, key, FieldTable::default()).await
    }

    async fn bind_with(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
        arguments: FieldTable,
    ) -> lapin::Result<()> {
        let options = QueueBindOptions::default();
        let (queue, exchange, key) = (short(queue)?, short(exchange)?, short(key)?);
        self.channel.queue_bind(queue, exchange, key, options, arguments).await
    }
}

/// Whether the broker refused other arguments than a queue has, because of this one.
fn is_about(error: &lapin::Error, argument: &str) -> bool {
    let precondition = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
    matches!(error.kind(), ErrorKind::ProtocolError(reply)
        if *reply.kind() == precondition && reply.get_message().to_string().contains(argument))
}

/// A quorum queue without a bound.
fn plain(delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    insert(&mut arguments, "x-overflow", text("reject-publish"));
    insert(&mut arguments, "x-delivery-limit", AMQPValue::LongLongInt(delivery_limit));
    arguments
}

/// Also a quorum queue, so there is no confirm without a majority of the nodes. It keeps only the
/// newest message.
fn probe() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    insert(&mut arguments, "x-overflow", text("drop-head"));
    insert(&mut arguments, "x-max-length", AMQPValue::LongLongInt(1));
    arguments
}

/// Drops its oldest messages when it is full, and never rejects: it must never block a publish.
fn refused(bounds: &RefusedBounds) -> FieldTable {
    let number = |value: u64| AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    insert(&mut arguments, "x-overflow", text("drop-head"));
    insert(&mut arguments, "x-delivery-limit", AMQPValue::LongLongInt(NO_DELIVERY_LIMIT));
    insert(&mut arguments, "x-max-length", number(bounds.count.into()));
    insert(&mut arguments, "x-max-length-bytes", number(bounds.bytes as u64));
    insert(&mut arguments, "x-message-ttl", number(millis(bounds.age)));
    arguments
}

/// The stream is stored in segments, and the oldest segments are dropped whole.
fn stream(archive: &Archive) -> FieldTable {
    let number = |value: u64| AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("stream"));
    insert(&mut arguments, "x-max-length-bytes", number(archive.bytes));
    insert(&mut arguments, "x-max-age", text(&format!("{}s", archive.age.as_secs())));
    let segment = (archive.bytes / 16).clamp(1 << 20, 500_000_000);
    insert(&mut arguments, "x-stream-max-segment-size-bytes", number(segment));
    arguments
}

/// At-least-once dead-lettering requires all four: a quorum queue, this strategy, `reject-publish`
/// and a dead-letter exchange. If one is missing, dead-lettering is silently at most once.
fn dead_lettering(delivery_limit: i64, exchange: &str) -> FieldTable {
    let mut arguments = plain(delivery_limit);
    insert(&mut arguments, "x-dead-letter-strategy", text("at-least-once"));
    insert(&mut arguments, "x-dead-letter-exchange", text(exchange));
    arguments
}

fn insert(table: &mut FieldTable, key: &'static str, value: AMQPValue) {
    if let Ok(key) = ShortString::try_new(key) {
        table.insert(key, value);
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.as_bytes()))
}

/// A short string, or an error. The client library's conversions panic above 255 bytes.
pub(super) fn short(text: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(text)
        .map_err(|_| std::io::Error::other("a name is longer than 255 bytes").into())
}
