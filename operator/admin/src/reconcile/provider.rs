//! A provider's own list of events, from its API.
//!
//! Stripe: <https://docs.stripe.com/api/events/list>, newest first, 100 a page, of the last 30 days.
//! GitHub: <https://docs.github.com/en/rest/repos/webhooks#list-deliveries-for-a-repository-webhook>,
//! newest first, 100 a page, of the last 3 days; one can be sent again
//! (`POST …/deliveries/{id}/attempts`).

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;
use webhook_verify::Secret;
use zentra_core::clock::Timestamp;

use super::list::Listed;
use crate::error::{AdminError, ErrorCode};

const ANSWER: Duration = Duration::from_secs(30);
/// The longest page, in bytes: a hundred events of Stripe's.
const LONGEST: usize = 32 << 20;
const STRIPE: &str = "https://api.stripe.com";

/// A provider whose list Zentra can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stripe,
    Github,
}

impl Kind {
    /// The one of this name in the catalogue.
    pub(super) fn of(provider: &str) -> Option<Self> {
        match provider {
            "stripe" => Some(Self::Stripe),
            "github" => Some(Self::Github),
            _ => None,
        }
    }

    /// The environment variable that its own tools take the token from.
    pub(super) fn token_name(self) -> &'static str {
        match self {
            Self::Stripe => "STRIPE_API_KEY",
            Self::Github => "GITHUB_TOKEN",
        }
    }
}

