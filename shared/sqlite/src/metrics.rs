//! Prometheus metrics of the file.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{IntGauge, Registry};
use rusqlite::Connection;
use tokio::time::{MissedTickBehavior, interval};
use zentra_store::queue::Routes;
use zentra_store::queue::metrics::{Depths, gauge};

use super::queue::{UNROUTED, dead, work};
use super::store::Store;

/// How often queues are counted.
const EACH: Duration = Duration::from_secs(15);

/// Shared by everything in a process that uses the file.
#[derive(Clone)]
pub(super) struct Metrics {
    depths: Depths,
    bytes: IntGauge,
    max_bytes: IntGauge,
    disk_left: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            depths: Depths::default(),
            bytes: gauge("zentra_embedded_bytes", "Bytes of the file that are in use."),
            max_bytes: gauge("zentra_embedded_max_bytes", "Upper bound of the bytes in use."),
            disk_left: gauge(
                "zentra_embedded_disk_left_bytes",
                "Free bytes on the disk of the file.",
            ),
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn Collector>; 3] = [
            Box::new(self.bytes.clone()),
            Box::new(self.max_bytes.clone()),
            Box::new(self.disk_left.clone()),
        ];
        all.into_iter()
            .chain(self.depths.collectors())
            .try_for_each(|collector| registry.register(collector))
    }

    /// Updates the metrics of the file until the process ends.
    pub(super) async fn watch(self, store: Store, routes: impl Fn() -> Routes) {
        let mut tick = interval(EACH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (used, left) = store.sizes();
            for (gauge, bytes) in
                [(&self.bytes, used), (&self.max_bytes, store.max()), (&self.disk_left, left)]
            {
                gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            match store.read(count).await {
                Ok(counts) => self.set(&counts, &routes()),
                Err(error) => tracing::debug!(%error, "cannot count the queues"),
            }
        }
    }

    fn set(&self, counts: &HashMap<String, i64>, routes: &Routes) {
        let count = |queue: &str| counts.get(queue).copied().unwrap_or_default();
        self.depths.unrouted.set(count(UNROUTED));
        for subscriber in &routes.subscribers {
            let name = subscriber.destination.as_str();
            for (queue, messages) in [("work", count(&work(name))), ("dead", count(&dead(name)))] {
                self.depths.waiting.with_label_values(&[name, queue]).set(messages);
            }
        }
    }
}

/// Number of messages per queue.
fn count(file: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    let mut count = file.prepare_cached("SELECT queue, count(*) FROM message GROUP BY queue")?;
    count.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
