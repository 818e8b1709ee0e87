//! The work queues of a destination.

use serde::Serialize;
use zentra_config::{Config, Destination, MAX_SHARDS};
use zentra_store::queue::{Operate, Place, Receipt, Walk};

use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::error::AdminError;
use crate::filter;
use crate::status::depth;

/// One of a destination's work queues.
#[derive(Clone, Debug, Serialize)]
pub struct WorkQueue {
    /// Number of the queue, from 0.
    pub shard: u16,
    /// Messages that wait in it. `None` if no worker has declared it yet.
    pub messages: Option<u64>,
    /// Whether the configuration has it. Otherwise `shards` was higher once, and the queue gets no
    /// new messages.
    pub current: bool,
}

/// What was moved, or would be.
#[derive(Debug, Serialize)]
pub struct Resharded {
    /// The queues afterwards. A former queue that still has messages is one that no ingress or worker
    /// has left yet: each moved message came back to it.
    pub queues: Vec<WorkQueue>,
    /// Number of messages.
    pub moved: u64,
}

/// A destination's work queues: those of the configuration, and those of a higher count that still
/// exist.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`], and those of the broker.
pub async fn list(
    backend: &impl Backend,
    config: &Config,
    name: &str,
) -> Result<Vec<WorkQueue>, AdminError> {
    let destination = find(config, name)?;
    queues(&backend.queue().await?, destination).await
}

/// Moves up to `limit` messages of former queues to the current ones, in their order. With
/// `dry_run`, none is moved. Workers consume former queues too, so this is needed only to empty them without a worker.
///
/// # Errors
/// [`crate::ErrorCode::DestinationNotFound`], and those of the broker and of the store.
pub async fn reshard(
    backend: &impl Backend,
    config: &Config,
    name: &str,
    (limit, dry_run): (u64, bool),
    actor: &Actor,
) -> Result<Resharded, AdminError> {
    let destination = find(config, name)?;
    let (control, queue) = (backend.histories(), backend.queue().await?);
    let audited = Audited {
        control: (!dry_run).then_some(&control),
        action: "destination reshard",
        on: name.into(),
        attribution: actor.attribution(),
    };
    let moving = async {
        let mut moved = 0;
        for former in queues(&queue, destination).await?.iter().filter(|one| !one.current) {
            let most = former.messages.unwrap_or(0).min(limit - moved);
            moved += match dry_run {
                _ if most == 0 => 0,
                true => most,
                false => move_from(&queue, name, former.shard, most).await?,
            };
        }
        Ok(Resharded { queues: queues(&queue, destination).await?, moved })
    };
    audited.run(moving, |resharded| format!("{} moved", resharded.moved)).await
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Destination, AdminError> {
    let found = config.destinations.iter().find(|destination| destination.name == name);
    found.ok_or_else(|| filter::unknown_destination(config, name))
}

async fn queues(
    queue: &impl Operate,
    destination: &Destination,
) -> Result<Vec<WorkQueue>, AdminError> {
    let mut all = Vec::new();
    for shard in 0..MAX_SHARDS {
        let current = shard < destination.shards;
        let messages = depth(queue, Place::Work(&destination.name, shard)).await?;
        if current || messages.is_some() {
            all.push(WorkQueue { shard, messages, current });
        }
    }
    Ok(all)
}

/// Moves messages as they are. A message that is in its new place and could not be removed from the
/// old one is a copy, which the workers recognise.
async fn move_from(
    queue: &impl Operate,
    destination: &str,
    shard: u16,
    most: u64,
) -> Result<u64, AdminError> {
    let mut walk = queue.walk(Place::Work(destination, shard)).await?;
    let mut moved = 0;
    while moved < most
        && let Some((message, receipt)) = walk.next().await?
    {
        queue.requeue(destination, &message).await?;
        receipt.ack().await;
        moved += 1;
    }
    walk.finish().await?;
    Ok(moved)
}
