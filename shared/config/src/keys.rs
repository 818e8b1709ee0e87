//! Every key of the config: what it takes, what it is by default, and what it means.
//!
//! The reader takes defaults and bounds from here, and the reference page is written
//! from here, so the two can't disagree.

/// One key.
pub(super) struct Key {
    /// Its full name; `NAME` stands for a name of the user's own.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// As it would be written, or empty if there is none.
    pub(super) default: &'static str,
    pub(super) meaning: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    Address,
    /// From, to.
    Duration(&'static str, &'static str),
    /// Bytes, from, to.
    Size(u64, u64),
    Integer(u32, u32),
    /// A list of them.
    Integers(u32, u32),
    Number(f64, f64),
    Texts,
    /// A reference to a secret.
    Secret,
    /// A list of `{ name, secret }`.
    Secrets,
}

/// The row of a key.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

const fn key(path: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// In the order of the file.
pub(super) const KEYS: &[Key] = &[
    key("namespace", Kind::Text, "zentra", "Prefix of every exchange, queue and Redis key."),
    key(
        "ingress.listen",
        Kind::Address,
        "127.0.0.1:8080",
        "Where callbacks are taken: POST /in/{source}, HTTP/1.1 and HTTP/2.",
    ),
    key(
        "ingress.admin",
        Kind::Address,
        "127.0.0.1:9080",
        "Where the ingress serves /metrics, /livez and /readyz.",
    ),
    key(
        "ingress.tls.certificate",
        Kind::Secret,
        "",
        "The certificate chain, PEM. With it and the key, `listen` speaks TLS only.",
    ),
    key(
        "ingress.tls.key",
        Kind::Secret,
        "",
        "The certificate's private key, PEM. Both are read anew when a file changes.",
    ),
    key(
        "ingress.max_connections",
        Kind::Integer(1, 100_000),
        "4096",
        "Connections at a time. Beyond it the longest idle one is closed, or the one with the \
         slowest body; if there is none, the new one gets 503. Also the bound on bodies that are \
         waited for at a time: beyond it the slowest gets 503.",
    ),
    key(
        "ingress.max_in_flight",
        Kind::Integer(1, 100_000),
        "1024",
        "Callbacks at a time between their last byte and their answer. Beyond it: 503. Bodies over \
         64 KiB take at most a quarter of it while they are verified.",
    ),
    key(
        "ingress.max_buffered",
        Kind::Size(64 * KIB, 64 * GIB),
        "128MiB",
        "Bytes of all bodies held in memory at a time. Beyond it the slowest body gets 503, or \
         the new one if none is slow.",
    ),
    key(
        "ingress.max_peer_share",
        Kind::Integer(1, 100),
        "50",
        "Percent of the bodies that are waited for, and of `max_buffered`, that one client (an \
         address of IPv4, a /64 of IPv6) may hold. Behind a proxy that is not in \
         `trusted_proxies` all clients are one: set it to 100 there.",
    ),
    key(
        "ingress.max_headers",
        Kind::Integer(8, 1024),
        "64",
        "Headers of one request. Beyond it: 431.",
    ),
    key(
        "ingress.max_header_bytes",
        Kind::Size(8 * KIB, MIB),
        "32KiB",
        "Size of one request's headers. Beyond it: 431.",
    ),
    key(
        "ingress.header_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "How long a TLS handshake, and then a request's headers, may take. Beyond it: 408.",
    ),
    key(
        "ingress.body_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "How long a body may take. Beyond it: 408.",
    ),
    key(
        "ingress.min_body_rate",
        Kind::Size(0, MIB),
        "512B",
        "Bytes per second that a body must arrive with, in any two seconds. A slower one gets 408. \
         0: no bound.",
    ),
    key(
        "ingress.idle_timeout",
        Kind::Duration("100ms", "1h"),
        "60s",
        "How long a connection is kept between requests.",
    ),
    key(
        "ingress.trusted_proxies",
        Kind::Texts,
        "",
        "Addresses and networks (10.0.0.0/8) of the proxies before the entrance: their \
         X-Forwarded-For is believed, and told in the history. Nobody else's is.",
    ),
    key(
        "ingress.source_histograms",
        Kind::Flag,
        "true",
        "Whether each source has histograms of its own. With thousands of sources, false keeps the \
         page of metrics small: then all sources share them, as the source `all`.",
    ),
    key(
        "ingress.drain_timeout",
        Kind::Duration("0s", "10m"),
        "20s",
        "How long callbacks under way may take after SIGTERM.",
    ),
    key(
        "worker.admin",
        Kind::Address,
        "127.0.0.1:9081",
        "Where a worker serves /metrics, /livez and /readyz. \":0\" picks a free port and logs it.",
    ),
    key(
        "worker.lease",
        Kind::Duration("1s", "1h"),
        "30s",
        "How long a claim lasts: at least twice the longest destination timeout.",
    ),
    key(
        "rabbitmq.urls",
        Kind::Texts,
        "",
        "amqp:// or amqps:// URLs, tried in turn. One with a password is a secret: \"env:NAME\" \
         or \"file:PATH\".",
    ),
    key(
        "rabbitmq.publish_timeout",
        Kind::Duration("50ms", "1m"),
        "2s",
        "How long RabbitMQ may take to confirm a message. Beyond it the provider gets 503.",
    ),
    key(
        "rabbitmq.lanes",
        Kind::Integer(1, 64),
        "4",
        "Channels of one program that publish, each with up to 64 messages under way.",
    ),
    key(
        "refused.per_second",
        Kind::Integer(0, 10_000),
        "10",
        "Refused callbacks kept per source and second, by each ingress. 0: none are kept.",
    ),
    key(
        "refused.max_count",
        Kind::Integer(1, 10_000_000),
        "10000",
        "Refused callbacks kept. Beyond it the oldest go. Each source has an equal share of it, and \
         of `max_bytes`, in `max_age`, by each ingress and since its start; beyond its share they are \
         counted only. With other bounds, a \
         new queue is begun, and the old one is left to run out.",
    ),
    key(
        "refused.max_bytes",
        Kind::Size(MIB, 64 * GIB),
        "64MiB",
        "Their size. Beyond it the oldest go.",
    ),
    key("refused.max_age", Kind::Duration("1s", "90days"), "7days", "How long each is kept."),
    key(
        "archive.max_bytes",
        Kind::Size(16 * MIB, 16 * 1024 * GIB),
        "10GiB",
        "Size of the archive, a RabbitMQ stream. Beyond it the oldest events go. With other \
         bounds, a new stream is begun, and the old one is left as it is.",
    ),
    key(
        "archive.max_age",
        Kind::Duration("1m", "3650days"),
        "30days",
        "How long events are kept in the archive.",
    ),
    key(
        "embedded.path",
        Kind::Text,
        "",
        "The file of `zentra standalone`: queue and journal of one machine, without RabbitMQ and \
         Redis. With it, [rabbitmq] urls and [redis] url are left out.",
    ),
    key(
        "embedded.max_size",
        Kind::Size(16 * MIB, 16 * 1024 * GIB),
        "8GiB",
        "Its size. Beyond it callbacks get 503, and what has been accepted is still delivered.",
    ),
    key("redis.url", Kind::Text, "", "redis:// or rediss:// URL; with a password, a secret."),
    key(
        "store.retention",
        Kind::Duration("1h", "400days"),
        "30days",
        "How long a delivery is remembered after its last change, in Redis or the file: the window \
         in which a copy is recognised. Longer than any provider and any destination tries again; \
         a dead delivery is remembered until an operator deals with it.",
    ),
    key(
        "seal.keys",
        Kind::Secrets,
        "",
        "Keys of the internal seal, 16 bytes or more each. The first signs, all open.",
    ),
    key(
        "source.NAME.provider",
        Kind::Text,
        "",
        "An entry of the catalogue, or a [provider.NAME] of this file.",
    ),
    key(
        "source.NAME.secrets",
        Kind::Secrets,
        "",
        "The provider's signing secrets; any of them may fit, so they can rotate.",
    ),
    key(
        "source.NAME.max_body",
        Kind::Size(1, 64 * MIB),
        "1MiB",
        "The largest body taken. Beyond it: 413.",
    ),
    key(
        "source.NAME.archive",
        Kind::Flag,
        "true",
        "Whether its accepted events are kept in the archive, too. Its price in the \
         broker's CPU is shown by `make bench`.",
    ),
    key(
        "source.NAME.redact",
        Kind::Texts,
        "",
        "What of its callbacks is never shown or exported: fields of the body as JSON pointers \
         (`/customer/email`, `/items/*/name`), `header:NAME` and `query:NAME`. Destinations get \
         all of it.",
    ),
    key(
        "source.NAME.public_url",
        Kind::Text,
        "",
        "Where the provider sends to, exactly as it knows it (behind a proxy, too), without the \
         query. For providers that sign it.",
    ),
    key(
        "source.NAME.handshake_token",
        Kind::Secret,
        "",
        "What the provider shows when it makes sure of the endpoint (Meta: the verify token), so \
         that nobody else's request is answered.",
    ),
    key(
        "source.NAME.environment",
        Kind::Text,
        "",
        "What its events are for, in a word of your own. `zentra rehearse` sends nothing to a \
         source whose word is `production`, unless it is forced.",
    ),
    key(
        "source.NAME.identity",
        Kind::Text,
        "signed",
        "What makes two callbacks the same event. `signed`: the provider's id if it names an event \
         or a delivery and the signature covers it, or else a digest of what is signed. `id`: the \
         id, though nothing signs it. Whoever has seen one callback can then have it delivered \
         again under another id. See docs/identity.md.",
    ),
    key(
        "source.NAME.retention",
        Kind::Duration("1h", "400days"),
        "30days",
        "How long its deliveries are remembered after their last change; without it, as long \
         as store.retention says, but a day longer than its provider sends again, at the least.",
    ),
    key(
        "source.NAME.success_status",
        Kind::Integer(200, 299),
        "200",
        "The status that tells this provider that the event is taken. Without it and \
         success_body, what its provider wants is answered, where that is known.",
    ),
    key(
        "source.NAME.success_body",
        Kind::Text,
        "{\"accepted\":true}\n",
        "The body that goes with it.",
    ),
    key("destination.NAME.url", Kind::Text, "", "Where events are POSTed: http:// or https://."),
    key(
        "destination.NAME.handler",
        Kind::Flag,
        "false",
        "Instead of a url: a handler in a worker of your own takes the events. `zentra-worker` \
         leaves them to it.",
    ),
    key(
        "destination.NAME.subscribe",
        Kind::Texts,
        "",
        "Patterns over source.event_type, whose words have dots between them: `*` is one word, `#` any \
         number, every other word is taken as it is (`shop.orders/create`, `git.Push Hook`). In a \
         word, `%2A`, `%23` and `%25` stand for `*`, `#` and `%`.",
    ),
    key(
        "destination.NAME.signing",
        Kind::Secrets,
        "",
        "Standard Webhooks keys; each signs, so they can rotate.",
    ),
    key(
        "destination.NAME.retry.attempts",
        Kind::Integer(1, 100),
        "8",
        "Attempts before the dead letter.",
    ),
    key(
        "destination.NAME.retry.initial",
        Kind::Duration("100ms", "1day"),
        "5s",
        "The pause after the first failure.",
    ),
    key(
        "destination.NAME.retry.multiplier",
        Kind::Number(1.0, 100.0),
        "3.0",
        "By which each pause is longer than the one before.",
    ),
    key(
        "destination.NAME.retry.max",
        Kind::Duration("100ms", "13h 39m 12s"),
        "6h",
        "The longest pause, unless the destination asks for a longer one.",
    ),
    key(
        "destination.NAME.retry.max_retry_after",
        Kind::Duration("0s", "13h 39m 12s"),
        "6h",
        "The longest pause that the destination can ask for by `Retry-After`.",
    ),
    key(
        "destination.NAME.retry.jitter",
        Kind::Number(0.0, 1.0),
        "0.5",
        "The part of each pause that is left to chance.",
    ),
    key(
        "destination.NAME.retry.max_age",
        Kind::Duration("1s", "30days"),
        "3d",
        "An event older than this is not tried again.",
    ),
    key(
        "destination.NAME.concurrency",
        Kind::Integer(1, 1000),
        "16",
        "Attempts at a time, per worker.",
    ),
    key(
        "destination.NAME.rate",
        Kind::Integer(0, 100_000),
        "0",
        "Attempts a second, per worker; 0 is no bound.",
    ),
    key(
        "destination.NAME.circuit.failures",
        Kind::Integer(0, 10_000),
        "20",
        "Failed attempts after which a worker pauses this destination, if they are four fifths of \
         the last ones, so that an outage burns no attempts; 0: never.",
    ),
    key(
        "destination.NAME.circuit.first_pause",
        Kind::Duration("100ms", "1h"),
        "1s",
        "How long it pauses at first. Then messages probe: first one, and twice as many after each \
         that works. If none works the pause doubles.",
    ),
    key(
        "destination.NAME.circuit.pause",
        Kind::Duration("100ms", "1h"),
        "30s",
        "How long it pauses at most.",
    ),
    key(
        "destination.NAME.permanent",
        Kind::Integers(300, 599),
        "[400, 413, 415, 422]",
        "Statuses by which the destination judges this very request, so that no retry can help: \
         dead at once. So is 410, always.",
    ),
    key(
        "destination.NAME.allow_private",
        Kind::Flag,
        "false",
        "Whether the name in its url may stand for an address that isn't public: needed for a \
         service inside a cluster. An address written into the url is taken as it is.",
    ),
    key("destination.NAME.timeout", Kind::Duration("100ms", "10m"), "10s", "For a whole attempt."),
];

/// The reference page, in Markdown: `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for key in KEYS {
        let default = match key.default {
            "" => "—".to_owned(),
            text => format!("`{}`", text.escape_debug().to_string().replace("\\\"", "\"")),
        };
        let (path, kind, meaning) = (key.path, key.kind, key.meaning);
        page += &format!("| `{path}` | {kind} | {default} | {meaning} |\n");
    }
    page
}

