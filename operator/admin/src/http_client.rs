//! Sends requests: test callbacks to an ingress, and notifications to receivers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use zentra_config::ClientTls;

use crate::error::{AdminError, ErrorCode};

/// Time limit for one response.
const ANSWER: Duration = Duration::from_secs(30);
/// Maximum number of bytes read of a response.
const MOST: usize = 64 << 10;

/// Sends POST requests.
pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// One HTTP request.
#[derive(Clone)]
pub struct Made {
    /// The address, with its query.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The exact body.
    pub body: Bytes,
}

impl Http {
    /// A client that trusts this machine's certificate authorities.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] if this machine cannot use TLS.
    pub fn new() -> Result<Self, AdminError> {
        let unusable =
            |error| AdminError::new(ErrorCode::Internal, format!("cannot use TLS: {error}"));
        let tls = ClientTls::default().client_config().map_err(unusable)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// The response: the status, and the reason if there is one; or why there is no response.
    pub async fn post(&self, made: &Made) -> String {
        let mut request = Request::post(&made.url);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&made.headers);
        }
        let Ok(request) = request.body(Full::new(made.body.clone())) else {
            return "the address is not valid".into();
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
