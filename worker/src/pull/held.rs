//! Messages that this server holds for consumers of one destination: bounded in number and bytes,
//! from the moment they are fetched until they are acknowledged or given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zentra_store::queue::Message;

/// Maximum number of messages.
const MOST: usize = 1000;
/// Total size of the bodies from which on nothing more is fetched.
const MOST_BYTES: usize = 128 << 20;

pub(super) struct HeldMessages {
    places: Arc<Semaphore>,
    bytes: Arc<AtomicUsize>,
}

impl Default for HeldMessages {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST)), bytes: Arc::default() }
    }
}

/// A place for a message that is going to be fetched.
pub(super) type Place = OwnedSemaphorePermit;

/// The place of a message, until this is dropped.
pub(super) struct Held {
    _place: Place,
    bytes: Arc<AtomicUsize>,
    size: usize,
}

impl HeldMessages {
    /// Up to `most` places.
    pub(super) fn reserve(&self, most: usize) -> Vec<Place> {
        if self.bytes.load(Ordering::Relaxed) >= MOST_BYTES {
            return Vec::new();
        }
        let place = || self.places.clone().try_acquire_owned().ok();
        std::iter::from_fn(place).take(most).collect()
    }

    pub(super) fn hold(&self, place: Place, message: &Message) -> Held {
        let size = message.sealed.body.len();
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Held { _place: place, bytes: self.bytes.clone(), size }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zentra_core::seal::Sealed;

    use super::*;

    fn message(size: usize) -> Message {
        Message::new(Sealed {
            envelope: Bytes::new(),
            seal: String::new(),
            body: vec![0; size].into(),
            route: String::new(),
            id: String::new(),
            trace: None,
        })
    }

    #[test]
    fn messages_are_bounded_in_number_and_bytes_and_leave_room() {
        let all = HeldMessages::default();
        let mut held = all.reserve(MOST + 1);
        assert_eq!((held.len(), all.reserve(1).len()), (MOST, 0));
        held.pop();
        let large = all.hold(all.reserve(2).pop().unwrap(), &message(MOST_BYTES));
        held.clear();
        assert!(all.reserve(1).is_empty(), "too large");
        drop(large);
        assert_eq!(all.reserve(usize::MAX).len(), MOST);
    }
}
