//! Every key of the configuration: its type, default and meaning.
//!
//! The reader takes defaults and bounds from here, and the reference page is generated from here,
//! so the two cannot disagree.

/// One key.
pub(super) struct Key {
    /// Its full name. `NAME` stands for a name that the user chooses.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// As written in the file. Empty if there is no default.
    pub(super) default: &'static str,
    pub(super) meaning: &'static str,
}

/// The type of a key's value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    Address,
    /// Minimum and maximum.
    Duration(&'static str, &'static str),
    /// In bytes: minimum and maximum.
    Size(u64, u64),
    Integer(u32, u32),
    /// A list of texts.
    Integers(u32, u32),
    Number(f64, f64),
    Texts,
    /// A reference to a secret.
    Secret,
    /// A list of `{ name, secret }`.
    Secrets,
    /// References to secrets, by names that the user chooses.
    SecretTable,
}

/// The entry of a key.
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
        "Address for callbacks: POST /in/{source}, HTTP/1.1 and HTTP/2.",
    ),
    key(
        "ingress.admin",
        Kind::Address,
        "127.0.0.1:9080",
        "Address of the ingress's /metrics, /livez and /readyz.",
    ),
    key(
        "ingress.tls.certificate",
        Kind::Secret,
        "",
        "Certificate chain, PEM. With certificate and key, `listen` accepts TLS only.",
    ),
    key(
        "ingress.tls.key",
        Kind::Secret,
        "",
        "Private key of the certificate, PEM. Both are read again when a file changes.",
    ),
    key(
        "ingress.max_connections",
        Kind::Integer(1, 100_000),
        "4096",
        "Maximum number of connections. Beyond it, the longest idle one is closed, or the one \
         with the slowest body; if there is none, the new one gets 503. Also the maximum number \
         of bodies that are being received: beyond it, the slowest gets 503.",
    ),
    key(
        "ingress.max_in_flight",
        Kind::Integer(1, 100_000),
        "1024",
        "Maximum number of callbacks between their last byte and their answer. Beyond it: 503. \
         Bodies over 64 KiB take at most a quarter of it while they are verified.",
    ),
    key(
        "ingress.max_buffered",
        Kind::Size(64 * KIB, 64 * GIB),
        "128MiB",
        "Maximum size of all bodies in memory. Beyond it, the slowest body gets 503, or the new \
         one if none is slow.",
    ),
    key(
        "ingress.max_peer_share",
        Kind::Integer(1, 100),
        "50",
        "Percentage of the bodies that are being received, and of `max_buffered`, for one \
         client (an IPv4 address or an IPv6 /64). Behind a proxy that is not in \
         `trusted_proxies` all clients are one: set it to 100 there.",
    ),
    key(
        "ingress.max_headers",
        Kind::Integer(8, 1024),
        "64",
        "Maximum number of headers of a request. Beyond it: 431.",
    ),
    key(
        "ingress.max_header_bytes",
        Kind::Size(8 * KIB, MIB),
        "32KiB",
        "Maximum size of a request's headers. Beyond it: 431.",
    ),
    key(
        "ingress.header_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "Maximum time for a TLS handshake, and then for a request's headers. Beyond it: 408.",
    ),
    key(
        "ingress.body_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "Maximum time for a body. Beyond it: 408.",
    ),
    key(
        "ingress.min_body_rate",
        Kind::Size(0, MIB),
        "512B",
        "Minimum bytes per second of a body, measured over two seconds. A slower one gets 408. \
         0: no limit.",
    ),
    key(
        "ingress.idle_timeout",
        Kind::Duration("100ms", "1h"),
        "60s",
        "How long a connection is kept open between requests.",
    ),
    key(
        "ingress.trusted_proxies",
        Kind::Texts,
        "",
        "Addresses and networks (10.0.0.0/8) of the proxies in front of the ingress. Only their \
         X-Forwarded-For is used; the history shows the client's address.",
    ),
    key(
        "ingress.source_histograms",
        Kind::Flag,
        "true",
        "Whether each source has histograms of its own. With thousands of sources, false keeps \
         the metrics small: all sources share the histograms with the label `all`.",
    ),
    key(
        "ingress.drain_timeout",
        Kind::Duration("0s", "10m"),
        "20s",
        "Maximum time to finish running callbacks after SIGTERM.",
    ),
    key(
        "worker.admin",
        Kind::Address,
        "127.0.0.1:9081",
        "Address of a worker's /metrics, /livez and /readyz. \":0\" uses a free port and logs \
         it.",
    ),
    key(
        "worker.lease",
        Kind::Duration("1s", "1h"),
        "30s",
        "How long a claim lasts. At least twice the longest destination timeout.",
    ),
    key(
        "rabbitmq.urls",
        Kind::Texts,
        "",
        "amqp:// or amqps:// URLs, tried in turn. A URL with a password is a secret: \
         \"env:NAME\" or \"file:PATH\". With `?auth_mechanism=external`, the client certificate \
         of rabbitmq.tls is the login.",
    ),
    key(
        "rabbitmq.tls.ca",
        Kind::Secret,
        "",
        "CA certificates, PEM. RabbitMQ is trusted only with a certificate of one of them. If it is \
         not set, the system's CAs are trusted.",
    ),
    key(
        "rabbitmq.tls.certificate",
        Kind::Secret,
        "",
        "Certificate chain of this client, PEM, for servers that ask for one.",
    ),
    key("rabbitmq.tls.key", Kind::Secret, "", "Private key of the certificate, PEM."),
    key(
        "rabbitmq.publish_timeout",
        Kind::Duration("50ms", "1m"),
        "2s",
        "Maximum time until RabbitMQ confirms a message. Beyond it the provider gets 503.",
    ),
    key(
        "rabbitmq.lanes",
        Kind::Integer(1, 64),
        "4",
        "Number of publishing channels of one program, each with up to 64 messages in flight.",
    ),
    key(
        "refused.per_second",
        Kind::Integer(0, 10_000),
        "10",
        "Maximum number of refused callbacks that each ingress keeps per source and second. 0: \
         none.",
    ),
    key(
        "refused.max_count",
        Kind::Integer(1, 10_000_000),
        "10000",
        "Maximum number of refused callbacks that are kept. Beyond it the oldest are dropped. \
         Each source has an equal share of it and of `max_bytes` within `max_age`, for each \
         ingress and since its start; beyond its share, callbacks are only counted. A change \
         starts a new queue, and the old one expires.",
    ),
    key(
        "refused.max_bytes",
        Kind::Size(MIB, 64 * GIB),
        "64MiB",
        "Maximum size of the refused callbacks that are kept. Beyond it the oldest are dropped.",
    ),
    key(
        "refused.max_age",
        Kind::Duration("1s", "90days"),
        "7days",
        "How long a refused callback is kept.",
    ),
    key(
        "archive.max_bytes",
        Kind::Size(16 * MIB, 16 * 1024 * GIB),
        "10GiB",
        "Maximum size of the archive, a RabbitMQ stream. Beyond it the oldest events are \
         dropped. A change starts a new stream, and the old one stays.",
    ),
    key(
        "archive.max_age",
        Kind::Duration("1m", "3650days"),
        "30days",
        "How long events stay in the archive.",
    ),
    key(
        "embedded.path",
        Kind::Text,
        "",
        "File of `zentra standalone`: queue and delivery store of one machine, without RabbitMQ \
         and Redis. Leave out [rabbitmq] urls and [redis] with it.",
    ),
    key(
        "embedded.max_size",
        Kind::Size(16 * MIB, 16 * 1024 * GIB),
        "8GiB",
        "Maximum size of the file. Beyond it callbacks get 503, and accepted events are still \
         delivered.",
    ),
    key(
        "redis.url",
        Kind::Text,
        "",
        "redis:// or rediss:// URL of one server. A URL with a password is a secret. Instead of \
         it, set redis.sentinel or redis.cluster.",
    ),
    key(
        "redis.sentinel.urls",
        Kind::Texts,
        "",
        "URLs of all sentinels. Zentra asks them each second which server is the primary, and \
         follows a failover.",
    ),
    key(
        "redis.sentinel.service",
        Kind::Text,
        "",
        "Name that the sentinels give to the primary and its replicas, like \"mymaster\".",
    ),
    key(
        "redis.sentinel.primary",
        Kind::Text,
        "redis://primary",
        "How to connect to the primary: the scheme, user, password and database of this URL. \
         Its host is not used.",
    ),
    key(
        "redis.cluster.urls",
        Kind::Texts,
        "",
        "URLs of several nodes of a Redis Cluster. The others are found through them.",
    ),
    key(
        "redis.tls.ca",
        Kind::Secret,
        "",
        "CA certificates, PEM. A server of Redis, sentinels included, is trusted only with a \
         certificate of one of them. If it is not set, the system's CAs are trusted.",
    ),
    key(
        "redis.tls.certificate",
        Kind::Secret,
        "",
        "Certificate chain of this client, PEM, for servers that ask for one.",
    ),
    key("redis.tls.key", Kind::Secret, "", "Private key of the certificate, PEM."),
    key(
        "store.retention",
        Kind::Duration("1h", "400days"),
        "30days",
        "How long a delivery is remembered after its last change, in Redis or in the file. \
         During this time a copy is recognised. Must be longer than the retries of any provider \
         and any destination. A dead delivery is remembered until an operator acts.",
    ),
    key(
        "seal.keys",
        Kind::Secrets,
        "",
        "Keys of the internal seal, 16 bytes or more each. The first one seals; all open.",
    ),
    key(
        "source.NAME.provider",
        Kind::Text,
        "",
        "A provider of the catalogue, or a [provider.NAME] of this file.",
    ),
    key(
        "source.NAME.secrets",
        Kind::Secrets,
        "",
        "The provider's signing secrets. Each one verifies callbacks, so that they can be rotated.",
    ),
    key(
        "source.NAME.max_body",
        Kind::Size(1, 64 * MIB),
        "1MiB",
        "Maximum size of a body. Beyond it: 413. If it is not set, larger callbacks of a \
         provider that sends them are accepted.",
    ),
    key(
        "source.NAME.archive",
        Kind::Flag,
        "true",
        "Whether accepted events are archived. Archiving costs CPU of the broker \
         (docs/performance.md).",
    ),
    key(
        "source.NAME.redact",
        Kind::Texts,
        "",
        "What is hidden from operators and exports: fields of the body as JSON pointers \
         (`/customer/email`, `/items/*/name`), `header:NAME` and `query:NAME`. Destinations \
         receive everything.",
    ),
    key(
        "source.NAME.public_url",
        Kind::Text,
        "",
        "The address that the provider sends to, exactly as the provider has it (also behind a \
         proxy), without the query. Required for providers that sign it.",
    ),
    key(
        "source.NAME.handshake_token",
        Kind::Secret,
        "",
        "The token that the provider shows when it checks the endpoint (Meta: the verify \
         token). Other requests are not answered.",
    ),
    key(
        "source.NAME.environment",
        Kind::Text,
        "",
        "What the events are for, in a word of your own. `zentra rehearse` sends nothing to a \
         source with `production`, unless it is forced.",
    ),
    key(
        "source.NAME.identity",
        Kind::Text,
        "signed",
        "What makes two callbacks the same event. `signed`: the provider's id if it names an \
         event or a delivery and the signature covers it; otherwise a digest of the signed \
         content. `id`: the id, although nothing signs it; whoever has seen a callback can then \
         have it delivered again under another id. See docs/identity.md.",
    ),
    key(
        "source.NAME.retention",
        Kind::Duration("1h", "400days"),
        "30days",
        "How long its deliveries are remembered after their last change. If it is not set: \
         store.retention, but at least a day longer than the provider retries.",
    ),
    key(
        "source.NAME.success_status",
        Kind::Integer(200, 299),
        "200",
        "Status of the answer to an accepted callback. If neither it nor success_body is set, \
         the provider gets the answer that it expects, where that is known.",
    ),
    key(
        "source.NAME.success_body",
        Kind::Text,
        "{\"accepted\":true}\n",
        "Body of the response to an accepted callback.",
    ),
    key(
        "destination.NAME.url",
        Kind::Text,
        "",
        "Address that events are sent to: http:// or https://.",
    ),
    key(
        "destination.NAME.method",
        Kind::Text,
        "POST",
        "Method of the requests: POST, PUT or PATCH.",
    ),
    key(
        "destination.NAME.headers",
        Kind::SecretTable,
        "",
        "Additional headers of each request, such as `{ authorization = \"env:LEDGER_TOKEN\" }`. Each \
         value is a secret. Headers that Zentra or HTTP sets cannot be set.",
    ),
    key(
        "destination.NAME.tls.ca",
        Kind::Secret,
        "",
        "CA certificates, PEM. The destination is trusted only with a certificate of one of them. \
         If it is not set, the system's CAs are trusted.",
    ),
    key(
        "destination.NAME.tls.certificate",
        Kind::Secret,
        "",
        "Certificate chain of this client, PEM, for servers that ask for one.",
    ),
    key("destination.NAME.tls.key", Kind::Secret, "", "Private key of the certificate, PEM."),
    key(
        "destination.NAME.handler",
        Kind::Flag,
        "false",
        "A handler in a worker of your own processes the events, instead of `url`. \
         `zentra-worker` leaves them to it.",
    ),
    key(
        "destination.NAME.pull",
        Kind::Flag,
        "false",
        "Consumers fetch the events from the API of `zentra serve` (`POST /v1/pull/NAME`), instead \
         of `url`. Settings of requests, such as `timeout` and `circuit`, are then invalid.",
    ),
    key(
        "destination.NAME.lease",
        Kind::Duration("1s", "10m"),
        "1m",
        "With `pull`: how long a consumer has an event for itself. An event that is not \
         acknowledged in time is retried.",
    ),
    key(
        "destination.NAME.subscribe",
        Kind::Texts,
        "",
        "Patterns over source.event_type, with dots between words: `*` is one word, `#` any \
         number of words. Other words match literally (`shop.orders/create`, `git.Push Hook`). \
         Inside a word, `%2A`, `%23` and `%25` stand for `*`, `#` and `%`.",
    ),
    key(
        "destination.NAME.signing",
        Kind::Secrets,
        "",
        "Standard Webhooks keys. Each one signs, so that they can be rotated.",
    ),
    key(
        "destination.NAME.retry.attempts",
        Kind::Integer(1, 100),
        "8",
        "Number of attempts before the dead letter.",
    ),
    key(
        "destination.NAME.retry.initial",
        Kind::Duration("100ms", "1day"),
        "5s",
        "Pause after the first failed attempt.",
    ),
    key(
        "destination.NAME.retry.multiplier",
        Kind::Number(1.0, 100.0),
        "3.0",
        "Factor from each pause to the next.",
    ),
    key(
        "destination.NAME.retry.max",
        Kind::Duration("100ms", "13h 39m 12s"),
        "6h",
        "Longest pause, unless the destination asks for a longer one.",
    ),
    key(
        "destination.NAME.retry.max_retry_after",
        Kind::Duration("0s", "13h 39m 12s"),
        "6h",
        "Longest pause that the destination can ask for by `Retry-After`.",
    ),
    key(
        "destination.NAME.retry.jitter",
        Kind::Number(0.0, 1.0),
        "0.5",
        "Random part of each pause, from 0 to 1.",
    ),
    key(
        "destination.NAME.retry.max_age",
        Kind::Duration("1s", "30days"),
        "3d",
        "Age beyond which an event is not retried.",
    ),
    key(
        "destination.NAME.concurrency",
        Kind::Integer(1, 1000),
        "16",
        "Maximum number of attempts at a time, per worker.",
    ),
    key(
        "destination.NAME.shards",
        Kind::Integer(1, super::MAX_SHARDS as u32),
        "1",
        "Number of work queues at RabbitMQ. More than one spreads the events of a destination over \
         several queues and their nodes.",
    ),
    key(
        "destination.NAME.rate",
        Kind::Integer(0, 100_000),
        "0",
        "Maximum number of attempts per second, per worker. 0: no limit.",
    ),
    key(
        "destination.NAME.circuit.failures",
        Kind::Integer(0, 10_000),
        "20",
        "Number of failed attempts that opens a worker's circuit, if they are four fifths of \
         the last attempts. An open circuit uses up no attempts. 0: never.",
    ),
    key(
        "destination.NAME.circuit.first_pause",
        Kind::Duration("100ms", "1h"),
        "1s",
        "First pause of an open circuit. Then messages probe the destination: one, and twice as \
         many after each success. If none succeeds, the pause doubles.",
    ),
    key(
        "destination.NAME.circuit.pause",
        Kind::Duration("100ms", "1h"),
        "30s",
        "Longest pause of an open circuit.",
    ),
    key(
        "destination.NAME.permanent",
        Kind::Integers(300, 599),
        "[400, 413, 415, 422]",
        "Statuses that dead-letter an event at once, because no retry can help. 410 always does.",
    ),
    key(
        "destination.NAME.allow_private",
        Kind::Flag,
        "false",
        "Whether the host name in `url` may resolve to a private address, as a service inside a \
         cluster does. An IP address in `url` is used as it is.",
    ),
    key(
        "destination.NAME.timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "Maximum time of an attempt.",
    ),
    key(
        "console.url",
        Kind::Text,
        "",
        "Address of the console, for links in notifications: https://zentra.example.",
    ),
    key(
        "notify.NAME.kind",
        Kind::Text,
        "",
        "How this receiver is notified of incidents: `slack`, `webhook`, `pagerduty` or `email`. \
         Sent by `zentra serve` and by `zentra standalone --console`. See docs/notifications.md.",
    ),
    key(
        "notify.NAME.url",
        Kind::Secret,
        "",
        "Address of the incoming webhook (`slack`), of the receiver (`webhook`), or of the mail \
         server (`email`): smtps://USER:PASSWORD@HOST. For `pagerduty` only if it is another one.",
    ),
    key(
        "notify.NAME.secret",
        Kind::Secret,
        "",
        "`webhook`: the Standard Webhooks key that signs. `pagerduty`: the integration key.",
    ),
    key("notify.NAME.from", Kind::Text, "", "Sender of an email."),
    key("notify.NAME.to", Kind::Texts, "", "Recipients of an email."),
    key(
        "notify.NAME.severity",
        Kind::Text,
        "warning",
        "Least severity of incidents: `info`, `warning` or `critical`.",
    ),
    key(
        "notify.NAME.remind_after",
        Kind::Duration("0s", "30days"),
        "4h",
        "Time between two reminders of an incident that nobody has acknowledged. 0s: none.",
    ),
    key(
        "notify.NAME.quiet_hours",
        Kind::Text,
        "",
        "When only critical incidents are sent, like 22:00-07:00. The others are sent afterwards, \
         if they still stand.",
    ),
    key(
        "notify.NAME.time_zone",
        Kind::Text,
        "UTC",
        "Time zone of the quiet hours, like Europe/Berlin.",
    ),
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

