//! Remembers which bindings were applied, so that bindings removed from the configuration can be
//! unbound.
//!
//! AMQP cannot list bindings. So the broker itself stores them, as the only message of a queue. A
//! program that applies a configuration holds a lock: an exclusive queue, which disappears with
//! its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::Connection;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::declare::{
    declare, declare_archive, declare_record, detach_archive, unbind, unbind_shards,
};
use super::session::close_aside;
use super::topology::{Binding, Names, Part, archive_parts, bindings, parts, short};
use super::{QueueError, Routes, Settings};
use crate::error::{failed, is_missing};

/// Number of attempts to take the lock, and the pause between them.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// Number of looks for the stored message while another program reads it, and the pause between them.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(50);
/// Time limit for declaring the archive.
const ARCHIVE: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;
const REPLY_SUCCESS: u16 = 200;

/// The version of the topology. A program only adds to what a newer version has declared.
const VERSION: u8 = 1;

/// What the message contains.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    v: u8,
    pub(super) bindings: BTreeSet<Binding>,
    /// Every queue that was declared. 0.2.0 does not have it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) queues: BTreeSet<String>,
    /// Every number of work queues above 1 that a destination has had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shards: BTreeMap<String, BTreeSet<u16>>,
}

/// The highest number of work queues that each destination has had, if it was ever above 1.
pub(super) type Highest = BTreeMap<String, u16>;

impl Applied {
    fn new(names: &Names, settings: &Settings, routes: &Routes, known: &Self) -> Self {
        let mut shards = known.shards.clone();
        for subscriber in routes.subscribers.iter().filter(|subscriber| subscriber.shards > 1) {
            let counts = shards.entry(subscriber.destination.clone()).or_default();
            counts.insert(subscriber.shards);
        }
        let mut queues = known.queues.clone();
        let archive = archive_parts(names, routes);
        let archive = archive.into_iter().filter(|_| !routes.archive.sources.is_empty());
        let declared = parts(names, settings, routes).into_iter().chain(archive);
        queues.extend(declared.filter_map(|part| match part {
            Part::Queue { name, .. } => Some(name),
            Part::Exchange { .. } | Part::Binding { .. } => None,
        }));
        let bindings = bindings(names, routes).into_iter().collect();
        Self { v: VERSION, bindings, queues, shards }
    }

    /// Whether a newer version has declared something.
    pub(super) fn is_newer(&self) -> bool {
        self.v > VERSION
    }

    /// Whether it names everything that another one names.
    fn contains(&self, other: &Self) -> bool {
        let none = BTreeSet::new();
        let has_counts = |(name, counts): (&String, &BTreeSet<u16>)| {
            counts.is_subset(self.shards.get(name).unwrap_or(&none))
        };
        other.bindings.is_subset(&self.bindings)
            && other.queues.is_subset(&self.queues)
            && other.shards.iter().all(has_counts)
    }

    /// With the bindings of another one.
    fn and(&self, other: &Self) -> Self {
        let bindings = self.bindings.union(&other.bindings).cloned().collect();
        Self { bindings, ..self.clone() }
    }

    fn highest(&self) -> Highest {
        let highest = |counts: &BTreeSet<u16>| counts.last().copied().unwrap_or(1);
        self.shards.iter().map(|(name, counts)| (name.clone(), highest(counts))).collect()
    }
}

