//! Migration from one file to RabbitMQ and Redis. Nothing is lost, and nothing runs twice.
//!
//! The memory goes first, so that each message finds what is known of it. A message leaves the
//! file when RabbitMQ has confirmed it; one that a broken-off move sends again is recognised as a
//! copy by that memory.

use std::collections::HashSet;
use std::path::Path;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock;
use zentra_core::lifecycle::DeadReason;
use zentra_rabbitmq::{Amqp, Settings};
pub use zentra_redis::Copied;
use zentra_redis::RedisJournal;
use zentra_sqlite::{Export, ExportedMessage, Inventory, QueueLocation};
use zentra_store::control::{AUDITED, AuditEntry, ControlAction, OperatorControl};
use zentra_store::delivery;
use zentra_store::job::Jobs;
use zentra_store::queue::{Delay, Operate, Process, Publish, QueueError};

use crate::backend::{Backend, Servers, alone, connected};
use crate::error::{AdminError, ErrorCode};
use crate::progress::Progress;

/// Under way at a time.
const AT_ONCE: usize = 64;
/// Letters that are looked at to tell whether the seal's keys are right.
const SAMPLE: usize = 16;

/// What was moved, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Moved {
    /// Deliveries that were added to Redis.
    pub deliveries: u64,
    /// Deliveries that Redis had already.
    pub known: u64,
    /// Messages in work queues.
    pub work: u64,
    /// Dead letters.
    pub dead: u64,
    pub unrouted: u64,
    pub refused: u64,
    pub archived: u64,
    /// Archived events whose source has no archive any more. They are not moved.
    pub not_archived: u64,
}

