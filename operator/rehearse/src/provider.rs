//! The provider that a rehearsal plays. It sends callbacks as a configured source's provider does.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use webhook_verify::Callback;
use webhook_verify::Secret;
use zentra_config::ClientTls;
use zentra_core::clock::{self, Timestamp};
use zentra_core::source::Source;

use super::scenario::{Body, Send, Signed};
use crate::error::{broken, unusable};
use zentra_admin::AdminError;

/// Time limit for one response.
const ANSWER: Duration = Duration::from_secs(30);
/// Maximum number of bytes read of a response.
const MOST: usize = 64 << 10;

/// Sends requests to an ingress.
pub(crate) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// Creates callbacks.
pub(crate) struct Provider {
    http: Http,
    /// The address of the ingress, without `/in/…`.
    pub(crate) ingress: String,
    /// The type of the events.
    pub(crate) kind: String,
    /// Makes the event IDs of this rehearsal unique among those of other rehearsals.
    pub(crate) suffix: String,
}

/// One HTTP request.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Provider {
    pub(crate) fn new(ingress: String, kind: String, suffix: String) -> Result<Self, AdminError> {
        Ok(Self { http: Http::new()?, ingress, kind, suffix })
    }

    /// The provider's ID for an event.
    pub(crate) fn id(&self, event: &str) -> String {
        format!("{event}{}", self.suffix)
    }

    /// The body of an event.
    fn body(&self, source: &Source, event: &str, body: Body, time: Timestamp) -> Bytes {
        let amount = if body == Body::Other { 125_001 } else { 125_000 };
        let mut value = json!({
            "rehearsal": self.id(event), "amount_minor": amount, "currency": "USD",
        });
        source.endpoint.scheme.write_into(&mut value, &self.id(event), &self.kind, time);
        match body {
            Body::Usual | Body::Other => value.to_string().into(),
            Body::NotJson => format!("not JSON: {event}{}", self.suffix).into(),
            Body::Empty => Bytes::new(),
            Body::Oversized => {
                value["padding"] = Value::String("x".repeat(source.endpoint.max_body));
                value.to_string().into()
            }
        }
    }

    /// The callback that a step asks for. Fails if the source lacks the secret, or has only a
    /// public key.
    pub(crate) fn make(
        &self,
        source: &Source,
        event: &str,
        send: &Send,
    ) -> Result<Made, AdminError> {
        let unfit = |what: &str| unusable(format!("the source {}: {what}.", source.name));
        let secret = match &send.key {
            None => source.endpoint.secrets.first(),
            Some(name) => source.endpoint.secrets.iter().find(|named| named.name == *name),
        };
        let secret = &secret.ok_or_else(|| unfit("it does not have this secret"))?.secret;
        let id = self.id(send.as_id.as_deref().unwrap_or(event));
        let now = clock::now();
        let time = now.plus(send.ahead).millis();
        let age = u64::try_from(send.age.as_millis()).unwrap_or(u64::MAX);
        let time = Timestamp::from_millis(time.saturating_sub(age));
        let body = self.body(source, event, send.body, time);
        let address = format!("{}/in/{}", self.ingress, source.name);
        let url = source.endpoint.public_url.as_deref().unwrap_or(&address);
        let callback = Callback { id: &id, kind: &self.kind, time, body: &body, url };
        let forged;
        let secret = match send.signed {
            Signed::Forged => {
                // An ID that every scheme accepts.
                forged = Secret::new("whsec_bm90IHRoZSBzb3VyY2UncyBzZWNyZXQ=");
                &forged
            }
            _ => secret,
        };
        let signed = source.endpoint.scheme.sign(secret, &callback);
        let mut signed = signed.map_err(|what| unfit(&format!("{what}")))?;
        let in_headers = signed.headers.keys().any(|name| source.endpoint.scheme.signs_in(name));
        match send.signed {
            Signed::Malformed if !in_headers => {
                return Err(unfit("its signature is in no header, so it cannot be malformed here"));
            }
            Signed::Unsigned if !in_headers => {
                (signed.body, signed.query) = (body.clone(), None);
            }
            _ => {}
        }
        let headers = &mut signed.headers;
        for (name, value) in headers.iter_mut() {
            if source.endpoint.scheme.signs_in(name) && send.signed == Signed::Malformed {
                *value = HeaderValue::from_static("no signature");
            }
        }
        if send.signed == Signed::Unsigned {
            let signed: Vec<_> = headers
                .keys()
                .filter(|name| source.endpoint.scheme.signs_in(name))
                .cloned()
                .collect();
            signed.iter().for_each(|name| drop(headers.remove(name)));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = match &signed.query {
            Some(query) => format!("{address}?{query}"),
            None => address,
        };
        Ok(Made { url, headers: signed.headers, body: signed.body })
    }

    /// See [`Http::post`].
    pub(crate) async fn post(&self, made: &Made) -> String {
        self.http.post(made).await
    }
}

impl Http {
    pub(crate) fn new() -> Result<Self, AdminError> {
        let tls = ClientTls::default().client_config();
        let tls = tls.map_err(|error| broken(format!("cannot use TLS: {error}")))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// The response as a scenario writes it: the status, and the reason if there is one.
    pub(crate) async fn post(&self, made: &Made) -> String {
        let mut request = Request::post(&made.url);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&made.headers);
        }
        let Ok(request) = request.body(Full::new(made.body.clone())) else {
            return format!("cannot make a request to {}", made.url);
        };
        match tokio::time::timeout(ANSWER, self.exchange(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => format!("no answer: {error}"),
            Err(_) => format!("no response within {ANSWER:?}"),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<String, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let response = self.0.request(request).await.map_err(|error| text(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MOST).collect().await.map_err(|error| error.to_string())?;
        let problem: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        let reason = problem["reason"].as_str().map(|reason| format!(" {reason}"));
        Ok(format!("{}{}", parts.status.as_u16(), reason.unwrap_or_default()))
    }
}
