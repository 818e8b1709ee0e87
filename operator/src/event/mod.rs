//! `zentra event show ID`: where an event stands, and all that has happened to it.

mod accepted;
mod case;
mod command;
mod find;
mod list;
mod refused;
mod tail;
pub(crate) mod waiting;

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use zentra_shared::config::Config;
use zentra_shared::event::{Admitted, Batch, DeliveryKey};
use zentra_shared::journal::{AttemptResult, Delivery, Entry, Histories, Summary, What};
use zentra_shared::lifecycle::{Print, State};
use zentra_shared::queue::Operate;

use accepted::Accepted;
pub(crate) use case::{file as case_file, write as write_case};
pub(crate) use command::{command, let_go};
pub(crate) use find::{Matches, find as find_text, show as show_matches};
pub(crate) use list::{Wanted, list, of_event, show as show_page};
pub(crate) use refused::RefusedCopy;
pub(crate) use tail::tail;

use crate::backend::Backend;
use crate::failure::Failure;

/// What is known of an event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct Found {
    /// Its deliveries, oldest key first.
    pub(crate) deliveries: Vec<Delivery>,
    /// Where it waits, if no worker has taken it up.
    pub(crate) accepted: Vec<Accepted>,
    /// Refused callbacks that say that they are of it.
    pub(crate) refused: Vec<RefusedCopy>,
}

/// How long RabbitMQ may take when the journal has told already what there is to tell.
const ENOUGH: std::time::Duration = std::time::Duration::from_secs(3);

/// Looks for an event: in the journal; if it knows of none, or can't be asked, in the queues; and
/// among the refused.
pub(crate) async fn look(
    backend: &impl Backend,
    config: &Config,
    id: &str,
) -> Result<Found, Failure> {
    let known = match backend.histories() {
        Ok(histories) => deliveries(&histories, &config.pairs(), id).await,
        Err(failure) => Err(failure),
    };
    let found = known.as_ref().is_ok_and(|known| !known.is_empty());
    let connecting = async {
        match found {
            true => tokio::time::timeout(ENOUGH, backend.queue()).await.unwrap_or_else(late),
            false => backend.queue().await,
        }
    };
    let queue = match connecting.await {
        Ok(queue) => queue,
        // The journal's word is enough.
        Err(failure) if found => {
            tracing::warn!(error = failure.text(), "refused callbacks weren't looked at");
            return Ok(Found { deliveries: known?, accepted: Vec::new(), refused: Vec::new() });
        }
        Err(failure) => return Err(failure),
    };
    let queued = in_queues(&queue, config, id, known.as_deref().unwrap_or_default()).await;
    backend.close(queue).await;
    let (accepted, refused) = queued?;
    match known {
        Ok(deliveries) if found || !accepted.is_empty() || !refused.is_empty() => {
            Ok(Found { deliveries, accepted, refused })
        }
        Err(_) if !accepted.is_empty() => Ok(Found { deliveries: Vec::new(), accepted, refused }),
        Err(failure) => Err(failure),
        Ok(_) => Err(unknown(id)),
    }
}

fn late<T>(_: tokio::time::error::Elapsed) -> Result<T, Failure> {
    Err(Failure::Ours("RabbitMQ doesn't answer.\nCheck [rabbitmq] urls.".into()))
}

async fn in_queues(
    queue: &impl Operate,
    config: &Config,
    id: &str,
    known: &[Delivery],
) -> Result<(Vec<Accepted>, Vec<RefusedCopy>), Failure> {
    let accepted = match known {
        [] => accepted::find(queue, config, id).await?,
        _ => Vec::new(),
    };
    let events = known.iter().map(|delivery| &delivery.event);
    let events = events.chain(accepted.iter().map(Accepted::event));
    let bodies = events.map(|event| (event.source.as_str(), event.body_sha256.as_str()));
    let of = refused::Of { id, known: bodies.collect() };
    let refused = refused::find(queue, config, &of).await?;
    Ok((accepted, refused))
}

async fn deliveries(
    histories: &impl Histories,
    pairs: &[(&str, &str)],
    id: &str,
) -> Result<Vec<Delivery>, Failure> {
    let mut found = Vec::new();
    for key in histories.find(id, pairs).await? {
        found.extend(histories.history(&key).await?);
    }
    Ok(found)
}

