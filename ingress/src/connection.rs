//! One connection: TLS if configured, then HTTP/1.1 or HTTP/2, bounded in time.
//!
//! The HTTP library bounds the size of headers. Time is bounded here from the first byte on, for
//! both protocols, so that a silent client can't keep a connection for long. An idle connection is
//! closed when all are in use.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zentra_config::Bounds;
use zentra_core::clock::millis;

use crate::head::{Head, TwoFramings};
use crate::refusal::Refusal;
use crate::respond;

/// Time for a graceful close.
const GOODBYE: Duration = Duration::from_secs(1);
/// Time for a graceful close while another connection waits.
const GIVE_WAY: Duration = Duration::from_millis(10);
/// Maximum number of bytes that are read and discarded after the end.
const UNREAD: u64 = 4 * 1024 * 1024;

/// Settings of all connections.
pub(crate) struct Rules {
    pub(crate) http: auto::Builder<TokioExecutor>,
    pub(crate) bounds: Bounds,
    pub(crate) pressure: EvictionSignal,
    pub(crate) stop: CancellationToken,
}

/// Asks idle connections to close for a new one.
#[derive(Default)]
pub(crate) struct EvictionSignal {
    wanted: AtomicBool,
    /// The connection that is idle longest receives it first.
    asked: Notify,
}

impl EvictionSignal {
    /// Asks one of them, until the new one has its place or has given up.
    pub(crate) async fn while_waiting<T>(&self, place: impl Future<Output = T>) -> T {
        self.wanted.store(true, Ordering::Release);
        self.asked.notify_one();
        let place = place.await;
        self.wanted.store(false, Ordering::Release);
        place
    }

