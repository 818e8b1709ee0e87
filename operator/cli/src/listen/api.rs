//! The API's requests for consumers.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::timeout;
use zentra_config::ClientTls;
use zentra_telemetry::chain;

use crate::failure::Failure;

/// How long the server may wait for events.
const WAIT: u32 = 20;
/// Time limit of a request: its wait, and time for the answer.
const LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of an answer in bytes.
const LARGEST: usize = 64 << 20;

/// Maximum number of characters of an error that is reported.
const LONGEST_ERROR: usize = 250;
/// What to do if something else answers.
const WHERE: &str = "Is --at the address of zentra serve?";

/// A client over HTTP/1.1 and TLS, which trusts the system's CAs.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(super) fn http_client() -> Result<HttpClient, Failure> {
    let tls = ClientTls::default().client_config();
    let tls = tls.map_err(|error| Failure::Ours(format!("cannot set up TLS: {error}")))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    Ok(Client::builder(TokioExecutor::new()).build(connector.enable_http1().build()))
}

/// An event.
#[derive(Deserialize)]
pub(super) struct Event {
    pub(super) idempotency_key: String,
    pub(super) source: String,
    pub(super) event_type: Option<String>,
    pub(super) headers: Vec<[String; 2]>,
    #[serde(deserialize_with = "from_base64")]
    pub(super) body: Bytes,
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let bytes = STANDARD.decode(String::deserialize(from)?);
    bytes.map(Bytes::from).map_err(serde::de::Error::custom)
}

/// Copies of events.
#[derive(Deserialize)]
pub(super) struct Copies {
    pub(super) items: Vec<Event>,
    pub(super) position: String,
    pub(super) not_archived: Vec<String>,
}

/// Leased events.
#[derive(Deserialize)]
pub(super) struct Pulled {
    pub(super) items: Vec<Leased>,
    pub(super) paused: bool,
}

#[derive(Deserialize)]
pub(super) struct Leased {
    pub(super) receipt: String,
    #[serde(flatten)]
    pub(super) event: Event,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// Whether the same request may succeed later.
    pub(super) may_pass: bool,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Trouble {
    fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), may_pass: true }
    }
}

pub(super) struct Api {
    client: HttpClient,
    /// Without a slash at its end.
    base: String,
    destination: String,
    sign_in: HeaderValue,
}

impl Api {
    pub(super) fn new(at: Uri, destination: &str, token: &str) -> Result<Self, Failure> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if destination.is_empty() || !destination.chars().all(is_name) {
            let text = "--destination is not a name of a destination: a-z, 0-9, - and _.";
            return Err(Failure::Asked(text.into()));
        }
        let sign_in = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let invalid = |_| Failure::Asked("the token has characters that no token has.".into());
        let mut sign_in = sign_in.map_err(invalid)?;
        sign_in.set_sensitive(true);
        let base = at.to_string().trim_end_matches('/').to_owned();
        Ok(Self { client: http_client()?, base, destination: destination.to_owned(), sign_in })
    }

    pub(super) async fn copies(
        &self,
        position: Option<&str>,
        since: Option<Duration>,
        most: usize,
    ) -> Result<Copies, Trouble> {
        // The first answer comes at once: it has the position from which on nothing is missed.
        let wait = if position.is_some() { WAIT } else { 0 };
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("max", &most.to_string()).append_pair("wait_seconds", &wait.to_string());
        if let Some(position) = position {
            query.append_pair("position", position);
        } else if let Some(since) = since {
            query.append_pair("newer_than", &since.as_secs().to_string());
        }
        let path = format!("/v1/listen/{}?{}", self.destination, query.finish());
        self.ask(Method::GET, &path, None).await
    }

    pub(super) async fn pull(&self, most: usize) -> Result<Pulled, Trouble> {
        let body = json!({ "max": most, "wait_seconds": WAIT });
        self.ask(Method::POST, &format!("/v1/pull/{}", self.destination), Some(body)).await
    }

    pub(super) async fn ack(&self, receipt: &str) -> Result<(), Trouble> {
        let path = format!("/v1/pull/{}/ack", self.destination);
        let body = json!({ "receipts": [receipt] });
        self.ask::<Value>(Method::POST, &path, Some(body)).await.map(drop)
    }

    pub(super) async fn nack(
        &self,
        receipt: &str,
        error: &str,
        permanent: bool,
    ) -> Result<(), Trouble> {
        let path = format!("/v1/pull/{}/nack", self.destination);
        let error: String = error.chars().take(LONGEST_ERROR).collect();
        let body = json!({ "receipts": [receipt], "error": error, "permanent": permanent });
        self.ask::<Value>(Method::POST, &path, Some(body)).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, Trouble> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, self.sign_in.clone())
            .header(header::CONTENT_TYPE, "application/json");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let invalid = |error: http::Error| Trouble { text: error.to_string(), may_pass: false };
        let request = request.body(Full::new(body)).map_err(invalid)?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| {
                let cause = chain(&error).last().map_or_else(String::new, ToString::to_string);
                Trouble::passing(format!("no connection to the API: {cause}"))
            })?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let cut = |error| Trouble::passing(format!("the API's answer broke off: {error}"));
            Ok((parts.status, body.map_err(cut)?.to_bytes()))
        };
        let late = || Err(Trouble::passing(format!("no answer within {} s", LIMIT.as_secs())));
        let (status, body) = timeout(LIMIT, exchange).await.unwrap_or_else(|_| late())?;
        if !status.is_success() {
            return Err(problem(status, &body));
        }
        let unreadable = |error| Trouble {
            text: format!("the answer is not one of Zentra's API: {error}.\n{WHERE}"),
            may_pass: false,
        };
        serde_json::from_slice(&body).map_err(unreadable)
    }
}

/// What a status says, and whether it passes.
fn problem(status: StatusCode, body: &[u8]) -> Trouble {
    let problem = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let may_pass = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let text = match (problem["code"].as_str(), problem["detail"].as_str()) {
        (Some(_), Some(detail)) => format!("the API responded {}: {detail}", status.as_u16()),
        _ => format!("{status} is not an answer of Zentra's API.\n{WHERE}"),
    };
    Trouble { text, may_pass }
}