/// Every delivery of an event that the journal knows, oldest key first; one at least.
pub(crate) async fn find(
    histories: &impl Histories,
    pairs: &[(&str, &str)],
    id: &str,
) -> Result<Vec<Delivery>, Failure> {
    let found = deliveries(histories, pairs, id).await?;
    if found.is_empty() { Err(unknown(id)) } else { Ok(found) }
}

fn unknown(id: &str) -> Failure {
    Failure::Asked(format!(
        "no event {id} is known.\nGive a provider's event id, or a delivery key \
         (destination/source/id). Was it refused? See zentra refused list. Has RabbitMQ given it \
         up itself? zentra dead requeue --reason crashed counts those. Does it wait in a work queue, \
         without an archive? Those are not looked through: zentra status counts what waits."
    ))
}

/// Shows it to a person.
pub(crate) fn show_found(found: &Found, out: &mut impl Write) -> std::io::Result<()> {
    show(&found.deliveries, out)?;
    accepted::show(&found.accepted, out)?;
    let event = found.deliveries.first().map(|delivery| &delivery.event);
    let event = event.or(found.accepted.first().map(Accepted::event));
    if event.is_none() {
        writeln!(out, "status     refused: no callback of it has been accepted")?;
    }
    refused::show(&found.refused, event.map(|event| event.body_sha256.as_str()), out)
}

/// Shows deliveries to a person.
pub(crate) fn show(deliveries: &[Delivery], out: &mut impl Write) -> std::io::Result<()> {
    for (at, delivery) in deliveries.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        show_one(delivery, out)?;
    }
    Ok(())
}

fn show_one(delivery: &Delivery, out: &mut impl Write) -> std::io::Result<()> {
    let Delivery { key, record, event, history, .. } = delivery;
    writeln!(out, "status     {}", status(delivery))?;
    match record.generation {
        0 => writeln!(out, "attempt    {}", record.attempt)?,
        again => writeln!(out, "attempt    {} (re-queued {again}×)", record.attempt)?,
    }
    show_event(event, Some(key), out)?;
    writeln!(out, "history")?;
    if let Some(received) = event.received_at {
        writeln!(out, "  {received}  {:<10}  {:<16}  {}", "", "", receipt(event))?;
    }
    for entry in history {
        writeln!(out, "  {}", line(entry))?;
    }
    Ok(())
}

/// What is known of the event itself.
fn show_event(
    event: &Summary,
    key: Option<&DeliveryKey>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    writeln!(out, "signature  {}", signature(event))?;
    if let Some(key) = key {
        writeln!(out, "delivery   {key}")?;
    }
    let (id, kind) = (event.event_id.as_deref(), event.event_type.as_deref());
    writeln!(out, "event      {}  {}", id.unwrap_or("(no id)"), kind.unwrap_or("(no type)"))?;
    // Made from a provider's list, it has other bytes than a late callback.
    if event.body_sha256 != hex::encode(Print::UNKNOWN) {
        writeln!(out, "body       sha256:{}", event.body_sha256)?;
    }
    show_context(event, out)
}

/// How the first of its callbacks came.
fn receipt(event: &Summary) -> String {
    let peer = event.context.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    let late = event.provider_time.zip(event.received_at);
    let late = late.map(|(signed, received)| match received.since(signed).as_secs() {
        0 => ", as soon as it was signed".into(),
        seconds => format!(
            ", {} after it was signed",
            humantime::format_duration(Duration::from_secs(seconds))
        ),
    });
    format!("received{peer}{}", late.unwrap_or_default())
}

/// How it came, as far as it is known.
fn show_context(event: &Summary, out: &mut impl Write) -> std::io::Result<()> {
    let context = &event.context;
    if let Some(method) = &context.method {
        let peer = context.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
        writeln!(out, "request    {method}{peer}")?;
    }
    if let Some(query) = &context.query {
        writeln!(out, "query      {query}")?;
    }
    for (name, value) in &context.headers {
        writeln!(out, "header     {name}: {value}")?;
    }
    if !context.signed.is_empty() {
        writeln!(out, "signed     {}", context.signed.join(", "))?;
    }
    if context.type_unsigned {
        writeln!(out, "unsigned   its type: see docs/identity.md")?;
    }
    if let Some(weakness) = context.weakness {
        writeln!(out, "weak       {}", weakness.words())?;
    }
    if let Some(Batch { body_sha256, item, of }) = &context.batch {
        writeln!(out, "batch      event {item} of {of} in the callback sha256:{body_sha256}")?;
    }
    match (&context.provider_attempt, &context.provider_reason) {
        (None, None) => {}
        (number, reason) => {
            let words = [number, reason].into_iter().flatten().map(String::as_str);
            writeln!(out, "provider   tried again: {}", words.collect::<Vec<_>>().join(", "))?;
        }
    }
    if let Some(Admitted { by, at, refused_for }) = &event.admitted {
        match refused_for.as_str() {
            Admitted::NOT_RECEIVED => {
                writeln!(
                    out,
                    "reconciled by {by} at {at}, from the provider's list: it hadn't come"
                )?;
            }
            _ => writeln!(out, "admitted   by {by} at {at}, after it was refused ({refused_for})")?,
        }
    }
    if let Some(trace) = &event.trace {
        writeln!(out, "trace      {trace}")?;
    }
    Ok(())
}

