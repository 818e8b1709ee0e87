//! `zentra dead list`, `zentra dead requeue ID`, and `zentra event release ID`.

use std::io::Write;

use zentra_shared::delivery;
use zentra_shared::journal::{Delivery, Histories, What};
use zentra_shared::lifecycle::{DeadReason, State};
use zentra_shared::queue::{Message, Operate, Place, QueueError, Receipt, Walk};
use zentra_shared::seal::Sealer;

use crate::event::{find, status, words};
use crate::failure::Failure;

/// The dead of these destinations, at most `limit` of each.
pub(crate) async fn list(
    histories: &impl Histories,
    destinations: &[String],
    limit: usize,
) -> Result<Vec<Delivery>, Failure> {
    let mut found = Vec::new();
    for destination in destinations {
        found.extend(histories.dead(destination, limit).await?);
    }
    Ok(found)
}

/// Shows them to a person: one line each.
pub(crate) fn show(dead: &[Delivery], out: &mut impl Write) -> std::io::Result<()> {
    if dead.is_empty() {
        return writeln!(out, "no dead letters");
    }
    let width = dead.iter().map(|delivery| delivery.key.as_str().len()).max().unwrap_or(0);
    let head = ["DELIVERY", "REASON", "ATTEMPT", "SINCE", "LAST ANSWER"];
    let [delivery, reason, attempt, since, last] = head;
    writeln!(out, "{delivery:<width$}  {reason:<12} {attempt:<7} {since:<24}  {last}")?;
    for delivery in dead {
        let end = delivery.history.iter().rev().find_map(|entry| match &entry.what {
            What::Dead { result, .. } => Some((entry.at.to_string(), words(result))),
            _ => None,
        });
        let (since, last) = end.unwrap_or_default();
        let reason = delivery.reason.map_or("", |reason| reason.as_str());
        let (key, attempt) = (delivery.key.as_str(), delivery.record.attempt);
        writeln!(out, "{key:<width$}  {reason:<12} {attempt:<7} {since:<24}  {last}")?;
    }
    Ok(())
}

/// What an operator wants of a dead letter.
pub(crate) struct Wish<'a> {
    pub(crate) id: &'a str,
    /// [`What::Requeued`] or [`What::Released`].
    pub(crate) what: What,
    pub(crate) by: &'a str,
    /// Look through at most so many dead letters.
    pub(crate) look: usize,
}

/// Sends one dead letter back to its work queue, as the next generation. It passes the
/// same seal, claim and attempt as any message. Returns the delivery as it was.
pub(crate) async fn requeue(
    histories: &impl Histories,
    queue: &impl Operate,
    sealer: &Sealer,
    pairs: &[(&str, &str)],
    wish: &Wish<'_>,
) -> Result<Delivery, Failure> {
    let Wish { id, what, by, look: limit } = wish;
    let (id, limit) = (*id, *limit);
    let delivery = one_dead(find(histories, pairs, id).await?, id)?;
    fits(what, &delivery)?;
    let (key, destination) = (&delivery.key, delivery.key.destination());
    let wanted =
        |message: &Message| delivery::open(sealer, destination, &message.sealed).key == *key;
    let mut walk = queue.walk(Place::Dead(destination)).await?;
    let found = first(&mut walk, limit, wanted).await?;
    let Some((message, receipt)) = found else {
        return Err(Failure::Asked(format!(
            "{key} is dead, but its letter isn't among the first {limit} of the dead-letter \
             queue.\nAnother operator may hold it: try again; or look further with --look."
        )));
    };
    let next =
        Message { attempt: 1, generation: delivery.record.generation.saturating_add(1), ..message };
    // Noted first: a re-queue that nobody can see must not happen.
    let queued = match histories.note(key, next.generation, by, what).await {
        Ok(()) => queue.requeue(destination, &next).await.map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    // Confirmed in the work queue: only now may the dead letter go.
    queued?;
    receipt.ack().await;
    walk.finish().await?;
    Ok(delivery)
}

/// A suspected replay goes on only with a reason; and only such a one needs it.
fn fits(what: &What, delivery: &Delivery) -> Result<(), Failure> {
    let suspected = delivery.reason == Some(DeadReason::SuspectedReplay);
    let key = &delivery.key;
    match (what, suspected) {
        (What::Requeued, true) => Err(Failure::Asked(format!(
            "{key} is a suspected replay: the same signed bytes came before, under another id.\n\
             If the provider meant it, let it go on with zentra event release {key} --reason …"
        ))),
        (What::Released { .. }, false) => Err(Failure::Asked(format!(
            "{key} is dead, but no suspected replay.\nUse zentra dead requeue {key}."
        ))),
        _ => Ok(()),
    }
}

/// The first of up to `limit` messages that is wanted, held.
async fn first<W: Walk>(
    walk: &mut W,
    limit: usize,
    wanted: impl Fn(&Message) -> bool,
) -> Result<Option<(Message, W::Receipt)>, QueueError> {
    for _ in 0..limit {
        match walk.next().await? {
            Some(found) if wanted(&found.0) => return Ok(Some(found)),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
}

fn one_dead(found: Vec<Delivery>, id: &str) -> Result<Delivery, Failure> {
    let (mut dead, alive): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|delivery| delivery.record.state == State::Dead);
    match (dead.pop(), dead.as_slice()) {
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let keys = others.iter().chain([&last]).map(|delivery| format!("  {}", delivery.key));
            let keys = keys.collect::<Vec<_>>().join("\n");
            Err(Failure::Asked(format!(
                "{id} is dead at several destinations:\n{keys}\nGive one of these delivery keys."
            )))
        }
        (None, _) => {
            let states = alive.iter().map(|d| format!("  {}: {}", d.key, status(d)));
            let states = states.collect::<Vec<_>>().join("\n");
            Err(Failure::Asked(format!(
                "{id} is not dead, so there is nothing to re-queue:\n{states}\n\
                 See zentra event show {id}."
            )))
        }
    }
}
