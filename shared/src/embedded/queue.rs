//! The queue seam on the file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use prometheus::Registry;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::store::{Store, StoreError, number};
use super::sweep::sweep;
use crate::clock::{self, Timestamp};
use crate::lifecycle::DeadReason;
use crate::queue::amqp::RefusedBounds;
use crate::queue::{
    Consumer, Delay, Message, Operate, Place, Process, Publish, QueueError, Receipt, Routes,
    Subscribe, Walk,
};
use crate::seal::Sealed;

/// How soon what another process has put into the file is seen.
const LOOK: Duration = Duration::from_millis(500);
/// After the file could not be read.
const PAUSE: Duration = Duration::from_secs(1);
/// So many letters are fetched, and held, at a time.
const PAGE: usize = 64;
/// How long a page is held back from other passes.
const HELD: Duration = Duration::from_secs(120);
/// Characters of an error.
const MAX_ERROR: usize = 512;

const UNROUTED: &str = "unrouted";
const REFUSED: &str = "refused";

fn work(destination: &str) -> String {
    format!("work/{destination}")
}

fn dead(destination: &str) -> String {
    format!("dead/{destination}")
}

/// The file behind the queue seam; clones share it.
#[derive(Clone)]
pub struct EmbeddedQueue {
    store: Store,
    routes: Arc<RwLock<Routes>>,
    refused: RefusedBounds,
    queues: Queues,
}

impl EmbeddedQueue {
    /// On an open file, with the routes of the start and what is kept of refused callbacks.
    pub fn new(store: Store, routes: Routes, refused: RefusedBounds) -> Self {
        let (routes, queues) = (Arc::new(RwLock::new(routes)), Queues::default());
        Self { store, routes, refused, queues }
    }

    /// Keeps the file within its bounds, for ever; for the one program that works on it.
    pub async fn sweep(self) {
        let routes = self.routes;
        let archive = move || routes.read().unwrap_or_else(PoisonError::into_inner).archive.clone();
        sweep(self.store, self.refused, archive).await;
    }

    /// To everyone who subscribes to it, in one commit with its place in the archive.
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
        let message = Message { sealed: sealed.clone(), attempt: 1, generation: 0, dead: None };
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
        names.iter().for_each(|queue| self.queues.tell(queue));
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
        self.queues.tell(&name);
        Ok(())
    }
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What this program knows of its queues; the file knows nothing of it.
#[derive(Clone, Default)]
struct Queues(Arc<Mutex<HashMap<String, Arc<Hands>>>>);

impl Queues {
    /// Wakes those who wait for a queue.
    fn tell(&self, queue: &str) {
        if let Some(hands) = lock(&self.0).get(queue) {
            hands.changed.send_replace(());
        }
    }

    fn at(&self, queue: &str) -> Arc<Hands> {
        lock(&self.0).entry(queue.into()).or_default().clone()
    }
}

/// Which messages of a queue are in somebody's hands here. What a program that dies had in hand
/// comes again to the next one.
#[derive(Default)]
struct Hands {
    taken: Mutex<HashSet<i64>>,
    changed: watch::Sender<()>,
}

