//! One callback from its headers to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use zentra_shared::config::Bounds;
use zentra_shared::event::Envelope;
use zentra_shared::queue::Publish;
use zentra_shared::telemetry::One;
use zentra_shared::verify::Source;

use crate::admit::Gate;
use crate::log::Log;
use crate::metrics::{Metrics, UNKNOWN};
use crate::receive::{Receiver, source_name};
use crate::refusal::Refusal;
use crate::respond;

/// Reads, admits, answers and counts.
pub(crate) struct Entrance<Q> {
    gate: watch::Receiver<Arc<Gate<Q>>>,
    receiver: Receiver,
    in_flight: Semaphore,
    metrics: Metrics,
    log: Log,
}

impl<Q: Publish> Entrance<Q> {
    pub(crate) fn new(
        gate: watch::Receiver<Arc<Gate<Q>>>,
        bounds: &Bounds,
        metrics: Metrics,
    ) -> Self {
        Self {
            gate,
            receiver: Receiver::new(bounds),
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
        let started = Instant::now();
        // One gate for the whole callback, whatever is reloaded meanwhile.
        let gate = self.gate.borrow().clone();
        let named = source_name(request.uri().path()).and_then(|name| gate.source(name));
        let (label, result) = match named {
            Err(refusal) => (UNKNOWN, Err(refusal)),
            Ok(source) => {
                let taken = self.take(request, peer, &gate, source).await;
                (&*source.name, taken.map(|envelopes| (envelopes, &source.success)))
            }
        };
        self.metrics.answered(label, started.elapsed());
        match result {
            Ok((envelopes, success)) => {
                envelopes.iter().for_each(|envelope| self.metrics.accepted(envelope));
                respond::accepted(success)
            }
            Err(refusal) => {
                self.note(label, &refusal);
                respond::refused(&refusal)
            }
        }
    }

    /// Slow bodies take no place among those in flight, so they can't shut honest ones out.
    async fn take(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        gate: &Gate<Q>,
        source: &Source,
    ) -> Result<Vec<Envelope>, Refusal> {
        let received = self.receiver.receive(request, peer, source).await?;
        self.metrics.read(&source.name, received.callback.body.len());
        let _one = self.in_flight.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let _counted = One::more(&self.metrics.in_flight);
        let admitted = gate.admit(received.callback, source).await;
        drop(received.memory);
        admitted
    }

    /// Counts a connection while what it returns lives.
    pub(crate) fn connected(&self) -> One {
        One::more(&self.metrics.connections)
    }

    /// What was refused before there was a request.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.note(UNKNOWN, refusal);
    }

    /// Counted and logged once, here.
    fn note(&self, source: &str, refusal: &Refusal) {
        self.metrics.refused(source, refusal.reason());
        self.log.refused(source, refusal);
    }
}
