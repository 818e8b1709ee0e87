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
use zentra_redis::RedisJournal;
use zentra_sqlite::{Carried, Carry, Load, Spot};
use zentra_store::control::{AUDITED, Act, Control, Wish};
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
    /// Deliveries that Redis remembers now.
    pub deliveries: u64,
    /// Those that it remembered already.
    pub known: u64,
    /// Messages in work queues.
    pub work: u64,
    /// Dead letters.
    pub dead: u64,
    pub unrouted: u64,
    pub refused: u64,
    pub archived: u64,
    /// Events of the archive whose source isn't archived any more: they stay behind.
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
        return Err(refused("the config names [embedded] path.").hint(
            "Give the one with the [rabbitmq] and [redis] to move to, and the file beside it.",
        ));
    }
    if !from.exists() {
        return Err(refused(format!("{} isn't there.", from.display()))
            .hint("Name the file of [embedded] path."));
    }
    let _alone = alone(from)?;
    let carry = Carry::open(from)?;
    let load = carry.load().await?;
    fits(config, &carry, &load).await?;
    match dry_run {
        true => Ok(expected(&load)),
        false => on_servers(config, &carry, progress).await,
    }
}

fn refused(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::MigrationRefused, message)
}

/// Whether the new config can hold what the file has, before anything is changed.
async fn fits(config: &Config, carry: &Carry, load: &Load) -> Result<(), AdminError> {
    let known = |name: &str| config.destinations.iter().any(|one| one.name == name);
    for queue in load.queues.keys() {
        let Some((_, name)) = queue.split_once('/') else { continue };
        if !known(name) {
            let message = format!(
                "the file has messages for the destination {name}, and the config doesn't know it."
            );
            return Err(refused(message).hint("Add it, or drain them first."));
        }
    }
    for queue in load.queues.keys().filter(|queue| queue.starts_with("work/")) {
        let sample = carry.messages(queue).await?.into_iter().take(SAMPLE);
        let opened = |one: Carried| delivery::open(&config.seal, "", &one.message.sealed).event;
        let opened: Vec<bool> = sample.map(|one| opened(one).is_ok()).collect();
        if !opened.is_empty() && opened.iter().all(|opened| !opened) {
            let message = "the seal's keys of this config open nothing of what the file holds.";
            return Err(refused(message).hint("Give it the same [seal] keys."));
        }
    }
    Ok(())
}

fn expected(load: &Load) -> Moved {
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
    carry: &Carry,
    progress: &dyn Progress,
) -> Result<Moved, AdminError> {
    let journal = Servers::new(config)?.histories();
    // By one lane, so that dead letters keep their order.
    let queue = Amqp::entrance(Settings { lanes: 1, ..Settings::from(config) });
    connected(&queue).await?;
    carry.begin().await?;
    // Only now nobody adds a queue any more.
    let queues = carry.load().await?.queues;
    let mut moved = Moved::default();
    let done = async {
        control(&carry.control(), &journal).await?;
        memory(carry, &journal, &mut moved, progress).await?;
        for name in queues.keys() {
            messages(carry, name, &queue, &mut moved, progress).await?;
        }
        archive(config, carry, &queue, &mut moved, progress).await
    };
    let done = done.await;
    queue.close().await;
    done.map(|()| moved)
}

/// Pauses, tokens, jobs and the audit. Once more, it changes nothing.
async fn control(
    from: &(impl Control + Jobs),
    to: &(impl Control + Jobs),
) -> Result<(), AdminError> {
    for (destination, order) in from.orders().await? {
        if let Some(said) = &order.pause {
            to.wish(&destination, Wish::Pause, Some(said)).await?;
        }
    }
    for token in from.tokens().await? {
        to.keep_token(&token).await?;
    }
    for job in from.jobs().await?.iter().rev() {
        to.keep_job(job).await?;
    }
    let known: HashSet<Act> = to.audited(AUDITED).await?.into_iter().collect();
    for act in from.audited(AUDITED).await?.iter().rev().filter(|act| !known.contains(act)) {
        to.audit(act).await?;
    }
    Ok(())
}

async fn memory(
    carry: &Carry,
    journal: &RedisJournal,
    moved: &mut Moved,
    progress: &dyn Progress,
) -> Result<(), AdminError> {
    let mut behind = 0;
    loop {
        let page = carry.deliveries(behind).await?;
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
    carry: &Carry,
    name: &str,
    queue: &Amqp,
    moved: &mut Moved,
    progress: &dyn Progress,
) -> Result<(), AdminError> {
    loop {
        let page = carry.messages(name).await?;
        if page.is_empty() {
            return Ok(());
        }
        let sent = stream::iter(&page).map(|one| send(queue, one)).buffered(AT_ONCE);
        sent.try_collect::<()>().await?;
        let count = page.len() as u64;
        match page.first().map(|one| &one.spot) {
            Some(Spot::Work(..)) => moved.work += count,
            Some(Spot::Dead(..)) => moved.dead += count,
            Some(Spot::Unrouted) => moved.unrouted += count,
            Some(Spot::Refused) | None => moved.refused += count,
        }
        carry.arrived(page.into_iter().map(|one| one.id).collect()).await?;
        progress.show(format!("{name}: {} messages", moved.work + moved.dead));
    }
}

/// Returns when it is durable in its new place.
async fn send(queue: &Amqp, carried: &Carried) -> Result<(), QueueError> {
    let Carried { spot, message, .. } = carried;
    match spot {
        Spot::Work(destination, due) => {
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
        Spot::Dead(destination, error) => {
            let reason = message.dead.unwrap_or(DeadReason::Crashed);
            queue.dead(destination, message, reason, error.as_deref()).await
        }
        Spot::Unrouted => queue.leave_unrouted(&message.sealed).await,
        Spot::Refused => queue.keep(&message.sealed).await,
    }
}

async fn archive(
    config: &Config,
    carry: &Carry,
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
        let page = carry.archived(behind).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        behind = *last;
        let (wanted, left): (Vec<_>, Vec<_>) =
            page.iter().partition(|(_, sealed)| kept(&sealed.route));
        let sent = stream::iter(&wanted).map(|(_, sealed)| queue.archive(sealed)).buffered(AT_ONCE);
        sent.try_collect::<()>().await?;
        carry.archive_arrived(wanted.iter().map(|(id, _)| *id).collect()).await?;
        moved.archived += wanted.len() as u64;
        moved.not_archived += left.len() as u64;
        progress.show(format!("archive: {} events", moved.archived));
    }
}
