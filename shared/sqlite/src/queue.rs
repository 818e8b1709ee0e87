//! The queue on the file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prometheus::Registry;
use rusqlite::{Connection, Row, params};
use zentra_core::clock::{self, Timestamp};
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::Sealed;
use zentra_store::queue::RefusedBounds;
use zentra_store::queue::{
    Archive, Delay, Fetch, Message, Operate, Place, Process, Publish, QueueError, Routes, Subscribe,
};

use super::archive::EmbeddedArchived;
use super::consumer::{EmbeddedConsumer, EmbeddedFetcher, InFlight};
use super::metrics::Metrics;
use super::store::{Store, StoreError, number};
use super::sweep::{Bounds, sweep};
use super::walk::EmbeddedWalk;

/// Maximum length of an error, in characters.
const MAX_ERROR: usize = 512;

pub(super) const UNROUTED: &str = "unrouted";
const REFUSED: &str = "refused";

pub(super) fn work(destination: &str) -> String {
    format!("work/{destination}")
}

pub(super) fn dead(destination: &str) -> String {
    format!("dead/{destination}")
}

/// The file as a queue. Clones share it.
#[derive(Clone)]
pub struct EmbeddedQueue {
    store: Store,
    routes: Arc<RwLock<Routes>>,
    refused: RefusedBounds,
    queues: Queues,
    metrics: Metrics,
}

impl EmbeddedQueue {
    /// A queue on an open file, with the initial routes and the bounds of refused callbacks.
    pub fn new(store: Store, routes: Routes, refused: RefusedBounds) -> Self {
        let (routes, queues) = (Arc::new(RwLock::new(routes)), Queues::default());
        Self { store, routes, refused, queues, metrics: Metrics::new() }
    }

    /// Keeps the file within its bounds and its metrics current, until the process ends. Only for
    /// the program that works on the file.
    pub async fn keep_house(self) {
        let routes = || self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let watch = self.metrics.clone().watch(self.store.clone(), routes);
        tokio::join!(sweep(self.store.clone(), || self.bounds()), watch);
    }

    /// Appends to the archive.
    fn bounds(&self) -> Bounds {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut archive = routes.archive.clone();
        // Otherwise it would take the room of messages that are still to be delivered.
        archive.bytes = archive.bytes.min(self.store.max() / 2);
        Bounds { refused: self.refused.clone(), archive }
    }

    /// Adds a message for each destination that subscribes, in the same commit as the archived
    /// event.
    async fn route(&self, sealed: &Sealed, archived: bool) -> Result<(), QueueError> {
        self.store.room()?;
        let (queues, archived) = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            let takers = routes.subscribers.iter().filter(|one| one.takes(&sealed.route));
            let mut queues: Vec<String> = takers.map(|one| work(&one.destination)).collect();
            if queues.is_empty() {
                queues.push(UNROUTED.into());
            }
            let source = sealed.route.split('.').next().unwrap_or_default();
            (queues, archived && routes.archive.sources.iter().any(|kept| kept == source))
        };
        let message = Message::new(sealed.clone());
        let (now, names) = (clock::now(), queues.clone());
        let write = move |file: &Connection| {
            for queue in &queues {
                insert(file, queue, now, &message, None)?;
            }
            if archived {
                archive(file, now, &message.sealed)?;
            }
            Ok(())
        };
        self.store.write(write).await?;
        names.iter().for_each(|queue| self.queues.wake(queue));
        Ok(())
    }

    async fn put(
        &self,
        queue: String,
        due: Timestamp,
        message: Message,
        error: Option<String>,
    ) -> Result<(), QueueError> {
        let name = queue.clone();
        let write = move |file: &Connection| insert(file, &queue, due, &message, error.as_deref());
        self.store.write(write).await?;
        self.queues.wake(&name);
        Ok(())
    }
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// What this process knows about its queues. The file stores nothing of it.
#[derive(Clone, Default)]
struct Queues(Arc<Mutex<HashMap<String, Arc<InFlight>>>>);

impl Queues {
    /// Wakes the consumers of a queue.
    fn wake(&self, queue: &str) {
        if let Some(hands) = lock(&self.0).get(queue) {
            hands.wake();
        }
    }

