//! `zentra event list` and `find`: their options, and what they show.

use std::io::Write;

use crate::table;
use zentra_admin::AdminError;
use zentra_admin::deliveries::status;
use zentra_admin::event::Matches;
use zentra_admin::filter::dead_reason;
use zentra_core::clock::{self, Timestamp};
use zentra_core::lifecycle::State;
use zentra_store::journal::list::{Page, Query};

/// Filters for deliveries.
#[derive(clap::Args)]
pub(crate) struct DeliveryArgs {
    /// Only this event: the provider's id, the identity, or a delivery key.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only this destination.
    #[arg(long)]
    destination: Option<String>,
    /// Only this event type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only this state.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Only dead deliveries with this reason (`exhausted`).
    #[arg(long)]
    reason: Option<String>,
    /// Only deliveries that this job has requeued or replayed.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only deliveries that a worker took up since this time (2026-11-26T12:00:00Z) or age (`2h`).
    #[arg(long, value_parser = time)]
    since: Option<Timestamp>,
    /// Only deliveries that a worker took up before this time or age.
    #[arg(long, value_parser = time)]
    until: Option<Timestamp>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum StateArg {
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
        .ok_or_else(|| "must be a time like 2026-11-26T12:00:00Z or an age like 2h".into())
}

impl DeliveryArgs {
    /// The query for the delivery store.
    pub(crate) fn query(&self) -> Result<Query, AdminError> {
        let reason = self.reason.as_deref().map(dead_reason).transpose()?;
        let state = self.state.map(|state| match state {
            StateArg::InFlight => State::InFlight,
            StateArg::Waiting => State::Waiting,
            StateArg::Delivered => State::Delivered,
            StateArg::Dead => State::Dead,
        });
        let Self { source, destination, kind, job, since, until, .. } = self;
        let [source, destination, kind, job] = [source, destination, kind, job].map(Option::clone);
        let (since, until) = (*since, *until);
        Ok(Query { source, destination, kind, state, reason, job, since, until })
    }
}

/// Prints a page, one line each.
pub(super) fn page(page: &Page, out: &mut impl Write) -> std::io::Result<()> {
    if page.items.is_empty() {
        return writeln!(out, "no deliveries");
    }
    let rows = page.items.iter().map(|listed| {
        let delivery = &listed.delivery;
        let kind = delivery.event.event_type.as_deref().unwrap_or("(no type)");
        [
            listed.first_claimed_at.to_string(),
            delivery.key.to_string(),
            delivery.record.attempt.to_string(),
            kind.to_owned(),
            status(delivery),
        ]
    });
    table::write(out, ["FIRST CLAIM", "DELIVERY", "ATTEMPT", "TYPE", "STATUS"], rows)?;
    match &page.next {
        Some(next) => writeln!(out, "more: --cursor {next}"),
        None => Ok(()),
    }
}

/// Prints the matches, and where to look further.
pub(super) fn matches(matches: &Matches, text: &str, out: &mut impl Write) -> std::io::Result<()> {
    for event in &matches.events {
        let id = event.event_id.as_ref().unwrap_or(&event.identity);
        let kind = event.event_type.as_deref().unwrap_or("(no type)");
        let places: Vec<&str> = event.places.iter().map(String::as_str).collect();
        writeln!(out, "{}/{id}  {kind}  received {}", event.source, event.received_at)?;
        writeln!(out, "  its body is in: {}", places.join(", "))?;
        for (key, status) in &event.deliveries {
            writeln!(out, "  {key}: {status}")?;
        }
        if event.deliveries.is_empty() {
            writeln!(out, "  no delivery of this event is remembered")?;
        }
        writeln!(out, "  zentra event show {id}")?;
    }
    for id in &matches.refused {
        writeln!(out, "refused: zentra refused show {id}")?;
    }
    if matches.more {
        writeln!(out, "there may be more: the limit is reached")?;
    }
    if matches.events.is_empty() && matches.refused.is_empty() {
        writeln!(out, "no stored body contains {text:?}")?;
    }
    match matches.archived {
        true => Ok(()),
        false => {
            writeln!(out, "bodies of delivered events are not stored: no source has archive = true")
        }
    }
}
