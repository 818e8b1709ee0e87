//! The destination that a rehearsal plays: an application that writes under the idempotency key,
//! and answers as the scenario says.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::scenario::Turn;

/// Maximum size of a body that it accepts.
const MOST: usize = 64 << 20;

/// One received request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

/// A running destination.
pub(crate) struct Destination {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Option<AbortHandle>,
}

#[derive(Default)]
struct Shared {
    turns: Mutex<VecDeque<Turn>>,
    seen: Mutex<Vec<Seen>>,
    /// The idempotency keys that it has acted under.
    effects: Mutex<BTreeSet<String>>,
    /// Idempotency keys of requests that hang.
    hung: Mutex<BTreeSet<String>>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Destination {
    /// Listens on this address.
    pub(crate) async fn start(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut this = Self { shared: Arc::default(), address, serving: None };
        this.serve(listener);
        Ok(this)
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.serving = Some(tokio::spawn(accept(listener, shared)).abort_handle());
    }

    /// The URL that events are delivered to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// The next requests get these answers. Later requests get 200.
    pub(crate) fn take_turns(&self, turns: &[Turn]) {
        lock(&self.shared.turns).extend(turns);
    }

    /// Forgets unused answers, and all requests.
    pub(crate) fn reset(&self) {
        lock(&self.shared.turns).clear();
        lock(&self.shared.seen).clear();
    }

    /// Accepts no connections from now on, and closes open ones.
    pub(crate) fn go_down(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// Accepts connections again.
    pub(crate) async fn come_back(&mut self) -> std::io::Result<()> {
        if self.serving.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.serve(listener);
        }
        Ok(())
    }

    /// The requests with one of these keys, in order.
    pub(crate) fn seen(&self, keys: &[&str]) -> Vec<Seen> {
        let seen = lock(&self.shared.seen);
        seen.iter().filter(|seen| keys.contains(&seen.key.as_str())).cloned().collect()
    }

    /// The number of these keys that it has acted under.
    pub(crate) fn effects(&self, keys: &[&str]) -> usize {
        let effects = lock(&self.shared.effects);
        keys.iter().filter(|key| effects.contains(**key)).count()
    }

    /// Returns when a request for the event with this ID hangs.
    pub(crate) async fn hangs(&self, id: &str) {
        let end = format!("/{id}");
        loop {
            let changed = self.shared.changed.notified();
            if lock(&self.shared.hung).iter().any(|key| key.ends_with(&end)) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.go_down();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborts the task when it is dropped.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    // The client may close early.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let key = parts.headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        let key = key.unwrap_or_default().to_owned();
        let Ok(body) = Limited::new(body, MOST).collect().await else {
            return respond(400, None);
        };
        let seen = Seen { key: key.clone(), body: body.to_bytes(), at: Instant::now() };
        lock(&self.seen).push(seen);
        let turn = lock(&self.turns).pop_front().unwrap_or(Turn::Answer(200, None));
        if matches!(turn, Turn::Answer(200..300, _) | Turn::WriteAndHang) {
            lock(&self.effects).insert(key.clone());
        }
        match turn {
            Turn::Answer(status, after) => respond(status, after),
            Turn::Hang | Turn::WriteAndHang => {
                lock(&self.hung).insert(key);
                self.changed.notify_waiters();
                std::future::pending().await
            }
        }
    }
}

fn respond(status: u16, retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    response.body(Full::default()).unwrap_or_default()
}
