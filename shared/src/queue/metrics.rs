//! What Prometheus learns of any backend's queues.

use prometheus::core::Collector;
use prometheus::{IntGauge, IntGaugeVec, opts};

/// How full the queues are.
#[derive(Clone)]
pub(crate) struct Depths {
    pub(crate) unrouted: IntGauge,
    /// By destination and queue (`work`, `dead`).
    pub(crate) waiting: IntGaugeVec,
}

impl Depths {
    pub(crate) fn new() -> Self {
        Self {
            unrouted: gauge(
                "zentra_unrouted_events",
                "Accepted events that nobody subscribes to, in their queue.",
            ),
            waiting: gauges(
                "zentra_queue_messages",
                "Messages that wait in a destination's work or dead-letter queue.",
                &["destination", "queue"],
            ),
        }
    }

    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.unrouted.clone()), Box::new(self.waiting.clone())]
    }
}

pub(crate) fn gauge(name: &str, help: &str) -> IntGauge {
    made(IntGauge::with_opts(opts!(name, help)))
}

pub(crate) fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    made(IntGaugeVec::new(opts!(name, help), labels))
}

#[expect(clippy::panic, reason = "names are constants: any test meets this")]
pub(crate) fn made<T>(collector: prometheus::Result<T>) -> T {
    collector.unwrap_or_else(|error| panic!("a metric's name is wrong: {error}"))
}
