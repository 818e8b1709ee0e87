//! Events and their histories, for a person.

use std::io::Write;
use std::time::Duration;

use zentra_admin::deliveries::status;
use zentra_admin::event::{Accepted, EventDetails, RefusedCopy, Waiting};
use zentra_core::event::{Admitted, Batch, DeliveryKey};
use zentra_core::lifecycle::Fingerprint;
use zentra_store::journal::{AttemptResult, Delivery, Entry, HistoryEvent, Summary};

use crate::text::duration;

/// Shows it to a person.
pub(crate) fn found(found: &EventDetails, out: &mut impl Write) -> std::io::Result<()> {
    deliveries(&found.deliveries, out)?;
    accepted(&found.accepted, out)?;
    let event = found.deliveries.first().map(|delivery| &delivery.event);
    let event = event.or(found.accepted.first().map(|one| &one.event));
    if event.is_none() {
        writeln!(out, "status     refused: no callback of this event was accepted")?;
    }
    refused(&found.refused, event.map(|event| event.body_sha256.as_str()), out)
}

/// Shows deliveries to a person.
pub(crate) fn deliveries(all: &[Delivery], out: &mut impl Write) -> std::io::Result<()> {
    for (at, delivery) in all.iter().enumerate() {
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
        again => writeln!(out, "attempt    {} (requeued {again}×)", record.attempt)?,
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
    if event.body_sha256 != hex::encode(Fingerprint::UNKNOWN) {
        writeln!(out, "body       sha256:{}", event.body_sha256)?;
    }
    show_context(event, out)
}

/// How the first of its callbacks came.
fn receipt(event: &Summary) -> String {
    let peer = event.context.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    let late = event.provider_time.zip(event.received_at);
    let late = late.map(|(signed, received)| match received.since(signed).as_secs() {
        0 => ", at the signed time".into(),
        seconds => format!(", {} after the signed time", duration(Duration::from_secs(seconds))),
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
            writeln!(out, "provider   retry: {}", words.collect::<Vec<_>>().join(", "))?;
        }
    }
    if let Some(Admitted { by, at, refused_for }) = &event.admitted {
        match refused_for.as_str() {
            Admitted::NOT_RECEIVED => {
                writeln!(
                    out,
                    "ingested by {by} at {at}, from the provider's list: no callback had arrived"
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

fn signature(event: &Summary) -> String {
    if event.provider.is_empty() {
        return "not verified: the message has no valid seal".into();
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

pub(crate) fn line(entry: &Entry) -> String {
    let what = match &entry.what {
        HistoryEvent::Claimed { reclaimed: true, .. } => {
            "claimed again: the last claim expired unsettled".into()
        }
        HistoryEvent::Claimed { .. } => "claimed".into(),
        HistoryEvent::Busy => {
            "busy: another attempt is running, deferred until after its lease".into()
        }
        HistoryEvent::Duplicate => "copy of a delivered event, the same body: no effect".into(),
        HistoryEvent::DuplicateDead => "copy of a dead letter, the same body: no effect".into(),
        HistoryEvent::Stale => "overtaken by a newer attempt: no effect".into(),
        HistoryEvent::Conflict { body_sha256 } => {
            format!(
                "another body under the same id: no effect here; a dead letter holds it, unless the \
                 id is shown to name one event: sha256:{body_sha256}"
            )
        }
        HistoryEvent::Suspected { kept_as } => {
            format!("suspected replay under another id: no effect, kept as {kept_as}")
        }
        HistoryEvent::Delivered { late: false, result } => {
            format!("delivered: {}", success(result))
        }
        HistoryEvent::Delivered { late: true, result } => {
            format!("delivered late: {}", success(result))
        }
        HistoryEvent::Failed { next_at, result } => {
            format!("failed: {}; next attempt at {next_at}", words(result))
        }
        HistoryEvent::Dead { reason, result } => {
            format!("dead ({}): {}", reason.as_str(), words(result))
        }
        HistoryEvent::Superseded { result } => {
            format!("failed after another worker had the claim, no effect: {}", words(result))
        }
        HistoryEvent::Requeued { reason, job } => {
            let how = job.as_ref().map_or_else(String::new, |job| format!(", by job {job}"));
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("requeued by an operator{how}{why}")
        }
        HistoryEvent::Discarded { reason } => format!("drained by an operator: {reason}"),
        HistoryEvent::Replayed { reason, job } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("replayed from the archive by an operator, by job {job}{why}")
        }
        HistoryEvent::Released { reason } => format!("released by an operator: {reason}"),
        HistoryEvent::Newer => "(a newer version of Zentra wrote this line)".into(),
    };
    let attempt = match entry.generation {
        0 => format!("attempt {}", entry.attempt),
        again => format!("attempt {}, requeue {again}", entry.attempt),
    };
    format!("{}  {attempt:<10}  {:<16}  {what}", entry.at, entry.by)
}

/// What the destination said when it took the event. Handlers and consumers have no status.
fn success(result: &AttemptResult) -> String {
    match result.status {
        Some(_) => words(result),
        None => format!("acknowledged in {} ms", result.duration_ms),
    }
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

/// Where it waits, and what for.
fn place(place: Waiting) -> &'static str {
    match place {
        Waiting::Unrouted => {
            "no destination subscribes to it (zentra unrouted requeue routes it once one does)"
        }
        Waiting::Archive => {
            "it is in the archive: no worker has claimed it yet, or it was forgotten"
        }
    }
}

/// Shows them to a person.
fn accepted(all: &[Accepted], out: &mut impl Write) -> std::io::Result<()> {
    for (at, accepted) in all.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(out, "status     accepted: {}", place(accepted.place))?;
        show_event(&accepted.event, None, out)?;
    }
    Ok(())
}

/// Shows them to a person.
fn refused(all: &[RefusedCopy], known: Option<&str>, out: &mut impl Write) -> std::io::Result<()> {
    if !all.is_empty() {
        writeln!(out, "refused    (their contents are not verified)")?;
    }
    for RefusedCopy { refused_id, source, reason, received_at, peer, body_sha256, .. } in all {
        let peer = peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
        let body = match known {
            Some(known) if known == body_sha256 => ", the same body",
            Some(_) => ", another body",
            None => "",
        };
        writeln!(
            out,
            "  {received_at}  {reason}{peer} at {source}{body}: zentra refused show {refused_id}"
        )?;
    }
    Ok(())
}
