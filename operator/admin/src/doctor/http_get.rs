//! GET requests to health endpoints and to RabbitMQ's management API.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use zentra_config::ClientTls;
use zentra_telemetry::chain;

/// Maximum size of an answer, in bytes. 10,000 queues have about 5 MB.
const LARGEST: usize = 16 << 20;

pub(super) struct HttpGet(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl HttpGet {
    /// `None` where TLS cannot be set up.
    pub(super) fn new(tls: &ClientTls) -> Option<Self> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.client_config().ok()?);
        let connector = connector.https_or_http().enable_http1().build();
        Some(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Asks once. User and password are taken out of the URL, and sent as a header. The error has
    /// no part of the URL.
    pub(super) async fn get(&self, url: &str, limit: Duration) -> Result<Answer, String> {
        let (url, sign_in) = without_credentials(url).ok_or("the URL cannot be parsed")?;
        let mut request = Request::get(url).header(header::ACCEPT, "application/json");
        if let Some(sign_in) = sign_in {
            request = request.header(header::AUTHORIZATION, sign_in);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let exchange = async {
            let told = |error: &(dyn std::error::Error + 'static)| {
                chain(error).last().map_or_else(String::new, ToString::to_string)
            };
            let answer = self.0.request(request).await.map_err(|error| told(&error))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        let late = || format!("no answer within {} s", limit.as_secs());
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The URL without user and password, and the header for them.
fn without_credentials(url: &str) -> Option<(Uri, Option<String>)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let (sign_in, host) = match authority.rsplit_once('@') {
        Some((sign_in, host)) => (Some(sign_in), host),
        None => (None, authority),
    };
    let uri = format!("{scheme}://{host}{path}").parse().ok()?;
    let header = sign_in.map(|sign_in| {
        let plain: Vec<u8> = percent_encoding::percent_decode_str(sign_in).collect();
        format!("Basic {}", STANDARD.encode(plain))
    });
    Some((uri, header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_move_from_the_url_to_a_header() {
        let (uri, header) = without_credentials("http://me:p%40ss@h:15672/api").unwrap();
        assert_eq!(uri, "http://h:15672/api");
        assert_eq!(header.unwrap(), format!("Basic {}", STANDARD.encode("me:p@ss")));
        let (uri, header) = without_credentials("https://[::1]:15671").unwrap();
        assert_eq!((uri.to_string().as_str(), header), ("https://[::1]:15671/", None));
        assert!(without_credentials("no url").is_none());
    }
}