/// Moves what the file holds to RabbitMQ and Redis, or only counts it. If it is broken off, run it again.
///
/// # Errors
/// [`ErrorCode::MigrationRefused`] before anything is changed, and those of file, store and broker.
pub async fn run(
    config: &Config,
    from: &Path,
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<Moved, AdminError> {
    if config.embedded.is_some() {
        return Err(refused("the configuration has [embedded] path.").hint(
            "Give the configuration with the [rabbitmq] and [redis] to migrate to, and the file separately.",
        ));
    }
    if !from.exists() {
        return Err(refused(format!("{} does not exist.", from.display()))
            .hint("Give the file of [embedded] path."));
    }
    let _alone = alone(from)?;
    let export = Export::open(from, dry_run)?;
    let load = export.load().await?;
    fits(config, &export, &load).await?;
    match dry_run {
        true => Ok(expected(&load)),
        false => on_servers(config, &export, progress).await,
    }
}

/// Copies what one Redis remembers to another one, also from one server to a cluster and back, or only counts
/// it. The messages in RabbitMQ stay where they are. If it is broken off, run it again.
///
/// # Errors
/// [`ErrorCode::MigrationRefused`] before anything is changed, and those of the stores.
pub async fn between_stores(
    config: &Config,
    from: &Config,
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<Copied, AdminError> {
    let (Some(old), Some(new)) = (&from.redis.servers, &config.redis.servers) else {
        return Err(refused("one of the two configurations has no [redis].").hint(
            "Give the configuration with the new [redis], and the old configuration separately.",
        ));
    };
    if old.is(new) && from.namespace == config.namespace {
        return Err(refused("both configurations have the same [redis] and namespace."));
    }
    let (from, to) = (Servers::new(from)?.histories(), Servers::new(config)?.histories());
    no_workers(&from, "from").await?;
    no_workers(&to, "to").await?;
    let show = |copied: &Copied| {
        progress.show(format!("{} deliveries", copied.deliveries + copied.known));
    };
    let copied = from.copy_to(&to, dry_run, &show).await?;
    // One that was started meanwhile may have written what was not copied.
    no_workers(&from, "from").await?;
    Ok(copied)
}

async fn no_workers(store: &RedisJournal, which: &str) -> Result<(), AdminError> {
    let workers = store.workers().await?;
    match workers.items.len() + workers.newer.len() {
        0 => Ok(()),
        some => Err(refused(format!("{some} workers use the Redis to migrate {which}.")).hint(
            "Stop all workers, and zentra serve. A worker that was killed counts for half a minute.",
        )),
    }
}

fn refused(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::MigrationRefused, message)
}

/// Whether the new config can hold what the file has, before anything is changed.
async fn fits(config: &Config, export: &Export, load: &Inventory) -> Result<(), AdminError> {
    let known = |name: &str| config.destinations.iter().any(|one| one.name == name);
    for queue in load.queues.keys() {
        let Some((_, name)) = queue.split_once('/') else { continue };
        if !known(name) {
            let message = format!(
                "the file has messages for the destination {name}, which the configuration lacks."
            );
            return Err(refused(message).hint("Add it, or drain them first."));
        }
    }
    for queue in load.queues.keys().filter(|queue| queue.starts_with("work/")) {
        let sample = export.messages(queue).await?.into_iter().take(SAMPLE);
        let opened =
            |one: ExportedMessage| delivery::open(&config.seal, "", &one.message.sealed).event;
        let opened: Vec<bool> = sample.map(|one| opened(one).is_ok()).collect();
        if !opened.is_empty() && opened.iter().all(|opened| !opened) {
            let message = "the [seal] keys of this configuration open none of the file's messages.";
            return Err(
                refused(message).hint("Use the [seal] keys that the file was written with.")
            );
        }
    }
    Ok(())
}

fn expected(load: &Inventory) -> Moved {
    let of = |kind: &str| {
        let queues = load.queues.iter().filter(|(queue, _)| queue.starts_with(kind));
        queues.map(|(_, count)| count).sum()
    };
    Moved {
        deliveries: load.deliveries,
        work: of("work/"),
        dead: of("dead/"),
        unrouted: of("unrouted"),
        refused: of("refused"),
        archived: load.archived,
        ..Moved::default()
    }
}

async fn on_servers(
    config: &Config,
    export: &Export,
    progress: &dyn Progress,
) -> Result<Moved, AdminError> {
    let journal = Servers::new(config)?.histories();
    // By one lane, so that dead letters keep their order.
    let queue = Amqp::ingress(Settings { lanes: 1, ..Settings::from(config) });
    connected(&queue).await?;
    export.begin().await?;
    // Only now nobody adds a queue any more.
    let queues = export.load().await?.queues;
    let mut moved = Moved::default();
    let done = async {
        control(&export.control(), &journal).await?;
        memory(export, &journal, &mut moved, progress).await?;
        for name in queues.keys() {
            messages(export, name, &queue, &mut moved, progress).await?;
        }
        archive(config, export, &queue, &mut moved, progress).await
    };
    let done = done.await;
    queue.close().await;
    done.map(|()| moved)
}

/// Pauses, tokens, jobs and the audit. Once more, it changes nothing.
async fn control(
    from: &(impl OperatorControl + Jobs),
    to: &(impl OperatorControl + Jobs),
) -> Result<(), AdminError> {
    for (destination, desired) in from.desired_states().await? {
        if let Some(attribution) = &desired.pause {
            to.apply(&destination, ControlAction::Pause, Some(attribution)).await?;
        }
    }
    for token in from.tokens().await?.all()? {
        to.keep_token(&token).await?;
    }
    for job in from.jobs().await?.all()?.iter().rev() {
        to.keep_job(job).await?;
    }
    let known: HashSet<AuditEntry> = to.audited(AUDITED).await?.items.into_iter().collect();
    for act in from.audited(AUDITED).await?.all()?.iter().rev().filter(|act| !known.contains(act)) {
        to.audit(act).await?;
    }
    Ok(())
}

async fn memory(
    export: &Export,
    journal: &RedisJournal,
    moved: &mut Moved,
    progress: &dyn Progress,
) -> Result<(), AdminError> {
    let mut behind = 0;
    loop {
        let page = export.deliveries(behind).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        behind = *last;
        let taken = stream::iter(&page).map(|(_, one)| journal.take_over(one));
        let new: Vec<bool> = taken.buffer_unordered(AT_ONCE).try_collect().await?;
        let new = new.iter().filter(|new| **new).count();
        moved.deliveries += new as u64;
        moved.known += (page.len() - new) as u64;
        progress.show(format!("{} deliveries", moved.deliveries + moved.known));
    }
}

async fn messages(
    export: &Export,
    name: &str,
    queue: &Amqp,
    moved: &mut Moved,
    progress: &dyn Progress,
) -> Result<(), AdminError> {
    loop {
        let page = export.messages(name).await?;
        if page.is_empty() {
            return Ok(());
        }
        let sent = stream::iter(&page).map(|one| send(queue, one)).buffered(AT_ONCE);
        sent.try_collect::<()>().await?;
        let count = page.len() as u64;
        match page.first().map(|one| &one.spot) {
            Some(QueueLocation::Work(..)) => moved.work += count,
            Some(QueueLocation::Dead(..)) => moved.dead += count,
            Some(QueueLocation::Unrouted) => moved.unrouted += count,
            Some(QueueLocation::Refused) | None => moved.refused += count,
        }
        export.arrived(page.into_iter().map(|one| one.id).collect()).await?;
        progress.show(format!("{name}: {} messages", moved.work + moved.dead));
    }
}

/// Returns when it is durable in its new place.
async fn send(queue: &Amqp, carried: &ExportedMessage) -> Result<(), QueueError> {
    let ExportedMessage { spot, message, .. } = carried;
    match spot {
        QueueLocation::Work(destination, due) => {
            let wait = due.since(clock::now());
            match wait.is_zero() {
                true => queue.requeue(destination, message).await,
                false => {
                    // Never early: a destination may have asked for the time.
                    let delay = queue.delay(Delay::AtLeast(wait));
                    queue.retry(destination, message, delay).await
                }
            }
        }
        QueueLocation::Dead(destination, error) => {
            let reason = message.dead.unwrap_or(DeadReason::Crashed);
            queue.dead(destination, message, reason, error.as_deref()).await
        }
        QueueLocation::Unrouted => queue.leave_unrouted(&message.sealed).await,
        QueueLocation::Refused => queue.keep(&message.sealed).await,
    }
}

async fn archive(
    config: &Config,
    export: &Export,
    queue: &Amqp,
    moved: &mut Moved,
    progress: &dyn Progress,
) -> Result<(), AdminError> {
    let sources = config.routes().archive.sources;
    let kept = |route: &str| {
        let source = route.split('.').next().unwrap_or_default();
        sources.iter().any(|kept| kept == source)
    };
    let mut behind = 0;
    loop {
        let page = export.archived(behind).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        behind = *last;
        let (wanted, left): (Vec<_>, Vec<_>) =
            page.iter().partition(|(_, sealed)| kept(&sealed.route));
        let sent = stream::iter(&wanted).map(|(_, sealed)| queue.archive(sealed)).buffered(AT_ONCE);
        sent.try_collect::<()>().await?;
        export.archive_arrived(wanted.iter().map(|(id, _)| *id).collect()).await?;
        moved.archived += wanted.len() as u64;
        moved.not_archived += left.len() as u64;
        progress.show(format!("archive: {} events", moved.archived));
    }
}
