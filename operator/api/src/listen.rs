//! The listener: connections bounded in number, and in the time that their headers take.

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

/// Connections at a time. Beyond it the oldest one is closed, and those with a good token last.
const CONNECTIONS: usize = 1024;
/// How long a request's headers may take, and a connection may be idle.
const HEADERS: Duration = Duration::from_secs(10);
/// How long requests that are under way may take once it is told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves until `stop`, then ends what is under way.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    // Connections are bounded here; the usual soft limit of 1024 files may be lower than what the
    // backend's and these need together.
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
        tracing::warn!("some requests were cut off");
    }
}
