//! Reading a callback: bounded in size, time and memory, looked at by nobody.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zentra_shared::clock;
use zentra_shared::config::Bounds;
use zentra_shared::verify::{Source, Unverified};

use crate::refusal::Refusal;

/// The source that a path names: `/in/{source}` and nothing else.
pub(crate) fn source_name(path: &str) -> Result<&str, Refusal> {
    let name = path.strip_prefix("/in/").filter(|name| !name.is_empty());
    name.ok_or(Refusal::UnknownSource)
}

/// Reads bodies, so many and so much of them at a time.
pub(crate) struct Receiver {
    headers: usize,
    header_bytes: usize,
    time: Duration,
    bodies: Semaphore,
    bytes: Arc<Semaphore>,
}

/// A callback as it was read, and the memory that it may take until this is dropped.
pub(crate) struct Received {
    pub(crate) callback: Unverified,
    pub(crate) memory: Memory,
}

/// The right to hold so many bytes.
pub(crate) type Memory = Option<OwnedSemaphorePermit>;

impl Receiver {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            headers: bounds.max_headers,
            header_bytes: bounds.max_header_bytes,
            time: bounds.body_timeout,
            bodies: Semaphore::new(bounds.max_connections as usize),
            bytes: Arc::new(Semaphore::new(bounds.max_buffered.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads the raw body. An announced length over the bound is refused unread.
    pub(crate) async fn receive(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        source: &Source,
    ) -> Result<Received, Refusal> {
        if !source.scheme.methods.contains(request.method()) {
            return Err(Refusal::MethodNotAllowed);
        }
        if !self.fits(request.headers()) {
            return Err(Refusal::HeadersTooLarge);
        }
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > source.max_body as u64 {
            return Err(Refusal::BodyTooLarge(source.max_body));
        }
        let _one = self.bodies.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let read = timeout(self.time, self.body(body, source.max_body));
        let (body, memory) = read.await.map_err(|_| Refusal::BodyTimeout)??;
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

    /// Memory is asked for as bytes arrive, not as they are announced.
    async fn body(&self, mut body: Incoming, most: usize) -> Result<(Bytes, Memory), Refusal> {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        let mut memory: Memory = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refusal::BodyUnreadable)?.into_data() else {
                continue;
            };
            let length = first.len() + more.len() + data.len();
            if length > most {
                return Err(Refusal::BodyTooLarge(most));
            }
            let held = self.hold(data.len())?;
            match &mut memory {
                None => memory = Some(held),
                Some(memory) => memory.merge(held),
            }
            // Most bodies come in one piece, which is taken as it is.
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
        let whole = if more.is_empty() { first } else { more.freeze() };
        Ok((whole, memory))
    }

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let count = u32::try_from(bytes).map_err(|_| Refusal::Overloaded)?;
        let held = self.bytes.clone().try_acquire_many_owned(count);
        held.map_err(|_| Refusal::Overloaded)
    }
}
