//! The configuration: one `zentra.toml` for all binaries.
//!
//! Every problem is reported at once, each with its key and none with a value. A program
//! resolves only the secrets that it needs, so the ingress runs without Redis's URL and
//! the worker without the providers' secrets.

mod advice;
mod aliases;
mod client_tls;
mod keys;
mod live;
mod notify;
mod overrides;
mod reader;
mod remedy;
mod schema;
mod secrets;
mod section;
mod sources;
mod tls;
mod weak;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::Table;

pub use client_tls::ClientTls;
pub use keys::reference;
pub use live::{Live, Origin};
pub use notify::{Channel, QuietHours, Receiver};
use reader::Reader;
pub use remedy::remedy;
pub use schema::schema;
pub use secrets::{Environment, environment, secret_files, with_env_file};
use section::{Problems, Section};
pub use tls::Tls;
use webhook_verify::NamedSecret;
use webhook_verify::Secret;
use zentra_core::retry::Policy;
use zentra_core::seal::Sealer;
use zentra_core::source::Source;
use zentra_store::delivery::UNVERIFIED;
use zentra_store::queue::{Archive, RefusedBounds, Routes, Subscriber};

/// Maximum number of work queues of a destination.
pub const MAX_SHARDS: u16 = 16;

/// Role of the program that reads the configuration. It decides which secrets are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Needs RabbitMQ, the seal and the sources' secrets.
    Ingress,
    /// Needs RabbitMQ, Redis, the seal and the destinations' signing keys.
    Worker,
    /// Ingress and worker in one, on the embedded file.
    Standalone,
    /// Needs RabbitMQ and Redis, or the embedded file, and the seal.
    Operator,
    /// An operator's server, which sends notifications: needs the receivers' secrets too.
    Server,
    /// A [`Role::Server`] that also admits refused callbacks.
    AdmittingServer,
    /// An operator who admits refused callbacks: needs what the ingress needs, and Redis for the
    /// audit log.
    Admission,
    /// A rehearsal, which plays the provider and reads histories: needs the sources' secrets, and
    /// Redis or the embedded file.
    Rehearsal,
    /// Examines captured callbacks: needs the sources' secrets.
    Verification,
    /// Checks the configuration: needs everything.
    Check,
}

impl Role {
    fn verifies(self) -> bool {
        !matches!(self, Self::Worker | Self::Operator | Self::Server)
    }

    fn delivers(self) -> bool {
        matches!(self, Self::Worker | Self::Standalone | Self::Check)
    }

    fn remembers(self) -> bool {
        matches!(
            self,
            Self::Worker
                | Self::Operator
                | Self::Server
                | Self::AdmittingServer
                | Self::Admission
                | Self::Rehearsal
                | Self::Check
        )
    }

    fn notifies(self) -> bool {
        matches!(self, Self::Server | Self::AdmittingServer | Self::Standalone | Self::Check)
    }

    fn serves_tls(self) -> bool {
        matches!(self, Self::Ingress | Self::Standalone | Self::Check)
    }
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Prefix of every exchange, queue and Redis key.
    pub namespace: String,
    /// The ingress.
    pub ingress: Ingress,
    /// Address of the worker's metrics and health.
    pub worker_admin: SocketAddr,
    /// Duration of a claim: at least twice the longest destination timeout.
    pub lease: Duration,
    /// RabbitMQ.
    pub rabbitmq: RabbitMq,
    /// Settings of refused callbacks.
    pub refused: Refused,
    /// Bounds of the archive. [`Config::routes`] adds its sources.
    archive: Archive,
    /// Embedded file instead of RabbitMQ and Redis.
    pub embedded: Option<Embedded>,
    /// Redis.
    pub redis: Redis,
    /// The delivery store.
    pub store: Store,
    /// Seals and opens messages.
    pub seal: Sealer,
    /// Sources. Their secrets are resolved only for programs that verify callbacks.
    pub sources: Vec<Source>,
    /// Destinations. Their signing keys are resolved only for workers.
    pub destinations: Vec<Destination>,
    /// Receivers of notifications. Their secrets are resolved only for programs that send notifications.
    pub receivers: Vec<Receiver>,
    /// Address of the console, for links in notifications.
    pub console_url: Option<http::Uri>,
}

/// Settings of RabbitMQ.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    /// URLs, tried in turn.
    pub urls: Vec<Secret>,
    /// For `amqps://` URLs.
    pub tls: ClientTls,
    /// Maximum time until a confirm.
    pub publish_timeout: Duration,
    /// Number of publishing channels.
    pub lanes: usize,
}

