//! Remembers which bindings were applied, so that bindings removed from the configuration can be
//! unbound.
//!
//! AMQP cannot list bindings. So the broker itself stores them, as the only message of a queue. A
//! program that applies a configuration holds a lock: an exclusive queue, which disappears with
//! its connection.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::Connection;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::topology::{
    Binding, Names, bindings, declare, declare_archive, detach_archive, short, unbind,
};
use super::{QueueError, Routes, Settings};
use crate::error::failed;

/// Number of attempts to take the lock, and the pause between them.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// Time limit for declaring the archive.
const ARCHIVE: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;
const REPLY_SUCCESS: u16 = 200;

/// What the message contains.
#[derive(Default, Serialize, Deserialize)]
struct Applied {
    v: u8,
    bindings: BTreeSet<Binding>,
}

/// Declares what these routes need, and unbinds what an earlier configuration applied and this one
/// lacks. Queues and their messages stay, and are logged. Returns `false` if nothing was unbound
/// because another program held the lock for too long.
pub(super) async fn apply(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> Result<bool, QueueError> {
    let Some(lock) = lock(connection, names).await? else {
        tracing::warn!("another program is applying its configuration: nothing was unbound");
        declare(connection, names, settings, routes).await.map_err(failed)?;
        return Ok(false);
    };
    apply_locked(connection, names, settings, routes).await?;
    lock.release().await?;
    Ok(true)
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
) -> Result<(), QueueError> {
    declare(connection, names, settings, routes).await.map_err(failed)?;
    let channel = connection.create_channel().await.map_err(failed)?;
    let (known, tag) = remembered(&channel, names).await.map_err(failed)?;
    let wanted: BTreeSet<Binding> = bindings(names, routes).into_iter().collect();
    let gone: Vec<&Binding> = known.bindings.difference(&wanted).collect();
    for binding in &gone {
        unbind(&channel, binding).await.map_err(failed)?;
        tracing::info!(queue = binding.queue, pattern = binding.pattern, "unbound");
    }
    if known.v == 0 || known.bindings != wanted {
        remember(&channel, names, &Applied { v: 1, bindings: wanted.clone() }).await?;
        if let Some(tag) = tag {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.map_err(failed)?;
        }
    }
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    report(connection, &gone, &wanted).await;
    Ok(())
}

/// Binds the archive, or unbinds it if the broker cannot serve it (no streams, or a stream that
/// does not recover). Events are then accepted without an archive. Returns `false` if the
/// configuration asks for an archive and none is bound.
pub(super) async fn archive(
    connection: &Connection,
    names: &Names,
    routes: &Routes,
) -> Result<bool, QueueError> {
    if routes.archive.sources.is_empty() {
        return Ok(true);
    }
    let declared = match timeout(ARCHIVE, declare_archive(connection, names, routes)).await {
        Ok(declared) => declared,
        // It may work all the same. While it holds confirms, events are published without it.
        Err(_) => {
            tracing::warn!("the broker does not answer about the archive: asking again later");
            return Ok(false);
        }
    };
    let Err(error) = declared else { return Ok(true) };
    detach_archive(connection, names).await.map_err(failed)?;
    tracing::error!(%error, "the broker cannot serve the archive: events are accepted without it");
    Ok(false)
}

/// Takes the lock. `None` if another program holds it for too long.
async fn lock(connection: &Connection, names: &Names) -> Result<Option<Lock>, QueueError> {
    let queue = short(&format!("{}.lock", names.applied())).map_err(failed)?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    for _ in 0..TRIES {
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

/// The bindings that were last stored, and the delivery tag of the last message read.
async fn remembered(channel: &Channel, names: &Names) -> lapin::Result<(Applied, Option<u64>)> {
    let (mut known, mut last) = (Applied::default(), None);
    let queue = names.applied();
    while let Some(got) = channel.basic_get(short(&queue)?, BasicGetOptions::default()).await? {
        // A crash between two steps can leave more than one message: all of them count.
        if let Ok(read) = serde_json::from_slice::<Applied>(&got.delivery.data) {
            known.v = read.v;
            known.bindings.extend(read.bindings);
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

/// Logs what is left in queues that no binding leads to any more.
async fn report(connection: &Connection, gone: &[&Binding], wanted: &BTreeSet<Binding>) {
    let queues: BTreeSet<&str> = gone.iter().map(|binding| binding.queue.as_str()).collect();
    for queue in queues {
        if wanted.iter().any(|binding| binding.queue == queue) {
            continue;
        }
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
    let channel = connection.create_channel().await.ok()?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let declared = channel.queue_declare(short(queue).ok()?, passive, FieldTable::default()).await;
    let count = declared.ok()?.message_count();
    let _ = channel.close(REPLY_SUCCESS, short("").ok()?).await;
    Some(count)
}
