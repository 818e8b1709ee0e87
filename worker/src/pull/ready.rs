//! Leased events of one destination that no request has taken yet. A request may be over before its
//! messages are claimed: the next one takes their events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use zentra_core::clock;

use super::{LeasedEvent, lock};

#[derive(Default)]
pub(super) struct Ready {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<LeasedEvent>,
    /// Number of messages that are being claimed.
    pending: usize,
}

/// A message that is being claimed, until this is dropped.
pub(super) struct Pending(Arc<Ready>);

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.0.inner).pending -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Ready {
    pub(super) fn begin(self: &Arc<Self>) -> Pending {
        lock(&self.inner).pending += 1;
        Pending(self.clone())
    }

    pub(super) fn pending(&self) -> usize {
        lock(&self.inner).pending
    }

    pub(super) fn put(&self, event: LeasedEvent) {
        lock(&self.inner).events.push_back(event);
        self.changed.notify_waiters();
    }

    /// Removes an event whose lease is over. `false` if a request took it.
    pub(super) fn remove(&self, receipt: &str) -> bool {
        let mut inner = lock(&self.inner);
        let at = inner.events.iter().position(|event| event.receipt == receipt);
        at.and_then(|at| inner.events.remove(at)).is_some()
    }

    /// Notices changes from the call on.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// Events that a request has taken. If it ends before its answer, the next one gets them.
pub(super) struct Taken {
    of: Arc<Ready>,
    events: Vec<LeasedEvent>,
    bytes: usize,
}

impl Taken {
    pub(super) fn of(ready: Arc<Ready>) -> Self {
        Self { of: ready, events: Vec::new(), bytes: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.events.len()
    }

    /// Total size of the bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more events, oldest first, until there are `most`, or their bodies have this many bytes.
    pub(super) fn more(&mut self, most: usize, bytes: usize) {
        let mut inner = lock(&self.of.inner);
        while self.events.len() < most
            && self.bytes < bytes
            && let Some(event) = inner.events.pop_front()
        {
            // Its lease may have ended while another request had it.
            if event.until <= clock::now() {
                continue;
            }
            self.bytes += event.event.body.len();
            self.events.push(event);
        }
    }

    pub(super) fn finish(mut self) -> Vec<LeasedEvent> {
        std::mem::take(&mut self.events)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut inner = lock(&self.of.inner);
        for event in self.events.drain(..).rev() {
            inner.events.push_front(event);
        }
        drop(inner);
        self.of.changed.notify_waiters();
    }
}