All programs read one file, `zentra.toml`. `zentra config` prints this page from the code that reads
the file; a test compares both. `zentra check` prints every error and recommendation.

`zentra init` writes a first configuration. `zentra config --schema` prints the JSON Schema for editors, which is also
in `docs/zentra.schema.json`.

- A *secret* is never in the file. It is a reference: `\"env:NAME\"` or `\"file:PATH\"`. A file `.env` in the folder of
  `zentra.toml` adds variables to the environment (`NAME=VALUE` lines; a value
  with a `$` or spaces stands between `'…'`). It replaces none, and is read again on SIGHUP.
- *Secrets* are a list: `[{ name = \"2026-11\", secret = \"env:NAME\" }]`. Histories and metrics show
  the name, so that you can see when an old secret is no longer used.
- A *duration* is text such as `\"250ms\"`, `\"10s\"`, `\"6h\"`. A *size* is a number of bytes, or text such
  as `\"1MiB\"`.
- The environment overrides any key, with `__` between its parts: `ZENTRA__INGRESS__LISTEN=0.0.0.0:8080`.
- `[provider.NAME]` adds a provider of your own, in the form of the catalogue (`shared/verify/providers`).
- Old names are still read: `redis.retention` is `store.retention`.

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
            Self::Integer(from, to) => write!(f, "integer, {from} to {to}"),
            Self::Integers(from, to) => write!(f, "list of integers, {from} to {to}"),
            Self::Number(from, to) => write!(f, "number, {from} to {to}"),
            Self::Texts => f.write_str("list of texts"),
            Self::Secret => f.write_str("secret"),
            Self::Secrets => f.write_str("secrets"),
            Self::SecretTable => f.write_str("table of secrets"),
        }
    }
}
