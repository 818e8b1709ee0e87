//! Delivery by HTTP: the provider's exact bytes, re-signed by Standard Webhooks.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Extensions, HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::client::legacy::connect::{Connect, HttpConnector, HttpInfo};
use hyper_util::client::legacy::{self as client, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::sync::Cache;
use rustls::ClientConfig;
use webhook_verify::standard_webhooks::standard_webhooks;
use zentra_config::{ClientTls, Destination};
use zentra_core::address::PrivateAddress;
use zentra_core::clock::{Timestamp, millis};
use zentra_store::journal::{AttemptResult, ErrorClass};
use zentra_telemetry::chain;

use super::provider::original;
use super::resolve::PublicOnly;
use super::secrets::without_secrets;
use super::{AttemptRequest, Attempted, Verdict, headers};

/// Maximum size of an answer's body in the history, in bytes.
const EXCERPT: usize = 1024;
/// Timeout of a connection; an attempt has the destination's timeout.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Maximum number of connections that are remembered as used.
const USED: u64 = 10_000;
/// Maximum `Retry-After` that is read.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Keeps connections per host.
type Pool<R> = Client<HttpsConnector<HttpConnector<R>>, Full<Bytes>>;

/// The clients of all destinations.
#[derive(Clone)]
pub(crate) struct HttpDelivery {
    /// For destinations at any address.
    anywhere: Pool<GaiResolver>,
    /// For destinations whose names must resolve to public addresses.
    public: Pool<PublicOnly>,
    used: Cache<Ends, ()>,
}

/// Local and remote address of a connection.
type Ends = (SocketAddr, SocketAddr);

impl HttpDelivery {
    /// # Errors
    /// If cannot set up TLS.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Self::with(&ClientTls::default())
    }

    fn with(tls: &ClientTls) -> Result<Self, rustls::Error> {
        let tls = tls.client_config()?;
        Ok(Self {
            anywhere: pool(tls.clone(), GaiResolver::new()),
            public: pool(tls, PublicOnly::new()),
            used: Cache::builder().max_capacity(USED).time_to_live(2 * IDLE).build(),
        })
    }

    /// The clients for a destination: those of all, unless it has CAs or a certificate of its own.
    ///
    /// # Errors
    /// If cannot set up TLS.
    pub(crate) fn of(&self, destination: &Destination) -> Result<Self, rustls::Error> {
        match destination.tls.is_default() {
            true => Ok(self.clone()),
            false => Self::with(&destination.tls),
        }
    }

    /// Sends once, within the destination's timeout. Redirects are not followed.
    pub(crate) async fn deliver(&self, attempt: &AttemptRequest<'_>) -> Attempted {
        let started = Instant::now();
        let mut attempted = self.send(attempt, started).await;
        attempted.result.duration_ms = millis(started.elapsed());
        attempted
    }

    async fn send(&self, attempt: &AttemptRequest<'_>, started: Instant) -> Attempted {
        let made = match request(attempt) {
            Ok(made) => made,
            Err(error) => {
                let error = format!("cannot make the request: {error}");
                return failed(ErrorClass::Request, error);
            }
        };
        let limit = attempt.destination.timeout;
        let sending = async {
            match self.exchange(attempt, made).await {
                Err(error) if self.was_closed(&error) => match request(attempt) {
                    Ok(again) => self.exchange(attempt, again).await,
                    Err(_) => Err(error),
                },
                answered => answered,
            }
        };
        let response = match tokio::time::timeout(limit, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return failed(class(&error), zentra_telemetry::causes(&error)),
            Err(_) => return failed(ErrorClass::Timeout, format!("no response within {limit:?}")),
        };
        let (parts, body) = response.into_parts();
        let result = AttemptResult {
            status: Some(parts.status.as_u16()),
            response: excerpt(body, attempt, limit.saturating_sub(started.elapsed())).await,
            ..AttemptResult::default()
        };
        let permanent = &attempt.destination.permanent;
        let verdict = judge(parts.status, &parts.headers, permanent, attempt.now);
        Attempted { verdict, result }
    }
}

impl HttpDelivery {
    async fn exchange(
        &self,
        attempt: &AttemptRequest<'_>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, client::Error> {
        let response = match attempt.destination.allow_private {
            true => self.anywhere.request(request).await?,
            false => self.public.request(request).await?,
        };
        if let Some(ends) = response.extensions().get::<HttpInfo>().map(ends) {
            self.used.insert(ends, ());
        }
        Ok(response)
    }