impl Hands {
    fn let_go(&self, id: i64) {
        lock(&self.taken).remove(&id);
        self.changed.send_replace(());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(
    file: &Connection,
    queue: &str,
    due: Timestamp,
    message: &Message,
    error: Option<&str>,
) -> rusqlite::Result<()> {
    let Message { sealed, attempt, generation, dead } = message;
    let mut insert = file.prepare_cached(
        "INSERT INTO message (queue, due, route, event, trace, attempt, generation, dead, error, \
         seal, envelope, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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

/// What [`read`] takes, in this order.
const COLUMNS: &str =
    "id, due, route, event, trace, attempt, generation, dead, seal, envelope, body";

/// Its id, its place and the message.
fn read(row: &Row<'_>) -> rusqlite::Result<(i64, i64, Message)> {
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
    let message = Message { sealed, attempt: row.get(5)?, generation: row.get(6)?, dead };
    Ok((row.get(0)?, row.get(1)?, message))
}

impl Subscribe for EmbeddedQueue {
    async fn subscribe(&self, routes: Routes) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    fn register(&self, _registry: &Registry) -> prometheus::Result<()> {
        Ok(())
    }
}

impl Publish for EmbeddedQueue {
    async fn publish(&self, sealed: &Sealed) -> Result<(), QueueError> {
        self.route(sealed, true).await
    }

    async fn keep(&self, refused: &Sealed) -> Result<(), QueueError> {
        self.store.room()?;
        let message = Message { sealed: refused.clone(), attempt: 1, generation: 0, dead: None };
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
        EmbeddedConsumer {
            store: self.store.clone(),
            queue,
            prefetch: prefetch.max(1).into(),
            ready: VecDeque::new(),
            changed: hands.changed.subscribe(),
            hands,
            stopped: false,
        }
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

    fn delay(&self, wish: Delay) -> Duration {
        match wish {
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

/// Reads one work queue; see [`Consumer`].
pub struct EmbeddedConsumer {
    store: Store,
    queue: String,
    prefetch: usize,
    ready: VecDeque<(i64, Message)>,
    hands: Arc<Hands>,
    changed: watch::Receiver<()>,
    stopped: bool,
}

impl EmbeddedConsumer {
    /// Takes what is due and in nobody's hands, and tells when the next one is due.
    async fn fetch(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let (queue, taken) = (self.queue.clone(), lock(&self.hands.taken).clone());
        let (now, prefetch) = (clock::now(), self.prefetch);
        let read = move |file: &Connection| {
            let most = i64::try_from(taken.len() + prefetch).unwrap_or(i64::MAX);
            // First their places only, since those in hand have bodies as well.
            let mut places = file.prepare_cached(
                "SELECT id FROM message WHERE queue = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3",
            )?;
            let due = places.query_map(params![queue, number(now), most], |row| row.get(0))?;
            let due: Vec<i64> = due.collect::<Result<_, _>>()?;
            let mut one =
                file.prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE id = ?1"))?;
            let mut found = Vec::new();
            for id in due.into_iter().filter(|id| !taken.contains(id)).take(prefetch) {
                found.extend(one.query_row([id], read).optional()?);
            }
            let mut later =
                file.prepare_cached("SELECT min(due) FROM message WHERE queue = ?1 AND due > ?2")?;
            let next: Option<i64> =
                later.query_row(params![queue, number(now)], |row| row.get(0))?;
            Ok((found, next))
        };
        let (found, next) = self.store.read(read).await?;
        let mut taken = lock(&self.hands.taken);
        for (id, _, message) in found {
            // Not if another consumer of this queue was faster.
            if taken.insert(id) {
                self.ready.push_back((id, message));
            }
        }
        let next = next.and_then(|next| u64::try_from(next).ok());
        Ok(next.map(Timestamp::from_millis))
    }
}

impl Consumer for EmbeddedConsumer {
    type Receipt = EmbeddedReceipt;

    async fn next(&mut self) -> Option<(Message, EmbeddedReceipt)> {
        loop {
            if let Some((id, message)) = self.ready.pop_front() {
                let (store, hands) = (self.store.clone(), Some(self.hands.clone()));
                return Some((message, EmbeddedReceipt { id, store, hands }));
            }
            if self.stopped {
                return None;
            }
            self.changed.borrow_and_update();
            match self.fetch().await {
                Ok(_) if !self.ready.is_empty() => {}
                Ok(next) => {
                    let due = next.map_or(LOOK, |next| next.since(clock::now()).min(LOOK));
                    let _ = timeout(due, self.changed.changed()).await;
                }
                Err(error) => {
                    tracing::warn!(queue = self.queue, %error, "can't read, trying again");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
    }

    async fn finish(self) {
        // Behind all that was asked before.
        let _ = self.store.write(|_| Ok(())).await;
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        for (id, _) in self.ready.drain(..) {
            self.hands.let_go(id);
        }
    }
}

/// The right to acknowledge one message; see [`Receipt`]. Dropped unused, it comes again.
pub struct EmbeddedReceipt {
    id: i64,
    store: Store,
    hands: Option<Arc<Hands>>,
}

impl Receipt for EmbeddedReceipt {
    async fn ack(mut self) {
        let (id, Some(hands)) = (self.id, self.hands.take()) else { return };
        let after = hands.clone();
        let gone = self.store.send(
            move |file| file.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id]),
            move |result| {
                if let Err(error) = result {
                    tracing::debug!(%error, "not acknowledged; the message comes again");
                }
                lock(&after.taken).remove(&id);
            },
        );
        if gone.is_err() {
            hands.let_go(id);
        }
    }

    async fn give_back(self) {
        drop(self);
    }
}

impl Drop for EmbeddedReceipt {
    fn drop(&mut self) {
        if let Some(hands) = self.hands.take() {
            hands.let_go(self.id);
        }
    }
}

impl Operate for EmbeddedQueue {
    type Walk = EmbeddedWalk;

    async fn walk(&self, place: Place<'_>) -> Result<EmbeddedWalk, QueueError> {
        let queue = match place {
            Place::Dead(destination) => dead(destination),
            Place::Unrouted => UNROUTED.into(),
            Place::Refused => REFUSED.into(),
        };
        let (last, page, held) = ((i64::MIN, i64::MIN), VecDeque::new(), Vec::new());
        Ok(EmbeddedWalk { store: self.store.clone(), queue, last, page, held })
    }

    async fn reroute(&self, sealed: &Sealed) -> Result<(), QueueError> {
        self.route(sealed, false).await
    }

    async fn requeue(&self, destination: &str, message: &Message) -> Result<(), QueueError> {
        self.put(work(destination), clock::now(), message.clone(), None).await
    }
}

/// One look through one queue; see [`Walk`]. It holds a page at a time.
pub struct EmbeddedWalk {
    store: Store,
    queue: String,
    /// Where it is: due, id.
    last: (i64, i64),
    page: VecDeque<(i64, i64, Message)>,
    /// The page's ids.
    held: Vec<i64>,
}

impl EmbeddedWalk {
    /// Gives the last page back and takes the next.
    async fn turn(&mut self) -> Result<(), StoreError> {
        let (queue, (due, id)) = (self.queue.clone(), self.last);
        let old = std::mem::take(&mut self.held);
        let now = clock::now();
        let write = move |file: &Connection| {
            give_back(file, &old)?;
            file.prepare_cached("DELETE FROM held WHERE until <= ?1")?.execute([number(now)])?;
            let mut select = file.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM message WHERE queue = ?1 AND (due, id) > (?2, ?3) \
                 AND id NOT IN (SELECT id FROM held) ORDER BY due, id LIMIT ?4"
            ))?;
            let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
            let found = select.query_map(params![queue, due, id, page], read)?;
            let found = found.collect::<Result<VecDeque<_>, _>>()?;
            let mut hold = file.prepare_cached("INSERT INTO held (id, until) VALUES (?1, ?2)")?;
            for (id, ..) in &found {
                hold.execute(params![id, number(now.plus(HELD))])?;
            }
            Ok(found)
        };
        self.page = self.store.write(write).await?;
        self.held = self.page.iter().map(|(id, ..)| *id).collect();
        Ok(())
    }
}

fn give_back(file: &Connection, held: &[i64]) -> rusqlite::Result<()> {
    let mut delete = file.prepare_cached("DELETE FROM held WHERE id = ?1")?;
    for id in held {
        delete.execute([id])?;
    }
    Ok(())
}

impl Walk for EmbeddedWalk {
    type Receipt = WalkReceipt;

    async fn next(&mut self) -> Result<Option<(Message, WalkReceipt)>, QueueError> {
        if self.page.is_empty() {
            self.turn().await?;
        }
        Ok(self.page.pop_front().map(|(id, due, message)| {
            self.last = (due, id);
            (message, WalkReceipt { id, store: self.store.clone() })
        }))
    }

    async fn finish(self) -> Result<(), QueueError> {
        let held = self.held;
        Ok(self.store.write(move |file| give_back(file, &held)).await?)
    }
}

/// The right to take one message out of a queue that is looked through.
pub struct WalkReceipt {
    id: i64,
    store: Store,
}

impl Receipt for WalkReceipt {
    async fn ack(self) {
        let id = self.id;
        let delete = move |file: &Connection| {
            give_back(file, &[id])?;
            file.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])
        };
        if let Err(error) = self.store.write(delete).await {
            tracing::debug!(%error, "not acknowledged; the letter stays");
        }
    }

    async fn give_back(self) {}
}
