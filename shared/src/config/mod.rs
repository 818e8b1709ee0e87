//! The configuration: one `zentra.toml` for all binaries.
//!
//! Every problem is reported at once, each with its key and none with a value. A program
//! resolves only the secrets that it needs, so the ingress runs without Redis's URL and
//! the worker without the providers' secrets.

mod advice;
mod keys;
mod live;
mod overrides;
mod secrets;
mod section;
mod tls;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use toml::Table;

use crate::queue::{Archive, Routes, Subscriber, amqp};
use crate::retry::Policy;
use crate::seal::{Key, MIN_KEY, Sealer};
use crate::secret::Secret;
use crate::verify::{NamedSecret, Scheme, Source, Success};
pub use keys::reference;
pub use live::{Live, Origin};
pub use secrets::Environment;
use secrets::{resolve, secret};
use section::{Problems, Section};
pub use tls::Tls;

/// Which program reads the config: it decides which secrets are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Needs RabbitMQ, the seal and the sources' secrets.
    Ingress,
    /// Needs RabbitMQ, Redis, the seal and the destinations' signing keys.
    Worker,
    /// Needs RabbitMQ, Redis and the seal.
    Operator,
    /// An operator who lets refused callbacks in: needs what the ingress needs.
    Admission,
    /// Whoever checks the file: needs all of it.
    Check,
}

impl Role {
    fn verifies(self) -> bool {
        matches!(self, Self::Ingress | Self::Admission | Self::Check)
    }

    fn delivers(self) -> bool {
        matches!(self, Self::Worker | Self::Check)
    }

    fn remembers(self) -> bool {
        matches!(self, Self::Worker | Self::Operator | Self::Check)
    }

    fn serves_tls(self) -> bool {
        matches!(self, Self::Ingress | Self::Check)
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
    /// The journal.
    pub redis: Redis,
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

/// How to reach Redis, and how long it remembers.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Not for those who don't need it.
    pub url: Option<Secret>,
    /// How long a delivery that isn't dead is remembered after its last change: the
    /// window in which a copy is recognised.
    pub retention: Duration,
}

/// What is kept of refused callbacks.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Per source and second.
    pub per_second: u32,
    /// At most so much.
    pub bounds: amqp::RefusedBounds,
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
    pub max_headers: usize,
    pub max_header_bytes: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub drain_timeout: Duration,
}

/// Where events are delivered.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// `http://` or `https://`.
    pub url: http::Uri,
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
}

/// All that is wrong with a config.
#[derive(Debug, thiserror::Error)]
#[error("the configuration can't be used:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads a file, with overrides from the environment and from `set` (key, value).
    pub fn load(
        path: &Path,
        role: Role,
        environment: &Environment,
        set: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let (path, kind) = (path.display(), error.kind());
            ConfigError(vec![format!("{path} can't be read: {kind}; name one with --config")])
        })?;
        Self::parse(&text, role, environment, set)
    }

    /// Reads a config's text.
    pub fn parse(
        text: &str,
        role: Role,
        environment: &Environment,
        set: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            // The error's own text quotes the line, which may hold a secret.
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError(vec![format!("line {line} is not valid TOML")])
        })?;
        overrides::apply(&mut table, environment);
        for (key, value) in set {
            let path: Vec<String> = key.split('.').map(Into::into).collect();
            overrides::set(&mut table, &path, value);
        }
        let problems = Problems::default();
        let reader = Reader { role, environment };
        let config = reader.config(Section::root(table, &problems));
        let found = problems.into_inner();
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(ConfigError(found)),
        }
    }

    /// The settings that differ in a newer config and are read at the start only.
    fn only_at_start(&self, new: &Self) -> Vec<&'static str> {
        let exposed = |urls: &[Secret]| -> Vec<Vec<u8>> {
            urls.iter().map(|url| url.expose().to_vec()).collect()
        };
        let redis = |config: &Self| exposed(config.redis.url.as_slice());
        let rabbitmq = |config: &Self| {
            let RabbitMq { urls, publish_timeout, lanes } = &config.rabbitmq;
            (exposed(urls), *publish_timeout, *lanes)
        };
        let tls = |config: &Self| config.ingress.tls.is_some();
        let changed = [
            ("namespace", self.namespace != new.namespace),
            ("ingress.listen", self.ingress.listen != new.ingress.listen),
            ("ingress.admin", self.ingress.admin != new.ingress.admin),
            ("ingress.max_…, ingress.…_timeout", self.ingress.bounds != new.ingress.bounds),
            ("ingress.tls, there or not", tls(self) != tls(new)),
            ("worker.admin", self.worker_admin != new.worker_admin),
            ("rabbitmq", rabbitmq(self) != rabbitmq(new)),
            ("redis", redis(self) != redis(new) || self.redis.retention != new.redis.retention),
            ("refused.max_…", self.refused.bounds != new.refused.bounds),
        ];
        changed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
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

    /// What each destination subscribes to.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let subscriber = |destination: &Destination| Subscriber {
            destination: destination.name.clone(),
            patterns: destination.subscribe.clone(),
        };
        self.destinations.iter().map(subscriber).collect()
    }

    /// What the RabbitMQ side needs of it.
    pub fn amqp(&self) -> amqp::Settings {
        amqp::Settings {
            urls: self.rabbitmq.urls.clone(),
            namespace: self.namespace.clone(),
            routes: Some(self.routes()),
            refused: self.refused.bounds.clone(),
            publish_timeout: self.rabbitmq.publish_timeout,
            lanes: self.rabbitmq.lanes,
        }
    }
}

