//! `zentra standalone`: ingress and worker in one program, on the embedded file.

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;
use zentra_admin::backend::alone;
use zentra_config::{Live, Origin, Role};
use zentra_sqlite::{EmbeddedJournal, EmbeddedQueue, Store};
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
    let config = live.config();
    let embedded = config.embedded.as_ref();
    let embedded = embedded.ok_or(Failure::Asked("embedded.path is missing".into()))?;
    let _alone = alone(&embedded.path)?;
    let store = Store::open(&embedded.path, embedded.max_size)?;
    let (max, attainable) = (store.max(), store.attainable());
    if attainable < max {
        tracing::warn!(max_size = max, attainable, "the disk has less room than embedded.max_size");
    }
    // Connections are bounded by the config; the usual soft limit of 1024 files is lower.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let listener = bind("ingress.listen", config.ingress.listen).await?;
    let ingress_admin = bind("ingress.admin", config.ingress.admin).await?;
    let works = bind("worker.admin", config.worker_admin).await?;
    tracing::info!(
        listen = %listener.local_addr()?, ingress_admin = %ingress_admin.local_addr()?,
        worker_admin = %works.local_addr()?, file = %embedded.path.display(),
        "zentra standalone started"
    );
    let stop = shutdown::on_signal()?;
    let refused = config.refused.bounds.clone();
    let queue = EmbeddedQueue::new(store.clone(), config.routes(), refused);
    let journal = EmbeddedJournal::new(store, config.store.retention);
    tokio::spawn(queue.clone().keep_house());
    let takes =
        zentra_ingress::run(live.clone(), queue.clone(), listener, ingress_admin, stop.clone());
    let delivers = Worker::new().serve(live, queue, journal, works, stop);
    let (taken, delivered) = tokio::join!(takes, delivers);
    for ended in [taken, delivered] {
        ended.map_err(|error| Failure::Ours(format!("{error:#}")))?;
    }
    tracing::info!("zentra standalone stopped");
    Ok(())
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Asked(format!(
            "{key}: cannot listen on {address}: {error}\nDoes another program use the address?"
        ))
    })
}
