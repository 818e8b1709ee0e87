//! `/metrics`, `/livez` and `/readyz`: read-only, on an address of their own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::places::Places;

/// Connections at a time: Prometheus, probes, a person.
const CONNECTIONS: usize = 32;
const HEADERS: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(30);

/// Serves until `stop`. `/livez` answers 200 while the process runs; `/readyz` 200 or
/// 503 as `ready` says, and 503 once `draining`; `/metrics` is Prometheus text.
pub async fn serve<R, F>(
    listener: TcpListener,
    registry: Registry,
    ready: R,
    draining: CancellationToken,
    stop: CancellationToken,
) where
    R: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let places = Places::new(CONNECTIONS);
    let shared = Arc::new((registry, ready, draining));
    while let Some((stream, place)) = places.accept(&listener, &stop).await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let shared = shared.clone();
                async move {
                    let (registry, ready, draining) = &*shared;
                    Ok::<_, std::convert::Infallible>(
                        respond(&request, registry, ready, draining).await,
                    )
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = tokio::time::timeout(CONNECTION, connection) => {}
                () = place.connection.ended() => {}
            }
        });
    }
}

async fn respond<F: Future<Output = bool>>(
    request: &Request<Incoming>,
    registry: &Registry,
    ready: &impl Fn() -> F,
    draining: &CancellationToken,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/livez" => plain(StatusCode::OK, "alive\n"),
        "/readyz" if draining.is_cancelled() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        }
        "/readyz" if ready().await => plain(StatusCode::OK, "ready\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not connected\n"),
        "/metrics" => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => answer(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics\n"),
        },
        _ => plain(StatusCode::NOT_FOUND, "not found: try /metrics, /livez or /readyz\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text.to_owned())
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
