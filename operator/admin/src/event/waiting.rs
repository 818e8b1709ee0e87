//! Actions on a delivery that waits for its next attempt: attempt now, or end.
//!
//! Its message stays in the delay queue; when it is due, the store knows that it was overtaken. So
//! the body is taken from the archive.

use std::time::Duration;

use zentra_config::Config;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::{Answer, DeadReason, Outcome, State};
use zentra_store::delivery;
use zentra_store::journal::{
    AttemptResult, Claim, Delivery, DeliveryStore, HistoryEvent, Journal, Settle,
};
use zentra_store::queue::{Archived, Message, Operate, Process};

use crate::archive;
use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::deliveries;
use crate::error::{AdminError, ErrorCode};
use crate::payload;

/// Lease of an operator's claim, in case the program is killed.
const LEASE: Duration = Duration::from_secs(30);
/// Tolerance for the archive's times.
const BEFORE: Duration = Duration::from_secs(60);

/// Has the next attempt made now, and notes it: of which delivery. None if none of this name waits.
pub(crate) async fn now(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    actor: &Actor,
) -> Result<Option<DeliveryKey>, AdminError> {
    let histories = backend.histories();
    let Some(delivery) = find(&histories, config, id).await? else { return Ok(None) };
    let queue = backend.queue().await?;
    let deed = async {
        let message = message(&queue, config, &delivery).await?;
        let what = HistoryEvent::Released { reason: actor.reason.clone() };
        histories.note(&delivery.key, message.generation, &actor.name, &what).await?;
        Ok(queue.requeue(delivery.key.destination(), &message).await?)
    };
    audited(&histories, "event release", &delivery, actor).run(deed, nothing).await?;
    Ok(Some(delivery.key))
}

/// Ends the retries of a delivery that waits for its next attempt: it is a dead letter then. Returns its key.
///
/// # Errors
/// [`ErrorCode::NotWaiting`], [`ErrorCode::AmbiguousId`], [`ErrorCode::PayloadNotArchived`], and those of store and
/// broker.
pub async fn end(
    backend: &impl Backend,
    config: &Config,
    id: &str,
    actor: &Actor,
) -> Result<DeliveryKey, AdminError> {
    let histories = backend.histories();
    let Some(delivery) = find(&histories, config, id).await? else {
        let found = deliveries::find(&histories, &config.pairs(), id).await?;
        let states = found.iter().map(|one| format!("  {}: {}", one.key, deliveries::status(one)));
        let states = states.collect::<Vec<_>>().join("\n");
        let message = format!("{id} is not waiting for an attempt:\n{states}");
        return Err(AdminError::new(ErrorCode::NotWaiting, message).about(id));
    };
    let queue = backend.queue().await?;
    let deed = async {
        let message = message(&queue, config, &delivery).await?;
        given_up(&histories, &queue, config, &delivery, &message, actor).await
    };
    audited(&histories, "event end", &delivery, actor).run(deed, nothing).await?;
    Ok(delivery.key)
}

fn audited<'a, C>(
    control: &'a C,
    action: &'a str,
    delivery: &Delivery,
    actor: &Actor,
) -> Audited<'a, C> {
    Audited {
        control: Some(control),
        action,
        on: delivery.key.to_string(),
        attribution: actor.attribution(),
    }
}

fn nothing((): &()) -> String {
    String::new()
}

/// The delivery of this name that waits, if there is one; several are told.
async fn find(
    histories: &impl DeliveryStore,
    config: &Config,
    id: &str,
) -> Result<Option<Delivery>, AdminError> {
    let found = deliveries::find(histories, &config.pairs(), id).await?;
    let mut waiting = found.into_iter().filter(|one| one.record.state == State::Waiting);
    let first = waiting.next();
    match (first, waiting.next()) {
        (Some(one), Some(other)) => {
            let message = format!("{id} waits at several destinations.");
            Err(AdminError::new(ErrorCode::AmbiguousId, message)
                .hint(format!("Give the delivery key: {} or {} …", one.key, other.key))
                .about(id))
        }
        (first, _) => Ok(first),
    }
}

/// The waiting message.
async fn message(
    queue: &impl Operate,
    config: &Config,
    delivery: &Delivery,
) -> Result<Message, AdminError> {
    let unknown = || {
        let message = format!(
            "the body of {} is not archived: only its waiting message has it.",
            delivery.key
        );
        AdminError::new(ErrorCode::PayloadNotArchived, message)
            .hint("Wait for its next attempt, and set archive = true for its source.")
            .about(delivery.key.as_str())
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

/// Dead-letters it like a worker: claim, confirmed dead letter, settlement.
async fn given_up(
    journal: &impl Journal,
    queue: &impl Process,
    config: &Config,
    delivery: &Delivery,
    message: &Message,
    actor: &Actor,
) -> Result<(), AdminError> {
    let key = &delivery.key;
    let opened = delivery::open(&config.seal, key.destination(), &message.sealed);
    let (generation, attempt) = (message.generation, message.attempt);
    let (fingerprint, summary) = (&opened.fingerprint, &payload::summary(config, &opened.summary));
    let retention = config.store.retention;
    let (worker, lease) = (actor.name.as_str(), LEASE);
    let claim = Claim { key, generation, attempt, lease, worker, fingerprint, summary, retention };
    let Answer::Claimed { fence, .. } = journal.claim(&claim).await? else {
        let message = format!("{key} no longer waits: a worker has claimed it.");
        return Err(AdminError::new(ErrorCode::NotWaiting, message).about(key.as_str()));
    };
    let (reason, error) = (DeadReason::Ended, Some(actor.reason.clone()));
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
        fingerprint,
        summary,
        retention,
    };
    journal.settle(&settle).await?;
    Ok(())
}