    fn at(&self, queue: &str) -> Arc<InFlight> {
        lock(&self.0).entry(queue.into()).or_default().clone()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(
    file: &Connection,
    queue: &str,
    due: Timestamp,
    message: &Message,
    error: Option<&str>,
) -> rusqlite::Result<()> {
    let Message { sealed, attempt, generation, dead, countersignature } = message;
    let mut insert = file.prepare_cached(
        "INSERT INTO message (queue, due, route, event, trace, attempt, generation, dead, error, \
         seal, envelope, body, countersignature) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    insert.execute(params![
        queue,
        number(due),
        sealed.route,
        sealed.id,
        sealed.trace.map(|trace| trace.to_string()),
        attempt,
        generation,
        dead.map(DeadReason::as_str),
        error.map(|error| error.chars().take(MAX_ERROR).collect::<String>()),
        sealed.seal,
        &sealed.envelope[..],
        &sealed.body[..],
        countersignature,
    ])?;
    Ok(())
}

fn archive(file: &Connection, at: Timestamp, sealed: &Sealed) -> rusqlite::Result<()> {
    let mut insert = file.prepare_cached(
        "INSERT INTO archive (at, route, event, trace, seal, envelope, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    insert.execute(params![
        number(at),
        sealed.route,
        sealed.id,
        sealed.trace.map(|trace| trace.to_string()),
        sealed.seal,
        &sealed.envelope[..],
        &sealed.body[..],
    ])?;
    Ok(())
}

/// The columns that [`read`] reads, in this order.
pub(super) const COLUMNS: &str = "id, due, route, event, trace, attempt, generation, dead, seal, envelope, body, \
     countersignature";

/// The row, its position and the message.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<(i64, i64, Message)> {
    let trace: Option<String> = row.get(4)?;
    let reason: Option<String> = row.get(7)?;
    let (envelope, body): (Vec<u8>, Vec<u8>) = (row.get(9)?, row.get(10)?);
    let sealed = Sealed {
        envelope: envelope.into(),
        seal: row.get(8)?,
        body: body.into(),
        route: row.get(2)?,
        id: row.get(3)?,
        trace: trace.and_then(|text| text.parse().ok()),
    };
    let dead = reason.as_deref().and_then(DeadReason::named);
    let (attempt, generation, countersignature) = (row.get(5)?, row.get(6)?, row.get(11)?);
    let message = Message { sealed, attempt, generation, dead, countersignature };
    Ok((row.get(0)?, row.get(1)?, message))
}

/// The columns that [`read_archived`] reads, in this order.
pub(super) const ARCHIVED: &str = "id, route, event, trace, seal, envelope, body";

/// The row and the event.
pub(super) fn read_archived(row: &Row<'_>) -> rusqlite::Result<(i64, Sealed)> {
    let trace: Option<String> = row.get(3)?;
    let (envelope, body): (Vec<u8>, Vec<u8>) = (row.get(5)?, row.get(6)?);
    let sealed = Sealed {
        envelope: envelope.into(),
        seal: row.get(4)?,
        body: body.into(),
        route: row.get(1)?,
        id: row.get(2)?,
        trace: trace.and_then(|text| text.parse().ok()),
    };
    Ok((row.get(0)?, sealed))
}

impl Subscribe for EmbeddedQueue {
    const SYSTEM: &'static str = "sqlite";

    async fn subscribe(&self, routes: Routes) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }
}

impl Publish for EmbeddedQueue {
    async fn publish(&self, sealed: &Sealed) -> Result<(), QueueError> {
        self.route(sealed, true).await
    }

    async fn keep(&self, refused: &Sealed) -> Result<(), QueueError> {
        self.store.room_to_spare()?;
        let message = Message::new(refused.clone());
        self.put(REFUSED.into(), clock::now(), message, None).await
    }

    fn ready(&self) -> bool {
        self.store.room().is_ok()
    }
}

impl Process for EmbeddedQueue {
    type Consumer = EmbeddedConsumer;

    fn consume(&self, destination: &str, prefetch: u16) -> EmbeddedConsumer {
        let queue = work(destination);
        let hands = self.queues.at(&queue);
        EmbeddedConsumer::new(self.store.clone(), queue, hands, prefetch)
    }

    async fn retry(
        &self,
        destination: &str,
        message: &Message,
        delay: Duration,
    ) -> Result<(), QueueError> {
        let message = Message { dead: None, ..message.clone() };
        self.put(work(destination), clock::now().plus(delay), message, None).await
    }

    fn delay(&self, wanted: Delay) -> Duration {
        match wanted {
            Delay::Near(delay) | Delay::AtLeast(delay) => delay,
        }
    }

