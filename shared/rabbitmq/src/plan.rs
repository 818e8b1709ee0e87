//! What a start changes at RabbitMQ, found without changing it.
//!
//! AMQP lists neither queues nor bindings. So each part of the topology is asked for by its name, and bindings are
//! compared with those that were last [applied](super::applied).

use std::collections::BTreeSet;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ExchangeKind};
use tokio::time::timeout;
use zentra_store::plan::{Action, Change};

use super::applied::{Applied, depth, last_applied};
use super::declare::{Difference, compare};
use super::topology::{Binding, Names, Part, archive_parts, bindings, parts, short};
use super::{Amqp, DECLARE, QueueError, Routes, Settings};
use crate::error::{failed, is_missing};

const REPLY_SUCCESS: u16 = 200;

impl Amqp {
    /// What a start of ingress and worker with these routes would change, in the order of the changes. Whether an
    /// existing queue fits is checked only if this user may configure it.
    ///
    /// It reads the record of the bindings and returns it at once. A program that starts just then looks at the record
    /// again.
    ///
    /// # Errors
    /// [`QueueError::Timeout`] after 30 s; [`QueueError::Held`] if another program holds the record for over a second; [`QueueError::Disconnected`]; others of the broker.
    pub async fn plan(&self, routes: &Routes) -> Result<Vec<Change>, QueueError> {
        let session = self.reader()?;
        let plan = plan(&session.connection, &self.names, &self.settings, routes);
        timeout(DECLARE, plan).await.map_err(|_| QueueError::Timeout(DECLARE))?
    }
}

async fn plan(
    connection: &Connection,
    names: &Names,
    settings: &Settings,
    routes: &Routes,
) -> Result<Vec<Change>, QueueError> {
    // As a worker declares them.
    let settings = Settings { binds_shards: true, ..settings.clone() };
    let mut wanted = parts(names, &settings, routes);
    if !routes.archive.sources.is_empty() {
        wanted.extend(archive_parts(names, routes));
    }
    let mut changes = Vec::new();
    let mut may_compare = true;
    for part in &wanted {
        changes.extend(missing(connection, part, &mut may_compare).await.map_err(failed)?);
    }
    let known = last_applied(connection, names).await?;
    changes.extend(rebound(&known, &bindings(names, routes).into_iter().collect()));
    for queue in former(&known, &wanted) {
        if let Some(messages) = depth(connection, &queue).await {
            let note = format!("nothing is routed to it any more; it has {messages} messages");
            changes.push(Change { action: Action::Keep, object: format!("queue {queue}"), note });
        }
    }
    changes.sort_by_key(|change| change.action);
    Ok(changes)
}

/// What a part needs: to be created, or nothing. After the first refusal nothing more is compared: a user who may only
/// look gets one line in RabbitMQ's log, not one for each part.
async fn missing(
    connection: &Connection,
    part: &Part,
    may_compare: &mut bool,
) -> lapin::Result<Option<Change>> {
    let (object, exists) = match part {
        Part::Exchange { name, .. } => {
            (format!("exchange {name}"), exchange(connection, name).await)
        }
        Part::Queue { name, .. } => (format!("queue {name}"), queue(connection, name).await),
        Part::Binding { .. } => return Ok(None),
    };
    let note = String::new();
    match exists {
        Err(error) if is_missing(&error) => {
            Ok(Some(Change { action: Action::Create, object, note }))
        }
        Err(error) => Err(error),
        Ok(()) if !*may_compare => Ok(None),
        Ok(()) => Ok(match compare(connection, part).await? {
            Difference::None => None,
            Difference::Unknown => {
                *may_compare = false;
                None
            }
            Difference::Arguments(note) => Some(Change { action: Action::Conflict, object, note }),
        }),
    }
}

async fn exchange(connection: &Connection, name: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let (kind, none) = (ExchangeKind::Direct, FieldTable::default());
    channel.exchange_declare(short(name)?, kind, options, none).await?;
    channel.close(REPLY_SUCCESS, short("")?).await
}

async fn queue(connection: &Connection, name: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    channel.queue_declare(short(name)?, options, FieldTable::default()).await?;
    channel.close(REPLY_SUCCESS, short("")?).await
}

/// What is bound and unbound. Nothing is unbound if a newer version has declared the queues.
fn rebound(known: &Applied, wanted: &BTreeSet<Binding>) -> Vec<Change> {
    let change = |action, binding: &Binding| {
        let Binding { queue, exchange, pattern, .. } = binding;
        let object = format!("{exchange} to {queue}, by {pattern}");
        Change { action, object, note: String::new() }
    };
    let new = wanted.difference(&known.bindings).map(|one| change(Action::Bind, one));
    let old = known.bindings.difference(wanted).filter(|_| !known.is_newer());
    let old = old.map(|one| change(Action::Unbind, one));
    new.chain(old).collect()
}

/// Queues that a former configuration used.
fn former(known: &Applied, wanted: &[Part]) -> BTreeSet<String> {
    let bound = known.bindings.iter().filter(|binding| !binding.to_exchange);
    let mut former: BTreeSet<String> = bound.map(|binding| binding.queue.clone()).collect();
    former.extend(known.queues.iter().cloned());
    for part in wanted {
        if let Part::Queue { name, .. } = part {
            former.remove(name);
        }
    }
    former
}
