//! Connections of a listener for few clients: bounded in number. Where all places are taken, the
//! oldest connection is closed, so that slow ones can't shut a new one out. Trusted ones are closed
//! last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
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
    /// Closes it after those that aren't trusted: its client has authenticated.
    pub fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }

    /// Ends when it has to close.
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
    /// At most this many at a time.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for a new connection.
    pub fn take(self: &Arc<Self>) -> Place {
        let mut open = self.open();
        if open.connections.len() >= self.most {
            let trusted = |one: &Connection| one.trusted.load(Ordering::Acquire);
            let oldest = open.connections.iter().min_by_key(|(id, one)| (trusted(one), **id));
            let oldest = oldest.map(|(id, _)| *id);
            if let Some(oldest) = oldest.and_then(|id| open.connections.remove(&id)) {
                oldest.ended.cancel();
            }
        }
        let (id, connection) = (open.next, Connection::default());
        open.next += 1;
        open.connections.insert(id, connection.clone());
        Place { places: self.clone(), id, connection }
    }

    /// The next connection of a listener, with its place; None once `stop` is cancelled.
    pub async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
        stop: &CancellationToken,
    ) -> Option<(TcpStream, Place)> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some((stream, self.take())),
                // Out of file descriptors: a pause, so that the loop can't spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
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
    fn the_oldest_is_closed_and_a_trusted_one_last() {
        let places = Places::new(2);
        let (first, second) = (places.take(), places.take());
        first.connection.trust();
        let third = places.take();
        let ended = |place: &Place| place.connection.ended.is_cancelled();
        assert_eq!([&first, &second, &third].map(ended), [false, true, false]);
        drop(second);
        third.connection.trust();
        let fourth = places.take();
        assert_eq!([&first, &third, &fourth].map(ended), [true, false, false]);
    }
}
