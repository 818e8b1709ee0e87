//! What Prometheus learns of the broker's side.

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use prometheus::{histogram_opts, opts};

use crate::telemetry::SECONDS;

/// Shared by all connections of one program.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) up: IntGaugeVec,
    pub(super) connects: IntCounterVec,
    pub(super) blocked: IntGaugeVec,
    pub(super) confirm_seconds: Histogram,
    pub(super) lanes: IntGauge,
    pub(super) lanes_busy: IntGauge,
    pub(super) unrouted: IntGauge,
    pub(super) waiting: IntGaugeVec,
    pub(super) archive_up: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            up: gauges("zentra_rabbitmq_up", "1 while the connection stands."),
            connects: made(IntCounterVec::new(
                opts!("zentra_rabbitmq_connects_total", "Connections made, also again."),
                CONNECTION,
            )),
            blocked: gauges(
                "zentra_rabbitmq_blocked",
                "1 while the broker takes no messages: it is short of memory or disk.",
            ),
            confirm_seconds: made(Histogram::with_opts(histogram_opts!(
                "zentra_rabbitmq_confirm_seconds",
                "From handing a message over to the broker's confirm.",
                SECONDS.to_vec()
            ))),
            lanes: gauge("zentra_rabbitmq_lanes", "Channels that publish."),
            lanes_busy: gauge("zentra_rabbitmq_lanes_busy", "Channels that wait for confirms."),
            unrouted: gauge(
                "zentra_unrouted_events",
                "Accepted events that nobody subscribes to, in their queue.",
            ),
            waiting: made(IntGaugeVec::new(
                opts!(
                    "zentra_queue_messages",
                    "Messages that wait in a destination's work or dead-letter queue."
                ),
                &["destination", "queue"],
            )),
            archive_up: gauge(
                "zentra_archive_up",
                "0 while the broker can't serve the archive that the config wants.",
            ),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 9] = [
            Box::new(self.up.clone()),
            Box::new(self.connects.clone()),
            Box::new(self.blocked.clone()),
            Box::new(self.confirm_seconds.clone()),
            Box::new(self.lanes.clone()),
            Box::new(self.lanes_busy.clone()),
            Box::new(self.unrouted.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.archive_up.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))
    }
}

const CONNECTION: &[&str] = &["connection"];

fn gauge(name: &str, help: &str) -> IntGauge {
    made(IntGauge::with_opts(opts!(name, help)))
}

fn gauges(name: &str, help: &str) -> IntGaugeVec {
    made(IntGaugeVec::new(opts!(name, help), CONNECTION))
}

#[expect(clippy::panic, reason = "the names above are constants: any test meets this")]
fn made<T>(collector: prometheus::Result<T>) -> T {
    collector.unwrap_or_else(|error| panic!("a metric's name is wrong: {error}"))
}
