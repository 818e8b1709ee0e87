//! The worker as a program: command line, configuration, logs, signals.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zentra_config::{Config, Live, Origin, Role};
use zentra_rabbitmq::{Amqp, Settings};
use zentra_redis::RedisJournal;
use zentra_store::control::WorkerControl;
use zentra_store::journal::Journal;
use zentra_store::queue::Process;
use zentra_telemetry::{otlp, shutdown};

use crate::deliver::handler::{Delivery, Failed, Handlers};

/// Pause between two attempts to read Redis's settings.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Deliver queued events to their destinations, each with one effect.
#[derive(Parser)]
#[command(name = "zentra-worker", version)]
struct Arguments {
    /// Path of the configuration file.
    #[arg(long, env = "ZENTRA_CONFIG", default_value = "zentra.toml")]
    config: PathBuf,
    /// Address for metrics and health; overrides `worker.admin`. ":0" uses a free port and logs it.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

/// A worker: `zentra-worker` itself, and one of your own with handlers.
///
/// ```no_run
/// use zentra_worker::{Delivery, Failed, Worker};
///
/// async fn send_mail(delivery: Delivery) -> Result<(), Failed> {
///     let body: serde_json::Value = serde_json::from_slice(&delivery.event.body)?;
///     println!("{}: {}", delivery.key, body["type"]);
///     Ok(())
/// }
///
/// # fn main() -> anyhow::Result<()> {
/// Worker::new().handler("mail", send_mail).run()
/// # }
/// ```
#[derive(Default)]
pub struct Worker {
    handlers: Handlers,
}

impl Worker {
    /// A worker without handlers: it delivers to destinations with a `url`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers to a destination that has `handler = true` by calling this, as often at a time
    /// as its `concurrency` says. What the handler returns is judged like an answer by HTTP;
    /// a panic is a failed attempt, and so is taking longer than the destination's `timeout`.
    #[must_use]
    pub fn handler<F, R>(mut self, destination: &str, handler: F) -> Self
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.handlers.add(destination, handler);
        self
    }

    /// Runs until SIGTERM or SIGINT, with `--config` and `--admin` from the command line and
    /// a runtime of its own.
    ///
    /// # Errors
    /// If the config can't be used, names no destination for a handler, or `admin` is taken.
    pub fn run(self) -> anyhow::Result<()> {
        // Without handlers, nothing here computes for long: one thread does more per CPU second
        // than several that wake one another, and more workers do more than one.
        let mut runtime = match self.handlers.is_empty() {
            true => tokio::runtime::Builder::new_current_thread(),
            false => tokio::runtime::Builder::new_multi_thread(),
        };
        runtime.enable_all().build()?.block_on(self.work())
    }

    /// Works with a given queue and delivery store until `stop`, as [`Worker::run`] does after
    /// reading the command line.
    ///
    /// # Errors
    /// If cannot set up TLS.
    pub async fn serve<Q: Process, J: Journal + WorkerControl>(
        self,
        live: Live,
        queue: Q,
        journal: J,
        admin: TcpListener,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        crate::run(live, queue, journal, self.handlers, admin, stop).await
    }

    async fn work(self) -> anyhow::Result<()> {
        let arguments = Arguments::parse();
        zentra_telemetry::init_logs("info");
        otlp::start("zentra-worker");
        let origin = Origin {
            path: arguments.config,
            role: Role::Worker,
            environment: zentra_config::environment(),
            set: arguments.admin.map(|value| ("worker.admin", value)).into_iter().collect(),
        };
        let live = Live::start(origin, shutdown::hangups()?)?;
        let config = live.config();
        self.each_has_a_destination(&config)?;

        let address = config.worker_admin;
        let admin = TcpListener::bind(address).await.with_context(|| {
            format!("worker.admin: can't listen on {address}; \":0\" picks a free port")
        })?;
        tracing::info!(
            admin = %admin.local_addr()?, destinations = config.destinations.len(),
            "zentra-worker started"
        );
        let stop = shutdown::on_signal()?;
        let servers = config.redis.servers.as_ref().context("[redis] is missing")?;
        let (tls, retention) = (&config.redis.tls, config.store.retention);
        let journal = RedisJournal::new(servers, tls, &config.namespace, retention)?;
        tokio::spawn(warn_of(journal.clone()));
        let queue = Amqp::processor(Settings::from(&*config));
        self.serve(live, queue.clone(), journal, admin, stop).await?;
        queue.close().await;
        otlp::finish().await;
        tracing::info!("zentra-worker stopped");
        Ok(())
    }

    fn each_has_a_destination(&self, config: &Config) -> anyhow::Result<()> {
        for name in self.handlers.names() {
            let known = config.destinations.iter().find(|destination| destination.name == name);
            ensure!(
                known.is_some_and(|known| known.url.is_none() && known.pull.is_none()),
                "destination.{name}: this program has a handler for it; give it handler = true"
            );
        }
        Ok(())
    }
}

/// Logs once what is weak about Redis's settings, as soon as it answers.
async fn warn_of(journal: RedisJournal) {
    loop {
        match journal.weaknesses().await {
            Ok(found) => {
                for weakness in found {
                    tracing::warn!(
                        weakness,
                        "the settings of Redis are unsuitable for a delivery store"
                    );
                }
                return;
            }
            Err(error) => tracing::debug!(%error, "cannot read the settings of Redis"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