    /// Returns when an idle connection has to close.
    pub(crate) async fn gives_way(&self) {
        loop {
            self.asked.notified().await;
            if self.wanted.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

/// End of a connection.
pub(crate) struct End<S> {
    /// A refusal before there was a request, to be counted.
    pub(crate) refusal: Option<Refusal>,
    /// The stream, if it has to be closed gracefully.
    pub(crate) parting: Option<LingeringClose<S>>,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S, F>(
    stream: S,
    rules: &Rules,
    answer: impl Fn(Request<Incoming>) -> F,
) -> End<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let pulse = Arc::new(ConnectionClock::new());
    let stream = Arc::new(Mutex::new(stream));
    let watched = Watched { stream: stream.clone(), pulse: pulse.clone() };
    let service = service_fn(|mut request: Request<Incoming>| {
        if pulse.head().has_two_framings() {
            request.extensions_mut().insert(TwoFramings);
        }
        let busy = pulse.busy();
        let answer = answer(request);
        async move {
            let response = answer.await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let ended = {
        let connection = rules.http.serve_connection(TokioIo::new(watched), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            result = connection.as_mut() => Ended::By(result.err()),
            ended = overseen(&pulse, rules) => ended,
        };
        if !matches!(ended, Ended::By(_) | Ended::SlowHeaders) {
            connection.as_mut().graceful_shutdown();
            // After the stop, requests under way go on; the server bounds that.
            match ended {
                Ended::Stopped => drop(connection.await),
                Ended::GaveWay => drop(timeout(GIVE_WAY, connection).await),
                _ => drop(timeout(GOODBYE, connection).await),
            }
        }
        ended
    };
    let (refusal, words) = match ended {
        Ended::Idle | Ended::GaveWay => return End { refusal: None, parting: None },
        Ended::By(Some(error)) => (refused(error.as_ref()), None),
        Ended::SlowHeaders => {
            (Some(Refusal::HeaderTimeout), Some(respond::last_words(&Refusal::HeaderTimeout)))
        }
        Ended::By(None) | Ended::Stopped => (None, None),
    };
    let stream = Arc::try_unwrap(stream).ok();
    let stream = stream.map(|stream| stream.into_inner().unwrap_or_else(PoisonError::into_inner));
    End { refusal, parting: stream.map(|stream| LingeringClose { stream, words }) }
}

/// A finished connection that is not closed yet.
pub(crate) struct LingeringClose<S> {
    stream: S,
    words: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LingeringClose<S> {
    /// For a connection that isn't served.
    pub(crate) fn unserved(stream: S, refusal: &Refusal) -> Self {
        Self { stream, words: Some(respond::last_words(refusal)) }
    }

    /// Hears the client out before the last words, where nothing was heard as yet: an
    /// answer that comes before the request is taken for none.
    pub(crate) async fn after_hearing(mut self) {
        let _ = timeout(GOODBYE, self.stream.read(&mut [0; 1024])).await;
        self.close().await;
    }

    /// Closes. What still comes is read for a while: closed over unread bytes, the kernel
    /// would reset the connection, and the client might never see its answer.
    pub(crate) async fn close(mut self) {
        let parting = async {
            if let Some(words) = &self.words {
                self.stream.write_all(words).await?;
            }
            self.stream.shutdown().await?;
            tokio::io::copy(&mut self.stream.take(UNREAD), &mut tokio::io::sink()).await
        };
        let _ = timeout(GOODBYE, parting).await;
    }
}

/// The refusal that the HTTP library has answered itself.
fn refused(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse_too_large() => Some(Refusal::HeadersTooLarge),
        Some(error) if error.is_parse() => Some(Refusal::BadRequest),
        // Broken connections are the provider's to retry.
        _ => None,
    }
}

enum Ended {
    By(Option<Box<dyn std::error::Error + Send + Sync>>),
    Stopped,
    Idle,
    GaveWay,
    SlowHeaders,
}

/// Supervises a connection, and returns why it has to end.
async fn overseen(pulse: &ConnectionClock, rules: &Rules) -> Ended {
    let Bounds { header_timeout, idle_timeout, .. } = rules.bounds;
    let often = (header_timeout.min(idle_timeout) / 4).min(Duration::from_secs(1));
    let mut tick = tokio::time::interval(often.max(Duration::from_millis(10)));
    let pressure = &rules.pressure;
    let mut give_way = std::pin::pin!(pressure.asked.notified());
    loop {
        tokio::select! {
            () = rules.stop.cancelled() => return Ended::Stopped,
            () = give_way.as_mut(), if pulse.state() != State::Busy => {
                // What nobody heard in time is kept by the notice for the next to listen.
                let wanted = pressure.wanted.load(Ordering::Acquire);
                match (wanted, pulse.state()) {
                    (true, State::Busy) => pressure.asked.notify_one(),
                    (true, _) => return Ended::GaveWay,
                    (false, _) => {}
                }
                give_way.set(pressure.asked.notified());
            }
            _ = tick.tick() => match pulse.state() {
                State::Silent if pulse.age() > idle_timeout => return Ended::Idle,
                State::Headers if pulse.age() > header_timeout => return Ended::SlowHeaders,
                _ => {}
            }
        }
    }
}

/// State of a connection, and since when.
struct ConnectionClock {
    started: Instant,
    /// Milliseconds after `started`.
    since: AtomicU64,
    requests: AtomicUsize,
    heard: AtomicBool,
    http2: AtomicBool,
    /// Head of the expected request.
    head: Mutex<Head>,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Between requests.
    Silent,
    /// HTTP/1.1 headers have arrived in part.
    Headers,
    /// A request is under way.
    Busy,
}

impl ConnectionClock {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            since: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            head: Mutex::default(),
        }
    }

    fn state(&self) -> State {
        // HTTP/2 has frames without a request: there, only requests end the silence.
        match self.requests.load(Ordering::Acquire) {
            0 if self.heard.load(Ordering::Acquire) && !self.http2.load(Ordering::Acquire) => {
                State::Headers
            }
            0 => State::Silent,
            _ => State::Busy,
        }
    }

    fn age(&self) -> Duration {
        let since = Duration::from_millis(self.since.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(since)
    }

    fn mark(&self) {
        self.since.store(millis(self.started.elapsed()), Ordering::Release);
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, bytes: &[u8]) {
        if !self.heard.swap(true, Ordering::AcqRel)
            && self.requests.load(Ordering::Acquire) == 0
            && !self.http2.load(Ordering::Acquire)
        {
            // No HTTP/1.1 method begins so; RFC 9113, 3.4.
            self.http2.store(bytes.starts_with(b"PRI"), Ordering::Release);
            self.mark();
        }
        // What comes while a request is under way is its body, or a request that was sent too early: of
        // that one the library believes the encoding, and closes the connection after it.
        if self.state() == State::Headers {
            self.head().read(bytes);
        }
    }

    fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
}

/// A running request.
struct Busy(Arc<ConnectionClock>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.mark();
        *self.0.head() = Head::default();
        self.0.heard.store(false, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream whose reads are observed, and that outlives its connection.
struct Watched<S> {
    stream: Arc<Mutex<S>>,
    pulse: Arc<ConnectionClock>,
}

impl<S> Watched<S> {
    /// Never contended: the other holder looks only when the connection is gone.
    fn stream(&self) -> MutexGuard<'_, S> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut *self.stream()).poll_read(cx, into))?;
        let new = &into.filled()[before..];
        if !new.is_empty() {
            self.pulse.hear(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}
