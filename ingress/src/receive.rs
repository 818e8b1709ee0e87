//! Receives a callback: bounded in size, time and memory, without interpreting it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_immediate;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use prometheus::IntGauge;
use tokio::time::sleep_until;
use webhook_verify::Unverified;
use zentra_config::Bounds;
use zentra_core::clock;
use zentra_core::source::Source;

use crate::bodies::{Bodies, Reading};
use crate::head::TwoFramings;
use crate::refusal::Refusal;

/// The source that a path names: `/in/{source}` and nothing else.
pub(crate) fn source_name(path: &str) -> Result<&str, Refusal> {
    let name = path.strip_prefix("/in/").filter(|name| !name.is_empty());
    name.ok_or(Refusal::UnknownSource)
}

/// Refuses what a proxy may have read in another way: two `Host` lines (RFC 9112, section 3.2), or two
/// framings.
pub(crate) fn unambiguous<B>(request: &Request<B>) -> Result<(), Refusal> {
    let two_hosts = request.headers().get_all(header::HOST).iter().nth(1).is_some();
    match two_hosts || request.extensions().get::<TwoFramings>().is_some() {
        true => Err(Refusal::BadRequest),
        false => Ok(()),
    }
}

/// Receives bodies within bounds.
pub(crate) struct Receiver {
    headers: usize,
    header_bytes: usize,
    time: Duration,
    bodies: Arc<Bodies>,
}

/// A received callback and its memory.
pub(crate) struct Received {
    pub(crate) callback: Unverified,
    pub(crate) memory: Reading,
}

impl Receiver {
    pub(crate) fn new(bounds: &Bounds, waiting: IntGauge) -> Self {
        Self {
            headers: bounds.max_headers,
            header_bytes: bounds.max_header_bytes,
            time: bounds.body_timeout,
            bodies: Bodies::new(bounds, waiting),
        }
    }

    /// Evicts the slowest body for a new connection.
    pub(crate) fn make_way(&self) {
        self.bodies.make_way();
    }

    /// Reads the raw body. An announced length over the bound is refused unread.
    pub(crate) async fn receive(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        source: &Source,
    ) -> Result<Received, Refusal> {
        if !source.endpoint.scheme.methods.contains(request.method()) {
            return Err(Refusal::MethodNotAllowed);
        }
        if !self.fits(request.headers()) {
            return Err(Refusal::HeadersTooLarge);
        }
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > source.endpoint.max_body as u64 {
            return Err(Refusal::BodyTooLarge(source.endpoint.max_body));
        }
        let mut memory = self.bodies.begin(peer, source.endpoint.max_body);
        let body = self.body(body, source.endpoint.max_body, &mut memory).await?;
        let (headers, received_at, receipt) = (parts.headers, clock::now(), rand::random());
        let query = parts.uri.query().map(str::to_owned);
        let method = parts.method;
        let callback =
            Unverified { method, headers, query, peer: Some(peer), body, received_at, receipt };
        Ok(Received { callback, memory })
    }

    /// HTTP/1.1 headers were bounded as they came; those of HTTP/2 only coarsely.
    fn fits(&self, headers: &HeaderMap) -> bool {
        let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        headers.len() <= self.headers
            && headers.iter().map(line).sum::<usize>() <= self.header_bytes
    }

    /// Memory counts as bytes arrive, not as they are announced.
    async fn body(
        &self,
        mut body: Incoming,
        most: usize,
        reading: &mut Reading,
    ) -> Result<Bytes, Refusal> {
        let ends = Instant::now() + self.time;
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while let Some(frame) = frame(&mut body, reading, ends).await? {
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + more.len() + data.len() > most {
                return Err(Refusal::BodyTooLarge(most));
            }
            reading.hold(data.len())?;
            // Most bodies arrive in one piece, which is not copied.
            match (first.is_empty(), more.is_empty()) {
                (true, true) => first = data,
                (_, false) => more.extend_from_slice(&data),
                (false, true) => {
                    more.extend_from_slice(&first);
                    more.extend_from_slice(&data);
                    first = Bytes::new();
                }
            }
        }
        reading.complete()?;
        Ok(if more.is_empty() { first } else { more.freeze() })
    }
}

/// The next piece of a body. A body takes a place only if the piece hasn't arrived yet.
async fn frame(
    body: &mut Incoming,
    reading: &mut Reading,
    ends: Instant,
) -> Result<Option<Frame<Bytes>>, Refusal> {
    let frame = match poll_immediate(body.frame()).await {
        Some(frame) => frame,
        None => {
            reading.wait()?;
            let until = reading.stalls_at().map_or(ends, |stalls| stalls.min(ends));
            tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = reading.evicted() => return Err(Refusal::Overloaded),
                () = sleep_until(until.into()) => return Err(Refusal::BodyTimeout),
            }
        }
    };
    frame.transpose().map_err(|_| Refusal::BodyUnreadable)
}
