//! Reads the sections: each setting once, then the rules that involve several settings.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::client_tls::{ClientTls, References};
use super::secrets::{Environment, resolve};
use super::section::{self, Section};
use super::{
    Bounds, Breaker, Config, Destination, Embedded, Ingress, RabbitMq, Redis, RedisServers,
    Refused, Role, Store, Tls,
};
use webhook_verify::NamedSecret;
use webhook_verify::Secret;
use zentra_core::retry::Policy;
use zentra_core::seal::{Key, MIN_KEY, Sealer};
use zentra_core::source::Source;
use zentra_store::queue::{Archive, RefusedBounds};

/// Settings of requests and of workers, which have no effect on a destination with `pull = true`.
const UNUSED_BY_PULL: &[&str] = &[
    "method",
    "headers",
    "tls",
    "signing",
    "concurrency",
    "shards",
    "rate",
    "circuit",
    "permanent",
    "allow_private",
    "timeout",
];

/// Headers of a request that Zentra or HTTP sets. The others of Zentra begin with `ce-`, `webhook-` or `zentra-`.
const RESERVED_HEADERS: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

const NOT_BOTH: &str = "cannot be combined with [embedded] path: choose one of them";

/// Reads the settings for one program.
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
    /// `None` only if an error was recorded.
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
        let store = store(root.section("store"));
        let seal = self.seal(root.section("seal"));
        let own = self.providers(&mut root);
        let sources: Vec<Source> = root
            .named("source")
            .into_iter()
            .filter_map(|(name, section)| self.source(name, section, &own, store.retention))
            .collect();
        let mut destinations: Vec<Destination> = root
            .named("destination")
            .into_iter()
            .filter_map(|(name, section)| self.destination(name, section))
            .collect();
        if embedded.is_some() {
            // A file has one queue for each destination.
            destinations.iter_mut().for_each(|destination| destination.shards = 1);
        }
        let receivers = root
            .named("notify")
            .into_iter()
            .filter_map(|(name, section)| self.receiver(name, section))
            .collect();
        let mut console = root.section("console");
        let should = "must be an http:// or https:// URL, like \"https://zentra.example\"";
        let console_url = console.read("url", should, |value| destination_url(value.as_str()?));
        console.finish();
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
            store,
            seal: seal?,
            sources,
            destinations,
            receivers,
            console_url,
        })
    }

    /// Only the sources. Errors in sources that are not wanted are not reported, and those sources
    /// are left out.
    pub(super) fn sources(&self, mut root: Section<'_>, wanted: &str) -> Vec<Source> {
        let own = self.providers(&mut root);
        let mut sources = Vec::new();
        for (name, section) in root.named("source") {
            let problem_count = root.problem_count();
            let is_wanted = name == wanted;
            let read = self.source(name, section, &own, Duration::MAX);
            if is_wanted || root.problem_count() == problem_count {
                sources.extend(read);
            } else {
                root.forget(problem_count);
            }
        }
        sources
    }

    /// Rules that involve several settings.
    fn rules(
        &self,
        root: &Section<'_>,
        lease: Duration,
        sources: &[Source],
        destinations: &[Destination],
    ) {
        if self.role.delivers() && destinations.is_empty() {
            root.problem("destination", "none is configured: add a [destination.NAME]");
        }
        if self.role.verifies() && sources.is_empty() {
            root.problem("source", "none is configured: add a [source.NAME]");
        }
        for source in sources {
            self.outlasts(root, source, destinations);
        }
        let attempted = destinations.iter().filter(|destination| destination.pull.is_none());
        if let Some(slowest) = attempted.max_by_key(|destination| destination.timeout)
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
            source_histograms: section.flag("source_histograms"),
            bounds: Bounds {
                max_connections: section.integer("max_connections"),
                max_in_flight: section.integer("max_in_flight"),
                max_buffered: section.size("max_buffered"),
                max_peer_share: section.integer("max_peer_share") as usize,
                max_headers: section.integer("max_headers") as usize,
                max_header_bytes: section.size("max_header_bytes"),
                header_timeout: section.duration("header_timeout"),
                body_timeout: section.duration("body_timeout"),
                min_body_rate: section.size("min_body_rate"),
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
                section.problem(key, "is missing: certificate and key must both be set");
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
                section.problem(
                    "path",
                    "is missing, like \"/var/lib/zentra/zentra.db\"; with RabbitMQ and Redis, start \
                     zentra-ingress and zentra-worker instead of zentra standalone",
                );
            }
            (Role::Ingress | Role::Worker, Some(_)) => section.problem(
                "path",
                "is for zentra standalone: this program needs [rabbitmq] urls and [redis] instead",
            ),
            _ => {}
        }
        section.finish();
        path.map(|path| Embedded { path: path.into(), max_size })
    }

    fn rabbitmq(&self, mut section: Section<'_>, embedded: bool) -> RabbitMq {
        let (mut urls, given) = (Vec::new(), !section.missing("urls"));
        let texts = section.texts("urls");
        for (at, text) in texts.iter().enumerate() {
            match self.url(text, true) {
                Ok(Some(url)) if !is_amqp(&url) => section.problem(
                    &format!("urls[{at}]"),
                    "must be a URL that starts with amqp:// or amqps://",
                ),
                Ok(url) => urls.extend(url),
                Err(what) => section.problem(&format!("urls[{at}]"), &what),
            }
        }
        if embedded && given {
            section.problem("urls", NOT_BOTH);
        } else if texts.is_empty() && !embedded {
            section.problem("urls", "is missing or empty, like [\"env:RABBITMQ_URL\"]");
        }
        let tls = self.client_tls(section.section("tls"), !embedded);
        if !tls.is_default() && !urls.iter().all(|url| url.expose().starts_with(b"amqps://")) {
            section.problem("urls", "must all start with amqps://, because rabbitmq.tls is set");
        }
        let publish_timeout = section.duration("publish_timeout");
        let lanes = section.integer("lanes") as usize;
        section.finish();
        RabbitMq { urls, tls, publish_timeout, lanes }
    }

    fn refused(&self, mut section: Section<'_>) -> Refused {
        let bounds = RefusedBounds {
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
        let forms = ["url", "sentinel", "cluster"];
        let given: Vec<&str> = forms.into_iter().filter(|form| !section.missing(form)).collect();
        let url = section.text("url");
        let sentinel = section.section("sentinel");
        let cluster = section.section("cluster");
        let servers = match given[..] {
            [form, ..] if embedded => {
                section.problem(form, NOT_BOTH);
                None
            }
            [] if needed => {
                section.problem("url", "is missing, like \"env:REDIS_URL\"");
                None
            }
            [_, second, ..] => {
                section.problem(second, "only one of url, sentinel and cluster can be set");
                None
            }
            ["url"] => url
                .and_then(|text| self.redis_url(&section, "url", &text, needed))
                .map(RedisServers::One),
            ["sentinel"] => self.sentinel(sentinel, needed),
            ["cluster"] => self.cluster(cluster, needed),
            _ => None,
        };
        let tls = self.client_tls(section.section("tls"), needed);
        let has_plain = |servers: &RedisServers| {
            servers.urls().iter().any(|url| !url.expose().starts_with(b"rediss://"))
        };
        if !tls.is_default() && servers.as_ref().is_some_and(has_plain) {
            section.problem("tls", "is set, so all URLs of [redis] must start with rediss:// (with sentinels: also primary)");
        }
        section.finish();
        Redis { servers, tls }
    }

    /// CA, certificate and key for the connections of a client. They are read only if this program
    /// needs them.
    fn client_tls(&self, mut section: Section<'_>, needed: bool) -> ClientTls {
        let references = References {
            ca: section.text("ca"),
            certificate: section.text("certificate"),
            key: section.text("key"),
        };
        section.finish();
        if !needed {
            return ClientTls::default();
        }
        ClientTls::read(&references, self.environment).unwrap_or_else(|(key, what)| {
            section.problem(key, &what);
            ClientTls::default()
        })
    }

    fn sentinel(&self, mut section: Section<'_>, needed: bool) -> Option<RedisServers> {
        let urls = self.redis_urls(&mut section, needed);
        let service = section.text("service");
        if service.is_none() {
            section.problem("service", "is missing, like \"mymaster\"");
        }
        let primary = section.text_or_default("primary");
        let primary = self.redis_url(&section, "primary", &primary, needed);
        section.finish();
        Some(RedisServers::Sentinel { urls: urls?, service: service?, primary: primary? })
    }

    fn cluster(&self, mut section: Section<'_>, needed: bool) -> Option<RedisServers> {
        let urls = self.redis_urls(&mut section, needed);
        section.finish();
        Some(RedisServers::Cluster { urls: urls? })
    }

    /// At least one URL, if they are needed.
    fn redis_urls(&self, section: &mut Section<'_>, needed: bool) -> Option<Vec<Secret>> {
        let texts = section.texts("urls");
        if texts.is_empty() {
            section.problem("urls", "is missing or empty, like [\"redis://10.0.0.1:6379\"]");
        }
        let read = texts.iter().enumerate();
        let urls: Vec<Secret> = read
            .filter_map(|(at, text)| self.redis_url(section, &format!("urls[{at}]"), text, needed))
            .collect();
        (!urls.is_empty()).then_some(urls)
    }

    fn redis_url(
        &self,
        section: &Section<'_>,
        key: &str,
        text: &str,
        needed: bool,
    ) -> Option<Secret> {
        let url = self.url(text, needed).unwrap_or_else(|what| {
            section.problem(key, &what);
            None
        })?;
        let schemes = [&b"redis://"[..], b"rediss://"];
        if schemes.iter().any(|scheme| url.expose().starts_with(scheme)) {
            return Some(url);
        }
        section.problem(key, "must be a URL that starts with redis:// or rediss://");
        None
    }

    /// A URL without a password may be in the file. Any other URL is a secret.
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

    fn destination(&self, name: String, mut section: Section<'_>) -> Option<Destination> {
        let (handler, pull) = (section.flag("handler"), section.flag("pull"));
        match (section.missing("url"), handler, pull) {
            (true, false, false) => {
                section.problem("url", "is missing; or set handler = true or pull = true");
            }
            (false, true, _) => {
                section.problem("handler", "cannot be true, because url is set too")
            }
            (false, _, true) => section.problem("pull", "cannot be true, because url is set too"),
            (_, true, true) => section.problem("pull", "cannot be true, because handler is true"),
            _ => {}
        }
        let unused = if pull { UNUSED_BY_PULL } else { &["lease"] };
        for key in unused.iter().filter(|key| !section.missing(key)) {
            let rule = if pull { "cannot be set with pull = true" } else { "needs pull = true" };
            section.problem(key, rule);
        }
        let lease = section.duration("lease");
        let should = "must be an http:// or https:// URL without user and password";
        let url = section.read("url", should, |value| destination_url(value.as_str()?));
        let method = method(&mut section);
        let headers = self.headers(&mut section, "headers");
        let tls = self.client_tls(section.section("tls"), self.role.delivers());
        if !tls.is_default() && url.as_ref().is_none_or(|url| url.scheme_str() != Some("https")) {
            section.problem("url", "must start with https://, because tls is set");
        }
        let subscribe = section.texts("subscribe");
        if subscribe.is_empty() {
            section.problem("subscribe", "needs at least one pattern, like \"stripe-eu.charge.*\"");
        }
        if !subscribe.iter().all(|pattern| usable_pattern(pattern)) {
            section.problem(
                "subscribe",
                "a pattern is words joined by dots, at most 200 bytes: * and # stand alone, every \
                 other word is taken as it is; write %2A for *, %23 for # and %25 for % in a word",
            );
        }
        let signing = match section.missing("signing") {
            true => Vec::new(),
            false => self.secrets(&mut section, "signing", self.role.delivers()),
        };
        for (at, named) in signing.iter().enumerate() {
            if !webhook_verify::KeyFormat::Whsec.accepts(&named.secret) {
                let key = format!("signing[{at}].secret");
                section.problem(&key, "must be base64, as Standard Webhooks keys are");
            }
        }
        let retry = self.retry(section.section("retry"));
        let concurrency = section.integer("concurrency");
        let shards = section.integer("shards");
        let timeout = section.duration("timeout");
        let permanent = section.integers("permanent").into_iter();
        let permanent = permanent
            .filter_map(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
            .collect();
        let allow_private = section.flag("allow_private");
        let rate = section.integer("rate");
        let mut breaker = section.section("circuit");
        let circuit = Breaker {
            failures: breaker.integer("failures"),
            first_pause: breaker.duration("first_pause"),
            pause: breaker.duration("pause"),
        };
        breaker.finish();
        section.finish();
        (url.is_some() || handler || pull).then_some(Destination {
            name,
            url,
            pull: pull.then_some(lease),
            method,
            headers,
            tls,
            subscribe,
            signing,
            retry,
            concurrency: u16::try_from(concurrency).unwrap_or(u16::MAX),
            shards: u16::try_from(shards).unwrap_or(1),
            timeout,
            permanent,
            allow_private,
            rate,
            circuit,
        })
    }

    /// The additional headers of a request. Resolved only if this program delivers.
    pub(super) fn headers(&self, section: &mut Section<'_>, key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, reference) in section.texts_by_name(key) {
            let at = format!("{key}.{name}");
            let Ok(name) = HeaderName::try_from(name) else {
                section.problem(key, "has a name that is not a header's name");
                continue;
            };
            if is_reserved(&name) {
                section.problem(&at, "cannot be set: Zentra or HTTP sets this header itself");
            }
            match resolve(&reference, self.environment, self.role.delivers()) {
                Err(what) => section.problem(&at, &what),
                Ok(None) => {}
                Ok(Some(secret)) => match HeaderValue::from_bytes(secret.expose()) {
                    Err(_) => section.problem(&at, "holds bytes that a header cannot have"),
                    Ok(mut value) => {
                        value.set_sensitive(true);
                        if headers.insert(name, value).is_some() {
                            section.problem(&at, "is set twice");
                        }
                    }
                },
            }
        }
        headers
    }

    fn retry(&self, mut section: Section<'_>) -> Policy {
        let policy = Policy {
            attempts: section.integer("attempts"),
            initial: section.duration("initial"),
            multiplier: section.number("multiplier"),
            // At most the longest step of the delay ladder.
            max: section.duration("max"),
            max_retry_after: section.duration("max_retry_after"),
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

fn method(section: &mut Section<'_>) -> Method {
    let text = section.text_or_default("method");
    let known = [Method::POST, Method::PUT, Method::PATCH];
    known.into_iter().find(|method| method.as_str() == text).unwrap_or_else(|| {
        section.problem("method", "must be POST, PUT or PATCH");
        Method::POST
    })
}

/// Some servers take `_` for `-`.
fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    let prefixes = ["ce-", "webhook-", "zentra-"];
    RESERVED_HEADERS.contains(&name.as_str())
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn is_amqp(url: &Secret) -> bool {
    [&b"amqp://"[..], b"amqps://"].iter().any(|scheme| url.expose().starts_with(scheme))
}

fn store(mut section: Section<'_>) -> Store {
    let retention = section.duration("retention");
    section.finish();
    Store { retention }
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

/// Exactly as written, because a signature covers its bytes.
pub(super) fn destination_url(text: &str) -> Option<http::Uri> {
    let url: http::Uri = text.parse().ok()?;
    let authority = url.authority()?.as_str();
    let web = matches!(url.scheme_str(), Some("http" | "https"));
    (web && !authority.contains('@')).then_some(url)
}

fn usable_pattern(pattern: &str) -> bool {
    let escaped = |rest: &str| ["2A", "23", "25"].iter().any(|code| rest.starts_with(code));
    let literal = |word: &str| {
        !word.contains(['*', '#'])
            && !word.contains(char::is_control)
            && word.split('%').skip(1).all(escaped)
    };
    (1..=200).contains(&pattern.len())
        && !pattern.starts_with('.')
        && pattern.split('.').all(|word| matches!(word, "*" | "#") || literal(word))
}
