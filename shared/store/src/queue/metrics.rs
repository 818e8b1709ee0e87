//! What Prometheus learns of any backend's queues.

use prometheus::core::Collector;
use prometheus::{IntGauge, IntGaugeVec, opts};

/// How full the queues are.
#[derive(Clone)]
pub struct Depths {
    /// Messages in the queue of unrouted events.
    pub unrouted: IntGauge,
    /// By destination and queue (`work`, `dead`).
    pub waiting: IntGaugeVec,
}

impl Default for Depths {
    /// All at zero, and not registered.
    fn default() -> Self {
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
}

impl Depths {
    /// For a registry.
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.unrouted.clone()), Box::new(self.waiting.clone())]
    }
}

/// A gauge of this name, which must be valid.
pub fn gauge(name: &str, help: &str) -> IntGauge {
    made(IntGauge::with_opts(opts!(name, help)))
}

/// Gauges of this name, by labels; all must be valid.
pub fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    made(IntGaugeVec::new(opts!(name, help), labels))
}

/// A metric that was made of constants.
///
/// # Panics
/// If its name isn't valid.
#[expect(clippy::panic, reason = "names are constants: any test meets this")]
pub fn made<T>(collector: prometheus::Result<T>) -> T {
    collector.unwrap_or_else(|error| panic!("a metric's name is wrong: {error}"))
}
