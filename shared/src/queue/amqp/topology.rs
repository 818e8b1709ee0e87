//! Every exchange and queue, declared in one place, under one namespace.
//!
//! ```text
//! in ─▶ events ─(subscriptions)─▶ work.<destination> ─(delivery limit)─▶ dead.<destination>
//! delay.<ms> (fanout) ─▶ delay.<ms> (queue, TTL) ─▶ retry ─(destination)─▶ work.<destination>
//! dead ─(destination)─▶ dead.<destination>      whatever finds no way ─▶ unrouted
//! refused.<bounds>: refused callbacks, by no exchange; probe: one message of our own
//! ```
//!
//! Redeclaring with other arguments is an error (406), so what may change over time is
//! in a queue's name.

use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use super::Settings;
use super::ladder::RUNGS;
use crate::clock::millis;

/// Returns before a message of a crash loop leaves the work queue for the dead letters.
const WORK_DELIVERY_LIMIT: i64 = 100;
/// As good as none. Never -1: RabbitMQ 3.10 then drops at the first return.
const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// A destination and what it subscribes to.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The destination's name.
    pub destination: String,
    /// Topic patterns over `source.event_type`.
    pub patterns: Vec<String>,
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

/// The names under one namespace.
#[derive(Clone, Debug)]
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into() }
    }

    /// The exchange that the ingress publishes to.
    pub(super) fn entrance(&self) -> String {
        format!("{}.in", self.namespace)
    }

    fn events(&self) -> String {
        format!("{}.events", self.namespace)
    }

    fn unrouted(&self) -> String {
        format!("{}.unrouted", self.namespace)
    }

    /// The queue of refused callbacks. What bounds it is in its name, since a queue can't
    /// be declared anew with other arguments.
    pub(super) fn refused(&self, bounds: &RefusedBounds) -> String {
        let RefusedBounds { count, bytes, age } = bounds;
        format!("{}.refused.{count}x{bytes}x{}", self.namespace, age.as_secs())
    }

    /// A queue of one message, to ask the broker whether it confirms.
    pub(super) fn probe(&self) -> String {
        format!("{}.probe", self.namespace)
    }

    /// The exchange back to the work queues, keyed by destination.
    pub(super) fn retry(&self) -> String {
        format!("{}.retry", self.namespace)
    }

    /// The exchange to the dead-letter queues, keyed by destination.
    pub(super) fn dead(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// A destination's work queue.
    pub(super) fn work_queue(&self, destination: &str) -> String {
        format!("{}.work.{destination}", self.namespace)
    }

    /// A destination's dead-letter queue.
    pub(super) fn dead_queue(&self, destination: &str) -> String {
        format!("{}.dead.{destination}", self.namespace)
    }

    /// A rung's exchange and queue.
    pub(super) fn delay(&self, millis: u64) -> String {
        format!("{}.delay.{millis}", self.namespace)
    }
}

/// Declares all of it. Idempotent.
pub(super) async fn declare(
    channel: &Channel,
    names: &Names,
    settings: &Settings,
) -> lapin::Result<()> {
    let declare = Declare { channel, names };
    declare.exchange(&names.unrouted(), ExchangeKind::Fanout, false).await?;
    declare.queue(&names.unrouted(), plain(NO_DELIVERY_LIMIT)).await?;
    declare.bind(&names.unrouted(), &names.unrouted(), "").await?;

    declare.exchange(&names.events(), ExchangeKind::Topic, true).await?;
    declare.exchange(&names.entrance(), ExchangeKind::Fanout, true).await?;
    let (to, from) = (short(&names.events())?, short(&names.entrance())?);
    let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
    channel.exchange_bind(to, from, short("")?, options, none).await?;
    declare.exchange(&names.retry(), ExchangeKind::Direct, true).await?;
    declare.exchange(&names.dead(), ExchangeKind::Direct, true).await?;

    declare.queue(&names.probe(), probe()).await?;
    declare.queue(&names.refused(&settings.refused), refused(&settings.refused)).await?;
    for subscriber in &settings.subscribers {
        declare.destination(subscriber).await?;
    }
    for millis in RUNGS {
        declare.rung(millis).await?;
    }
    Ok(())
}

struct Declare<'a> {
    channel: &'a Channel,
    names: &'a Names,
}

impl Declare<'_> {
    async fn destination(&self, subscriber: &Subscriber) -> lapin::Result<()> {
        let name = &subscriber.destination;
        let dead = self.names.dead_queue(name);
        self.queue(&dead, plain(NO_DELIVERY_LIMIT)).await?;
        self.bind(&dead, &self.names.dead(), name).await?;

        let work = self.names.work_queue(name);
        let mut arguments = dead_lettering(WORK_DELIVERY_LIMIT, &self.names.dead());
        insert(&mut arguments, "x-dead-letter-routing-key", text(name));
        self.queue(&work, arguments).await?;
        self.bind(&work, &self.names.retry(), name).await?;
        for pattern in &subscriber.patterns {
            self.bind(&work, &self.names.events(), pattern).await?;
        }
        Ok(())
    }

    /// The routing key stays the destination's through the rung, since the queue sets no
    /// dead-letter routing key of its own.
    async fn rung(&self, millis: u64) -> lapin::Result<()> {
        let name = self.names.delay(millis);
        self.exchange(&name, ExchangeKind::Fanout, true).await?;
        let mut arguments = dead_lettering(NO_DELIVERY_LIMIT, &self.names.retry());
        let ttl = i64::try_from(millis).unwrap_or(i64::MAX);
        insert(&mut arguments, "x-message-ttl", AMQPValue::LongLongInt(ttl));
        self.queue(&name, arguments).await?;
        self.bind(&name, &name, "").await
    }

    /// What an exchange can't route goes to `unrouted`, so nothing vanishes.
    async fn exchange(&self, name: &str, kind: ExchangeKind, rescued: bool) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if rescued {
            insert(&mut arguments, "alternate-exchange", text(&self.names.unrouted()));
        }
        self.channel.exchange_declare(short(name)?, kind, options, arguments).await
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> lapin::Result<()> {
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(short(name)?, options, arguments).await?;
        Ok(())
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let (queue, exchange, key) = (short(queue)?, short(exchange)?, short(key)?);
        self.channel.queue_bind(queue, exchange, key, options, none).await
    }
}

/// A quorum queue that keeps what it has.
fn plain(delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    insert(&mut arguments, "x-overflow", text("reject-publish"));
    insert(&mut arguments, "x-delivery-limit", AMQPValue::LongLongInt(delivery_limit));
    arguments
}

/// A quorum queue too, so that without a majority of the brokers there is no confirm;
/// it keeps the newest message only.
fn probe() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    insert(&mut arguments, "x-overflow", text("drop-head"));
    insert(&mut arguments, "x-max-length", AMQPValue::LongLongInt(1));
    arguments
}

/// Drops its oldest when it is full, and never refuses: it must not be in anybody's way.
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

/// At-least-once dead-lettering takes all four: quorum, this strategy, reject-publish
/// and a dead-letter exchange. Without one of them it silently is at most once.
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

/// A short string, or an error. The client's own conversions panic over 255 bytes.
pub(super) fn short(text: &str) -> lapin::Result<ShortString> {
    ShortString::try_new(text)
        .map_err(|_| std::io::Error::other("a name is longer than 255 bytes").into())
}