/// Settings of the embedded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Path of the file.
    pub path: PathBuf,
    /// Maximum size in bytes.
    pub max_size: u64,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// `None` for a program that does not use Redis.
    pub servers: Option<RedisServers>,
    /// For `rediss://` URLs.
    pub tls: ClientTls,
}

/// The servers that hold the deliveries. URLs start with `redis://` or `rediss://`.
#[derive(Clone, Debug)]
pub enum RedisServers {
    /// One server.
    One(Secret),
    /// The primary that Sentinel names.
    Sentinel {
        /// The sentinels.
        urls: Vec<Secret>,
        /// The name of the primary and its replicas at the sentinels.
        service: String,
        /// TLS, user, password and database of the primary. Its host is not used.
        primary: Secret,
    },
    /// Redis Cluster.
    Cluster {
        /// Some of its nodes. The others are found through them.
        urls: Vec<Secret>,
    },
}

impl RedisServers {
    /// All URLs, the primary's last.
    pub fn urls(&self) -> Vec<&Secret> {
        match self {
            Self::One(url) => vec![url],
            Self::Sentinel { urls, primary, .. } => urls.iter().chain([primary]).collect(),
            Self::Cluster { urls } => urls.iter().collect(),
        }
    }

    /// Whether both are the same servers with the same credentials.
    pub fn is(&self, other: &Self) -> bool {
        let all = |of: &Self| -> Vec<Vec<u8>> {
            let service = match of {
                Self::Sentinel { service, .. } => service.as_str(),
                Self::One(_) | Self::Cluster { .. } => "",
            };
            let exposed = of.urls().into_iter().map(|url| url.expose().to_vec());
            exposed.chain([service.into()]).collect()
        };
        std::mem::discriminant(self) == std::mem::discriminant(other) && all(self) == all(other)
    }
}

/// What the delivery store remembers, in Redis or in the file.
#[derive(Clone, Debug)]
pub struct Store {
    /// How long a delivery that is not dead is remembered after its last change, unless its source
    /// sets another value. During this time copies are recognised.
    pub retention: Duration,
}

/// Settings of refused callbacks.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Maximum number per source and second.
    pub per_second: u32,
    /// Bounds of all refused callbacks.
    pub bounds: RefusedBounds,
}

/// The ingress: addresses and bounds.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// Address for callbacks.
    pub listen: SocketAddr,
    /// Address for metrics and health.
    pub admin: SocketAddr,
    /// TLS settings. With them, only TLS is accepted. Only for the ingress.
    pub tls: Option<Tls>,
    /// Trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each source has histograms of its own.
    pub source_histograms: bool,
    /// Bounds of one ingress.
    pub bounds: Bounds,
}

/// Bounds of one ingress. See the configuration reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is told in the list of keys")]
pub struct Bounds {
    pub max_connections: u32,
    pub max_in_flight: u32,
    pub max_buffered: usize,
    /// In percent, 1 to 100.
    pub max_peer_share: usize,
    pub max_headers: usize,
    pub max_header_bytes: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes per second. 0 means no limit.
    pub min_body_rate: usize,
    pub idle_timeout: Duration,
    pub drain_timeout: Duration,
}

/// A destination.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// `http://` or `https://`. `None` for a destination that has a handler, or that consumers pull
    /// from.
    pub url: Option<http::Uri>,
    /// Duration of a consumer's lease, if consumers pull from this destination.
    pub pull: Option<Duration>,
    /// Method of the requests.
    pub method: http::Method,
    /// Additional headers of the requests, marked as sensitive. Read only for workers.
    pub headers: http::HeaderMap,
    /// For an `https://` URL. Read only for workers.
    pub tls: ClientTls,
    /// Topic patterns over `source.event_type`.
    pub subscribe: Vec<String>,
    /// Standard Webhooks keys. Each one signs, so that they can be rotated.
    pub signing: Vec<NamedSecret>,
    /// Retry policy.
    pub retry: Policy,
    /// Maximum number of attempts at a time, per worker.
    pub concurrency: u16,
    /// Number of work queues at RabbitMQ.
    pub shards: u16,
    /// Timeout of an attempt.
    pub timeout: Duration,
    /// Statuses that dead-letter an event at once.
    pub permanent: Vec<http::StatusCode>,
    /// Whether its host name may resolve to a private address.
    pub allow_private: bool,
    /// Maximum number of attempts per second, per worker. 0 means no limit.
    pub rate: u32,
    /// Circuit breaker.
    pub circuit: Breaker,
}

