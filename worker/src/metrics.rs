//! What Prometheus learns from a worker.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use zentra_shared::config::Destination;
use zentra_shared::telemetry::{counter, gauge, histogram, seconds};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) attempts: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) duplicates: IntCounterVec,
    pub(crate) busy: IntCounterVec,
    pub(crate) conflicts: IntCounterVec,
    pub(crate) suspected: IntCounterVec,
    pub(crate) leases_lost: IntCounterVec,
    pub(crate) circuit_open: IntGaugeVec,
    pub(crate) circuit_opened: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) step_failures: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) retry_delay: HistogramVec,
    pub(crate) delivered_attempts: HistogramVec,
    pub(crate) delivery_seconds: HistogramVec,
    pub(crate) in_flight: IntGaugeVec,
    pub(crate) redis_up: IntGauge,
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
                &["destination", "of"],
            )?,
            busy: count(
                "zentra_worker_busy_total",
                "Messages that met a running claim and were set aside until past its lease.",
                &["destination"],
            )?,
            conflicts: count(
                "zentra_worker_conflicts_total",
                "Messages whose id was known with another body: no effect.",
                &["destination"],
            )?,
            suspected: count(
                "zentra_worker_suspected_replays_total",
                "Messages whose signed bytes were known under another unsigned id: kept as \
                 dead letters, no effect.",
                &["destination"],
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
                "Pauses after too many failures in a row.",
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
            redis_up: gauge(registry, "zentra_worker_redis_up", "1 while Redis answers.", &[])?
                .with_label_values::<&str>(&[]),
            oldest_dead: gauge(
                registry,
                "zentra_worker_oldest_dead_timestamp_seconds",
                "When the oldest delivery in `zentra dead list` was given up; 0 if there is none.",
                &["destination"],
            )?,
        })
    }

    /// Each destination's counters are there from the start, so that their first increase
    /// shows.
    pub(crate) fn know(&self, destinations: &[Destination]) {
        for Destination { name, .. } in destinations {
            for outcome in ["delivered", "failed", "permanent"] {
                self.attempts.with_label_values(&[name, outcome]);
            }
            self.retries.with_label_values(&[name]);
            self.busy.with_label_values(&[name]);
            self.conflicts.with_label_values(&[name]);
            self.suspected.with_label_values(&[name]);
            self.leases_lost.with_label_values(&[name]);
            self.circuit_opened.with_label_values(&[name]);
            self.in_flight.with_label_values(&[name]);
            for long in [&self.retry_delay, &self.delivered_attempts, &self.delivery_seconds] {
                long.with_label_values(&[name]);
            }
        }
    }
}
