//! Consumes one work queue in the file.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use zentra_core::clock::{self, Timestamp};
use zentra_store::queue::{Consumer, Fetcher, Message, QueueError, Receipt};

use super::queue::{COLUMNS, lock, read};
use super::store::{Store, StoreError, number};

/// How often the file is read for messages of other processes.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after the file could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// The messages that this process holds, per queue. If a process dies, the next one gets its
/// messages.
#[derive(Default)]
pub(super) struct InFlight {
    taken: Mutex<HeldMessages>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct HeldMessages {
    ids: HashSet<i64>,
    /// Number of lookups in progress.
    looking: usize,
    /// Messages acknowledged during a lookup, which may have seen them.
    gone: HashSet<i64>,
}

impl InFlight {
    /// Wakes consumers after a message was added to the queue.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    fn let_go(&self, id: i64) {
        lock(&self.taken).ids.remove(&id);
        self.wake();
    }

    /// The file does not contain it any more.
    fn acknowledged(&self, id: i64) {
        let mut taken = lock(&self.taken);
        taken.ids.remove(&id);
        if taken.looking > 0 {
            taken.gone.insert(id);
        }
    }

    /// Starts a lookup, and returns the messages that are held.
    fn look(&self) -> (Look<'_>, HashSet<i64>) {
        let mut taken = lock(&self.taken);
        taken.looking += 1;
        (Look(self), taken.ids.clone())
    }
}

/// A lookup in the file.
struct Look<'h>(&'h InFlight);

impl Look<'_> {
    /// Takes a message that the lookup found, unless another consumer of this queue took it first.
    fn take(&self, id: i64) -> bool {
        let mut taken = lock(&self.0.taken);
        !taken.gone.contains(&id) && taken.ids.insert(id)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.0.taken);
        taken.looking -= 1;
        if taken.looking == 0 {
            taken.gone.clear();
        }
    }
}

/// Reads one work queue. See [`Consumer`].
pub struct EmbeddedConsumer {
    store: Store,
    queue: String,
    /// Maximum number of messages that are fetched at a time.
    room: usize,
    ready: VecDeque<(i64, Message)>,
    hands: Arc<InFlight>,
    changed: watch::Receiver<()>,
    stopped: bool,
}

impl EmbeddedConsumer {
    pub(super) fn new(store: Store, queue: String, hands: Arc<InFlight>, prefetch: u16) -> Self {
        let (room, changed) = (prefetch.max(1).into(), hands.changed.subscribe());
        Self { store, queue, room, ready: VecDeque::new(), hands, changed, stopped: false }
    }

    /// Takes messages that are due and held by nobody. Returns when the next one is due.
    async fn fetch(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let hands = self.hands.clone();
        let (look, taken) = hands.look();
        let queue = self.queue.clone();
        let (now, room) = (clock::now(), self.room);
        let read = move |file: &Connection| {
            let most = i64::try_from(taken.len() + room).unwrap_or(i64::MAX);
            // Only the positions first: messages that are held have bodies too.
            let mut places = file.prepare_cached(
                "SELECT id FROM message WHERE queue = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3",
            )?;
            let due = places.query_map(params![queue, number(now), most], |row| row.get(0))?;
            let due: Vec<i64> = due.collect::<Result<_, _>>()?;
            let mut one =
                file.prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE id = ?1"))?;
            let mut found = Vec::new();
            for id in due.into_iter().filter(|id| !taken.contains(id)).take(room) {
                found.extend(one.query_row([id], read).optional()?);
            }
            let mut later =
                file.prepare_cached("SELECT min(due) FROM message WHERE queue = ?1 AND due > ?2")?;
            let next: Option<i64> =
                later.query_row(params![queue, number(now)], |row| row.get(0))?;
            Ok((found, next))
        };
        let (found, next) = self.store.read(read).await?;
        for (id, _, message) in found {
            if look.take(id) {
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
                    tracing::warn!(queue = self.queue, %error, "cannot read the file: retrying");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Messages that wait for something slow do not prevent fetching here.
    async fn set_room(&mut self, room: usize, _waiting: usize) {
        if room != self.room {
            self.room = room;
            self.let_go();
        }
    }

    async fn stop(&mut self) {
        self.stopped = true;
    }

    async fn finish(self) {
        // Runs behind everything that was requested before.
        let _ = self.store.write(|_| Ok(())).await;
    }
}

/// Fetches from one work queue. See [`Fetcher`].
pub struct EmbeddedFetcher(EmbeddedConsumer);

impl EmbeddedFetcher {
    pub(super) fn new(consumer: EmbeddedConsumer) -> Self {
        Self(consumer)
    }
}

impl Fetcher for EmbeddedFetcher {
    type Receipt = EmbeddedReceipt;

    async fn fetch(&mut self, most: usize) -> Result<Vec<(Message, EmbeddedReceipt)>, QueueError> {
        self.0.room = most;
        self.0.fetch().await?;
        let mut fetched = Vec::new();
        while let Some((id, message)) = self.0.ready.pop_front() {
            let (store, hands) = (self.0.store.clone(), Some(self.0.hands.clone()));
            fetched.push((message, EmbeddedReceipt { id, store, hands }));
        }
        Ok(fetched)
    }
}

impl EmbeddedConsumer {
    fn let_go(&mut self) {
        for (id, _) in self.ready.drain(..) {
            self.hands.let_go(id);
        }
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// How long an acknowledgement waits for room among the waiting writes, and how often it looks.
const ROOM: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(2);

/// The right to acknowledge one message. See [`Receipt`]. If it is dropped unused, the message is
/// delivered again.
pub struct EmbeddedReceipt {
    id: i64,
    store: Store,
    hands: Option<Arc<InFlight>>,
}

impl Receipt for EmbeddedReceipt {
    async fn ack(mut self) {
        // Until it is sent, the message is given back if this future is dropped.
        let (id, Some(hands)) = (self.id, self.hands.clone()) else { return };
        let end = Instant::now() + ROOM;
        loop {
            let after = hands.clone();
            let sent = self.store.send(
                move |file| file.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id]),
                move |result| {
                    if let Err(error) = result {
                        tracing::debug!(%error, "the acknowledgement failed; the message is delivered again");
                    }
                    after.acknowledged(id);
                },
            );
            match sent {
                Ok(()) => return self.hands = None,
                // The disk is slow. Unacknowledged, the message would be delivered again.
                Err(StoreError::Overloaded) if Instant::now() < end => sleep(AGAIN).await,
                Err(_) => return,
            }
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
