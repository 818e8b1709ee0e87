//! What Prometheus learns from a worker.

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use zentra_core::lifecycle::DeadReason;
use zentra_telemetry::{counter, gauge, histogram, seconds};

/// Those of all destinations.
#[derive(Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    retries: IntCounterVec,
    duplicates: IntCounterVec,
    busy: IntCounterVec,
    conflicts: IntCounterVec,
    rendered_retries: IntCounterVec,
    suspected: IntCounterVec,
    not_kept: IntCounterVec,
    leases_lost: IntCounterVec,
    circuit_open: IntGaugeVec,
    circuit_opened: IntCounterVec,
    dead_letters: IntCounterVec,
    step_failures: IntCounterVec,
    seconds: HistogramVec,
    retry_delay: HistogramVec,
    delivered_attempts: HistogramVec,
    delivery_seconds: HistogramVec,
    in_flight: IntGaugeVec,
    unpublished: IntGaugeVec,
    pub(crate) store_up: IntGauge,
    pub(crate) store_writable: IntGauge,
    pub(crate) oldest_dead: IntGaugeVec,
}

/// From an eighth of a second to three days.
const LONG: [f64; 16] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0,
    86_400.0, 259_200.0,
];
const ATTEMPTS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 100.0];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let count = |name, help, labels: &[&str]| counter(registry, name, help, labels);
        Ok(Self {
            attempts: count(
                "zentra_worker_attempts_total",
                "Attempts at a destination, by outcome: delivered, failed, permanent.",
                &["destination", "outcome"],
            )?,
            retries: count(
                "zentra_worker_retries_total",
                "Failed attempts that are followed by another one.",
                &["destination"],
            )?,
            duplicates: count(
                "zentra_worker_duplicates_total",
                "Messages without effect: copies of what is delivered or dead, or overtaken.",
                &["destination", "source", "of"],
            )?,
            busy: count(
                "zentra_worker_busy_total",
                "Messages that met a running claim and were set aside until past its lease.",
                &["destination"],
            )?,
            conflicts: count(
                "zentra_worker_conflicts_total",
                "Messages whose id was known with another body: kept as dead letters, no effect.",
                &["destination", "source"],
            )?,
            rendered_retries: count(
                "zentra_worker_rendered_retries_total",
                "Messages whose id is shown to name an event and was known with another body: \
                 retries that the provider wrote anew, no effect.",
                &["destination", "source"],
            )?,

            suspected: count(
                "zentra_worker_suspected_replays_total",
                "Messages whose signed bytes were known under another unsigned id or type, or \
                 came too often within an hour: kept as dead letters, no effect.",
                &["destination", "source"],
            )?,
            not_kept: count(
                "zentra_worker_suspected_replays_not_kept_total",
                "Suspected replays that are counted only: the first few of the same signed bytes are \
                 kept as dead letters.",
                &["destination", "source"],
            )?,
            leases_lost: count(
                "zentra_worker_leases_lost_total",
                "Claims that passed to another worker while their attempt still ran.",
                &["destination"],
            )?,
            circuit_open: gauge(
                registry,
                "zentra_worker_circuit_open",
                "1 while this worker pauses, or probes, a destination that failed too often.",
                &["destination"],
            )?,
            circuit_opened: count(
                "zentra_worker_circuit_opened_total",
                "Pauses after too many failures.",
                &["destination"],
            )?,
            dead_letters: count(
                "zentra_worker_dead_letters_total",
                "Messages put into the dead-letter queue, by reason.",
                &["destination", "reason"],
            )?,
            step_failures: count(
                "zentra_worker_step_failures_total",
                "Steps tried again because RabbitMQ or Redis was away.",
                &["destination", "step"],
            )?,
            seconds: seconds(
                registry,
                "zentra_worker_attempt_seconds",
                "How long attempts took.",
                &["destination"],
            )?,
            retry_delay: histogram(
                registry,
                "zentra_worker_retry_delay_seconds",
                "How long failed attempts are set aside.",
                &["destination"],
                &LONG,
            )?,
            delivered_attempts: histogram(
                registry,
                "zentra_worker_delivered_attempts",
                "Attempts that delivered events took, the last one included.",
                &["destination"],
                &ATTEMPTS,
            )?,
            delivery_seconds: histogram(
                registry,
                "zentra_worker_delivery_seconds",
                "From an event's receipt at the ingress to its delivery.",
                &["destination"],
                &LONG,
            )?,
            in_flight: gauge(
                registry,
                "zentra_worker_in_flight",
                "Attempts that run now.",
                &["destination"],
            )?,
            unpublished: gauge(
                registry,
                "zentra_worker_unpublished",
                "Attempted messages whose retry or dead letter RabbitMQ does not take yet.",
                &["destination"],
            )?,
            store_up: gauge(
                registry,
                "zentra_worker_store_up",
                "1 while the delivery store (Redis) answers.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            store_writable: gauge(
                registry,
                "zentra_worker_store_writable",
                "1 while Redis takes claims: a full Redis or a replica answers and takes none.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            oldest_dead: gauge(
                registry,
                "zentra_worker_oldest_dead_timestamp_seconds",
                "When the oldest delivery in `zentra dead list` was given up; 0 if there is none.",
                &["destination"],
            )?,
        })
    }

    /// One destination's, which are there from the start, so that their first increase shows.
    pub(crate) fn of<'s>(
        &self,
        destination: &str,
        sources: impl Iterator<Item = &'s str>,
    ) -> DestinationMetrics {
        let of_it = [destination];
        for source in sources {
            let of_both = [destination, source];
            for counter in
                [&self.conflicts, &self.rendered_retries, &self.suspected, &self.not_kept]
            {
                counter.with_label_values(&of_both);
            }
            for of in ["delivered", "dead", "overtaken"] {
                self.duplicates.with_label_values(&[destination, source, of]);
            }
        }
        let outcome = |outcome| self.attempts.with_label_values(&[destination, outcome]);
        DestinationMetrics {
            delivered: outcome("delivered"),
            failed: outcome("failed"),
            permanent: outcome("permanent"),
            retries: self.retries.with_label_values(&of_it),
            busy: self.busy.with_label_values(&of_it),
            leases_lost: self.leases_lost.with_label_values(&of_it),
            circuit_open: self.circuit_open.with_label_values(&of_it),
            circuit_opened: self.circuit_opened.with_label_values(&of_it),
            seconds: self.seconds.with_label_values(&of_it),
            retry_delay: self.retry_delay.with_label_values(&of_it),
            delivered_attempts: self.delivered_attempts.with_label_values(&of_it),
            delivery_seconds: self.delivery_seconds.with_label_values(&of_it),
            in_flight: self.in_flight.with_label_values(&of_it),
            unpublished: self.unpublished.with_label_values(&of_it),
            all: self.clone(),
            name: destination.to_owned(),
        }
    }
}

