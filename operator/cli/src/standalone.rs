//! `zentra standalone`: ingress and worker in one program, on the embedded file.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zentra_admin::backend::{self, alone};
use zentra_admin::test_callback;
use zentra_config::{Config, Live, Origin, Role};
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
use zentra_store::queue::Publish;
use zentra_telemetry::shutdown;
use zentra_worker::Worker;

use crate::failure::Failure;

/// Addresses that override the configuration.
#[derive(clap::Args)]
pub(crate) struct Listen {
    /// Address for callbacks; overrides `ingress.listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for metrics and health; overrides `ingress.admin`.
    #[arg(long, value_name = "ADDRESS")]
    ingress_admin: Option<String>,
    /// Address for metrics and health of the worker; overrides `worker.admin`.
    #[arg(long, value_name = "ADDRESS")]
    worker_admin: Option<String>,
    /// Serve console and API too, at this address of this machine, such as 127.0.0.1:9470.
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    console: Option<SocketAddr>,
}

/// An address that other machines do not reach: the console is plain HTTP here.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "an address like 127.0.0.1:9470")?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => {
            Err("must be on 127.0.0.1 or [::1]; for other machines, run zentra serve --behind-tls"
                .into())
        }
    }
}

/// Receives and delivers callbacks until SIGTERM or SIGINT.
pub(crate) async fn run(path: &Path, listen: &Listen) -> Result<(), Failure> {
    let overrides = [
        ("ingress.listen", &listen.listen),
        ("ingress.admin", &listen.ingress_admin),
        ("worker.admin", &listen.worker_admin),
    ];
    let origin = Origin {
        path: path.into(),
        role: Role::Standalone,
        environment: zentra_config::environment(),
        set: overrides.into_iter().filter_map(|(key, v)| Some((key, v.clone()?))).collect(),
    };
    let live = Live::start(origin, shutdown::hangups()?)?;
    let standalone = Standalone::prepare(live).await?;
    let file = standalone.path.display().to_string();
    let Standalone { listener, ingress_admin, worker_admin, .. } = &standalone;
    tracing::info!(
        listen = %listener.local_addr()?, ingress_admin = %ingress_admin.local_addr()?,
        worker_admin = %worker_admin.local_addr()?, file,
        "zentra standalone started"
    );
    let stop = shutdown::on_signal()?;
    let console = match listen.console {
        None => None,
        Some(address) => {
            let listener = bind("console", "--console", address).await?;
            Some(standalone.console(listener, stop.clone())?)
        }
    };
    let queue = standalone.queue.clone();
    standalone.serve(queue, stop).await?;
    if let Some(console) = console {
        let _ = console.await;
    }
    tracing::info!("zentra standalone stopped");
    Ok(())
}

/// Ingress and worker before they serve: the file is open and locked, and the addresses are bound.
pub(crate) struct Standalone {
    pub(crate) live: Live,
    /// The embedded file.
    pub(crate) path: PathBuf,
    /// Receives callbacks.
    pub(crate) listener: TcpListener,
    ingress_admin: TcpListener,
    worker_admin: TcpListener,
    /// On the file.
    pub(crate) queue: EmbeddedQueue,
    store: Store,
    /// Holds the lock of the file.
    _alone: File,
}

impl Standalone {
    /// # Errors
    /// An invalid configuration, a file that another program uses, or an address that is taken.
    pub(crate) async fn prepare(live: Live) -> Result<Self, Failure> {
        let config = live.config();
        let embedded = config.embedded.as_ref();
        let embedded = embedded.ok_or(Failure::Asked("embedded.path is missing".into()))?;
        let alone = alone(&embedded.path)?;
        let store = Store::open(&embedded.path, embedded.max_size)?;
        let (max, attainable) = (store.max(), store.attainable());
        if attainable < max {
            tracing::warn!(
                max_size = max,
                attainable,
                "the disk has less room than embedded.max_size"
            );
        }
        // Connections are bounded by the config; the usual soft limit of 1024 files is lower.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        Ok(Self {
            path: embedded.path.clone(),
            listener: bind("ingress.listen", "--listen", config.ingress.listen).await?,
            ingress_admin: bind("ingress.admin", "--ingress-admin", config.ingress.admin).await?,
            worker_admin: bind("worker.admin", "--worker-admin", config.worker_admin).await?,
            queue: EmbeddedQueue::new(
                store.clone(),
                config.routes(),
                config.refused.bounds.clone(),
            ),
            store,
            live,
            _alone: alone,
        })
    }

    /// Serves console and API until `stop`, with the configuration of this moment.
    pub(crate) fn console(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<JoinHandle<()>, Failure> {
        // One for the life of the program.
        let config: &'static Config = Box::leak(Box::new((*self.live.config()).clone()));
        let embedded = config.embedded.as_ref();
        let embedded = embedded.ok_or(Failure::Asked("embedded.path is missing".into()))?;
        let backend = backend::File::open(config, embedded)?;
        let address = listener.local_addr()?;
        // Where it listens, also if it was told to choose a port.
        let ingress = test_callback::address(self.listener.local_addr()?);
        let secrets = zentra_api::Secrets { ingress: Some(ingress) };
        tracing::info!(%address, "the console is served; zentra console open signs in");
        Ok(tokio::spawn(zentra_api::serve(listener, config, backend, Some(secrets), stop)))
    }

    /// Receives into `accepts` and delivers until `stop`.
    pub(crate) async fn serve(
        self,
        accepts: impl Publish,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let Self { live, listener, ingress_admin, worker_admin, queue, store, _alone, .. } = self;
        let journal = EmbeddedJournal::new(store, live.config().store.retention);
        tokio::spawn(queue.clone().keep_house());
        let takes =
            zentra_ingress::run(live.clone(), accepts, listener, ingress_admin, stop.clone());
        let delivers = Worker::new().serve(live, queue, journal, worker_admin, stop);
        let (taken, delivered) = tokio::join!(takes, delivers);
        for ended in [taken, delivered] {
            ended.map_err(|error| Failure::Ours(format!("{error:#}")))?;
        }
        Ok(())
    }
}

async fn bind(key: &str, option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Asked(format!(
            "{key}: cannot listen on {address}: {error}\nStop the program that uses it, or choose another \
             address with {option}."
        ))
    })
}
