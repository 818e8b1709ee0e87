//! Leased events of one destination that no request has taken yet. A request may be over before its
//! messages are claimed: the next one takes their events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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

    /// Takes up to `most` events, oldest first, until their bodies have this many bytes.
    pub(super) fn take(&self, most: usize, bytes: usize) -> Vec<LeasedEvent> {
        let (mut inner, mut taken, mut total) = (lock(&self.inner), Vec::new(), 0);
        while taken.len() < most
            && total < bytes
            && let Some(event) = inner.events.pop_front()
        {
            total += event.event.body.len();
            taken.push(event);
        }
        taken
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
