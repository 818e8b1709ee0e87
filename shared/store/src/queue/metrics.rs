//! Queue metrics of every backend.

use prometheus::core::Collector;
use prometheus::{IntGauge, IntGaugeVec, opts};

/// Depths of the queues.
#[derive(Clone)]
pub struct Depths {
    /// Unrouted events.
    pub unrouted: IntGauge,
    /// Waiting messages by destination and queue (`work`, `dead`).
    pub waiting: IntGaugeVec,
}

impl Default for Depths {
    /// All zero, not registered.
    fn default() -> Self {
        Self {
            unrouted: gauge(
                "zentra_unrouted_events",
                "Accepted events without a subscriber, in their queue.",
            ),
            waiting: gauges(
                "zentra_queue_messages",
                "Messages in a destination's work or dead-letter queue.",
                &["destination", "queue"],
            ),
        }
    }
}

impl Depths {
    /// Collectors for a registry.
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.unrouted.clone()), Box::new(self.waiting.clone())]
    }
}

/// A gauge. The name must be valid.
pub fn gauge(name: &str, help: &str) -> IntGauge {
    made(IntGauge::with_opts(opts!(name, help)))
}

/// A gauge with labels. All names must be valid.
pub fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    made(IntGaugeVec::new(opts!(name, help), labels))
}

/// A metric that was made of constants.
///
/// # Panics
/// If its name isn't valid.
#[expect(clippy::panic, reason = "names are constants: any test meets this")]
pub fn made<T>(collector: prometheus::Result<T>) -> T {
    collector.unwrap_or_else(|error| panic!("a metric has an invalid name: {error}"))
}
