//! Live changes for all listeners of this program. However many there are, the delivery store is
//! read as if there were one, and not at all while there is none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zentra_admin::ErrorCode;
use zentra_admin::event::{Change, New, Watch};
use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::Query;

/// Number of changes that are kept for listeners that are slow, or come back.
const KEPT: usize = 4096;
/// Maximum number of changes that a listener gets at a time.
const TOGETHER: usize = 256;
/// Pause after the store could not be read.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How long the store is read after the last listener has left, so that one that comes back misses
/// nothing.
const LINGER: Duration = Duration::from_secs(30);

/// The changes.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Inner>);

struct Inner {
    shared: Mutex<Shared>,
    /// Is sent to when there are changes, or an error.
    news: watch::Sender<()>,
    /// Cancelled when this program stops.
    stop: CancellationToken,
}

struct Shared {
    /// Names this program in positions: the numbers of another one mean other changes.
    name: String,
    changes: VecDeque<Change>,
    /// Number of the first change that is kept.
    first: u64,
    listeners: usize,
    /// When the last listener left.
    left: Instant,
    is_reading: bool,
    /// Whether the store was read, so that what happens from now on is found.
    is_ready: bool,
    /// Why the store could not be read the last time.
    error: Option<ErrorCode>,
}

impl Shared {
    /// Number of the next change.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    fn keep(&mut self, New { changes, missed }: New) {
        if missed {
            self.skip();
        }
        self.changes.extend(changes);
        let over = self.changes.len().saturating_sub(KEPT);
        self.changes.drain(..over);
        self.first += over as u64;
    }

    /// Something is missing: one number, which is not kept, stands for it.
    fn skip(&mut self) {
        self.first = self.end() + 1;
        self.changes.clear();
    }

    fn position(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }

    /// The number of a position. `None` if it is not one of this program.
    fn number(&self, position: &str) -> Option<u64> {
        let (name, number) = position.rsplit_once('-')?;
        let number = number.parse().ok().filter(|number| *number <= self.end())?;
        (name == self.name).then_some(number)
    }
}

/// What a listener gets.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) changes: Vec<Change>,
    /// Whether changes before these are missing: the listener was too slow, or its position too old.
    pub(crate) missed: bool,
    /// Why the store cannot be read now. What happens meanwhile is found when it can be read again.
    pub(crate) error: Option<ErrorCode>,
    /// Where to go on after these.
    pub(crate) position: String,
}

/// One listener.
pub(crate) struct Listener {
    feed: Feed,
    news: watch::Receiver<()>,
    query: Query,
    id: Option<String>,
    next: u64,
    missed: bool,
    /// Whether it has got nothing yet. The first news come when the store was read, also without
    /// changes: from then on nothing is missed.
    is_new: bool,
}

impl Feed {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        let shared = Shared {
            name: hex::encode(rand::random::<[u8; 6]>()),
            changes: VecDeque::new(),
            first: 1,
            listeners: 0,
            left: Instant::now(),
            is_reading: false,
            is_ready: false,
            error: None,
        };
        Self(Arc::new(Inner { shared: Mutex::new(shared), news: watch::Sender::new(()), stop }))
    }

    /// Listens from now on, or `after` a position.
    pub(crate) fn listen(
        &self,
        store: impl DeliveryStore,
        query: Query,
        id: Option<String>,
        after: Option<&str>,
    ) -> Listener {
        let news = self.0.news.subscribe();
        let mut shared = self.shared();
        shared.listeners += 1;
        if !shared.is_reading {
            (shared.is_reading, shared.is_ready) = (true, false);
            shared.skip();
            tokio::spawn(self.clone().read(store));
        }
        let number = after.map(|position| shared.number(position));
        Listener {
            feed: self.clone(),
            news,
            query,
            id,
            next: number.flatten().unwrap_or_else(|| shared.end()),
            missed: number == Some(None),
            is_new: true,
        }
    }

    /// Reads until there are no listeners for a while. A store that fails is asked again.
    async fn read(self, store: impl DeliveryStore) {
        // Also if it panics: the next listener starts another one.
        let reading = Reading(&self);
        let (mut watch, mut interval) = (Watch::default(), Watch::interval());
        let query = Query::default();
        loop {
            let looked = self.0.stop.run_until_cancelled(async {
                interval.tick().await;
                watch.look(&store, &query).await
            });
            let Some(looked) = looked.await else { return };
            let failed = looked.is_err();
            {
                let mut shared = self.shared();
                if shared.listeners == 0 && shared.left.elapsed() > LINGER {
                    // Before anybody else can look: a listener that comes now starts another one.
                    shared.is_reading = false;
                    std::mem::forget(reading);
                    return;
                }
                let (was_ready, error) = (shared.is_ready, shared.error);
                match looked {
                    Ok(new) => {
                        let is_new = new.missed || !new.changes.is_empty();
                        shared.keep(new);
                        // Listeners that got the error have missed what happened since.
                        if !was_ready && error.is_some() {
                            shared.skip();
                        }
                        (shared.is_ready, shared.error) = (true, None);
                        if is_new || !was_ready {
                            self.0.news.send_replace(());
                        }
                    }
                    Err(why) => {
                        shared.error = Some(why.code);
                        // Listeners that wait for the first look get the error.
                        if error.is_none() {
                            self.0.news.send_replace(());
                        }
                    }
                }
            }
            if failed {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next changes that match. `None` when this program stops. It can be dropped at any time.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            self.news.borrow_and_update();
            if let Some(news) = self.now() {
                return Some(news);
            }
            tokio::select! {
                () = self.feed.0.stop.cancelled() => return None,
                changed = self.news.changed() => changed.ok()?,
            }
        }
    }

    /// Nothing new: where to go on.
    pub(crate) fn quiet(&mut self) -> News {
        // The store is slow: what happens until its first look is missing.
        self.missed |= self.is_new;
        let shared = self.feed.shared();
        let position = shared.position(self.next);
        News { changes: Vec::new(), missed: false, error: shared.error, position }
    }

    /// What there is now.
    fn now(&mut self) -> Option<News> {
        let feed = self.feed.clone();
        let shared = feed.shared();
        if self.is_new && !shared.is_ready && shared.error.is_none() {
            return None;
        }
        let is_first = std::mem::take(&mut self.is_new);
        let missed = std::mem::take(&mut self.missed) || self.next < shared.first;
        let (mut changes, from) = (Vec::new(), self.next.max(shared.first));
        self.next = from;
        let skipped = usize::try_from(from - shared.first).unwrap_or(usize::MAX);
        for change in shared.changes.iter().skip(skipped) {
            if changes.len() == TOGETHER {
                break;
            }
            self.next += 1;
            let is_wanted = self.id.as_deref().is_none_or(|id| change.is_of(id));
            if is_wanted && change.fits(&self.query) {
                changes.push(change.clone());
            }
        }
        let (position, error) = (shared.position(self.next), shared.error);
        let is_news = is_first || missed || !changes.is_empty();
        is_news.then_some(News { changes, missed, error, position })
    }
}

/// Ends the reading.
struct Reading<'f>(&'f Feed);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.shared().is_reading = false;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = self.feed.shared();
        shared.listeners -= 1;
        shared.left = Instant::now();
    }
}
