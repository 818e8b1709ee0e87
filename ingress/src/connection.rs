//! One connection: TLS where configured, then HTTP/1.1 or HTTP/2, under a clock.
//!
//! The HTTP library bounds headers in size; time is bounded here, for both framings and
//! from the first byte on, so that a client that says little or nothing can't keep a
//! connection for long. An idle connection also gives way when all are taken.

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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zentra_shared::clock::millis;
use zentra_shared::config::Bounds;

use crate::refusal::Refusal;
use crate::respond;

/// How long a connection that is told to end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Rules {
    pub(crate) http: auto::Builder<TokioExecutor>,
    pub(crate) bounds: Bounds,
    /// One notice for each connection that has to give way.
    pub(crate) pressure: Notify,
    pub(crate) stop: CancellationToken,
}

/// Serves one connection to its end. What went wrong before a request was there is
/// returned: nobody else can count it.
pub(crate) async fn serve<S, F>(
    stream: S,
    rules: &Rules,
    answer: impl Fn(Request<Incoming>) -> F,
) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let pulse = Arc::new(Pulse::new());
    let stream = Arc::new(Mutex::new(stream));
    let watched = Watched { stream: stream.clone(), pulse: pulse.clone() };
    let service = service_fn(|request| {
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
            let rest = timeout(GOODBYE, connection.as_mut());
            match ended {
                Ended::Stopped => drop(connection.await),
                _ => drop(rest.await),
            }
        }
        ended
    };
    match ended {
        Ended::By(Some(error)) => refused(error.as_ref()),
        Ended::SlowHeaders => {
            if let Ok(stream) = Arc::try_unwrap(stream) {
                let stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
                say(stream, &Refusal::HeaderTimeout).await;
            }
            Err(Refusal::HeaderTimeout)
        }
        _ => Ok(()),
    }
}

/// Says one last thing in HTTP/1.1, where no request could be read.
pub(crate) async fn say<S: AsyncWrite + Unpin>(mut stream: S, refusal: &Refusal) {
    let last = async {
        stream.write_all(&respond::last_words(refusal)).await?;
        stream.shutdown().await
    };
    let _ = timeout(GOODBYE, last).await;
}

/// What the HTTP library has refused and answered by itself.
fn refused(error: &(dyn std::error::Error + 'static)) -> Result<(), Refusal> {
    match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse_too_large() => Err(Refusal::HeadersTooLarge),
        Some(error) if error.is_parse() => Err(Refusal::BadRequest),
        // Broken connections are the provider's to retry.
        _ => Ok(()),
    }
}

enum Ended {
    By(Option<Box<dyn std::error::Error + Send + Sync>>),
    Stopped,
    Idle,
    SlowHeaders,
}

/// Watches over a connection, and says why it has to end.
async fn overseen(pulse: &Pulse, rules: &Rules) -> Ended {
    let Bounds { header_timeout, idle_timeout, .. } = rules.bounds;
    let often = (header_timeout.min(idle_timeout) / 4).min(Duration::from_secs(1));
    let mut tick = tokio::time::interval(often.max(Duration::from_millis(10)));
    let mut give_way = std::pin::pin!(rules.pressure.notified());
    loop {
        tokio::select! {
            () = rules.stop.cancelled() => return Ended::Stopped,
            () = give_way.as_mut(), if pulse.state() != State::Busy => {
                if pulse.state() != State::Busy {
                    return Ended::Idle;
                }
                // It began to work meanwhile: another one's turn.
                rules.pressure.notify_one();
                give_way.set(rules.pressure.notified());
            }
            _ = tick.tick() => match pulse.state() {
                State::Silent if pulse.age() > idle_timeout => return Ended::Idle,
                State::Headers if pulse.age() > header_timeout => return Ended::SlowHeaders,
                _ => {}
            }
        }
    }
}

/// What a connection does now, and since when.
struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    since: AtomicU64,
    requests: AtomicUsize,
    heard: AtomicBool,
    http2: AtomicBool,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Between requests.
    Silent,
    /// Some bytes of HTTP/1.1 headers are there, not all.
    Headers,
    /// A request is under way.
    Busy,
}

impl Pulse {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            since: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            http2: AtomicBool::new(false),
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

    fn hear(&self, bytes: &[u8]) {
        if !self.heard.swap(true, Ordering::AcqRel)
            && self.requests.load(Ordering::Acquire) == 0
            && !self.http2.load(Ordering::Acquire)
        {
            // No HTTP/1.1 method begins so; RFC 9113, 3.4.
            self.http2.store(bytes.starts_with(b"PRI"), Ordering::Release);
            self.mark();
        }
    }

    fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
}

/// A request under way.
struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.mark();
        self.0.heard.store(false, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream whose reads are noticed, and which is there still after its connection.
struct Watched<S> {
    stream: Arc<Mutex<S>>,
    pulse: Arc<Pulse>,
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
