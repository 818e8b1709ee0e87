//! Every exchange and queue under one namespace, as data. [`declare`](super::declare) declares it.
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

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde::{Deserialize, Serialize};
use zentra_core::clock::millis;

use super::ladder::RUNGS;
use super::shards::{BUCKET, BUCKETS};
use super::{Archive, RefusedBounds, Routes, Settings, Subscriber};

/// Spreads the leaders of queues over the nodes. Without it, all are on the node that declared
/// them.
pub(super) const LEADER_LOCATOR: &str = "x-queue-leader-locator";
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

/// A part of the topology.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Exchange {
        name: String,
        kind: ExchangeKind,
        /// What it cannot route goes there, so nothing is lost.
        alternate: Option<String>,
    },
    Queue {
        name: String,
        arguments: FieldTable,
        /// Whether no version without [`LEADER_LOCATOR`] has declared it.
        is_recent: bool,
    },
    Binding {
        binding: Binding,
        arguments: FieldTable,
    },
}

/// Parts in the order in which they are declared.
#[derive(Default)]
struct Parts(Vec<Part>);

/// The queue that stores which bindings were applied.
pub(super) fn record(names: &Names) -> Vec<Part> {
    let mut parts = Parts::default();
    parts.exchange(names.internal(), ExchangeKind::Direct, None);
    parts.internal(names, names.applied(), plain(NO_DELIVERY_LIMIT));
    parts.0
}

/// Everything but the archive.
pub(super) fn parts(names: &Names, settings: &Settings, routes: &Routes) -> Vec<Part> {
    let mut parts = Parts::default();
    parts.exchange(names.unrouted(), ExchangeKind::Fanout, None);
    parts.queue(names.unrouted(), plain(NO_DELIVERY_LIMIT));
    parts.bind(names.unrouted(), names.unrouted(), "");

    let rescued = names.unrouted();
    parts.exchange(names.events(), ExchangeKind::Topic, Some(&rescued));
    parts.exchange(names.retry(), ExchangeKind::Direct, Some(&rescued));
    parts.exchange(names.dead(), ExchangeKind::Direct, Some(&rescued));

    parts.exchange(names.internal(), ExchangeKind::Direct, None);
    parts.internal(names, names.probe(), probe());
    parts.internal(names, names.refused(&settings.refused), refused(&settings.refused));
    parts.internal(names, names.applied(), plain(NO_DELIVERY_LIMIT));
    for subscriber in &routes.subscribers {
        parts.destination(names, subscriber, settings.binds_shards);
    }
    for millis in RUNGS {
        parts.rung(names, millis);
    }
    for binding in subscriptions(names, routes) {
        parts.binding(binding);
    }
    // Last, so that no event is published before it can reach its subscribers.
    parts.exchange(names.ingress_exchange(), ExchangeKind::Fanout, Some(&rescued));
    parts.bind_exchange(names.events(), names.ingress_exchange());
    parts.0
}

/// The archive. It is declared after everything else, because the broker may not support it.
///
/// It is bound to the ingress's exchange by an exchange of its own. Bound to `events`, it would match every
/// event, and no event would ever be unrouted.
pub(super) fn archive_parts(names: &Names, routes: &Routes) -> Vec<Part> {
    let mut parts = Parts::default();
    parts.queue(names.archive(&routes.archive), stream(&routes.archive));
    parts.exchange(names.archived(), ExchangeKind::Topic, None);
    for binding in archived(names, routes) {
        parts.binding(binding);
    }
    parts.bind_exchange(names.archived(), names.ingress_exchange());
    parts.0
}

/// The exchange that the archive is bound to.
pub(super) fn archive_exchange(names: &Names) -> Part {
    Part::Exchange { name: names.archived(), kind: ExchangeKind::Topic, alternate: None }
}

/// The exchange to a destination's work queues, if there are several.
pub(super) fn shards_exchange(names: &Names, subscriber: &Subscriber) -> Part {
    let Subscriber { destination, shards, .. } = subscriber;
    let alternate = Some(names.unsharded(destination));
    Part::Exchange {
        name: names.shards(destination, *shards),
        kind: ExchangeKind::Headers,
        alternate,
    }
}

impl Parts {
    fn exchange(&mut self, name: String, kind: ExchangeKind, alternate: Option<&str>) {
        self.0.push(Part::Exchange { name, kind, alternate: alternate.map(str::to_owned) });
    }

    fn queue(&mut self, name: String, arguments: FieldTable) {
        self.0.push(Part::Queue { name, arguments, is_recent: false });
    }

