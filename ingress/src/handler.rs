//! One callback from its headers to its answer.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};
use webhook_verify::{Answered, Unverified};
use zentra_config::Bounds;
use zentra_core::clock;
use zentra_core::source::Source;
use zentra_store::queue::Publish;
use zentra_telemetry::GaugeGuard;
use zentra_telemetry::trace::{Span, SpanKind, within};

use crate::admit::Admission;
use crate::client::client;
use crate::log::Log;
use crate::metrics::{Metrics, UNKNOWN};
use crate::receive::{Receiver, source_name, unambiguous};
use crate::refusal::Refusal;
use crate::respond;
use crate::state::IngressState;

/// The answer to a request without a body, if it is a handshake.
fn asked(request: &Request<Incoming>, source: &Source) -> Option<Answered> {
    let method = request.method();
    if source.endpoint.scheme.handshakes.is_empty() || *method == Method::POST {
        return None;
    }
    let callback = Unverified {
        method: method.clone(),
        headers: request.headers().clone(),
        query: request.uri().query().map(str::to_owned),
        peer: None,
        body: Bytes::new(),
        received_at: clock::now(),
        receipt: 0,
    };
    callback.unsigned_handshake(method, &source.endpoint)
}

/// A callback from its headers to its answer. What the provider sends as its trace is not its parent: see
/// [`zentra_core::trace`].
fn receive_span(request: &Request<Incoming>) -> Span {
    let name = match *request.method() {
        Method::POST => "POST /in/{source}",
        Method::GET => "GET /in/{source}",
        _ => "HTTP",
    };
    let mut span = Span::after(None, SpanKind::Server, name);
    span.set("http.request.method", || match *request.method() {
        Method::POST => "POST",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        _ => "_OTHER",
    });
    span.set("http.route", || "/in/{source}");
    span
}

/// Reads, admits, answers and counts.
pub(crate) struct Handler<Q> {
    state: watch::Receiver<Arc<IngressState<Q>>>,
    receiver: Receiver,
    trusted_proxies: Vec<IpNet>,
    in_flight: Semaphore,
    metrics: Metrics,
    log: Log,
}

impl<Q: Publish> Handler<Q> {
    pub(crate) fn new(
        state: watch::Receiver<Arc<IngressState<Q>>>,
        bounds: &Bounds,
        trusted_proxies: Vec<IpNet>,
        metrics: Metrics,
    ) -> Self {
        Self {
            state,
            receiver: Receiver::new(bounds, metrics.bodies.clone()),
            trusted_proxies,
            in_flight: Semaphore::new(bounds.max_in_flight as usize),
            metrics,
            log: Log::default(),
        }
    }

    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        let mut span = receive_span(&request);
        let response = within(span.trace(), pin!(self.handle(request, peer, &mut span))).await;
        span.set("http.response.status_code", || i64::from(response.status().as_u16()));
        response
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        span: &mut Span,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        // One state for the whole callback, whatever is reloaded meanwhile.
        let state = self.state.borrow().clone();
        let named = unambiguous(&request).and_then(|()| source_name(request.uri().path()));
        let named = named.and_then(|name| state.source(name));
        let (label, result) = match named {
            Err(refusal) => (UNKNOWN, Err(refusal)),
            Ok(source) => {
                let client = client(peer, request.headers(), &self.trusted_proxies);
                let taken = self.take(request, client, &state, source).await;
                (&*source.name, taken.map(|taken| (taken, source)))
            }
        };
        self.metrics.answered(label, started.elapsed());
        span.set("zentra.source", || label.to_owned());
        match result {
            Ok((Admission::Events(envelopes), source)) => {
                envelopes.iter().for_each(|envelope| self.metrics.accepted(envelope));
                respond::accepted(&source.success)
            }
            Ok((Admission::Handshake(answer), source)) => {
                self.metrics.shook_hands(&source.name);
                tracing::info!(source = source.name, "answered a handshake of the provider");
                respond::handshake(*answer)
            }
            Err(refusal) => {
                self.note(label, &refusal);
                span.set("zentra.reason", || refusal.reason());
                if refusal.status().is_server_error() {
                    span.fail(refusal.reason(), || refusal.to_string());
                }
                respond::refused(&refusal)
            }
        }
    }

    /// Slow bodies don't count as in flight, so they can't block honest ones.
    async fn take(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        state: &IngressState<Q>,
        source: &Source,
    ) -> Result<Admission, Refusal> {
        if let Some(answer) = asked(&request, source) {
            return Ok(Admission::Handshake(Box::new(answer)));
        }
        let received = self.receiver.receive(request, peer, source).await?;
        self.metrics.read(&source.name, received.callback.body.len());
        let _one = self.in_flight.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let _counted = GaugeGuard::more(&self.metrics.in_flight);
        let admitted = state.admit(received.callback, source).await;
        drop(received.memory);
        admitted
    }

    /// Evicts the slowest body for a new connection.
    pub(crate) fn make_way(&self) {
        self.receiver.make_way();
    }

    /// Counts a connection while what it returns lives.
    pub(crate) fn connected(&self) -> GaugeGuard {
        GaugeGuard::more(&self.metrics.connections)
    }

    /// Notes a refusal before there was a request.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.note(UNKNOWN, refusal);
    }

    /// Counts and logs a refusal.
    fn note(&self, source: &str, refusal: &Refusal) {
        self.metrics.refused(source, refusal.reason());
        self.log.refused(source, refusal);
    }
}
