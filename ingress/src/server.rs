//! The listener: connections bounded in number, drained at the end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zentra_config::Bounds;
use zentra_store::queue::Publish;

use crate::connection::{self, EvictionSignal, LingeringClose, Rules};
use crate::handler::Handler;
use crate::refusal::Refusal;

/// Maximum number of HTTP/2 streams on one connection.
const STREAMS: u32 = 32;
/// HTTP/2 bytes under way to us, on one stream and on one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Time for an idle connection to close for a new one.
const GIVE_WAY: Duration = Duration::from_millis(100);

/// Maximum number of connections that are closed gracefully at a time.
const PARTINGS: usize = 64;

/// The current certificate, if TLS is configured.
pub(crate) type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Serves callbacks until `stop`, then finishes running ones.
pub(crate) async fn serve<Q: Publish>(
    listener: TcpListener,
    handler: Handler<Q>,
    tls: Tls,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let handler = Arc::new(handler);
    let drain = bounds.drain_timeout;
    let permits = Arc::new(Semaphore::new(bounds.max_connections as usize));
    let partings = Arc::new(Semaphore::new(PARTINGS));
    let connections = TaskTracker::new();
    let rules = Arc::new(Rules {
        http: http(&bounds),
        bounds,
        pressure: EvictionSignal::default(),
        stop: stop.clone(),
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors: a pause, so that the loop doesn't spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some(permit) = place(&permits, &rules, &handler).await else {
            handler.refused(&Refusal::TooManyConnections);
            if let (Ok(last), None) = (partings.clone().try_acquire_owned(), &*tls.borrow()) {
                let parting = LingeringClose::unserved(stream, &Refusal::TooManyConnections);
                connections.spawn(async move {
                    parting.after_hearing().await;
                    drop(last);
                });
            }
            continue;
        };
        let (tls, partings) = (tls.borrow().clone(), partings.clone());
        let (handler, rules, peer) = (handler.clone(), rules.clone(), peer.ip());
        let connected = handler.connected();
        connections.spawn(async move {
            let _connected = connected;
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else {
                return serve_one(stream, peer, &handler, &rules, permit, &partings).await;
            };
            let handshake = TlsAcceptor::from(tls).accept(stream);
            let handshake = timeout(rules.bounds.header_timeout, handshake);
            let shaken = tokio::select! {
                shaken = handshake => shaken.ok().and_then(Result::ok),
                () = rules.pressure.gives_way() => None,
            };
            match shaken {
                Some(stream) => serve_one(stream, peer, &handler, &rules, permit, &partings).await,
                None => handler.refused(&Refusal::Tls),
            }
        });
    }
    drop(listener);
    connections.close();
    if timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(limit = ?drain, "some callbacks were aborted: they got no 2xx");
    }
}

fn http(bounds: &Bounds) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Time is bounded per connection, not by the library.
    http.http1()
        .header_read_timeout(None)
        .max_headers(bounds.max_headers)
        .max_buf_size(bounds.max_header_bytes);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_list(bounds));
    http
}

/// What the HTTP/2 library reads of headers: over this it answers 431 by itself, uncounted.
/// More than a request may have, which is checked and counted later.
fn header_list(bounds: &Bounds) -> u32 {
    /// What RFC 9113, 6.5.2 adds to each header.
    const EACH: usize = 32;
    let most = bounds.max_header_bytes * 2 + bounds.max_headers * EACH;
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// A place for a new connection. If all are taken, an idle one has to give way, and the one with
/// the slowest body.
async fn place<Q: Publish>(
    permits: &Arc<Semaphore>,
    rules: &Rules,
    handler: &Handler<Q>,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    handler.make_way();
    let freed = timeout(GIVE_WAY, permits.clone().acquire_owned());
    rules.pressure.while_waiting(freed).await.ok()?.ok()
}

async fn serve_one<S, Q>(
    stream: S,
    peer: IpAddr,
    handler: &Arc<Handler<Q>>,
    rules: &Rules,
    permit: OwnedSemaphorePermit,
    partings: &Semaphore,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Q: Publish,
{
    let answer = |request| {
        let handler = handler.clone();
        async move { handler.answer(request, peer).await }
    };
    let end = connection::serve(stream, rules, answer).await;
    if let Some(refusal) = &end.refusal {
        handler.refused(refusal);
    }
    // Its place is free before it has said goodbye.
    drop(permit);
    if let (Some(parting), Ok(_one)) = (end.parting, partings.try_acquire()) {
        parting.close().await;
    }
}