    /// Whether a connection that had been used before was closed without an answer. Most likely the
    /// destination closed it, unused, as the request was on its way: so the attempt goes on with
    /// another connection. If the request did arrive, the idempotency key makes it the same one.
    fn was_closed(&self, error: &client::Error) -> bool {
        let closed = chain(error).any(|cause| {
            let http = cause.downcast_ref::<hyper::Error>();
            let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            http.is_some_and(|error| error.is_incomplete_message() || error.is_closed())
                || matches!(io, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
        });
        let ends = || {
            let mut found = Extensions::new();
            error.connect_info()?.get_extras(&mut found);
            found.get::<HttpInfo>().map(ends)
        };
        closed && ends().is_some_and(|ends| self.used.contains_key(&ends))
    }
}

fn ends(of: &HttpInfo) -> Ends {
    (of.local_addr(), of.remote_addr())
}

fn pool<R>(tls: ClientConfig, resolver: R) -> Pool<R>
where
    HttpsConnector<HttpConnector<R>>: Connect + Clone,
{
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(https)
}

/// By what is behind it: each layer has its own error around it.
fn class(error: &client::Error) -> ErrorClass {
    let known = chain(error).filter_map(|cause| {
        if cause.is::<PrivateAddress>() {
            return Some(ErrorClass::PrivateAddress);
        }
        if cause.is::<rustls::Error>() {
            return Some(ErrorClass::Tls);
        }
        let late = |io: &io::Error| io.kind() == io::ErrorKind::TimedOut;
        if cause.downcast_ref::<io::Error>().is_some_and(late) {
            return Some(ErrorClass::Timeout);
        }
        // Of a type that isn't public (hyper-util's `ConnectError`).
        (cause.to_string() == "dns error").then_some(ErrorClass::Dns)
    });
    let otherwise = match error.is_connect() {
        true => ErrorClass::Connect,
        false => ErrorClass::Protocol,
    };
    // The innermost says it best.
    known.last().unwrap_or(otherwise)
}

fn failed(class: ErrorClass, error: String) -> Attempted {
    Attempted {
        verdict: Verdict::Failed { retry_after: None },
        result: AttemptResult {
            error: Some(error),
            class: Some(class),
            ..AttemptResult::default()
        },
    }
}

fn request(attempt: &AttemptRequest<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
    let AttemptRequest { destination, key, event, attempt: number, trace, .. } = attempt;
    let body = event.body.clone();
    let url = destination.url.clone().unwrap_or_default();
    let mut request = Request::builder().method(destination.method.clone()).uri(url);
    for (name, value) in headers(key, event, *number, *trace)? {
        // The provider's header makes room for the destination's own one.
        let is_taken = destination.headers.keys().any(|own| is_same(own, &name));
        let name = if is_taken { original(name.as_str()) } else { Some(name) };
        request = name.into_iter().fold(request, |request, name| request.header(name, &value));
    }
    for (name, value) in &destination.headers {
        request = request.header(name, value);
    }
    let keys = &attempt.destination.signing;
    if !keys.is_empty() {
        for (name, value) in standard_webhooks(keys, attempt.key.as_str(), attempt.now, &body) {
            request = request.header(name, value);
        }
    }
    request.body(Full::new(body))
}

/// Some servers take `_` for `-`.
fn is_same(one: &HeaderName, other: &HeaderName) -> bool {
    let letters = |name: &HeaderName| name.as_str().replace('_', "-");
    one == other || letters(one) == letters(other)
}

/// 2xx is delivered. 410 and what the destination lists is permanent; anything else may
/// work later, with a 429 or 503 not before the time that it asks for.
fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    permanent: &[StatusCode],
    now: Timestamp,
) -> Verdict {
    match status {
        status if status.is_success() => Verdict::Delivered,
        StatusCode::GONE => Verdict::Permanent,
        status if permanent.contains(&status) => Verdict::Permanent,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Verdict::Failed {
            retry_after: headers.get(RETRY_AFTER).and_then(|value| retry_after(value, now)),
        },
        _ => Verdict::Failed { retry_after: None },
    }
}

/// RFC 9110, 10.2.3: seconds, or a date. Total, and bounded by [`MAX_RETRY_AFTER`].
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Timestamp::from_millis(millis(since)).since(now)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The start of the answer's body, as printable text, without secrets of the request that it repeats. What
/// doesn't come in time isn't waited for: the status has already said what matters.
async fn excerpt(
    mut body: Incoming,
    attempt: &AttemptRequest<'_>,
    limit: Duration,
) -> Option<String> {
    let mut start = Vec::new();
    let read = async {
        while start.len() < EXCERPT
            && let Some(Ok(frame)) = body.frame().await
        {
            start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    };
    let _ = tokio::time::timeout(limit, read).await;
    start.truncate(EXCERPT);
    let text = without_secrets(String::from_utf8_lossy(&start), &attempt.destination.headers);
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let trimmed = printable.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);

    fn after(text: &str) -> Option<Duration> {
        retry_after(&HeaderValue::from_str(text).unwrap(), NOW)
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_bounded() {
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999999999999999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn each_status_has_its_verdict() {
        let listed = [400, 413].map(|status| StatusCode::from_u16(status).unwrap());
        let judged = |status: u16| {
            judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &listed, NOW)
        };
        let failed = Verdict::Failed { retry_after: None };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status), Verdict::Delivered, "{status}");
        }
        for status in [400, 410, 413] {
            assert_eq!(judged(status), Verdict::Permanent, "{status}");
        }
        for status in [301, 304, 401, 403, 404, 405, 408, 409, 422, 425, 429, 500, 502, 503, 504] {
            assert_eq!(judged(status), failed, "{status}");
        }
    }

    proptest! {
        #[test]
        fn no_retry_after_panics_or_is_longer_than_the_bound(text in "[ -~]{0,40}") {
            prop_assert!(after(&text).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }
    }
}
