//! The configuration: one `zentra.toml` for all binaries.
//!
//! Every problem is reported at once, each with its key and none with a value. A program
//! resolves only the secrets that it needs, so the ingress runs without Redis's URL and
//! the worker without the providers' secrets.

mod advice;
mod aliases;
mod keys;
mod live;
mod overrides;
mod reader;
mod secrets;
mod section;
mod sources;
mod tls;
mod weak;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::Table;

pub use keys::reference;
pub use live::{Live, Origin};
use reader::Reader;
pub use secrets::{Environment, environment};
use section::{Problems, Section};
pub use tls::Tls;
use webhook_verify::NamedSecret;
use webhook_verify::Secret;
use zentra_core::retry::Policy;
use zentra_core::seal::Sealer;
use zentra_core::source::Source;
use zentra_store::delivery::UNVERIFIED;
use zentra_store::queue::{Archive, RefusedBounds, Routes, Subscriber};

/// Which program reads the config: it decides which secrets are resolved.
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
    /// An operator who lets refused callbacks in: needs what the ingress needs, and
    /// Redis for the audit.
    Admission,
    /// Who plays provider and reads histories: needs the sources' secrets, and Redis or the file.
    Rehearsal,
    /// Who looks at captured callbacks: needs the secrets of the sources.
    Verification,
    /// Whoever checks the file: needs all of it.
    Check,
}

impl Role {
    fn verifies(self) -> bool {
        !matches!(self, Self::Worker | Self::Operator)
    }

    fn delivers(self) -> bool {
        matches!(self, Self::Worker | Self::Standalone | Self::Check)
    }

    fn remembers(self) -> bool {
        matches!(
            self,
            Self::Worker | Self::Operator | Self::Admission | Self::Rehearsal | Self::Check
        )
    }

    fn serves_tls(self) -> bool {
        matches!(self, Self::Ingress | Self::Standalone | Self::Check)
    }
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The prefix of every exchange, queue and Redis key.
    pub namespace: String,
    /// The entrance.
    pub ingress: Ingress,
    /// Where the worker shows metrics and health.
    pub worker_admin: SocketAddr,
    /// How long a claim lasts: at least twice the longest destination timeout.
    pub lease: Duration,
    /// The broker.
    pub rabbitmq: RabbitMq,
    /// What is kept of refused callbacks.
    pub refused: Refused,
    /// The archive's bounds; its sources are named by [`Config::routes`].
    archive: Archive,
    /// One machine's queue and journal, instead of broker and Redis.
    pub embedded: Option<Embedded>,
    /// Redis.
    pub redis: Redis,
    /// The delivery store.
    pub store: Store,
    /// Seals and opens.
    pub seal: Sealer,
    /// The sources; their secrets only where callbacks are verified.
    pub sources: Vec<Source>,
    /// The destinations; their signing keys only for the worker.
    pub destinations: Vec<Destination>,
}

/// How to reach the broker, and what to ask of it.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    /// Tried in turn.
    pub urls: Vec<Secret>,
    /// How long a publish may take until its confirm.
    pub publish_timeout: Duration,
    /// Channels that publish.
    pub lanes: usize,
}

/// One file instead of RabbitMQ and Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Where it is.
    pub path: PathBuf,
    /// At most so many bytes.
    pub max_size: u64,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// `None` for a program that doesn't use it.
    pub url: Option<Secret>,
}

/// What the delivery store remembers, in Redis or in the file.
#[derive(Clone, Debug)]
pub struct Store {
    /// How long a delivery that isn't dead is remembered after its last change, unless its source
    /// has another value: the time in which a copy is recognised.
    pub retention: Duration,
}

/// What is kept of refused callbacks.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Per source and second.
    pub per_second: u32,
    /// At most so much.
    pub bounds: RefusedBounds,
}

