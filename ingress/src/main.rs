//! `zentra-ingress`: takes callbacks on one address and queues them.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use zentra_config::{Live, Origin, Role};
use zentra_rabbitmq::{Amqp, Settings};
use zentra_telemetry::{otlp, shutdown};

/// Receive provider callbacks, verify them and queue them in RabbitMQ.
#[derive(Parser)]
#[command(name = "zentra-ingress", version)]
struct Arguments {
    /// Path of the configuration file.
    #[arg(long, env = "ZENTRA_CONFIG", default_value = "zentra.toml")]
    config: PathBuf,
    /// Address for callbacks; overrides `ingress.listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for metrics and health; overrides `ingress.admin`.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

/// Most allocations of the ingress are small and short-lived; `make bench` measured the gain.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    zentra_telemetry::exit(run())
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // The broker's connection has a thread of its own, and threads that have little to do
    // mostly wake one another. TOKIO_WORKER_THREADS says otherwise.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        runtime.worker_threads(cores.div_ceil(2));
    }
    runtime.enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    zentra_telemetry::init_logs("info");
    otlp::start("zentra-ingress");
    let overrides = [("ingress.listen", arguments.listen), ("ingress.admin", arguments.admin)];
    let origin = Origin {
        path: arguments.config,
        role: Role::Ingress,
        environment: zentra_config::environment(),
        set: overrides.into_iter().filter_map(|(key, v)| Some((key, v?))).collect(),
    };
    let live = Live::start(origin, shutdown::hangups()?)?;
    let config = live.config();

    // Connections are bounded by the config; the usual soft limit of 1024 files is lower.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let listener = bind("ingress.listen", config.ingress.listen).await?;
    let admin = bind("ingress.admin", config.ingress.admin).await?;
    tracing::info!(
        listen = %listener.local_addr()?, admin = %admin.local_addr()?,
        sources = config.sources.len(), "zentra-ingress started"
    );
    let stop = shutdown::on_signal()?;
    let queue = Amqp::ingress(Settings::from(&*config));
    zentra_ingress::run(live, queue.clone(), listener, admin, stop).await?;
    queue.close().await;
    otlp::finish().await;
    tracing::info!("zentra-ingress stopped");
    Ok(())
}

async fn bind(key: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("{key}: cannot listen on {address}; does another program use the address?")
    })
}
