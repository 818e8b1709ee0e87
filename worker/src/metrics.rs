//! What Prometheus learns from a worker.

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use zentra_core::lifecycle::DeadReason;
use zentra_store::journal::Usage;
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
}

/// What a worker sees of the delivery store.
pub(crate) struct StoreMetrics {
    pub(crate) up: IntGauge,
    pub(crate) writable: IntGauge,
    used: IntGauge,
    max: IntGauge,
    evicted: IntGauge,
    pub(crate) oldest_dead: IntGaugeVec,
}

impl StoreMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            up: gauge(
                registry,
                "zentra_worker_store_up",
                "1 while the delivery store (Redis) answers.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            writable: gauge(
                registry,
                "zentra_worker_store_writable",
                "1 while the delivery store accepts claims: a full Redis or a replica answers but accepts none.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            used: gauge(
                registry,
                "zentra_worker_store_used_bytes",
                "Used memory of Redis, of the fullest server; 0 if unknown.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            max: gauge(
                registry,
                "zentra_worker_store_max_bytes",
                "Maximum of the used memory of that server (maxmemory); 0 if there is none.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            evicted: gauge(
                registry,
                "zentra_worker_store_evicted_keys",
                "Keys that Redis has evicted since its start.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            oldest_dead: gauge(
                registry,
                "zentra_worker_oldest_dead_timestamp_seconds",
                "Time when the oldest delivery in `zentra dead list` was dead-lettered; 0 if there is none.",
                &["destination"],
            )?,
        })
    }

    pub(crate) fn set_usage(&self, usage: Usage) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.used.set(number(usage.used));
        self.max.set(number(usage.max));
        self.evicted.set(number(usage.evicted));
    }
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
                "Attempts by outcome: delivered, failed, permanent.",
                &["destination", "outcome"],
            )?,
            retries: count(
                "zentra_worker_retries_total",
                "Failed attempts that are retried.",
                &["destination"],
            )?,
            duplicates: count(
                "zentra_worker_duplicates_total",
                "Messages without effect: copies of delivered or dead events, or overtaken ones.",
                &["destination", "source", "of"],
            )?,
            busy: count(
                "zentra_worker_busy_total",
                "Messages that met a running claim and were deferred until after its lease.",
                &["destination"],
            )?,
            conflicts: count(
                "zentra_worker_conflicts_total",
                "Messages whose ID was known with another body: dead-lettered, no effect.",
                &["destination", "source"],
            )?,
            rendered_retries: count(
                "zentra_worker_rendered_retries_total",
                "Messages whose ID names an event and was known with another body: \
                 retries that the provider rendered anew, no effect.",
                &["destination", "source"],
            )?,

            suspected: count(
                "zentra_worker_suspected_replays_total",
                "Messages whose signed bytes were known under another unsigned ID or type, or \
                 arrived too often within an hour: dead-lettered, no effect.",
                &["destination", "source"],
            )?,
            not_kept: count(
                "zentra_worker_suspected_replays_not_kept_total",
                "Suspected replays that are only counted: the first few of the same signed bytes are \
                 dead-lettered.",
                &["destination", "source"],
            )?,
            leases_lost: count(
                "zentra_worker_leases_lost_total",
                "Claims that another worker got while the attempt was still running.",
                &["destination"],
            )?,
            circuit_open: gauge(
                registry,
                "zentra_worker_circuit_open",
                "1 while this worker pauses or probes a destination after too many failures.",
                &["destination"],
            )?,
            circuit_opened: count(
                "zentra_worker_circuit_opened_total",
                "Pauses after too many failures.",
                &["destination"],
            )?,
            dead_letters: count(
                "zentra_worker_dead_letters_total",
                "Dead-lettered messages, by reason.",
                &["destination", "reason"],
            )?,
            step_failures: count(
                "zentra_worker_step_failures_total",
                "Steps retried because RabbitMQ or Redis was unreachable.",
                &["destination", "step"],
            )?,
            seconds: seconds(
                registry,
                "zentra_worker_attempt_seconds",
                "Duration of attempts.",
                &["destination"],
            )?,
            retry_delay: histogram(
                registry,
                "zentra_worker_retry_delay_seconds",
                "Delay before retries.",
                &["destination"],
                &LONG,
            )?,
            delivered_attempts: histogram(
                registry,
                "zentra_worker_delivered_attempts",
                "Attempts per delivered event, including the last one.",
                &["destination"],
                &ATTEMPTS,
            )?,
            delivery_seconds: histogram(
                registry,
                "zentra_worker_delivery_seconds",
                "Time from the receipt at the ingress to the delivery.",
                &["destination"],
                &LONG,
            )?,
            in_flight: gauge(
                registry,
                "zentra_worker_in_flight",
                "Attempts in progress.",
                &["destination"],
            )?,
            unpublished: gauge(
                registry,
                "zentra_worker_unpublished",
                "Attempted messages whose retry or dead letter RabbitMQ has not accepted yet.",
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