/// The entrance: where it listens, and its bounds.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// Where callbacks are taken.
    pub listen: SocketAddr,
    /// Where metrics and health are shown.
    pub admin: SocketAddr,
    /// With it, callbacks are taken by TLS only. Only for the ingress.
    pub tls: Option<Tls>,
    /// Whose word is taken for where a callback came from.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each source has histograms of its own.
    pub source_histograms: bool,
    /// What one entrance bears.
    pub bounds: Bounds,
}

/// What one entrance bears: see the list of keys.
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
    /// Bytes per second; 0 for no bound.
    pub min_body_rate: usize,
    pub idle_timeout: Duration,
    pub drain_timeout: Duration,
}

/// Where events are delivered.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// `http://` or `https://`; none for a destination that has a handler.
    pub url: Option<http::Uri>,
    /// Topic patterns over `source.event_type`.
    pub subscribe: Vec<String>,
    /// Standard Webhooks keys; each signs, so they can rotate.
    pub signing: Vec<NamedSecret>,
    /// When to try again.
    pub retry: Policy,
    /// Attempts at a time, per worker.
    pub concurrency: u16,
    /// For a whole attempt.
    pub timeout: Duration,
    /// Statuses that no retry can change.
    pub permanent: Vec<http::StatusCode>,
    /// Whether its name may stand for an address that isn't public.
    pub allow_private: bool,
    /// Attempts a second, per worker; 0 is no bound.
    pub rate: u32,
    /// When to pause.
    pub circuit: Breaker,
}

/// When a worker pauses a destination.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// After so many failures, if they are four fifths of the last attempts; 0: never.
    pub failures: u32,
    /// For so long at first; it doubles as long as no probe works.
    pub first_pause: Duration,
    /// For so long at most.
    pub pause: Duration,
}

impl Destination {
    /// Whether a subscription's first word can be this source.
    pub fn can_take(&self, source: &str) -> bool {
        self.subscribe.iter().any(|pattern| can_match(pattern, source))
    }
}

/// Whether a pattern's first word can be this source.
fn can_match(pattern: &str, source: &str) -> bool {
    matches!(pattern.split('.').next(), Some(word) if word == source || word == "*" || word == "#")
}

/// All that is wrong with a config.
#[derive(Debug, thiserror::Error)]
#[error("the configuration can't be used:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The text of a config file.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let (path, kind) = (path.display(), error.kind());
        ConfigError(vec![format!("{path} can't be read: {kind}; name one with --config")])
    })
}

/// A config's text as a table.
fn table(text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        // The error's own text quotes the line, which may hold a secret.
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError(vec![format!("line {line} is not valid TOML")])
    })
}

impl Config {
    /// Reads a file, with overrides from the environment and from `set` (key, value).
    pub fn load(
        path: &Path,
        role: Role,
        environment: &Environment,
        set: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        Self::parse(&text(path)?, role, environment, set)
    }

    /// Reads a config's text.
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

    /// One source of a config's text, and those of the others whose secrets can be had as well:
    /// for looking at captured callbacks. Nothing else of the config is read.
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
            (found, _) if found.is_empty() => {
                Err(ConfigError(vec![format!("source.{name}: there is none in the config")]))
            }
            (found, _) => Err(ConfigError(found)),
        }
    }

    /// Where accepted events go.
    pub fn routes(&self) -> Routes {
        let archived = self.sources.iter().filter(|source| source.archive);
        let archive = Archive {
            sources: archived.map(|source| source.name.clone()).collect(),
            ..self.archive.clone()
        };
        Routes { subscribers: self.subscribers(), archive }
    }

    /// Each destination with each source, and with what no seal fits.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let sources = || self.sources.iter().map(|source| source.name.as_str());
        let of = |to| sources().chain([UNVERIFIED]).map(move |source| (to, source));
        self.destinations.iter().flat_map(|to| of(to.name.as_str())).collect()
    }

    /// What each destination subscribes to.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let subscriber = |destination: &Destination| Subscriber {
            destination: destination.name.clone(),
            patterns: destination.subscribe.clone(),
        };
        self.destinations.iter().map(subscriber).collect()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
