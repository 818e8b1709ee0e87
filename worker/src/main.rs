//! `zentra-worker`: delivers queued events to their destinations.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use zentra_shared::config::{Live, Origin, Role};
use zentra_shared::journal::redis::RedisJournal;
use zentra_shared::queue::amqp::Amqp;
use zentra_shared::{shutdown, telemetry};

/// Between two tries to learn Redis's settings.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Delivers queued events to their destinations, each with one effect.
#[derive(Parser)]
#[command(name = "zentra-worker", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "zentra.toml")]
    config: PathBuf,
    /// Overrides [worker] admin; ":0" picks a free port and logs it.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

/// Tells once what is weak about Redis, as soon as it answers.
async fn warn_of(journal: RedisJournal) {
    loop {
        match journal.weaknesses().await {
            Ok(found) => {
                for weakness in found {
                    tracing::warn!(weakness, "redis isn't set up as a journal");
                }
                return;
            }
            Err(error) => tracing::debug!(%error, "redis didn't tell its settings"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    telemetry::init_logs("info");
    let origin = Origin {
        path: arguments.config,
        role: Role::Worker,
        environment: std::env::vars().collect(),
        set: arguments.admin.map(|value| ("worker.admin", value)).into_iter().collect(),
    };
    let live = Live::start(origin, shutdown::hangups()?)?;
    let config = live.config();

    let address = config.worker_admin;
    let admin = TcpListener::bind(address).await.with_context(|| {
        format!("worker.admin: can't listen on {address}; \":0\" picks a free port")
    })?;
    tracing::info!(
        admin = %admin.local_addr()?, destinations = config.destinations.len(),
        "zentra-worker started"
    );
    let stop = shutdown::on_signal()?;
    let url = config.redis.url.clone().context("redis.url is missing")?;
    let journal = RedisJournal::new(&url, &config.namespace, config.redis.retention)?;
    tokio::spawn(warn_of(journal.clone()));
    let queue = Amqp::processor(config.amqp());
    zentra_worker::run(live, queue.clone(), journal, admin, stop).await?;
    queue.close().await;
    tracing::info!("zentra-worker stopped");
    Ok(())
}
