//! The status as Prometheus metrics.

use prometheus::{GaugeVec, Opts, Registry, TextEncoder};
use zentra_core::clock::Timestamp;
use zentra_store::control::Circuit;

use super::Status;

/// What has to be told, as Prometheus reads it.
///
/// # Errors
/// If two metrics had one name: never.
pub fn metrics(status: &Status) -> prometheus::Result<String> {
    let page = Page(Registry::new());
    parts(&page, status)?;
    sources(&page, status)?;
    destinations(&page, status)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(format!("zentra_status_{name}"), help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

fn parts(page: &Page, status: &Status) -> prometheus::Result<()> {
    let up = page.gauge("part_up", "1 while the broker or the store is up", &["part"])?;
    for part in &status.parts {
        up.with_label_values(&[part.name]).set(flag(part.up));
    }
    let unrouted = page.gauge("unrouted_events", "Accepted events without a subscriber", &[])?;
    unrouted.with_label_values::<&str>(&[]).set(number(status.unrouted.unwrap_or_default()));
    let refused = page.gauge("refused_callbacks", "Refused callbacks that are stored", &[])?;
    refused.with_label_values::<&str>(&[]).set(number(status.refused.unwrap_or_default()));
    let looked =
        page.gauge("deliveries", "Deliveries that these metrics are computed from", &[])?;
    looked.with_label_values::<&str>(&[]).set(number(status.seen.deliveries as u64));
    Ok(())
}

fn sources(page: &Page, status: &Status) -> prometheus::Result<()> {
    let of = |name: &str, help: &str| page.gauge(name, help, &["source"]);
    let last =
        of("source_last_accepted_timestamp_seconds", "Time of the newest receipt; 0 if none")?;
    let events = of("source_events", "Events among those deliveries")?;
    let copies = of("source_copies", "Copies of them")?;
    let conflicts = of("source_conflicts", "Dead letters with another body under a known ID")?;
    let rendered = of("source_rendered_retries", "Retries that the provider rendered anew")?;
    let suspected = of(
        "source_suspected_replays",
        "Dead letters with known bytes under another ID or type, or too often",
    )?;
    let labels = ["source", "of"];
    let rate = "Ratio to events in the last hour: copies, conflicts, suspected_replays";
    let rate = page.gauge("source_rate", rate, &labels)?;
    let delay = of("source_delay_seconds", "Median time from the signed time to the receipt")?;
    let finding = page.gauge("source_finding", "1 for each finding", &["source", "finding"])?;
    for one in &status.sources {
        let name = one.source.as_str();
        last.with_label_values(&[name]).set(seconds(one.last_accepted));
        events.with_label_values(&[name]).set(number(one.events as u64));
        for (counter, of) in [
            (&copies, &one.copies),
            (&conflicts, &one.conflicts),
            (&rendered, &one.rendered_retries),
            (&suspected, &one.suspected_replays),
        ] {
            counter.with_label_values(&[name]).set(number(of.count as u64));
        }
        for (kind, of) in [
            ("copies", &one.copies),
            ("conflicts", &one.conflicts),
            ("suspected_replays", &one.suspected_replays),
        ] {
            rate.with_label_values(&[name, kind]).set(of.last_hour_percent / 100.0);
        }
        let middle = one.delay_ms.map_or(0, |(middle, _)| middle);
        delay.with_label_values(&[name]).set(number(middle) / 1000.0);
        for found in &one.findings {
            finding.with_label_values(&[name, found]).set(1.0);
        }
    }
    Ok(())
}

fn destinations(page: &Page, status: &Status) -> prometheus::Result<()> {
    let of = |name: &str, help: &str| page.gauge(name, help, &["destination"]);
    let workers = of("destination_workers", "Workers of the destination")?;
    let paused = of("destination_paused", "1 while an operator has paused it")?;
    let open = of("destination_circuit_open", "1 while a worker's circuit is not closed")?;
    let backlog = of("destination_backlog", "Messages that wait for a worker")?;
    let oldest = of(
        "destination_oldest_timestamp_seconds",
        "Oldest receipt of an unfinished delivery; 0 if none",
    )?;
    let attempts = of("destination_attempts", "Attempts of the last hour among those deliveries")?;
    let succeeded = of("destination_succeeded", "Successful attempts among them")?;
    let labels = ["destination", "reason"];
    let dead = page.gauge("destination_dead", "Dead deliveries, up to a thousand", &labels)?;
    let unlisted = of(
        "destination_unlisted_letters",
        "Messages in its dead-letter queue beyond the known dead deliveries",
    )?;
    let labels = ["destination", "finding"];
    let finding = page.gauge("destination_finding", "1 for each finding", &labels)?;
    for one in &status.destinations {
        let name = one.destination.as_str();
        workers.with_label_values(&[name]).set(number(one.workers.unwrap_or(0) as u64));
        paused.with_label_values(&[name]).set(flag(one.paused.is_some()));
        let closed = one.circuit.is_none_or(|circuit| circuit == Circuit::Closed);
        open.with_label_values(&[name]).set(flag(!closed));
        backlog.with_label_values(&[name]).set(number(one.backlog.unwrap_or_default()));
        oldest.with_label_values(&[name]).set(seconds(one.oldest));
        attempts.with_label_values(&[name]).set(number(one.attempts));
        succeeded.with_label_values(&[name]).set(number(one.succeeded));
        for (reason, count) in &one.dead {
            dead.with_label_values(&[name, reason]).set(number(*count as u64));
        }
        unlisted.with_label_values(&[name]).set(number(one.unlisted_letters.unwrap_or_default()));
        for found in &one.findings {
            finding.with_label_values(&[name, found]).set(1.0);
        }
    }
    Ok(())
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| number(at.millis()) / 1000.0)
}