/// The state, in words.
pub(crate) fn status(delivery: &Delivery) -> String {
    let record = &delivery.record;
    match (record.state, delivery.reason) {
        (State::InFlight, _) => format!("in flight (claimed until {})", record.until),
        (State::Waiting, _) => format!("waiting (next attempt at {})", record.until),
        (State::Delivered, _) => "delivered".into(),
        (State::Dead, Some(reason)) => format!("dead ({})", reason.as_str()),
        (State::Dead, None) => "dead".into(),
    }
}

fn signature(event: &Summary) -> String {
    if event.provider.is_empty() {
        return "not verified: the message carries no fitting seal".into();
    }
    let mut text = format!("verified ({}, secret {})", event.provider, event.verified_with);
    if event.context.weakness.is_some() {
        text += ", a weak scheme";
    }
    if let Some(time) = event.provider_time {
        text += &format!(", signed {time}");
    }
    if let Some(time) = event.received_at {
        text += &format!(", received {time}");
    }
    text
}

fn line(entry: &Entry) -> String {
    let what = match &entry.what {
        What::Claimed { reclaimed: true, .. } => {
            "claimed again: the last claim ran out unsettled".into()
        }
        What::Claimed { .. } => "claimed".into(),
        What::Busy => "busy: another attempt runs, set aside until past its lease".into(),
        What::Duplicate => "duplicate of what is delivered, the same body: no effect".into(),
        What::DuplicateDead => "duplicate of what is dead, the same body: no effect".into(),
        What::Stale => "overtaken by a newer attempt: no effect".into(),
        What::Conflict { body_sha256 } => {
            format!(
                "another body under the same id: no effect here; a dead letter holds it, unless the \
                 id is shown to name one event: sha256:{body_sha256}"
            )
        }
        What::Suspected { kept_as } => {
            format!("suspected replay under another id: no effect, kept as {kept_as}")
        }
        What::Delivered { late: false, result } => format!("delivered: {}", words(result)),
        What::Delivered { late: true, result } => format!("delivered late: {}", words(result)),
        What::Failed { next_at, result } => {
            format!("failed: {}; next attempt at {next_at}", words(result))
        }
        What::Dead { reason, result } => format!("dead ({}): {}", reason.as_str(), words(result)),
        What::Superseded { result } => {
            format!("failed after its claim had passed on, no effect: {}", words(result))
        }
        What::Requeued { reason, job } => {
            let how = job.as_ref().map_or_else(String::new, |job| format!(", by job {job}"));
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("re-queued by an operator{how}{why}")
        }
        What::Discarded { reason } => format!("discarded by an operator: {reason}"),
        What::Replayed { reason, job } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("replayed from the archive by an operator, by job {job}{why}")
        }
        What::Released { reason } => format!("released by an operator: {reason}"),
    };
    let attempt = match entry.generation {
        0 => format!("attempt {}", entry.attempt),
        again => format!("attempt {}, re-queue {again}", entry.attempt),
    };
    format!("{}  {attempt:<10}  {:<16}  {what}", entry.at, entry.by)
}

/// What the destination said.
pub(crate) fn words(result: &AttemptResult) -> String {
    let mut words = Vec::new();
    words.extend(result.status.map(|status| status.to_string()));
    words.extend(result.class.map(|class| format!("{}:", class.as_str())));
    words.extend(result.error.clone());
    words.extend(result.response.as_ref().map(|text| format!("\"{text}\"")));
    if words.is_empty() {
        return "not attempted".into();
    }
    format!("{} in {} ms", words.join(" "), result.duration_ms)
}
