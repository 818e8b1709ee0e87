//! Published keys of providers: fetched from addresses that the scheme allows, cached, and limited
//! in rate.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::future::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};
use webhook_verify::Secret;
use webhook_verify::{Refusal, Unverified};
use zentra_core::source::Source;
use zentra_telemetry::causes;

use crate::bodies::network;

/// How long a key is cached. A withdrawn key is valid until then.
const FRESH: Duration = Duration::from_secs(3600);
/// How long a key set that was fetched again, since a signature didn't fit it, is good for the next
/// signature that doesn't: whoever sends forged ones causes no more than this.
const AGAIN: Duration = Duration::from_secs(10);
/// Maximum number of cached keys.
const KEPT: u64 = 64;
/// Maximum size of a key, in bytes.
const LONGEST: usize = 64 * 1024;
/// Timeout of a fetch.
const TIME: Duration = Duration::from_secs(5);
/// Maximum number of known keys that are fetched again per minute.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// Maximum number of new keys per minute for one client and source. A client that invents addresses
/// uses up only its own.
const NEW_PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Maximum number of new keys that are fetched at a time.
const NEW_AT_A_TIME: usize = 16;
/// Maximum number of remembered clients.
const CLIENTS: u64 = 10_000;

/// How long a fetched address counts as known.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Published keys. Clones share the cache.
#[derive(Clone)]
pub struct Keys {
    known: Cache<Uri, Secret>,
    anew: Cache<Uri, Option<Secret>>,
    allowance: Arc<Allowance>,
    /// Created at the first fetch.
    http: Arc<LazyLock<Option<Http>>>,
}

/// The client that causes a fetch.
struct Client<'a> {
    source: &'a str,
    /// `None` if it is unknown; these clients count as one.
    peer: Option<IpAddr>,
}

impl<'a> Client<'a> {
    fn of(callback: &Unverified, source: &'a Source) -> Self {
        Self { source: &source.name, peer: callback.peer.map(network) }
    }
}

/// Limits of fetches.
struct Allowance {
    had: Cache<Uri, ()>,
    again: DefaultDirectRateLimiter,
    new: Cache<(String, Option<IpAddr>), Arc<DefaultDirectRateLimiter>>,
    turns: Semaphore,
}

impl Allowance {
    fn new() -> Self {
        Self {
            had: Cache::builder().max_capacity(KEPT).time_to_live(REMEMBERED).build(),
            again: RateLimiter::direct(Quota::per_minute(PER_MINUTE)),
            new: Cache::builder().max_capacity(CLIENTS).time_to_idle(FRESH).build(),
            turns: Semaphore::new(NEW_AT_A_TIME),
        }
    }

    /// A turn for an address that is new; none is needed for one that was fetched before.
    async fn take(
        &self,
        address: &Uri,
        client: &Client<'_>,
    ) -> Result<Option<SemaphorePermit<'_>>, String> {
        let enough = |_| "too many fetches per minute".to_owned();
        if self.had.contains_key(address) {
            return self.again.check().map(|()| None).map_err(enough);
        }
        let limit = async { Arc::new(RateLimiter::direct(Quota::per_minute(NEW_PER_MINUTE))) };
        let client = (client.source.to_owned(), client.peer);
        self.new.get_with(client, limit).await.check().map_err(enough)?;
        self.turns.try_acquire().map(Some).map_err(|_| "too many concurrent fetches".into())
    }
}

type Http = HttpClient<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl Default for Keys {
    fn default() -> Self {
        Self {
            known: Cache::builder().max_capacity(KEPT).time_to_live(FRESH).build(),
            anew: Cache::builder().max_capacity(KEPT).time_to_live(AGAIN).build(),
            allowance: Arc::new(Allowance::new()),
            http: Arc::new(LazyLock::new(client)),
        }
    }
}

