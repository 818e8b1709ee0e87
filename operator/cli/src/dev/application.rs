//! An application that answers 200 to everything, and shows what it gets.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::feed::{News, excerpt};
use crate::failure::Failure;

/// A request of the worker.
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Received {
    /// `destination/source/event`.
    pub(super) fn key(&self) -> &str {
        self.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default()
    }
}

/// Serves on a free port of this machine. Returns its URL.
pub(super) async fn serve(news: mpsc::Sender<News>) -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let news = news.clone();
            let answer = service_fn(move |request| answer(request, news.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(url)
}

async fn answer(
    request: Request<Incoming>,
    news: mpsc::Sender<News>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // The worker sends no more than the ingress accepted.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let _ =
        news.try_send(News::Received(Received { headers: parts.headers, body: excerpt(&body) }));
    Ok(Response::new(Empty::new()))
}