    async fn dead(
        &self,
        destination: &str,
        message: &Message,
        reason: DeadReason,
        error: Option<&str>,
    ) -> Result<(), QueueError> {
        let message = Message { dead: Some(reason), ..message.clone() };
        self.put(dead(destination), clock::now(), message, error.map(str::to_owned)).await
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Fetch for EmbeddedQueue {
    type Fetcher = EmbeddedFetcher;

    fn fetcher(&self, destination: &str) -> EmbeddedFetcher {
        EmbeddedFetcher::new(self.consume(destination, 1))
    }
}

fn queue_of(place: Place<'_>) -> String {
    match place {
        Place::Dead(destination) => dead(destination),
        Place::Unrouted => UNROUTED.into(),
        Place::Work(destination, 0) => work(destination),
        // There are no shards.
        Place::Work(destination, shard) => format!("{}.{shard}", work(destination)),
        Place::Refused => REFUSED.into(),
    }
}

impl Operate for EmbeddedQueue {
    type Walk = EmbeddedWalk;
    type Archived = EmbeddedArchived;

    fn blocked(&self) -> Option<String> {
        self.store.room().err().map(|error| error.to_string())
    }

    async fn archived(
        &self,
        _archive: &Archive,
        from: Timestamp,
    ) -> Result<EmbeddedArchived, QueueError> {
        Ok(EmbeddedArchived::new(self.store.clone(), from))
    }

    async fn archived_after(
        &self,
        _archive: &Archive,
        position: &str,
    ) -> Result<EmbeddedArchived, QueueError> {
        EmbeddedArchived::after(self.store.clone(), position)
    }

    async fn walk(&self, place: Place<'_>) -> Result<EmbeddedWalk, QueueError> {
        Ok(EmbeddedWalk::new(self.store.clone(), queue_of(place)))
    }

    async fn depth(&self, place: Place<'_>) -> Result<u64, QueueError> {
        let queue = queue_of(place);
        if matches!(place, Place::Work(_, 1..)) {
            return Err(QueueError::Missing(queue));
        }
        let count = move |file: &Connection| {
            let mut count = file.prepare_cached(
                "SELECT count(*) FROM message WHERE queue = ?1 AND due <= ?2 \
                 AND id NOT IN (SELECT id FROM held)",
            )?;
            count.query_row(params![queue, number(clock::now())], |row| row.get::<_, i64>(0))
        };
        let count = self.store.read(count).await.map_err(QueueError::from)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn reroute(&self, sealed: &Sealed) -> Result<(), QueueError> {
        self.route(sealed, false).await
    }

    async fn requeue(&self, destination: &str, message: &Message) -> Result<(), QueueError> {
        self.put(work(destination), clock::now(), message.clone(), None).await
    }
}

#[cfg(test)]
mod tests {
    use zentra_store::queue::{Consumer, Receipt, Subscriber};

    use super::*;

    /// More than the waiting writes for which there is room.
    const MANY: usize = 5000;

    #[tokio::test(flavor = "multi_thread")]
    async fn while_the_disk_is_slow_acknowledgements_wait_and_none_is_lost() {
        let folder = std::env::temp_dir().join(format!("zentra-slow-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(&folder.join("zentra.db"), 1 << 30).unwrap();
        let age = Duration::from_secs(3600);
        let subscriber =
            Subscriber { destination: "d".into(), patterns: vec!["acme.#".into()], shards: 1 };
        let archive = Archive { sources: Vec::new(), bytes: 1, age };
        let routes = Routes { subscribers: vec![subscriber], archive };
        let queue =
            EmbeddedQueue::new(store.clone(), routes, RefusedBounds { count: 1, bytes: 1, age });
        let sealed = Sealed {
            envelope: b"{}".to_vec().into(),
            seal: "v1,k,AA==".into(),
            body: b"{}".to_vec().into(),
            route: "acme.x".into(),
            id: "acme/1".into(),
            trace: None,
        };
        let mut publishing = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (queue, sealed) = (queue.clone(), sealed.clone());
            publishing.spawn(async move {
                for _ in 0..MANY / 50 {
                    queue.publish(&sealed).await.unwrap();
                }
            });
        }
        publishing.join_all().await;
        let mut consumer = queue.consume("d", u16::MAX);
        let mut receipts = Vec::new();
        for _ in 0..MANY {
            receipts.push(consumer.next().await.unwrap().1);
        }
        let slow = |_: &Connection| {
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        };
        store.send(slow, drop).unwrap();
        for receipt in receipts {
            receipt.ack().await;
        }
        consumer.finish().await;
        let left = "SELECT count(*) FROM message WHERE queue = 'work/d'";
        let left = store.read(move |file| file.query_row(left, (), |row| row.get::<_, i64>(0)));
        assert_eq!(left.await.unwrap(), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_archive_has_half_of_the_file_at_most() {
        let folder = std::env::temp_dir().join(format!("zentra-half-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(&folder.join("zentra.db"), 1000).unwrap();
        let hour = Duration::from_secs(3600);
        let refused = RefusedBounds { count: 1, bytes: 1, age: hour };
        let archive = |bytes| Archive { sources: Vec::new(), bytes, age: hour };
        for (configured, kept) in [(1 << 30, 500), (400, 400)] {
            let routes = Routes { subscribers: Vec::new(), archive: archive(configured) };
            let queue = EmbeddedQueue::new(store.clone(), routes, refused.clone());
            assert_eq!(queue.bounds().archive.bytes, kept);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
