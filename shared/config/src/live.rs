//! A configuration that follows its file. It is read again on request, and rejected as a whole if
//! it is invalid.

use std::path::PathBuf;
use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, watch};

use super::{Config, ConfigError, Environment, RabbitMq, Role};
use webhook_verify::Secret;
use zentra_core::clock;

/// Where a program's configuration comes from, so that it can be read again.
#[derive(Clone)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// Which secrets are resolved.
    pub role: Role,
    /// Overrides, and secrets given by `env:`. A running program keeps its environment.
    pub environment: Environment,
    /// Overrides from the command line.
    pub set: Vec<(&'static str, String)>,
}

impl Origin {
    /// Reads the configuration from the file as it is now.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.path, self.role, &self.environment, &self.set)
    }
}

/// The configuration in force.
#[derive(Clone)]
pub struct Live {
    /// Where it comes from.
    pub origin: Arc<Origin>,
    current: watch::Receiver<Arc<Config>>,
    metrics: Metrics,
}

impl Live {
    /// Reads the configuration, and reads it again at each SIGHUP, until `hangups` ends. An
    /// invalid file changes nothing. It is logged and counted.
    ///
    /// # Errors
    ///
    /// If the configuration is invalid at the start.
    pub fn start(origin: Origin, mut hangups: mpsc::Receiver<()>) -> Result<Self, ConfigError> {
        let first = Arc::new(origin.load()?);
        let (publish, current) = watch::channel(first);
        let metrics = Metrics::new().map_err(|error| ConfigError(vec![error.to_string()]))?;
        let live = Self { origin: Arc::new(origin), current, metrics };
        live.metrics.took(true);
        let (origin, metrics) = (live.origin.clone(), live.metrics.clone());
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                match origin.load() {
                    Ok(new) => {
                        for key in publish.borrow().only_at_start(&new) {
                            tracing::warn!(
                                key,
                                "changed in the file; takes effect at the next restart"
                            );
                        }
                        publish.send_replace(Arc::new(new));
                    }
                    Err(error) => {
                        metrics.reloaded(false);
                        tracing::error!(
                            file = %origin.path.display(), problems = ?error.0,
                            "the new configuration is invalid; the old one stays in force"
                        );
                    }
                }
            }
        });
        Ok(live)
    }

    /// The configuration in force now.
    pub fn config(&self) -> Arc<Config> {
        self.current.borrow().clone()
    }

    /// Waits for the next configuration. Never returns when there will be none.
    pub async fn next(&mut self) -> Arc<Config> {
        match self.current.changed().await {
            Ok(()) => self.current.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Call this when the result of [`Live::next`] is in force.
    pub fn in_force(&self) {
        tracing::info!(file = %self.origin.path.display(), "the new configuration is in force");
        self.metrics.reloaded(true);
    }

    /// Exports reloads to Prometheus.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.metrics.reloads.clone()))?;
        registry.register(Box::new(self.metrics.successful.clone()))?;
        registry.register(Box::new(self.metrics.last.clone()))
    }
}

impl Config {
    /// The changed settings that take effect only at a restart.
    fn only_at_start(&self, new: &Self) -> Vec<&'static str> {
        let exposed = |urls: &[Secret]| -> Vec<Vec<u8>> {
            urls.iter().map(|url| url.expose().to_vec()).collect()
        };
        let redis = match (&self.redis.servers, &new.redis.servers) {
            (Some(old), Some(new)) => !old.is(new),
            (old, new) => old.is_some() != new.is_some(),
        };
        let rabbitmq = |config: &Self| {
            let RabbitMq { urls, tls, publish_timeout, lanes } = &config.rabbitmq;
            (exposed(urls), tls.clone(), *publish_timeout, *lanes)
        };
        let tls = |config: &Self| config.ingress.tls.is_some();
        let changed = [
            ("namespace", self.namespace != new.namespace),
            ("ingress.listen", self.ingress.listen != new.ingress.listen),
            ("ingress.admin", self.ingress.admin != new.ingress.admin),
            ("ingress.max_…, ingress.…_timeout", self.ingress.bounds != new.ingress.bounds),
            ("ingress.tls, present or not", tls(self) != tls(new)),
            ("worker.admin", self.worker_admin != new.worker_admin),
            ("rabbitmq", rabbitmq(self) != rabbitmq(new)),
            ("embedded", self.embedded != new.embedded),
            ("redis", redis || self.redis.tls != new.redis.tls),
            ("refused.max_…", self.refused.bounds != new.refused.bounds),
        ];
        changed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[derive(Clone)]
struct Metrics {
    reloads: IntCounterVec,
    successful: IntGauge,
    last: IntGauge,
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let metrics = Self {
            reloads: IntCounterVec::new(
                Opts::new(
                    "zentra_config_reloads_total",
                    "Reloads of the configuration, by outcome.",
                ),
                &["outcome"],
            )?,
            successful: IntGauge::new(
                "zentra_config_last_reload_successful",
                "1 if the configuration in force is the file's latest, 0 if that was invalid.",
            )?,
            last: IntGauge::new(
                "zentra_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was read.",
            )?,
        };
        for outcome in ["ok", "refused"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    fn reloaded(&self, ok: bool) {
        self.reloads.with_label_values(&[if ok { "ok" } else { "refused" }]).inc();
        self.took(ok);
    }

    fn took(&self, ok: bool) {
        self.successful.set(ok.into());
        if ok {
            self.last.set(i64::try_from(clock::now().secs()).unwrap_or(i64::MAX));
        }
    }
}