/// By the system's roots. None without any: then no published key can be had, which is told with
/// each callback that needs one.
fn client() -> Option<Http> {
    let provider = rustls::crypto::ring::default_provider();
    let connector = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).ok()?;
    let connector = connector.https_only().enable_http1().enable_http2().build();
    Some(HttpClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

impl Keys {
    /// The key that a callback says it is signed with, if its scheme's keys are published.
    ///
    /// # Errors
    /// [`Refusal::KeyUnavailable`] if it can't be fetched; why its address isn't the provider's.
    pub async fn resolve(
        &self,
        callback: &Unverified,
        source: &Source,
    ) -> Result<Option<Secret>, Refusal> {
        let Some(address) = callback.key_address(&source.endpoint)? else { return Ok(None) };
        // Concurrent requests for the same key share one fetch.
        let client = Client::of(callback, source);
        let fetched = self.known.try_get_with(address.clone(), self.fetch(&address, &client));
        fetched.await.map(Some).map_err(|error| {
            tracing::warn!(source = source.name, %address, error = %error, "cannot fetch a key");
            Refusal::KeyUnavailable
        })
    }

    /// The newest key set, if the scheme has one and it differs from the cached one.
    pub async fn newer(
        &self,
        callback: &Unverified,
        source: &Source,
        known: &Secret,
    ) -> Option<Secret> {
        if !source.endpoint.scheme.has_key_set() {
            return None;
        }
        let address = callback.key_address(&source.endpoint).ok()??;
        let fetched = async {
            let newest = self.fetch(&address, &Client::of(callback, source)).await.ok()?;
            self.known.insert(address.clone(), newest.clone()).await;
            Some(newest)
        };
        let newest = self.anew.get_with(address.clone(), fetched).await?;
        (newest.expose() != known.expose()).then_some(newest)
    }

    async fn fetch(&self, address: &Uri, client: &Client<'_>) -> Result<Secret, String> {
        let body = self.get(address, client).await?;
        self.allowance.had.insert(address.clone(), ()).await;
        Ok(Secret::new(&body[..]))
    }

    /// Visits the address that confirms an endpoint.
    pub(crate) async fn visit(
        &self,
        address: &Uri,
        callback: &Unverified,
        source: &Source,
    ) -> Result<(), Refusal> {
        self.get(address, &Client::of(callback, source)).await.map(drop).map_err(|error| {
            tracing::warn!(%address, error, "cannot confirm a subscription");
            Refusal::KeyUnavailable
        })
    }

    /// Redirects are not followed.
    async fn get(&self, address: &Uri, client: &Client<'_>) -> Result<Bytes, String> {
        let _turn = self.allowance.take(address, client).await?;
        let http =
            LazyLock::force(&self.http).as_ref().ok_or("the system has no root certificates")?;
        let answered = async {
            let answer = http.get(address.clone()).await.map_err(|error| causes(&error))?;
            if !answer.status().is_success() {
                return Err(format!("the response is {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
        };
        let answered = tokio::time::timeout(TIME, answered).await;
        answered.unwrap_or_else(|_| Err(format!("no response within {TIME:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn made_up_addresses_keep_nobody_elses_key_from_being_fetched() {
        let allowance = Allowance::new();
        let known = Uri::from_static("https://keys.example.com/known.pem");
        allowance.had.insert(known.clone(), ()).await;
        let client = |source, host: u8| Client { source, peer: Some([10, 0, 0, host].into()) };
        let mut taken = 0;
        for n in 0..100 {
            let made_up: Uri = format!("https://keys.example.com/{n}.pem").parse().unwrap();
            taken += usize::from(allowance.take(&made_up, &client("a", 1)).await.is_ok());
        }
        assert!((10..12).contains(&taken), "{taken}");
        let new = Uri::from_static("https://keys.example.com/new.pem");
        for (source, host) in [("a", 2), ("b", 1)] {
            assert!(allowance.take(&new, &client(source, host)).await.is_ok());
        }
        assert!(allowance.take(&new, &client("a", 1)).await.is_err());
        assert!(allowance.take(&known, &client("a", 1)).await.is_ok());
        let mut turns = Vec::new();
        for host in 10..100 {
            turns.extend(allowance.take(&new, &client("a", host)).await.ok().flatten());
        }
        assert_eq!(turns.len(), NEW_AT_A_TIME);
        assert!(allowance.take(&known, &client("a", 1)).await.is_ok());
    }
}