/// Unpublished messages of one destination.
pub(crate) struct DestinationMetrics {
    pub(crate) delivered: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) permanent: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) busy: IntCounter,
    pub(crate) leases_lost: IntCounter,
    pub(crate) circuit_open: IntGauge,
    pub(crate) circuit_opened: IntCounter,
    pub(crate) seconds: Histogram,
    pub(crate) retry_delay: Histogram,
    pub(crate) delivered_attempts: Histogram,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) unpublished: IntGauge,
    all: Metrics,
    name: String,
}

impl DestinationMetrics {
    /// A source's message without effect.
    pub(crate) fn duplicate(&self, source: &str, of: &str) {
        self.all.duplicates.with_label_values(&[&self.name, source, of]).inc();
    }

    /// A source's message has a known id and another body.
    pub(crate) fn conflict(&self, source: &str) {
        self.all.conflicts.with_label_values(&[&self.name, source]).inc();
    }

    /// The same, where the id is shown to name an event.
    pub(crate) fn rendered_retry(&self, source: &str) {
        self.all.rendered_retries.with_label_values(&[&self.name, source]).inc();
    }

    /// A source's message has known bytes and another unsigned id or type.
    pub(crate) fn suspected(&self, source: &str) {
        self.all.suspected.with_label_values(&[&self.name, source]).inc();
    }

    /// Such a message isn't kept: enough of the same are.
    pub(crate) fn not_kept(&self, source: &str) {
        self.all.not_kept.with_label_values(&[&self.name, source]).inc();
    }

    /// A message was put into the dead-letter queue.
    pub(crate) fn dead_letter(&self, reason: DeadReason) {
        self.all.dead_letters.with_label_values(&[&self.name, reason.as_str()]).inc();
    }

    /// A step is tried again.
    pub(crate) fn step_failed(&self, step: &str) {
        self.all.step_failures.with_label_values(&[&self.name, step]).inc();
    }
}