/// Settings of a circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// Number of failures that opens the circuit, if they are at least four fifths of the last
    /// attempts. 0 means never.
    pub failures: u32,
    /// First pause. It doubles while no probe succeeds.
    pub first_pause: Duration,
    /// Longest pause.
    pub pause: Duration,
}

impl Destination {
    /// Whether a subscription can match this source.
    pub fn can_take(&self, source: &str) -> bool {
        self.subscribe.iter().any(|pattern| can_match(pattern, source))
    }
}

/// Whether a pattern's first word can match this source.
fn can_match(pattern: &str, source: &str) -> bool {
    matches!(pattern.split('.').next(), Some(word) if word == source || word == "*" || word == "#")
}

/// All errors of a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is invalid:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Reads a configuration file.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        // Where `zentra dev` writes one.
        let of_dev = path.with_file_name(".zentra").join("dev.toml");
        let path = path.display();
        ConfigError(vec![match error.kind() {
            ErrorKind::NotFound if of_dev.exists() => format!(
                "{path} does not exist; the one of zentra dev is named with --config {}",
                of_dev.display()
            ),
            ErrorKind::NotFound => format!(
                "{path} does not exist; write one with zentra init, or name another with --config"
            ),
            kind => format!("cannot read {path}: {kind}; name another file with --config"),
        }])
    })
}

/// Parses a configuration.
fn table(text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        // The library's error quotes the line, which may contain a secret.
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError(vec![format!("line {line} is not valid TOML")])
    })
}

impl Config {
    /// Reads a configuration file, with overrides from the environment, from the file `.env` in the
    /// same folder, and from `set` (key, value).
    pub fn load(
        path: &Path,
        role: Role,
        environment: &Environment,
        set: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        Self::parse(&text(path)?, role, &with_env_file(path, environment)?, set)
    }

    /// Reads a configuration from text.
    pub fn parse(
        text: &str,
        role: Role,
        environment: &Environment,
        set: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table = table(text)?;
        overrides::apply(&mut table, environment);
        for (key, value) in set {
            let path: Vec<String> = key.split('.').map(Into::into).collect();
            overrides::set(&mut table, &path, value);
        }
        let problems = Problems::default();
        aliases::apply(&mut table, &problems);
        let reader = Reader { role, environment };
        let config = reader.config(Section::root(table, &problems));
        let found = problems.into_inner();
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(ConfigError(found)),
        }
    }

    /// Reads one source from the text of a configuration, and those other sources whose secrets
    /// can be resolved. For examining captured callbacks. Nothing else of the configuration is
    /// read.
    pub fn sources(
        text: &str,
        name: &str,
        environment: &Environment,
    ) -> Result<(Source, Vec<Source>), ConfigError> {
        let mut table = table(text)?;
        overrides::apply(&mut table, environment);
        let problems = Problems::default();
        aliases::apply(&mut table, &problems);
        let reader = Reader { role: Role::Verification, environment };
        let sources = reader.sources(Section::root(table, &problems), name);
        let (wanted, others) = sources.into_iter().partition(|source| source.name == name);
        let wanted: Vec<Source> = wanted;
        match (problems.into_inner(), wanted.into_iter().next()) {
            (found, Some(source)) if found.is_empty() => Ok((source, others)),
            (found, _) if found.is_empty() => Err(ConfigError(vec![format!(
                "source.{name}: no such source in the configuration"
            )])),
            (found, _) => Err(ConfigError(found)),
        }
    }

    /// Routes of accepted events.
    pub fn routes(&self) -> Routes {
        let archived = self.sources.iter().filter(|source| source.archive);
        let archive = Archive {
            sources: archived.map(|source| source.name.clone()).collect(),
            ..self.archive.clone()
        };
        Routes { subscribers: self.subscribers(), archive }
    }

    /// All pairs of destination and source, including messages without a valid seal.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let sources = || self.sources.iter().map(|source| source.name.as_str());
        let of = |to| sources().chain([UNVERIFIED]).map(move |source| (to, source));
        self.destinations.iter().flat_map(|to| of(to.name.as_str())).collect()
    }

    /// Subscriptions of all destinations.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let subscriber = |destination: &Destination| Subscriber {
            destination: destination.name.clone(),
            patterns: destination.subscribe.clone(),
            shards: destination.shards,
        };
        self.destinations.iter().map(subscriber).collect()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
