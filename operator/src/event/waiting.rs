//! What can be done with a delivery that waits for its next attempt: make it now, or never.
//!
//! Its message stays where it waits; when its time comes, the journal tells it from what was done
//! here. So the bytes are taken from the archive.

use std::time::Duration;

use zentra_shared::config::Config;
use zentra_shared::delivery;
use zentra_shared::event::DeliveryKey;
use zentra_shared::journal::{AttemptResult, Claim, Delivery, Histories, Journal, Settle, What};
use zentra_shared::lifecycle::{Answer, DeadReason, Outcome, State};
use zentra_shared::queue::{Archived, Message, Operate, Process};

use super::status;
use crate::archive;
use crate::backend::Backend;
use crate::control::{Asked, Audited};
use crate::failure::Failure;
use crate::payload;

/// How long an operator's claim lasts, should he be killed in between.
const LEASE: Duration = Duration::from_secs(30);
/// The archive's times may be a little off.
const BEFORE: Duration = Duration::from_secs(60);

/// Has the next attempt made now, and notes it: of which delivery. None if none of this name waits.
pub(crate) async fn now(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    asked: &Asked,
) -> Result<Option<DeliveryKey>, Failure> {
    let histories = backend.histories()?;
    let Some(delivery) = find(&histories, config, id).await? else { return Ok(None) };
    let queue = backend.queue().await?;
    let deed = async {
        let message = message(&queue, config, &delivery).await?;
        let what = What::Released { reason: asked.because.clone() };
        histories.note(&delivery.key, message.generation, &asked.by, &what).await?;
        Ok(queue.requeue(delivery.key.destination(), &message).await?)
    };
    let done = audited(&histories, "event release", &delivery, asked).run(deed, nothing).await;
    backend.close(queue).await;
    done.map(|()| Some(delivery.key))
}

/// Gives it up, and notes it: which delivery.
pub(crate) async fn end(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    asked: &Asked,
) -> Result<DeliveryKey, Failure> {
    let histories = backend.histories()?;
    let Some(delivery) = find(&histories, config, id).await? else {
        let found = super::find(&histories, &config.pairs(), id).await?;
        let states = found.iter().map(|one| format!("  {}: {}", one.key, status(one)));
        let states = states.collect::<Vec<_>>().join("\n");
        return Err(Failure::Asked(format!("{id} doesn't wait for an attempt:\n{states}")));
    };
    let queue = backend.queue().await?;
    let deed = async {
        let message = message(&queue, config, &delivery).await?;
        given_up(&histories, &queue, config, &delivery, &message, asked).await
    };
    let done = audited(&histories, "event end", &delivery, asked).run(deed, nothing).await;
    backend.close(queue).await;
    done.map(|()| delivery.key)
}

fn audited<'a, C>(
    control: &'a C,
    action: &'a str,
    delivery: &Delivery,
    asked: &Asked,
) -> Audited<'a, C> {
    Audited { control: Some(control), action, on: delivery.key.to_string(), said: asked.said() }
}

fn nothing((): &()) -> String {
    String::new()
}

/// The delivery of this name that waits, if there is one; several are told.
async fn find(
    histories: &impl Histories,
    config: &Config,
    id: &str,
) -> Result<Option<Delivery>, Failure> {
    let found = super::find(histories, &config.pairs(), id).await?;
    let mut waiting = found.into_iter().filter(|one| one.record.state == State::Waiting);
    let first = waiting.next();
    match (first, waiting.next()) {
        (Some(one), Some(other)) => Err(Failure::Asked(format!(
            "{id} waits at several destinations.\nGive the delivery key: {} or {} …",
            one.key, other.key
        ))),
        (first, _) => Ok(first),
    }
}

/// The message as it waits.
async fn message(
    queue: &impl Operate,
    config: &Config,
    delivery: &Delivery,
) -> Result<Message, Failure> {
    let unknown = || {
        Failure::Asked(format!(
            "the bytes of {} are in no archive, only where it waits.\nLet it wait; set archive = \
             true for its source.",
            delivery.key
        ))
    };
    let from = delivery.event.received_at.unwrap_or_default().minus(BEFORE);
    let archived = archive::open(queue, config, from).await?;
    let mut archived = archived.ok_or_else(unknown)?;
    let destination = delivery.key.destination();
    while let Some(sealed) = archived.next().await? {
        if delivery::open(&config.seal, destination, &sealed).key == delivery.key {
            let (attempt, generation) = (delivery.record.attempt, delivery.record.generation);
            let message = Message { attempt, generation, ..Message::new(sealed) };
            return Ok(delivery::countersign(&config.seal, destination, message)?);
        }
    }
    Err(unknown())
}

/// As a worker gives up: claimed, so that nobody attempts it meanwhile; the letter confirmed; then
/// settled.
async fn given_up(
    journal: &impl Journal,
    queue: &impl Process,
    config: &Config,
    delivery: &Delivery,
    message: &Message,
    asked: &Asked,
) -> Result<(), Failure> {
    let key = &delivery.key;
    let opened = delivery::open(&config.seal, key.destination(), &message.sealed);
    let (generation, attempt) = (message.generation, message.attempt);
    let (print, summary) = (&opened.print, &payload::summary(config, &opened.summary));
    let retention = config.redis.retention;
    let (worker, lease) = (asked.by.as_str(), LEASE);
    let claim = Claim { key, generation, attempt, lease, worker, print, summary, retention };
    let Answer::Claimed { fence, .. } = journal.claim(&claim).await? else {
        return Err(Failure::Asked(format!(
            "{key} waits no more: a worker was faster.\nSee zentra event show {key}."
        )));
    };
    let (reason, error) = (DeadReason::Ended, Some(asked.because.clone()));
    queue.dead(key.destination(), message, reason, error.as_deref()).await?;
    let outcome = Outcome::Dead(reason);
    let result = &AttemptResult { error, ..AttemptResult::default() };
    let settle = Settle {
        key,
        fence,
        generation,
        attempt,
        outcome,
        worker,
        result,
        print,
        summary,
        retention,
    };
    journal.settle(&settle).await?;
    Ok(())
}
