//! Messages that were attempted and whose retry or dead letter RabbitMQ doesn't take yet. During a
//! memory or disk alarm they would otherwise use up `concurrency`.

use prometheus::IntGauge;
use tokio::sync::watch;

/// Maximum number for one destination. Beyond it a message counts as running.
const MOST: usize = 1_000;
/// Maximum total size of their bodies, in bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Unpublished messages of one destination.
pub(crate) struct Unpublished {
    held: watch::Sender<Held>,
    gauge: IntGauge,
}

#[derive(Clone, Copy, Default)]
struct Held {
    count: usize,
    bytes: usize,
}

/// An unpublished message, until this is dropped.
pub(crate) struct HeldMessage<'a> {
    of: &'a Unpublished,
    bytes: usize,
}

impl Unpublished {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self { held: watch::Sender::default(), gauge }
    }

    /// Holds a message with a body of this size, if there is room.
    pub(crate) fn hold(&self, bytes: usize) -> Option<HeldMessage<'_>> {
        let taken = self.held.send_if_modified(|held| {
            let fits = held.count < MOST && held.bytes + bytes <= MOST_BYTES;
            if fits {
                *held = Held { count: held.count + 1, bytes: held.bytes + bytes };
                self.gauge.inc();
            }
            fits
        });
        taken.then(|| HeldMessage { of: self, bytes })
    }

    pub(crate) fn count(&self) -> usize {
        self.held.borrow().count
    }

    /// Returns when their number has changed since this was last called.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.held.subscribe())
    }
}

impl Drop for HeldMessage<'_> {
    fn drop(&mut self) {
        self.of.held.send_modify(|held| {
            *held = Held { count: held.count - 1, bytes: held.bytes - self.bytes };
        });
        self.of.gauge.dec();
    }
}

/// Receives each change.
pub(crate) struct Changes(watch::Receiver<Held>);

impl Changes {
    pub(crate) async fn next(&mut self) {
        // The sender lives as long as the destination.
        let _ = self.0.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpublished() -> Unpublished {
        Unpublished::new(IntGauge::new("held", "held").unwrap())
    }

    #[test]
    fn messages_and_bytes_are_bounded_and_leave_room_when_they_go() {
        let all = unpublished();
        let mut held: Vec<_> = (0..MOST).map(|_| all.hold(1).unwrap()).collect();
        assert!(all.hold(0).is_none(), "too many");
        held.pop();
        assert!(all.hold(MOST_BYTES).is_none(), "too large");
        let one = all.hold(1);
        assert_eq!((one.is_some(), all.count(), all.gauge.get()), (true, MOST, MOST as i64));
        drop((held, one));
        assert_eq!((all.count(), all.gauge.get()), (0, 0));
        assert!(all.hold(MOST_BYTES).is_some(), "one large body goes alone");
    }
}