const INTRODUCTION: &str = "\
# Configuration

One file, `zentra.toml`, for all binaries. This page is written by `zentra config` from the
code that reads the file; a test holds the two together.

- A *secret* is never written into the file: `\"env:NAME\"` or `\"file:PATH\"`.
- *Secrets* are a list: `[{ name = \"2026-11\", secret = \"env:NAME\" }]`. The name is seen in
  histories and metrics, so that an old one can be retired knowingly.
- A *duration* is a text like `\"250ms\"`, `\"10s\"`, `\"6h\"`; a *size* a number of bytes or a
  text like `\"1MiB\"`.
- Any key can be overridden by the environment, with `__` between its parts:
  `ZENTRA__INGRESS__LISTEN=0.0.0.0:8080`.
- `[provider.NAME]` adds a provider of your own, in the form of the catalogue's entries
  (`shared/verify/providers`).

| key | takes | default | meaning |
|---|---|---|---|
";

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec();
        match self {
            Self::Flag => f.write_str("true or false"),
            Self::Text => f.write_str("text"),
            Self::Address => f.write_str("address"),
            Self::Duration(from, to) => write!(f, "duration, {from} to {to}"),
            Self::Size(from, to) => write!(f, "size, {} to {}", size(*from), size(*to)),
            Self::Integer(from, to) => write!(f, "whole number, {from} to {to}"),
            Self::Integers(from, to) => write!(f, "list of whole numbers, {from} to {to}"),
            Self::Number(from, to) => write!(f, "number, {from} to {to}"),
            Self::Texts => f.write_str("list of texts"),
            Self::Secret => f.write_str("secret"),
            Self::Secrets => f.write_str("secrets"),
        }
    }
}
