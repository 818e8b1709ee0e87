//! Plain HTTP for tests. The client: one request, one response, with a time limit. The server: one function answers.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Serves HTTP/1.1 on a free port of this machine until the test ends. Returns the URL.
///
/// # Errors
/// If there is no free port.
pub async fn serve<F, R>(answer: F) -> std::io::Result<String>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = http::Response<Full<Bytes>>> + Send + 'static,
{
    serve_on(0, answer).await
}

/// The same on this port.
///
/// # Errors
/// If the port is taken.
pub async fn serve_on<F, R>(port: u16, answer: F) -> std::io::Result<String>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = http::Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(url)
}

/// A client that keeps its connections.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The HTTP version of the response.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub body: String,
}

impl Answer {
    /// The stable reason of a problem response, or an empty text.
    pub fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// Headers as a test writes them.
pub type Headers = Vec<(&'static str, String)>;

impl Default for Http {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Http {
    /// A client that speaks HTTP/2 from the first byte.
    pub fn http2() -> Self {
        Self(Client::builder(TokioExecutor::new()).http2_only(true).build_http())
    }

    /// Sends one request. `None` if there is no complete response within 30 seconds.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &Headers,
        body: impl Into<Bytes>,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).ok()?;
        let exchange = async {
            let response = self.0.request(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.ok()?.to_bytes();
            Some(Answer {
                status: parts.status,
                version: parts.version,
                headers: parts.headers,
                body: String::from_utf8_lossy(&bytes).into_owned(),
            })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange).await.ok()?
    }

    /// POSTs.
    pub async fn post(
        &self,
        url: &str,
        headers: &Headers,
        body: impl Into<Bytes>,
    ) -> Option<Answer> {
        self.send(Method::POST, url, headers, body).await
    }

    /// GETs.
    pub async fn get(&self, url: &str) -> Option<Answer> {
        self.send(Method::GET, url, &Headers::new(), Bytes::new()).await
    }
}
