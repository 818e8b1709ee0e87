//! The listener: bounded in connections, and in the time for headers.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use zentra_telemetry::places::Places;

/// Maximum number of connections. Beyond it the oldest one is closed, authenticated ones last.
const CONNECTIONS: usize = 1024;
/// Timeout of headers and of idle connections.
const HEADERS: Duration = Duration::from_secs(10);
/// How long running requests may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves until `stop`, then finishes running requests.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    // The usual soft limit of 1,024 files can be too low for these connections and the backend's.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (places, graceful) = (Places::new(CONNECTIONS), GracefulShutdown::new());
    while let Some((stream, place)) = places.accept(&listener, &stop).await {
        let (router, connection) = (router.clone(), place.connection.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let mut router = router.clone();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(connection.clone());
            async move {
                let answered: Result<_, Infallible> = router.call(request).await;
                answered
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let served = graceful.watch(served);
        tokio::spawn(async move {
            tokio::select! {
                _ = served => {}
                () = place.connection.ended() => {}
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were aborted");
    }
}
