//! The HTTP server: connections bounded in number and time, drained at the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zentra_shared::queue::Publish;

use crate::admit::Gate;
use crate::metrics::Metrics;
use crate::receive::{receive, source_name};
use crate::refusal::Refusal;
use crate::respond;

/// Connections at a time; more wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// HTTP/2 streams on one connection.
const STREAMS: u32 = 128;
const HEADER_TIME: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// How long requests under way may take after the stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves callbacks until `stop`, then finishes those under way.
pub(crate) async fn serve<Q: Publish>(
    listener: TcpListener,
    gate: Gate<Q>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let entrance = Arc::new(Entrance { gate, metrics });
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(Duration::from_secs(30));
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept => accepted,
        };
        let (Ok(permit), Ok((stream, _))) = (permit, accepted) else {
            // Out of file descriptors: give way, so that the loop can't spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let entrance = entrance.clone();
        let service = service_fn(move |request| {
            let entrance = entrance.clone();
            async move { Ok::<_, Infallible>(entrance.answer(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            let _permit = permit;
            // Broken connections are the provider's to retry.
            let _ = connection.await;
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(limit = ?DRAIN, "some callbacks were cut off: they got no 2xx");
    }
}

struct Entrance<Q> {
    gate: Gate<Q>,
    metrics: Metrics,
}

impl<Q: Publish> Entrance<Q> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        // Only configured names become labels: a stranger can't make new ones.
        let named = source_name(request.uri().path()).and_then(|name| self.gate.source(name));
        let label = named.as_ref().map_or("unknown", |source| source.name.as_str()).to_owned();
        let result = match named {
            Err(refusal) => Err(refusal),
            Ok(source) => match receive(request).await {
                Err(refusal) => Err(refusal),
                Ok(callback) => self.gate.admit(callback, source).await,
            },
        };
        self.metrics.seconds.with_label_values(&[&label]).observe(started.elapsed().as_secs_f64());
        match result {
            Ok(()) => {
                self.metrics.accepted.with_label_values(&[&label]).inc();
                respond::accepted()
            }
            Err(refusal) => self.refuse(&label, &refusal),
        }
    }

    /// Counted and logged once, here.
    fn refuse(&self, source: &str, refusal: &Refusal) -> Response<Full<Bytes>> {
        let reason = refusal.reason();
        self.metrics.refused.with_label_values(&[source, reason]).inc();
        match refusal {
            Refusal::Queue(cause) => tracing::error!(source, reason, %cause, "callback refused"),
            _ => tracing::warn!(source, reason, "callback refused"),
        }
        respond::refused(refusal)
    }
}
