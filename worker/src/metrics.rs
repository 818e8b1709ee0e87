//! What Prometheus learns from a worker.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use zentra_shared::config::Destination;
use zentra_shared::telemetry::{counter, gauge, seconds};

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
}

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
        }
    }
}