struct Reader<'e> {
    role: Role,
    environment: &'e Environment,
}

impl Reader<'_> {
    /// `None` only with a problem noted.
    fn config(&self, mut root: Section<'_>) -> Option<Config> {
        let namespace = root.text_or_default("namespace");
        if !section::usable_name(&namespace) {
            root.problem("namespace", "must be 1 to 64 of a-z, 0-9, - and _");
        }
        let ingress = self.ingress(root.section("ingress"));

        let mut worker = root.section("worker");
        let worker_admin = worker.address("admin");
        let lease = worker.duration("lease");
        worker.finish();

        let rabbitmq = self.rabbitmq(root.section("rabbitmq"));
        let refused = self.refused(root.section("refused"));
        let archive = archive(root.section("archive"));
        let redis = self.redis(root.section("redis"));
        let seal = self.seal(root.section("seal"));
        let own = self.providers(&mut root);
        let sources: Vec<Source> = root
            .named("source")
            .into_iter()
            .filter_map(|(name, section)| self.source(name, section, &own))
            .collect();
        let destinations: Vec<Destination> = root
            .named("destination")
            .into_iter()
            .filter_map(|(name, section)| self.destination(name, section))
            .collect();
        if self.role.delivers() && destinations.is_empty() {
            root.problem("destination", "there is none: add a [destination.NAME]");
        }
        if self.role.verifies() && sources.is_empty() {
            root.problem("source", "there is none: add a [source.NAME]");
        }
        for destination in &destinations {
            if redis.retention <= destination.retry.max_age {
                let name = &destination.name;
                let rule = format!(
                    "must be longer than destination.{name}.retry.max_age, or a delivery would \
                     be forgotten while it is still tried"
                );
                root.problem("redis.retention", &rule);
            }
        }
        for source in &sources {
            if source.scheme.retries.is_some_and(|horizon| redis.retention <= horizon) {
                let rule = format!(
                    "must be longer than {} sends its callbacks again (source.{}), or a late \
                     copy would be taken for a new event",
                    source.provider, source.name
                );
                root.problem("redis.retention", &rule);
            }
        }
        if let Some(slowest) = destinations.iter().max_by_key(|d| d.timeout)
            && lease < slowest.timeout * 2
        {
            let rule = format!(
                "must be at least twice destination.{}.timeout, or a second worker would \
                 start an attempt that still runs",
                slowest.name
            );
            root.problem("worker.lease", &rule);
        }
        root.finish();
        Some(Config {
            namespace,
            ingress,
            worker_admin,
            lease,
            rabbitmq,
            refused,
            archive,
            redis,
            seal: seal?,
            sources,
            destinations,
        })
    }

    fn ingress(&self, mut section: Section<'_>) -> Ingress {
        let ingress = Ingress {
            listen: section.address("listen"),
            admin: section.address("admin"),
            tls: self.tls(section.section("tls")),
            bounds: Bounds {
                max_connections: section.integer("max_connections"),
                max_in_flight: section.integer("max_in_flight"),
                max_buffered: section.size("max_buffered"),
                max_headers: section.integer("max_headers") as usize,
                max_header_bytes: section.size("max_header_bytes"),
                header_timeout: section.duration("header_timeout"),
                body_timeout: section.duration("body_timeout"),
                idle_timeout: section.duration("idle_timeout"),
                drain_timeout: section.duration("drain_timeout"),
            },
        };
        section.finish();
        ingress
    }

    fn tls(&self, mut section: Section<'_>) -> Option<Tls> {
        if section.missing("certificate") && section.missing("key") {
            section.finish();
            return None;
        }
        for key in ["certificate", "key"] {
            if section.missing(key) {
                section.problem(key, "is missing: certificate and key go together");
            }
        }
        let (certificate, key) = (section.text("certificate"), section.text("key"));
        section.finish();
        if !self.role.serves_tls() {
            return None;
        }
        let read = Tls::read(certificate?, key?, self.environment);
        read.map_err(|(key, what)| section.problem(key, &what)).ok()
    }

    fn rabbitmq(&self, mut section: Section<'_>) -> RabbitMq {
        let mut urls = Vec::new();
        for (at, text) in section.texts("urls").iter().enumerate() {
            match self.url(text, true) {
                Ok(url) => urls.extend(url),
                Err(what) => section.problem(&format!("urls[{at}]"), &what),
            }
        }
        if urls.is_empty() {
            section.problem("urls", "is missing or empty, like [\"env:RABBITMQ_URL\"]");
        }
        let publish_timeout = section.duration("publish_timeout");
        let lanes = section.integer("lanes") as usize;
        section.finish();
        RabbitMq { urls, publish_timeout, lanes }
    }

    fn refused(&self, mut section: Section<'_>) -> Refused {
        let bounds = amqp::RefusedBounds {
            count: section.integer("max_count"),
            bytes: section.size("max_bytes"),
            age: section.duration("max_age"),
        };
        let per_second = section.integer("per_second");
        section.finish();
        Refused { per_second, bounds }
    }

    fn redis(&self, mut section: Section<'_>) -> Redis {
        let needed = self.role.remembers();
        let text = section.text("url");
        if text.is_none() && needed {
            section.problem("url", "is missing, like \"env:REDIS_URL\"");
        }
        let url = text.and_then(|text| {
            let resolved = self.url(&text, needed);
            resolved.unwrap_or_else(|what| {
                section.problem("url", &what);
                None
            })
        });
        let retention = section.duration("retention");
        section.finish();
        Redis { url, retention }
    }

    /// A URL without a password may stand in the file; any other is a secret.
    fn url(&self, text: &str, needed: bool) -> Result<Option<Secret>, String> {
        match text.contains("://") && !text.contains('@') {
            true => Ok(Some(Secret::new(text.as_bytes()))),
            false => resolve(text, self.environment, needed),
        }
    }

    fn seal(&self, mut section: Section<'_>) -> Option<Sealer> {
        let keys = self.secrets(&mut section, "keys", true);
        let keys: Vec<Key> =
            keys.into_iter().map(|NamedSecret { name, secret }| Key { name, secret }).collect();
        if keys.iter().any(|key| key.secret.expose().len() < MIN_KEY) {
            section.problem("keys", &format!("a seal key has at least {MIN_KEY} bytes"));
        }
        section.finish();
        Sealer::new(keys)
    }

    /// A list of `{ name, secret }`, one at least, each name once.
    fn secrets(&self, section: &mut Section<'_>, key: &str, needed: bool) -> Vec<NamedSecret> {
        let mut found = Vec::new();
        let mut names = HashSet::new();
        let items = section.list(key);
        if items.is_empty() {
            section.problem(key, "needs at least one { name = \"…\", secret = \"env:NAME\" }");
        }
        for mut item in items {
            let name = item.text("name").unwrap_or_default();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
                item.problem("name", "must be 1 to 64 of A-Z, a-z, 0-9, -, _ and .");
            } else if !names.insert(name.clone()) {
                item.problem("name", "is used twice");
            }
            if let Some(secret) = secret(&mut item, "secret", self.environment, needed) {
                found.push(NamedSecret { name, secret });
            }
            item.finish();
        }
        found
    }

    /// `[provider.NAME]`: schemes of the user's own.
    fn providers(&self, root: &mut Section<'_>) -> Vec<(String, Scheme)> {
        let mut own = Vec::new();
        for (name, section) in root.named("provider") {
            if Scheme::named(&name).is_some() {
                root.problem(&format!("provider.{name}"), "is in the catalogue already");
            }
            match Scheme::from_toml(section.rest()) {
                Ok(scheme) => own.push((name, scheme)),
                Err(what) => root.problem(&format!("provider.{name}"), &what),
            }
        }
        own
    }

    fn source(
        &self,
        name: String,
        mut section: Section<'_>,
        own: &[(String, Scheme)],
    ) -> Option<Source> {
        let provider = section.text("provider").unwrap_or_default();
        let known = own.iter().find(|(known, _)| *known == provider);
        let scheme = known.map(|(_, scheme)| scheme.clone()).or_else(|| Scheme::named(&provider));
        if scheme.is_none() {
            let all = Scheme::names().collect::<Vec<_>>().join(", ");
            section.problem("provider", &format!("must be one of {all}, or a [provider.NAME]"));
        }
        let secrets = self.secrets(&mut section, "secrets", self.role.verifies());
        let format = scheme.as_ref().map(|scheme| scheme.signature.key);
        for (at, named) in secrets.iter().enumerate() {
            if format.is_some_and(|format| !format.accepts(&named.secret)) {
                let key = format!("secrets[{at}].secret");
                section.problem(&key, "hasn't the form that the provider gives out");
            }
        }
        let max_body = section.size("max_body");
        let archive = section.flag("archive");
        let success = self.success(&mut section);
        section.finish();
        let (scheme, success) = (scheme?, success?);
        Some(Source { name, provider, scheme, secrets, max_body, archive, success })
    }

    /// What tells the provider that the event is taken.
    fn success(&self, section: &mut Section<'_>) -> Option<Success> {
        let given = !section.missing("success_body");
        let status = u16::try_from(section.integer("success_status")).ok()?;
        let status = StatusCode::from_u16(status).ok()?;
        let mut body = section.text_or_default("success_body");
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
            if given && !body.is_empty() {
                section.problem("success_body", "must be empty, since success_status has no body");
            }
            body.clear();
        }
        Some(Success { status, body: body.into() })
    }

    fn destination(&self, name: String, mut section: Section<'_>) -> Option<Destination> {
        if section.missing("url") {
            section.problem("url", "is missing");
        }
        let should = "must be an http:// or https:// URL without user and password";
        let url = section.read("url", should, |value| destination_url(value.as_str()?));
        let subscribe = section.texts("subscribe");
        if subscribe.is_empty() {
            section.problem("subscribe", "needs at least one pattern, like \"stripe-eu.charge.*\"");
        }
        if !subscribe.iter().all(|pattern| usable_pattern(pattern)) {
            section.problem(
                "subscribe",
                "a pattern is words joined by dots, at most 200 characters; a word is *, # or \
                 of A-Z, a-z, 0-9, - and _",
            );
        }
        let signing = match section.missing("signing") {
            true => Vec::new(),
            false => self.secrets(&mut section, "signing", self.role.delivers()),
        };
        for (at, named) in signing.iter().enumerate() {
            if !crate::verify::KeyFormat::Whsec.accepts(&named.secret) {
                let key = format!("signing[{at}].secret");
                section.problem(&key, "must be base64, as Standard Webhooks keys are");
            }
        }
        let retry = self.retry(section.section("retry"));
        let concurrency = section.integer("concurrency");
        let timeout = section.duration("timeout");
        section.finish();
        Some(Destination {
            name,
            url: url?,
            subscribe,
            signing,
            retry,
            concurrency: u16::try_from(concurrency).unwrap_or(u16::MAX),
            timeout,
        })
    }

    fn retry(&self, mut section: Section<'_>) -> Policy {
        let policy = Policy {
            attempts: section.integer("attempts"),
            initial: section.duration("initial"),
            multiplier: section.number("multiplier"),
            // At most the delay ladder's last rung.
            max: section.duration("max"),
            jitter: section.number("jitter"),
            max_age: section.duration("max_age"),
        };
        if policy.initial > policy.max {
            section.problem("initial", "must not be longer than max");
        }
        section.finish();
        policy
    }
}

fn archive(mut section: Section<'_>) -> Archive {
    let archive = Archive {
        sources: Vec::new(),
        bytes: section.size("max_bytes") as u64,
        age: section.duration("max_age"),
    };
    section.finish();
    archive
}

fn destination_url(text: &str) -> Option<http::Uri> {
    let url: http::Uri = text.parse().ok()?;
    let authority = url.authority()?.as_str();
    let web = matches!(url.scheme_str(), Some("http" | "https"));
    (web && !authority.contains('@')).then_some(url)
}

fn usable_pattern(pattern: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    pattern.len() <= 200
        && pattern
            .split('.')
            .all(|word| matches!(word, "*" | "#") || (!word.is_empty() && word.bytes().all(plain)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
