//! Where events and histories are: servers, or one file. Chosen once, by the config.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use zentra_shared::config::{Config, Embedded};
use zentra_shared::control::Control;
use zentra_shared::embedded::{EmbeddedJournal, EmbeddedQueue, Store, StoreError};
use zentra_shared::job::Jobs;
use zentra_shared::journal::redis::RedisJournal;
use zentra_shared::journal::{Histories, Journal};
use zentra_shared::queue::amqp::Amqp;
use zentra_shared::queue::{Operate, Process, Publish};

use crate::failure::Failure;

const CONNECT: Duration = Duration::from_secs(15);

/// What a command works on.
pub(crate) trait Backend {
    type Histories: Histories + Journal + Control + Jobs;
    type Queue: Operate + Publish + Process;

    /// What remembers, by name.
    fn journal(&self) -> &'static str;

    /// What carries, by name.
    fn carrier(&self) -> &'static str;

    fn histories(&self) -> Result<Self::Histories, Failure>;

    /// Connected.
    fn queue(&self) -> impl Future<Output = Result<Self::Queue, Failure>> + Send;

    /// To be called at the end: what was acknowledged reaches the queue before.
    fn close(&self, queue: Self::Queue) -> impl Future<Output = ()> + Send;
}

/// RabbitMQ and Redis.
pub(crate) struct Servers<'a>(pub(crate) &'a Config);

impl Backend for Servers<'_> {
    type Histories = RedisJournal;
    type Queue = Amqp;

    fn journal(&self) -> &'static str {
        "redis"
    }

    fn carrier(&self) -> &'static str {
        "rabbitmq"
    }

    fn histories(&self) -> Result<RedisJournal, Failure> {
        let redis = &self.0.redis;
        let url = redis.url.as_ref().ok_or(Failure::Asked("redis.url is missing".into()))?;
        Ok(RedisJournal::new(url, &self.0.namespace, redis.retention)?)
    }

    async fn queue(&self) -> Result<Amqp, Failure> {
        let queue = Amqp::operator(self.0.amqp());
        connected(&queue).await?;
        Ok(queue)
    }

    async fn close(&self, queue: Amqp) {
        queue.close().await;
    }
}

/// Waits for the broker, but not for ever.
pub(crate) async fn connected(queue: &Amqp) -> Result<(), Failure> {
    let connected = tokio::time::timeout(CONNECT, queue.connected()).await;
    connected.map_err(|_| Failure::Ours("RabbitMQ doesn't answer.\nCheck [rabbitmq] urls.".into()))
}

/// The embedded file.
pub(crate) struct File<'a> {
    config: &'a Config,
    store: Store,
}

impl<'a> File<'a> {
    /// One that is there: a command makes none.
    pub(crate) fn open(config: &'a Config, embedded: &Embedded) -> Result<Self, Failure> {
        let path = &embedded.path;
        if !path.exists() {
            return Err(Failure::Asked(format!(
                "{} isn't there: nothing has been taken in yet.\nStart zentra standalone, or \
                 check [embedded] path.",
                path.display()
            )));
        }
        Ok(Self { config, store: Store::open(path, embedded.max_size)? })
    }
}

impl Backend for File<'_> {
    type Histories = EmbeddedJournal;
    type Queue = EmbeddedQueue;

    fn journal(&self) -> &'static str {
        "file"
    }

    fn carrier(&self) -> &'static str {
        "file"
    }

    fn histories(&self) -> Result<EmbeddedJournal, Failure> {
        Ok(EmbeddedJournal::new(self.store.clone(), self.config.redis.retention))
    }

    async fn queue(&self) -> Result<EmbeddedQueue, Failure> {
        let (routes, refused) = (self.config.routes(), self.config.refused.bounds.clone());
        Ok(EmbeddedQueue::new(self.store.clone(), routes, refused))
    }

    /// What was acknowledged is on the disk already.
    async fn close(&self, _queue: EmbeddedQueue) {}
}

/// One program works on a file at a time. The lock is a file of its own: SQLite has locks on
/// the other one.
pub(crate) fn alone(path: &Path) -> Result<std::fs::File, Failure> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let shown = Path::new(&lock).display().to_string();
    let failed = |error: std::io::Error| {
        Failure::Asked(format!(
            "{shown} can't be written: {error}\nThe folder of [embedded] path must exist, and \
             this user must be able to write there."
        ))
    };
    let options = std::fs::OpenOptions::new().create(true).append(true).open(&lock);
    let file = options.map_err(failed)?;
    file.try_lock().map_err(|_| {
        Failure::Asked(format!(
            "{} is another zentra standalone's.\nStop that one, or name another file in \
             [embedded] path.",
            path.display()
        ))
    })?;
    Ok(file)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unusable { .. } => Self::Asked(error.to_string()),
            StoreError::Full => Self::Ours(format!("{error}.\nRaise it, or drain dead letters.")),
            _ => Self::Ours(format!("{error}\nLook at the disk, and whether its file is in use.")),
        }
    }
}
