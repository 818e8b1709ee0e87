//! Connections of a listener for few clients: bounded in number. Where all places are taken, the
//! oldest connection that nobody trusts gives way, so that slow ones can't shut a new one out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places of one listener.
pub struct Places {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

/// One connection. Its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    ended: CancellationToken,
    trusted: Arc<AtomicBool>,
}

impl Connection {
    /// It gives way to no other one from now on: who asks by it has shown who that is.
    pub fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }

    /// Ends when it has to give way.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// A connection's place, until this is dropped.
pub struct Place {
    places: Arc<Places>,
    id: u64,
    /// Whose it is.
    pub connection: Connection,
}

impl Places {
    /// So many at a time.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for a new connection. None if all are taken by trusted ones.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open();
        if open.connections.len() >= self.most {
            let trusted = |one: &Connection| one.trusted.load(Ordering::Acquire);
            let oldest = open.connections.iter().find(|(_, one)| !trusted(one));
            let id = *oldest?.0;
            if let Some(oldest) = open.connections.remove(&id) {
                oldest.ended.cancel();
            }
        }
        let (id, connection) = (open.next, Connection::default());
        open.next += 1;
        open.connections.insert(id, connection.clone());
        Some(Place { places: self.clone(), id, connection })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_trusted_gives_way() {
        let places = Places::new(2);
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        first.connection.trust();
        let third = places.take().unwrap();
        let ended = |place: &Place| place.connection.ended.is_cancelled();
        assert_eq!([&first, &second, &third].map(ended), [false, true, false]);
        drop(second);
        third.connection.trust();
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }
}