    fn binding(&mut self, binding: Binding) {
        self.0.push(Part::Binding { binding, arguments: FieldTable::default() });
    }

    fn bind(&mut self, queue: String, exchange: String, key: &str) {
        self.binding(Binding::to_queue(queue, exchange, key.into()));
    }

    fn bind_exchange(&mut self, to: String, from: String) {
        self.binding(Binding::to_exchange(to, from, String::new()));
    }

    /// A queue that is reached by its name.
    fn internal(&mut self, names: &Names, name: String, arguments: FieldTable) {
        self.queue(name.clone(), arguments);
        self.bind(name.clone(), names.internal(), &name);
    }

    fn destination(&mut self, names: &Names, subscriber: &Subscriber, binds_shards: bool) {
        let name = &subscriber.destination;
        let dead = names.dead_queue(name);
        self.queue(dead.clone(), plain(NO_DELIVERY_LIMIT));
        self.bind(dead, names.dead(), name);

        let mut arguments = dead_lettering(WORK_DELIVERY_LIMIT, &names.dead());
        insert(&mut arguments, "x-dead-letter-routing-key", text(name));
        for shard in 0..subscriber.shards {
            let (name, arguments) = (names.work_queue(name, shard), arguments.clone());
            self.0.push(Part::Queue { name, arguments, is_recent: shard > 0 });
        }
        if subscriber.shards > 1 {
            self.exchange(names.unsharded(name), ExchangeKind::Fanout, Some(&names.unrouted()));
            self.bind(names.work_queue(name, 0), names.unsharded(name), "");
            self.0.push(shards_exchange(names, subscriber));
            if binds_shards {
                self.bind_shards(names, subscriber);
            }
        }
        self.binding(to_work(names, subscriber, names.retry(), name));
    }

    fn bind_shards(&mut self, names: &Names, subscriber: &Subscriber) {
        let Subscriber { destination, shards, .. } = subscriber;
        let exchange = names.shards(destination, *shards);
        for bucket in 0..BUCKETS {
            let queue = names.work_queue(destination, u16::from(bucket) % shards);
            let mut arguments = FieldTable::default();
            insert(&mut arguments, "x-match", text("all"));
            insert(&mut arguments, BUCKET, text(&bucket.to_string()));
            let binding = Binding::to_queue(queue, exchange.clone(), String::new());
            self.0.push(Part::Binding { binding, arguments });
        }
    }

    /// The message keeps the destination's routing key, because the queue sets no dead-letter
    /// routing key of its own.
    fn rung(&mut self, names: &Names, millis: u64) {
        let name = names.delay(millis);
        self.exchange(name.clone(), ExchangeKind::Fanout, Some(&names.unrouted()));
        let mut arguments = dead_lettering(NO_DELIVERY_LIMIT, &names.retry());
        let ttl = i64::try_from(millis).unwrap_or(i64::MAX);
        insert(&mut arguments, "x-message-ttl", AMQPValue::LongLongInt(ttl));
        self.queue(name.clone(), arguments);
        self.bind(name.clone(), name, "");
    }
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
    pub(super) fn to_queue(queue: String, exchange: String, pattern: String) -> Self {
        Self { queue, exchange, pattern, to_exchange: false }
    }

    pub(super) fn to_exchange(target: String, exchange: String, pattern: String) -> Self {
        Self { queue: target, exchange, pattern, to_exchange: true }
    }
}

/// The bindings that these routes need.
pub(super) fn bindings(names: &Names, routes: &Routes) -> Vec<Binding> {
    subscriptions(names, routes).chain(archived(names, routes)).collect()
}

pub(super) fn subscriptions(names: &Names, routes: &Routes) -> impl Iterator<Item = Binding> {
    routes.subscribers.iter().flat_map(|subscriber| {
        subscriber
            .patterns
            .iter()
            .map(|pattern| to_work(names, subscriber, names.events(), pattern))
    })
}

/// A binding to a destination's work queue, or to the exchange to its shards.
pub(super) fn to_work(
    names: &Names,
    subscriber: &Subscriber,
    exchange: String,
    pattern: &str,
) -> Binding {
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

pub(super) fn insert(table: &mut FieldTable, key: &'static str, value: AMQPValue) {
    if let Ok(key) = ShortString::try_new(key) {
        table.insert(key, value);
    }
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.as_bytes()))
}

/// A short string, or an error. The client library's conversions panic above 255 bytes.
pub(super) fn short(text: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(text)
        .map_err(|_| std::io::Error::other("a name is longer than 255 bytes").into())
}
