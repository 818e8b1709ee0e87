//! `zentra event list`: what is remembered, newest first.

use std::io::Write;

use zentra_shared::clock::{self, Timestamp};
use zentra_shared::journal::list::{Listed, Page, Query};
use zentra_shared::journal::{Histories, JournalError};
use zentra_shared::lifecycle::{DeadReason, State};

use super::status;
use crate::failure::Failure;

/// Which deliveries.
#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Only those of this event: its provider's id, its identity, or a delivery's own key, which is
    /// its idempotency key.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only this source's.
    #[arg(long)]
    source: Option<String>,
    /// Only those to this destination.
    #[arg(long)]
    destination: Option<String>,
    /// Only those of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only those that stand so.
    #[arg(long, value_enum)]
    state: Option<Standing>,
    /// Only those that are dead for this reason (`exhausted`).
    #[arg(long)]
    reason: Option<String>,
    /// Only those that a worker took up then or later: a time (2026-11-26T12:00:00Z), or how long
    /// ago (`2h`).
    #[arg(long, value_parser = time)]
    since: Option<Timestamp>,
    /// Only those that a worker took up before.
    #[arg(long, value_parser = time)]
    until: Option<Timestamp>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Standing {
    InFlight,
    Waiting,
    Delivered,
    Dead,
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp::from_millis(clock::now().millis().saturating_sub(ago)));
    }
    let time = humantime::parse_rfc3339_weak(text).ok();
    let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since
        .map(|since| Timestamp::from_millis(clock::millis(since)))
        .ok_or_else(|| "not a time like 2026-11-26T12:00:00Z, nor an age like 2h".into())
}

impl Wanted {
    /// As the journal takes it.
    pub(crate) fn query(&self) -> Result<Query, Failure> {
        let reason = match &self.reason {
            None => None,
            Some(name) => Some(DeadReason::named(name).ok_or_else(|| {
                let all = DeadReason::ALL.map(DeadReason::as_str).join(", ");
                Failure::Asked(format!("there is no reason {name}.\nThere are: {all}."))
            })?),
        };
        let state = self.state.map(|state| match state {
            Standing::InFlight => State::InFlight,
            Standing::Waiting => State::Waiting,
            Standing::Delivered => State::Delivered,
            Standing::Dead => State::Dead,
        });
        let Self { source, destination, kind, since, until, .. } = self;
        let [source, destination, kind] = [source, destination, kind].map(Option::clone);
        let (since, until) = (*since, *until);
        Ok(Query { source, destination, kind, state, reason, since, until })
    }
}

/// So many of them, page by page, or all that there are.
pub(crate) async fn list(
    histories: &impl Histories,
    query: &Query,
    mut cursor: Option<String>,
    limit: usize,
) -> Result<Page, Failure> {
    let mut all = Page::default();
    loop {
        let left = limit - all.items.len();
        let page = histories.list(query, cursor.as_deref(), left).await;
        let page = page.map_err(|error| match error {
            JournalError::NoSuchPage(_) => {
                Failure::Asked(format!("{error}.\nLeave --cursor out to begin anew."))
            }
            error => error.into(),
        })?;
        all.items.extend(page.items);
        all.next = page.next;
        if all.items.len() >= limit || all.next.is_none() {
            return Ok(all);
        }
        cursor.clone_from(&all.next);
    }
}

/// Of one event's deliveries, those that are wanted.
pub(crate) async fn of_event(
    histories: &impl Histories,
    pairs: &[(&str, &str)],
    query: &Query,
    id: &str,
) -> Result<Page, Failure> {
    let found = super::deliveries(histories, pairs, id).await?.into_iter();
    let listed = found.map(|delivery| {
        let taken_up = delivery.history.first().map(|entry| entry.at).unwrap_or_default();
        Listed { taken_up, delivery }
    });
    Ok(Page { items: listed.filter(|listed| query.takes(listed)).collect(), next: None })
}

/// Shows a page to a person: one line each.
pub(crate) fn show(page: &Page, out: &mut impl Write) -> std::io::Result<()> {
    if page.items.is_empty() {
        return writeln!(out, "no deliveries");
    }
    let keys = page.items.iter().map(|listed| listed.delivery.key.as_str().len());
    let width = keys.max().unwrap_or(0).max("DELIVERY".len());
    writeln!(
        out,
        "{:<24}  {:<width$}  {:<7} {:<28} STATUS",
        "TAKEN UP", "DELIVERY", "ATTEMPT", "TYPE"
    )?;
    for listed in &page.items {
        let (at, delivery) = (listed.taken_up.to_string(), &listed.delivery);
        let (key, attempt) = (delivery.key.as_str(), delivery.record.attempt);
        let kind = delivery.event.event_type.as_deref().unwrap_or("(no type)");
        writeln!(out, "{at:<24}  {key:<width$}  {attempt:<7} {kind:<28} {}", status(delivery))?;
    }
    match &page.next {
        Some(next) => writeln!(out, "more: --cursor {next}"),
        None => Ok(()),
    }
}
