//! Reading the sections: each setting once, and the rules across them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;

use super::secrets::{Environment, resolve, secret};
use super::section::{self, Section};
use super::{
    Bounds, Breaker, Config, Destination, Embedded, Ingress, RabbitMq, Redis, Refused, Role, Tls,
};
use crate::queue::{Archive, amqp};
use crate::retry::Policy;
use crate::seal::{Key, MIN_KEY, Sealer};
use crate::secret::Secret;
use crate::verify::{NamedSecret, Scheme, Source, Success};

const NOT_BOTH: &str = "goes with no [embedded] path: choose one of them";

/// Reads for one program.
pub(super) struct Reader<'e> {
    pub(super) role: Role,
    pub(super) environment: &'e Environment,
}

/// Addresses and networks.
fn networks(section: &mut Section<'_>, key: &str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, text) in section.texts(key).iter().enumerate() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => section.problem(
                &format!("{key}[{at}]"),
                "must be an address like \"10.0.0.7\" or a network like \"10.0.0.0/8\"",
            ),
        }
    }
    networks
}

impl Reader<'_> {
    /// `None` only with a problem noted.
    pub(super) fn config(&self, mut root: Section<'_>) -> Option<Config> {
        let namespace = root.text_or_default("namespace");
        if !section::usable_name(&namespace) {
            root.problem("namespace", "must be 1 to 64 of a-z, 0-9, - and _");
        }
        let ingress = self.ingress(root.section("ingress"));

        let mut worker = root.section("worker");
        let worker_admin = worker.address("admin");
        let lease = worker.duration("lease");
        worker.finish();

        let embedded = self.embedded(root.section("embedded"));
        let rabbitmq = self.rabbitmq(root.section("rabbitmq"), embedded.is_some());
        let refused = self.refused(root.section("refused"));
        let archive = archive(root.section("archive"));
        let redis = self.redis(root.section("redis"), embedded.is_some());
        let seal = self.seal(root.section("seal"));
        let own = self.providers(&mut root);
        let sources: Vec<Source> = root
            .named("source")
            .into_iter()
            .filter_map(|(name, section)| self.source(name, section, &own, redis.retention))
            .collect();
        let destinations: Vec<Destination> = root
            .named("destination")
            .into_iter()
            .filter_map(|(name, section)| self.destination(name, section))
            .collect();
        self.rules(&root, lease, &sources, &destinations);
        root.finish();
        Some(Config {
            namespace,
            ingress,
            worker_admin,
            lease,
            rabbitmq,
            refused,
            archive,
            embedded,
            redis,
            seal: seal?,
            sources,
            destinations,
        })
    }

    /// The sources alone. Of those that aren't wanted, no problem is told: they are left out.
    pub(super) fn sources(&self, mut root: Section<'_>, wanted: &str) -> Vec<Source> {
        let own = self.providers(&mut root);
        let mut sources = Vec::new();
        for (name, section) in root.named("source") {
            let told = root.told();
            let is_wanted = name == wanted;
            let read = self.source(name, section, &own, Duration::MAX);
            if is_wanted || root.told() == told {
                sources.extend(read);
            } else {
                root.forget(told);
            }
        }
        sources
    }

    /// Rules across settings.
    fn rules(
        &self,
        root: &Section<'_>,
        lease: Duration,
        sources: &[Source],
        destinations: &[Destination],
    ) {
        if self.role.delivers() && destinations.is_empty() {
            root.problem("destination", "there is none: add a [destination.NAME]");
        }
        if self.role.verifies() && sources.is_empty() {
            root.problem("source", "there is none: add a [source.NAME]");
        }
        for source in sources {
            self.outlasts(root, source, destinations);
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
    }

    fn ingress(&self, mut section: Section<'_>) -> Ingress {
        let ingress = Ingress {
            listen: section.address("listen"),
            admin: section.address("admin"),
            tls: self.tls(section.section("tls")),
            trusted_proxies: networks(&mut section, "trusted_proxies"),
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

    fn embedded(&self, mut section: Section<'_>) -> Option<Embedded> {
        let (path, max_size) = (section.text("path"), section.size("max_size") as u64);
        match (self.role, &path) {
            (Role::Standalone, None) => {
                section.problem("path", "is missing, like \"/var/lib/zentra/zentra.db\"");
            }
            (Role::Ingress | Role::Worker, Some(_)) => section.problem(
                "path",
                "is for zentra standalone: this program needs [rabbitmq] urls and [redis] url \
                 instead",
            ),
            _ => {}
        }
        section.finish();
        path.map(|path| Embedded { path: path.into(), max_size })
    }

    fn rabbitmq(&self, mut section: Section<'_>, embedded: bool) -> RabbitMq {
        let (mut urls, given) = (Vec::new(), !section.missing("urls"));
        for (at, text) in section.texts("urls").iter().enumerate() {
            match self.url(text, true) {
                Ok(url) => urls.extend(url),
                Err(what) => section.problem(&format!("urls[{at}]"), &what),
            }
        }
        if embedded && given {
            section.problem("urls", NOT_BOTH);
        } else if urls.is_empty() && !embedded {
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

    fn redis(&self, mut section: Section<'_>, embedded: bool) -> Redis {
        let needed = self.role.remembers() && !embedded;
        let text = section.text("url");
        if embedded && text.is_some() {
            section.problem("url", NOT_BOTH);
        }
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

    /// What is remembered must outlast whoever sends or tries again.
    fn outlasts(&self, root: &Section<'_>, source: &Source, destinations: &[Destination]) {
        let (name, retention) = (&source.name, source.retention);
        let key = format!("source.{name}.retention (or redis.retention)");
        if source.scheme.retries.is_some_and(|horizon| retention <= horizon) {
            let rule = format!(
                "must be longer than {} sends its callbacks again, or a late copy would be taken \
                 for a new event",
                source.provider
            );
            root.problem(&key, &rule);
        }
        for destination in destinations.iter().filter(|to| to.can_take(name)) {
            if retention <= destination.retry.max_age {
                let to = &destination.name;
                let rule = format!(
                    "must be longer than destination.{to}.retry.max_age, or a delivery would \
                     be forgotten while it is still tried"
                );
                root.problem(&key, &rule);
            }
        }
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
        retention: Duration,
    ) -> Option<Source> {
        let provider = section.text("provider").unwrap_or_default();
        let known = own.iter().find(|(known, _)| *known == provider);
        let scheme = known.map(|(_, scheme)| scheme.clone()).or_else(|| Scheme::named(&provider));
        if scheme.is_none() {
            let all = Scheme::names().collect::<Vec<_>>().join(", ");
            section.problem("provider", &format!("must be one of {all}, or a [provider.NAME]"));
        }
        let without = scheme.as_ref().is_some_and(Scheme::needs_no_secret);
        let secrets = match without && section.missing("secrets") {
            true => vec![NamedSecret { name: "published".into(), secret: Secret::new("") }],
            false => self.secrets(&mut section, "secrets", self.role.verifies()),
        };
        for (at, named) in secrets.iter().enumerate() {
            if scheme.as_ref().is_some_and(|scheme| !without && !scheme.accepts(&named.secret)) {
                let key = format!("secrets[{at}].secret");
                section.problem(&key, "hasn't the form that the provider gives out");
            }
        }
        let signs_url = scheme.as_ref().is_some_and(Scheme::signs_url);
        let should = "must be an http:// or https:// URL without user, password and query";
        let public_url = section.read("public_url", should, |value| public_url(value.as_str()?));
        if signs_url && public_url.is_none() {
            section.problem("public_url", "is missing: this provider signs where it sends to");
        }
        let max_body = section.size("max_body");
        let trusts_id = self.identity(&mut section, scheme.as_ref());
        let retention = match section.missing("retention") {
            true => retention,
            false => section.duration("retention"),
        };
        let archive = section.flag("archive");
        let environment = section.text_or_default("environment");
        let success = self.success(&mut section, scheme.as_ref());
        let asked = scheme.as_ref().is_some_and(Scheme::asks_for_token);
        let handshake_token = match (section.missing("handshake_token"), asked) {
            (true, _) => None,
            (false, true) => {
                secret(&mut section, "handshake_token", self.environment, self.role.verifies())
            }
            (false, false) => {
                section.problem("handshake_token", "is of no use: this provider shows none");
                None
            }
        };
        section.finish();
        let (scheme, success) = (scheme?, success?);
        Some(Source {
            name,
            provider,
            scheme,
            public_url,
            handshake_token,
            secrets,
            max_body,
            trusts_id,
            retention,
            environment,
            archive,
            success,
        })
    }

    /// Whether an id that nothing signs is to be trusted.
    fn identity(&self, section: &mut Section<'_>, scheme: Option<&Scheme>) -> bool {
        let trusts = match &*section.text_or_default("identity") {
            "signed" => false,
            "id" => true,
            _ => {
                section.problem("identity", "must be \"signed\" or \"id\"");
                false
            }
        };
        if trusts && scheme.is_some_and(|scheme| scheme.id.is_none()) {
            section.problem("identity", "can't be \"id\": this provider sends none");
        }
        trusts
    }

    /// What tells the provider that the event is taken.
    fn success(&self, section: &mut Section<'_>, scheme: Option<&Scheme>) -> Option<Success> {
        let own = scheme.and_then(|scheme| scheme.success.as_ref());
        if let Some(own) = own
            && section.missing("success_status")
            && section.missing("success_body")
        {
            return Some(own.success());
        }
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
        let handler = section.flag("handler");
        match (section.missing("url"), handler) {
            (true, false) => section.problem("url", "is missing; or set handler = true"),
            (false, true) => section.problem("handler", "can't be true: there is a url, too"),
            _ => {}
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
        let permanent = section.integers("permanent").into_iter();
        let permanent = permanent
            .filter_map(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
            .collect();
        let allow_private = section.flag("allow_private");
        let rate = section.integer("rate");
        let mut breaker = section.section("circuit");
        let circuit =
            Breaker { failures: breaker.integer("failures"), pause: breaker.duration("pause") };
        breaker.finish();
        section.finish();
        (url.is_some() || handler).then_some(Destination {
            name,
            url,
            subscribe,
            signing,
            retry,
            concurrency: u16::try_from(concurrency).unwrap_or(u16::MAX),
            timeout,
            permanent,
            allow_private,
            rate,
            circuit,
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

/// As it is written: a signature is over its bytes.
fn public_url(text: &str) -> Option<String> {
    let url = destination_url(text)?;
    url.query().is_none().then(|| text.to_owned())
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
