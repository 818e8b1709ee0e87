//! Keys that providers publish: fetched from addresses that the scheme allows, kept for a while,
//! and no more of them at a time than a provider can need.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::future::Cache;
use tokio::sync::Semaphore;
use zentra_shared::secret::Secret;
use zentra_shared::telemetry::causes;
use zentra_shared::verify::{Refusal, Source, Unverified, Verified};

/// How long a key is used before it is fetched again. What was withdrawn is good until then.
const FRESH: Duration = Duration::from_secs(3600);
/// How long a key set that was fetched again, since a signature didn't fit it, is good for the next
/// signature that doesn't: whoever sends forged ones causes no more than this.
const AGAIN: Duration = Duration::from_secs(10);
/// How many keys are kept, of all providers.
const KEPT: u64 = 64;
/// The longest key, in bytes.
const LONGEST: usize = 64 * 1024;
/// How long fetching one may take.
const TIME: Duration = Duration::from_secs(5);
/// How many are fetched in a minute, and as many again of those that have been had before: whoever
/// makes addresses up gets no more out of us, and keeps no known key from being fetched again.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// How long it is known that a key has been had.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The published keys. Its clones share what they know.
#[derive(Clone)]
pub struct Keys {
    known: Cache<Uri, Secret>,
    anew: Cache<Uri, Option<Secret>>,
    allowance: Arc<Allowance>,
    /// Made when the first is fetched.
    http: Arc<LazyLock<Option<Http>>>,
}

/// What may be fetched.
struct Allowance {
    had: Cache<Uri, ()>,
    again: DefaultDirectRateLimiter,
    first: DefaultDirectRateLimiter,
}

impl Allowance {
    fn new() -> Self {
        Self {
            had: Cache::builder().max_capacity(KEPT).time_to_live(REMEMBERED).build(),
            again: RateLimiter::direct(Quota::per_minute(PER_MINUTE)),
            first: RateLimiter::direct(Quota::per_minute(PER_MINUTE)),
        }
    }

    fn takes(&self, address: &Uri) -> bool {
        let limit = if self.had.contains_key(address) { &self.again } else { &self.first };
        limit.check().is_ok()
    }
}

type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

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
    Some(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

impl Keys {
    /// Judges a callback by the key that it is signed with, if its scheme's keys are published. A
    /// set that it doesn't fit may be older than its key: then it is judged by the newest, too.
    /// `turns` bounds how many are judged at a time; waiting for a key takes no turn.
    pub async fn judge(
        &self,
        callback: &Unverified,
        source: &Source,
        turns: Option<&Semaphore>,
        by: impl Fn(Option<&Secret>) -> Result<Verified, Refusal>,
    ) -> Result<Verified, Refusal> {
        let turn = async || match turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let key = self.of(callback, source).await?;
        let taken = turn().await;
        let judged = by(key.as_ref());
        drop(taken);
        match (key, &judged) {
            (Some(key), Err(Refusal::SignatureMismatch)) if source.scheme.has_key_set() => {
                match self.anew(callback, source).await {
                    Some(newest) if newest.expose() != key.expose() => {
                        let _taken = turn().await;
                        by(Some(&newest))
                    }
                    _ => judged,
                }
            }
            _ => judged,
        }
    }

    async fn anew(&self, callback: &Unverified, source: &Source) -> Option<Secret> {
        let address = callback.key_address(source).ok()??;
        let fetched = async {
            let newest = self.fetch(&address).await.ok()?;
            self.known.insert(address.clone(), newest.clone()).await;
            Some(newest)
        };
        self.anew.get_with(address.clone(), fetched).await
    }

    /// The key that a callback says it is signed with, if its scheme's keys are published.
    async fn of(&self, callback: &Unverified, source: &Source) -> Result<Option<Secret>, Refusal> {
        let Some(address) = callback.key_address(source)? else { return Ok(None) };
        // Those who ask for the same one wait for one fetch.
        let fetched = self.known.try_get_with(address.clone(), self.fetch(&address));
        fetched.await.map(Some).map_err(|error| {
            tracing::warn!(source = source.name, %address, error = %error, "a key can't be fetched");
            Refusal::KeyUnavailable
        })
    }

    async fn fetch(&self, address: &Uri) -> Result<Secret, String> {
        let body = self.get(address).await?;
        self.allowance.had.insert(address.clone(), ()).await;
        Ok(Secret::new(&body[..]))
    }

    /// Visits an address, as a provider wants it to be confirmed.
    pub(crate) async fn visit(&self, address: &Uri) -> Result<(), Refusal> {
        self.get(address).await.map(drop).map_err(|error| {
            tracing::warn!(%address, error, "a subscription can't be confirmed");
            Refusal::KeyUnavailable
        })
    }

    /// Redirects are not followed.
    async fn get(&self, address: &Uri) -> Result<Bytes, String> {
        if !self.allowance.takes(address) {
            return Err("too many in a minute".into());
        }
        let http =
            LazyLock::force(&self.http).as_ref().ok_or("the system has no root certificates")?;
        let answered = async {
            let answer = http.get(address.clone()).await.map_err(|error| causes(&error))?;
            if !answer.status().is_success() {
                return Err(format!("the answer is {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
        };
        let answered = tokio::time::timeout(TIME, answered).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {TIME:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn made_up_addresses_keep_no_known_key_from_being_fetched_again() {
        let allowance = Allowance::new();
        let known = Uri::from_static("https://keys.example.com/known.pem");
        allowance.had.insert(known.clone(), ()).await;
        let made_up = |n: usize| format!("https://keys.example.com/{n}.pem").parse().ok();
        let took = (0..100).filter_map(made_up).filter(|uri| allowance.takes(uri)).count();
        assert!((30..35).contains(&took), "{took}");
        assert!(allowance.takes(&known));
    }
}