/// Declares what these routes need, and unbinds what an earlier configuration applied and this one
/// lacks. Queues and their messages stay, and are logged. Returns `None` if something could not be
/// unbound: another program held the lock for too long or is reading the record, or RabbitMQ cannot
/// reach a queue.
pub(super) async fn apply(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> Result<Option<Highest>, QueueError> {
    let Some(lock) = lock(connection, names, TRIES).await? else {
        tracing::warn!("another program is applying its configuration: nothing was unbound");
        declare(connection, names, settings, routes).await.map_err(failed)?;
        return Ok(None);
    };
    let highest = apply_locked(connection, names, settings, routes).await?;
    lock.release().await?;
    Ok(highest)
}

/// An exclusive queue. It belongs to the connection, not to the channel, so it has to be deleted
/// whatever happens: otherwise a connection that goes on would hold it for ever.
struct Lock {
    channel: Channel,
    queue: ShortString,
    released: bool,
}

impl Lock {
    async fn release(mut self) -> Result<(), QueueError> {
        self.released = true;
        delete(self.channel.clone(), self.queue.clone()).await.map_err(failed)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.released {
            tokio::spawn(delete(self.channel.clone(), self.queue.clone()));
        }
    }
}

async fn delete(channel: Channel, queue: ShortString) -> lapin::Result<()> {
    channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    channel.close(REPLY_SUCCESS, short("")?).await
}

async fn apply_locked(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> Result<Option<Highest>, QueueError> {
    let recorded = is_recorded(connection, names).await.map_err(failed)?;
    declare_record(connection, names).await.map_err(failed)?;
    let channel = connection.create_channel().await.map_err(failed)?;
    let looks = if recorded { LOOKS } else { 0 };
    let (known, mut tag) = known(&channel, names, looks).await.map_err(failed)?;
    if known.is_newer() {
        add_to_newer(&channel, names, &Applied::new(names, settings, routes, &known), &known, tag)
            .await?;
        declare(connection, names, settings, routes).await.map_err(failed)?;
        return Ok(Some(known.highest()));
    }
    let is_complete = tag.is_some() || !recorded;
    let mut applied = Applied::new(names, settings, routes, &known);
    // Before anything is bound: whoever comes after a crash has to know all of it.
    let both = applied.and(&known);
    if both != known {
        replace(&channel, names, &both, tag).await?;
        (_, tag) = remembered(&channel, names).await.map_err(failed)?;
    }
    declare(connection, names, settings, routes).await.map_err(failed)?;
    let gone: Vec<Binding> = known.bindings.difference(&applied.bindings).cloned().collect();
    let mut left = BTreeSet::new();
    for binding in &gone {
        match unbind_alone(connection, binding).await {
            Ok(()) => tracing::info!(queue = binding.queue, pattern = binding.pattern, "unbound"),
            Err(error) if is_missing(&error) => {
                tracing::warn!(queue = binding.queue, %error, "RabbitMQ cannot unbind the queue");
                // A former archive may stay bound: nothing depends on it.
                if !names.is_archive(&binding.queue) {
                    left.insert(binding.clone());
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let unbound = is_complete && left.is_empty();
    applied.bindings.extend(left);
    leave_former_shards(connection, names, routes, &applied).await.map_err(failed)?;
    if both != applied {
        replace(&channel, names, &applied, tag).await?;
    }
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    report(connection, &abandoned(names, routes, &gone, &applied)).await;
    Ok(unbound.then(|| applied.highest()))
}

/// Adds a record of its own to that of a newer version, which unbinds later what nobody needs.
async fn add_to_newer(
    channel: &Channel,
    names: &Names,
    own: &Applied,
    newer: &Applied,
    tag: Option<u64>,
) -> Result<(), QueueError> {
    tracing::warn!(
        topology = newer.v,
        "a newer version of Zentra has declared the queues: this one unbinds nothing"
    );
    if !newer.contains(own) {
        remember(channel, names, own).await?;
    }
    if let Some(tag) = tag {
        give_back(channel, tag).await.map_err(failed)?;
    }
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)
}

/// Whether a program has applied something before: there is a record, which `zentra plan` may hold.
async fn is_recorded(connection: &Connection, names: &Names) -> lapin::Result<bool> {
    match waiting(connection, &names.applied()).await {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// On a channel of its own: an error closes it.
async fn unbind_alone(connection: &Connection, binding: &Binding) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    unbind(&channel, binding).await?;
    channel.close(REPLY_SUCCESS, short("")?).await
}

/// Looks at what others have applied meanwhile. If the last one applied the same bindings, unbinds
/// what a program with a former number of shards has bound again, after a reconnect. Returns `None`
/// while another program holds the lock or the record.
pub(super) async fn look(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
) -> Result<Option<Highest>, QueueError> {
    let Some(lock) = lock(connection, names, 1).await? else { return Ok(None) };
    let channel = connection.create_channel().await.map_err(failed)?;
    let (known, tag) = known(&channel, names, LOOKS).await.map_err(failed)?;
    if let Some(tag) = tag {
        give_back(&channel, tag).await.map_err(failed)?;
    }
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    let is_same = known.bindings == bindings(names, routes).into_iter().collect();
    if is_same && !known.is_newer() {
        leave_former_shards(connection, names, routes, &known).await.map_err(failed)?;
    }
    lock.release().await?;
    Ok(tag.map(|_| known.highest()))
}

/// Unbinds what other counts bound. Not all of it is remembered: a program with the former count
/// may have declared again.
async fn leave_former_shards(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
    applied: &Applied,
) -> lapin::Result<()> {
    for subscriber in &routes.subscribers {
        let Some(counts) = applied.shards.get(&subscriber.destination) else { continue };
        let others = counts.iter().copied().chain([1]).filter(|count| *count != subscriber.shards);
        for count in others {
            unbind_shards(connection, names, subscriber, count).await?;
        }
    }
    Ok(())
}

/// Binds the archive, or unbinds it if the broker cannot serve it (no streams, or a stream that
/// does not recover). Events are then accepted without an archive. Returns `false` if the
/// configuration asks for an archive and none is bound.
///
/// The archive is declared `aside`, on a connection of its own: RabbitMQ closes a connection that
/// uses a stream which RabbitMQ itself has lost (4.3: `Stream not found`).
pub(super) async fn archive(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
    aside: impl Future<Output = lapin::Result<Connection>>,
) -> Result<bool, QueueError> {
    if routes.archive.sources.is_empty() {
        return Ok(true);
    }
    let aside = match timeout(ARCHIVE, aside).await {
        Ok(Ok(aside)) => aside,
        // The archive is not to blame.
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot connect for the archive: trying again later");
            return Ok(false);
        }
        Err(_) => {
            tracing::warn!("cannot connect for the archive in time: trying again later");
            return Ok(false);
        }
    };
    let declared = timeout(ARCHIVE, declare_archive(&aside, names, routes)).await;
    close_aside(aside);
    match declared {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => {
            detach_archive(connection, names).await.map_err(failed)?;
            tracing::error!(
                queue = names.archive(&routes.archive), %error,
                "the broker cannot serve the archive: events are accepted without it; if this lasts, \
                 delete the queue at RabbitMQ, and it is declared again"
            );
            Ok(false)
        }
        // It may work all the same. While it holds confirms, events are published without it.
        Err(_) => {
            tracing::warn!("the broker does not answer about the archive: asking again later");
            Ok(false)
        }
    }
}

/// Takes the lock. `None` if another program holds it for too long.
async fn lock(
    connection: &Connection,
    names: &Names,
    tries: u32,
) -> Result<Option<Lock>, QueueError> {
    let queue = short(&format!("{}.lock", names.applied())).map_err(failed)?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    for _ in 0..tries {
        let channel = connection.create_channel().await.map_err(failed)?;
        // From now on it may be taken, also when the answer is not waited for.
        let mut lock = Lock { channel, queue: queue.clone(), released: false };
        match lock.channel.queue_declare(queue.clone(), options, FieldTable::default()).await {
            Ok(_) => return Ok(Some(lock)),
            // Another connection holds it: the broker closes the channel that asked.
            Err(_) if connection.status().connected() => {
                lock.released = true;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                lock.released = true;
                return Err(failed(error));
            }
        }
    }
    Ok(None)
}

/// What was last stored, and the delivery tag of the last message read. Looks again if there is
/// nothing: another program may have read it and not yet returned it.
async fn known(
    channel: &Channel,
    names: &Names,
    looks: u32,
) -> lapin::Result<(Applied, Option<u64>)> {
    for _ in 0..looks {
        let found = remembered(channel, names).await?;
        if found.1.is_some() {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok((Applied::default(), None))
}

/// What was last applied. Nothing is stored if no program has run. Does not take the lock: that is
/// a change.
pub(super) async fn last_applied(
    connection: &Connection,
    names: &Names,
) -> Result<Applied, QueueError> {
    if !is_recorded(connection, names).await.map_err(failed)? {
        return Ok(Applied::default());
    }
    let channel = connection.create_channel().await.map_err(failed)?;
    let (known, tag) = known(&channel, names, LOOKS).await.map_err(failed)?;
    let Some(tag) = tag else { return Err(QueueError::Held(names.applied())) };
    give_back(&channel, tag).await.map_err(failed)?;
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    Ok(known)
}

/// Returns the messages up to the tag.
async fn give_back(channel: &Channel, tag: u64) -> lapin::Result<()> {
    channel.basic_nack(tag, BasicNackOptions { multiple: true, requeue: true }).await
}

/// Stores this instead of the messages up to the tag.
async fn replace(
    channel: &Channel,
    names: &Names,
    applied: &Applied,
    tag: Option<u64>,
) -> Result<(), QueueError> {
    remember(channel, names, applied).await?;
    if let Some(tag) = tag {
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.map_err(failed)?;
    }
    Ok(())
}

/// The bindings that were last stored, and the delivery tag of the last message read.
async fn remembered(channel: &Channel, names: &Names) -> lapin::Result<(Applied, Option<u64>)> {
    let (mut known, mut last) = (Applied::default(), None);
    let queue = names.applied();
    while let Some(got) = channel.basic_get(short(&queue)?, BasicGetOptions::default()).await? {
        // A crash between two steps can leave more than one message: all of them count.
        if let Ok(read) = serde_json::from_slice::<Applied>(&got.delivery.data) {
            known.v = known.v.max(read.v);
            known.queues.extend(read.queues);
            known.bindings.extend(read.bindings);
            for (destination, counts) in read.shards {
                known.shards.entry(destination).or_default().extend(counts);
            }
        }
        last = Some(got.delivery.delivery_tag);
    }
    Ok((known, last))
}

async fn remember(channel: &Channel, names: &Names, applied: &Applied) -> Result<(), QueueError> {
    let body = serde_json::to_vec(applied).map_err(|_| QueueError::Refused)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let exchange = short(&names.internal()).map_err(failed)?;
    let queue = short(&names.applied()).map_err(failed)?;
    let confirm =
        channel.basic_publish(exchange, queue, options, &body, properties).await.map_err(failed)?;
    match confirm.await.map_err(failed)? {
        Confirmation::Ack(None) => Ok(()),
        _ => Err(QueueError::Refused),
    }
}

/// The queues that no binding leads to any more, without those of former shards: the workers of
/// their destination consume them.
fn abandoned(
    names: &Names,
    routes: &Routes,
    gone: &[Binding],
    applied: &Applied,
) -> BTreeSet<String> {
    let has = |name: &str| routes.subscribers.iter().any(|one| one.destination == name);
    let wanted = |queue: &str| {
        applied.bindings.iter().any(|binding| binding.queue == queue)
            || routes.subscribers.iter().any(|one| names.work_queue(&one.destination, 0) == queue)
    };
    let queues = gone.iter().filter(|binding| !binding.to_exchange && !wanted(&binding.queue));
    let sharded = applied.shards.iter().filter(|(name, counts)| {
        let led_to = |count| {
            let exchange = names.shards(name, count);
            gone.iter().any(|binding| binding.to_exchange && binding.queue == exchange)
        };
        !has(name) && counts.iter().copied().any(led_to)
    });
    let shards = sharded.flat_map(|(name, counts)| {
        let highest = counts.last().copied().unwrap_or(1);
        (0..highest).map(|shard| names.work_queue(name, shard))
    });
    queues.map(|binding| binding.queue.clone()).chain(shards).collect()
}

async fn report(connection: &Connection, abandoned: &BTreeSet<String>) {
    for queue in abandoned {
        let messages = depth(connection, queue).await;
        tracing::warn!(
            queue,
            messages,
            "this configuration routes nothing to the queue any more; its messages are kept"
        );
    }
}

/// Number of messages that wait in a queue, if the broker answers.
pub(super) async fn depth(connection: &Connection, queue: &str) -> Option<u32> {
    waiting(connection, queue).await.ok()
}

/// Number of messages that wait in a queue.
pub(super) async fn waiting(connection: &Connection, queue: &str) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let declared = channel.queue_declare(short(queue)?, passive, FieldTable::default()).await?;
    channel.close(REPLY_SUCCESS, short("")?).await?;
    Ok(declared.message_count())
}
