//! The backend: servers, or one file. The configuration decides once per process.
//!
//! A process opens its connections once, at their first use, and closes them at its end.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use zentra_config::{Config, Embedded};
use zentra_rabbitmq::{Amqp, Settings};
use zentra_redis::RedisJournal;
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_store::control::{OperatorControl, WorkerControl};
use zentra_store::incident::Incidents;
use zentra_store::job::Jobs;
use zentra_store::journal::{DeliveryStore, Journal};
use zentra_store::plan::Action;
use zentra_store::queue::{Fetch, Operate, Publish};

use crate::error::{AdminError, ErrorCode};

/// Timeout of RabbitMQ's first answer.
const CONNECT: Duration = Duration::from_secs(15);
/// Time in which `zentra standalone` upgrades the file, and the pause between two looks.
const UPGRADE: Duration = Duration::from_secs(30);
const UPGRADE_PAUSE: Duration = Duration::from_millis(200);

/// The backend of the use cases.
pub trait Backend: Send + Sync {
    /// Storage of deliveries, jobs, tokens and audit log.
    type DeliveryStore: DeliveryStore
        + Journal
        + WorkerControl
        + OperatorControl
        + Jobs
        + Incidents
        + Clone;
    /// The queue.
    type Queue: Operate + Publish + Fetch + Clone;

    /// Name of the delivery store, for status and metrics.
    fn store_name(&self) -> &'static str;

    /// Name of the queue, for status and metrics.
    fn broker_name(&self) -> &'static str;

    /// The delivery store. Connects at its first use.
    fn histories(&self) -> Self::DeliveryStore;

    /// What holds messages, connected; the same connections at each call.
    ///
    /// # Errors
    /// [`ErrorCode::BrokerUnavailable`] if it does not answer within 15 s.
    fn queue(&self) -> impl Future<Output = Result<Self::Queue, AdminError>> + Send;

    /// Closes the connections. Acknowledgements reach the broker before this returns.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// RabbitMQ and Redis.
pub struct Servers<'a> {
    config: &'a Config,
    journal: RedisJournal,
    queue: OnceCell<Amqp>,
}

impl<'a> Servers<'a> {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`ErrorCode::ConfigInvalid`] without `[redis]`, [`ErrorCode::StoreUnavailable`] for an invalid one.
    pub fn new(config: &'a Config) -> Result<Self, AdminError> {
        let redis = &config.redis;
        let missing = || AdminError::new(ErrorCode::ConfigInvalid, "[redis] is missing");
        let servers = redis.servers.as_ref().ok_or_else(missing)?;
        let retention = config.store.retention;
        let journal = RedisJournal::new(servers, &redis.tls, &config.namespace, retention)?;
        Ok(Self { config, journal, queue: OnceCell::new() })
    }
}

impl Backend for Servers<'_> {
    type DeliveryStore = RedisJournal;
    type Queue = Amqp;

    fn store_name(&self) -> &'static str {
        "redis"
    }

    fn broker_name(&self) -> &'static str {
        "rabbitmq"
    }

    fn histories(&self) -> RedisJournal {
        self.journal.clone()
    }

    async fn queue(&self) -> Result<Amqp, AdminError> {
        let queue =
            self.queue.get_or_init(async || Amqp::operator(Settings::from(self.config))).await;
        connected(queue).await?;
        Ok(queue.clone())
    }

    async fn close(&self) {
        if let Some(queue) = self.queue.get() {
            queue.clone().close().await;
        }
    }
}

/// Waits until the broker answers, for 15 s at most.
///
/// # Errors
/// [`ErrorCode::BrokerUnavailable`]; at once if no address can be used.
pub async fn connected(queue: &Amqp) -> Result<(), AdminError> {
    let connected = tokio::time::timeout(CONNECT, queue.connected()).await;
    Ok(connected.map_err(|_| broker_unavailable())??)
}

pub(crate) fn broker_unavailable() -> AdminError {
    AdminError::new(ErrorCode::BrokerUnavailable, "RabbitMQ does not answer.")
        .hint("Check [rabbitmq] urls.")
}

/// The embedded file.
pub struct File<'a> {
    config: &'a Config,
    store: Store,
}

impl<'a> File<'a> {
    /// Opens an existing file.
    ///
    /// # Errors
    /// [`ErrorCode::StorageUnusable`] if there is none, and what [`Store::open`] says.
    pub fn open(config: &'a Config, embedded: &Embedded) -> Result<Self, AdminError> {
        let path = &embedded.path;
        if !path.exists() {
            let message = format!(
                "{} does not exist: zentra standalone has not run with this configuration yet.",
                path.display()
            );
            return Err(AdminError::new(ErrorCode::StorageUnusable, message)
                .hint("Start zentra standalone first, or check [embedded] path."));
        }
        Ok(Self { config, store: Store::open_to_look(path, embedded.max_size)? })
    }

    /// Opens an existing file. Waits up to 30 s for `zentra standalone` to upgrade it: both services start again
    /// after an upgrade, in any order.
    ///
    /// # Errors
    /// Those of [`File::open`].
    pub async fn open_upgraded(
        config: &'a Config,
        embedded: &Embedded,
    ) -> Result<Self, AdminError> {
        let started = Instant::now();
        let mut waits = false;
        while started.elapsed() < UPGRADE && has_to_be_upgraded(&embedded.path) {
            if !waits {
                tracing::info!("waiting for zentra standalone to upgrade the file");
                waits = true;
            }
            tokio::time::sleep(UPGRADE_PAUSE).await;
        }
        Self::open(config, embedded)
    }
}

fn has_to_be_upgraded(path: &Path) -> bool {
    let change = zentra_sqlite::plan(path).ok().flatten();
    change.is_some_and(|change| change.action == Action::Upgrade)
}

impl Backend for File<'_> {
    type DeliveryStore = EmbeddedJournal;
    type Queue = EmbeddedQueue;

    fn store_name(&self) -> &'static str {
        "file"
    }

    fn broker_name(&self) -> &'static str {
        "file"
    }

    fn histories(&self) -> EmbeddedJournal {
        EmbeddedJournal::new(self.store.clone(), self.config.store.retention)
    }

    async fn queue(&self) -> Result<EmbeddedQueue, AdminError> {
        let (routes, refused) = (self.config.routes(), self.config.refused.bounds.clone());
        Ok(EmbeddedQueue::new(self.store.clone(), routes, refused))
    }

    /// Acknowledged messages are on the disk already.
    async fn close(&self) {}
}

/// Locks the embedded file: one program works on it at a time. The lock is a file of its own, since SQLite
/// has locks on the other one.
///
/// # Errors
/// [`ErrorCode::FileUnusable`] if it can't be written, [`ErrorCode::StorageUnusable`] if another program has it.
pub fn alone(path: &Path) -> Result<std::fs::File, AdminError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let shown = Path::new(&lock).display().to_string();
    let failed = |error: std::io::Error| {
        let message = format!("cannot write {shown}: {error}");
        AdminError::new(ErrorCode::FileUnusable, message).hint(
            "The folder of [embedded] path must exist, and this user must be able to write there.",
        )
    };
    let options = std::fs::OpenOptions::new().create(true).append(true).open(&lock);
    let file = options.map_err(failed)?;
    file.try_lock().map_err(|_| {
        let message = format!("another Zentra uses {}.", path.display());
        AdminError::new(ErrorCode::StorageUnusable, message)
            .hint("Stop that program, or name another file in [embedded] path.")
    })?;
    Ok(file)
}