/// A provider's API.
pub(super) struct Api {
    kind: Kind,
    at: Uri,
    token: Secret,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Api {
    /// `at` is where it is: for GitHub the webhook, as `https://api.github.com/repos/O/R/hooks/N`.
    pub(super) fn new(kind: Kind, at: Option<&str>, token: Secret) -> Result<Self, AdminError> {
        let at = at.or((kind == Kind::Stripe).then_some(STRIPE)).ok_or_else(|| {
            AdminError::new(ErrorCode::InvalidRequest, "the webhook's address is missing.")
                .hint("Give its address: https://api.github.com/repos/OWNER/REPO/hooks/NUMBER")
        })?;
        let unfit = |what: &str| {
            AdminError::new(ErrorCode::InvalidRequest, format!("the address {at}: {what}."))
        };
        let uri: Uri = at.trim_end_matches('/').parse().map_err(|_| unfit("it is not a URL"))?;
        let local = matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if local => {}
            _ => return Err(unfit("a token is sent only over https")),
        }
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
            let message = format!("cannot read the system's certificates: {error}");
            AdminError::new(ErrorCode::Internal, message)
        })?;
        let connector = tls.https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { kind, at: uri, token, http })
    }

    /// What it lists of the time from `since` on, at most `limit`; each event once. With `bodies`, also
    /// the events' bytes, where the provider lists them.
    pub(super) async fn list(
        &self,
        since: Timestamp,
        limit: usize,
        bodies: bool,
    ) -> Result<Vec<Listed>, AdminError> {
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        let mut page = match self.kind {
            Kind::Stripe => {
                self.path(&format!("/v1/events?limit=100&created%5Bgte%5D={}", since.secs()))
            }
            Kind::Github => self.path("/deliveries?per_page=100"),
        };
        loop {
            let (headers, body) = self.ask(Method::GET, &page).await?;
            let (events, next) = match self.kind {
                Kind::Stripe => self.stripe(&body, since)?,
                Kind::Github => self.github(&body, &headers)?,
            };
            let past = |event: &Listed| event.at.is_some_and(|at| at < since);
            let end = events.iter().any(past);
            for mut event in events.into_iter().filter(|event| !past(event)) {
                event.body = event.body.filter(|_| bodies);
                if seen.insert(event.id.clone()) {
                    all.push(event);
                }
            }
            if all.len() > limit {
                let message = format!("there are more than {limit} events.");
                return Err(AdminError::new(ErrorCode::ListTooLong, message)
                    .hint("Ask for a shorter time, or raise the limit."));
            }
            match next {
                Some(next) if !end => page = next,
                _ => return Ok(all),
            }
        }
    }

    /// Has it send one again.
    pub(super) async fn send_again(&self, delivery: &str) -> Result<(), AdminError> {
        let path = self.path(&format!("/deliveries/{delivery}/attempts"));
        self.ask(Method::POST, &path).await.map(drop)
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.at.to_string().trim_end_matches('/'))
    }

    fn stripe(
        &self,
        body: &[u8],
        since: Timestamp,
    ) -> Result<(Vec<Listed>, Option<String>), AdminError> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Box<RawValue>>,
            has_more: bool,
        }
        #[derive(Deserialize)]
        struct Event {
            id: String,
            #[serde(rename = "type")]
            kind: String,
            created: u64,
        }
        let page: Page = self.read(body)?;
        let mut events = Vec::new();
        for raw in page.data {
            let Event { id, kind, created } = self.read(raw.get().as_bytes())?;
            let at = Some(Timestamp::from_secs(created));
            let body = Some(Bytes::copy_from_slice(raw.get().as_bytes()));
            events.push(Listed { id, kind: Some(kind), at, body, delivery: None });
        }
        let last = events.last().filter(|_| page.has_more).map(|event| event.id.clone());
        let next = last.map(|last| {
            let from = since.secs();
            self.path(&format!(
                "/v1/events?limit=100&created%5Bgte%5D={from}&starting_after={last}"
            ))
        });
        Ok((events, next))
    }

    fn github(
        &self,
        body: &[u8],
        headers: &HeaderMap,
    ) -> Result<(Vec<Listed>, Option<String>), AdminError> {
        #[derive(Deserialize)]
        struct Delivery {
            id: u64,
            guid: String,
            event: String,
            delivered_at: String,
        }
        let page: Vec<Delivery> = self.read(body)?;
        let listed = page.into_iter().map(|Delivery { id, guid, event, delivered_at }| {
            let at = humantime::parse_rfc3339_weak(&delivered_at).ok();
            let at = at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let at = at.map(|at| Timestamp::from_secs(at.as_secs()));
            let (kind, delivery) = (Some(event), Some(id.to_string()));
            Listed { id: guid, kind, at, body: None, delivery }
        });
        let next = headers.get(header::LINK).and_then(|link| link.to_str().ok()).and_then(next);
        // The token goes to nobody else.
        let ours = |next: &&str| {
            next.parse::<Uri>().is_ok_and(|uri| {
                (uri.scheme(), uri.authority()) == (self.at.scheme(), self.at.authority())
            })
        };
        Ok((listed.collect(), next.filter(ours).map(str::to_owned)))
    }

    fn read<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, AdminError> {
        serde_json::from_slice(body).map_err(|error| {
            let message = format!("cannot read the response of {}: {error}", self.at);
            AdminError::new(ErrorCode::ProviderApiFailed, message).hint("Check the address.")
        })
    }

    async fn ask(&self, method: Method, url: &str) -> Result<(HeaderMap, Bytes), AdminError> {
        let failed = |what: &str| {
            AdminError::new(ErrorCode::ProviderApiFailed, format!("{url}: {what}"))
                .hint("Try again.")
        };
        let token = String::from_utf8_lossy(self.token.expose()).into_owned();
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            // GitHub answers nobody who doesn't say who it is.
            .header(header::USER_AGENT, concat!("zentra/", env!("CARGO_PKG_VERSION")));
        if self.kind == Kind::Github {
            request = request
                .header(header::ACCEPT, "application/vnd.github+json")
                .header("x-github-api-version", "2022-11-28");
        }
        let request = request.body(Full::default());
        let request = request.map_err(|_| {
            let message = "cannot send the token: it contains control characters";
            AdminError::new(ErrorCode::InvalidRequest, message)
        })?;
        let asked = async {
            let answer = self.http.request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((parts, body))
        };
        let answered = tokio::time::timeout(ANSWER, asked).await;
        let answered = answered.map_err(|_| failed("no response within 30 s."))?;
        let (parts, body) = answered.map_err(|error| failed(&error))?;
        match parts.status.as_u16() {
            200..=299 => Ok((parts.headers, body)),
            401 | 403 => {
                let message = format!("{url}: {}", parts.status);
                let name = self.kind.token_name();
                Err(AdminError::new(ErrorCode::ProviderApiDenied, message)
                    .hint(format!("Check the token in {name}, and what it may read.")))
            }
            _ => Err(failed(&parts.status.to_string())),
        }
    }
}

/// The address of the next page (RFC 8288).
fn next(link: &str) -> Option<&str> {
    let named = link.split(',').find(|one| one.contains("rel=\"next\""))?;
    let (_, address) = named.split_once('<')?;
    Some(address.split_once('>')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let link = r#"<https://a.example/d?cursor=v1_1>; rel="prev", <https://a.example/d?cursor=v1_3>; rel="next""#;
        assert_eq!(next(link), Some("https://a.example/d?cursor=v1_3"));
        assert_eq!(next(r#"<https://a.example/d>; rel="prev""#), None);
        assert_eq!(next("rel=\"next\""), None);
    }

    #[test]
    fn a_token_travels_by_https_alone_and_githubs_webhook_is_named() {
        let of = |kind, at| Api::new(kind, at, Secret::new("t")).map(drop);
        assert!(of(Kind::Stripe, None).is_ok());
        assert!(of(Kind::Github, None).is_err());
        for (at, fits) in [
            ("https://api.example/x/", true),
            ("http://127.0.0.1:1", true),
            ("http://api.example", false),
            ("ftp://127.0.0.1", false),
            ("not an address", false),
        ] {
            assert_eq!(of(Kind::Github, Some(at)).is_ok(), fits, "{at}");
        }
    }
}
