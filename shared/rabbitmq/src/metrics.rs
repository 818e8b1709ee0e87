//! Prometheus metrics of the RabbitMQ backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use prometheus::{histogram_opts, opts};
use zentra_store::queue::metrics::{Depths, gauge, gauges, made};
use zentra_telemetry::SECONDS;

/// Shared by all connections of a process.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) up: IntGaugeVec,
    pub(super) connects: IntCounterVec,
    pub(super) blocked: IntGaugeVec,
    pub(super) confirm_seconds: Histogram,
    pub(super) lanes: IntGauge,
    pub(super) lanes_busy: IntGauge,
    pub(super) depths: Depths,
    pub(super) archive: ArchiveUp,
}

/// Whether events reach the archive: it is bound, and not left out.
#[derive(Clone)]
pub(super) struct ArchiveUp {
    gauge: IntGauge,
    /// Whether it is not bound, and whether it is left out.
    missing: Arc<[AtomicBool; 2]>,
}

impl ArchiveUp {
    fn new() -> Self {
        let help = "0 while events do not reach the archive that is configured.";
        Self { gauge: gauge("zentra_archive_up", help), missing: Arc::default() }
    }

    pub(super) fn attach(&self, attached: bool) {
        self.missing[0].store(!attached, Ordering::Release);
        self.show();
    }

    pub(super) fn leave_out(&self, left_out: bool) {
        self.missing[1].store(left_out, Ordering::Release);
        self.show();
    }

    fn show(&self) {
        let missing = self.missing.iter().any(|one| one.load(Ordering::Acquire));
        self.gauge.set((!missing).into());
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            up: gauges("zentra_rabbitmq_up", "1 while the connection is open.", CONNECTION),
            connects: made(IntCounterVec::new(
                opts!(
                    "zentra_rabbitmq_connects_total",
                    "Connections made, including reconnections."
                ),
                CONNECTION,
            )),
            blocked: gauges(
                "zentra_rabbitmq_blocked",
                "1 while the broker accepts no messages because memory or disk is short.",
                CONNECTION,
            ),
            confirm_seconds: made(Histogram::with_opts(histogram_opts!(
                "zentra_rabbitmq_confirm_seconds",
                "Time from publishing a message to the broker's confirm.",
                SECONDS.to_vec()
            ))),
            lanes: gauge("zentra_rabbitmq_lanes", "Channels that publish."),
            lanes_busy: gauge("zentra_rabbitmq_lanes_busy", "Channels that wait for confirms."),
            depths: Depths::default(),
            archive: ArchiveUp::new(),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 7] = [
            Box::new(self.up.clone()),
            Box::new(self.connects.clone()),
            Box::new(self.blocked.clone()),
            Box::new(self.confirm_seconds.clone()),
            Box::new(self.lanes.clone()),
            Box::new(self.lanes_busy.clone()),
            Box::new(self.archive.gauge.clone()),
        ];
        all.into_iter()
            .chain(self.depths.collectors())
            .try_for_each(|collector| registry.register(collector))
    }
}

const CONNECTION: &[&str] = &["connection"];
