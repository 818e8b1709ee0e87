//! Live changes for all listeners of this program. However many there are, the delivery store is
//! read as if there were one, and not at all while there is none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zentra_admin::AdminError;
use zentra_admin::event::{Change, Watch};
use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::Query;

/// Number of changes that are kept for listeners that are slow, or come back.
const KEPT: usize = 4096;
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
    /// Number of failed reads, and the last one's error.
    failures: u64,
    error: Option<AdminError>,
}

impl Shared {
    /// Number of the next change.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    fn keep(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
        let over = self.changes.len().saturating_sub(KEPT);
        self.changes.drain(..over);
        self.first += over as u64;
    }

    /// What happened while nobody read is missing: one number, which is not kept, stands for it.
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
    failures: u64,
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
            failures: 0,
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
            shared.is_reading = true;
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
            failures: shared.failures,
        }
    }

    /// Reads until there are no listeners, or the store fails: then they are told, and the next one
    /// tries again.
    async fn read(self, store: impl DeliveryStore) {
        let (mut watch, mut interval) = (Watch::default(), Watch::interval());
        let query = Query::default();
        loop {
            let looked = tokio::select! {
                () = self.0.stop.cancelled() => return,
                looked = async {
                    interval.tick().await;
                    watch.look(&store, &query).await
                } => looked,
            };
            let mut shared = self.shared();
            let is_left = shared.listeners == 0 && shared.left.elapsed() > LINGER;
            match looked {
                Ok(_) if is_left => {
                    shared.is_reading = false;
                    return;
                }
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    shared.keep(changes);
                    self.0.news.send_replace(());
                }
                Err(error) => {
                    shared.is_reading = false;
                    shared.failures += 1;
                    shared.error = Some(error);
                    self.0.news.send_replace(());
                    return;
                }
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next changes that match. `None` when this program stops.
    ///
    /// # Errors
    /// Those of the store, once.
    pub(crate) async fn next(&mut self) -> Option<Result<News, AdminError>> {
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

    /// Where to go on after what was taken.
    pub(crate) fn position(&self) -> String {
        self.feed.shared().position(self.next)
    }

    /// What there is now.
    fn now(&mut self) -> Option<Result<News, AdminError>> {
        let feed = self.feed.clone();
        let shared = feed.shared();
        if let Some(error) = shared.error.as_ref().filter(|_| shared.failures > self.failures) {
            self.failures = shared.failures;
            return Some(Err(error.clone()));
        }
        let missed = std::mem::take(&mut self.missed) || self.next < shared.first;
        let skipped = usize::try_from(self.next.saturating_sub(shared.first)).unwrap_or(usize::MAX);
        let fits = |change: &&Change| {
            change.fits(&self.query) && self.id.as_deref().is_none_or(|id| change.is_of(id))
        };
        let changes: Vec<Change> =
            shared.changes.iter().skip(skipped).filter(fits).cloned().collect();
        self.next = shared.end();
        let position = shared.position(self.next);
        (missed || !changes.is_empty()).then_some(Ok(News { changes, missed, position }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = self.feed.shared();
        shared.listeners -= 1;
        shared.left = Instant::now();
    }
}
