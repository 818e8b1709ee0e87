//! Reading a callback: bounded in size and time, looked at by nobody.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use zentra_shared::clock;
use zentra_shared::verify::Unverified;

use crate::refusal::Refusal;

/// The largest body taken, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// How long a body may take to arrive.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(10);

/// The source that a path names: `/in/{source}` and nothing else.
pub(crate) fn source_name(path: &str) -> Result<&str, Refusal> {
    let name = path.strip_prefix("/in/").filter(|name| !name.is_empty());
    name.ok_or(Refusal::UnknownSource)
}

/// Reads the raw body. A declared length over the bound is refused unread.
pub(crate) async fn receive(request: Request<Incoming>) -> Result<Unverified, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Refusal::BodyTooLarge(MAX_BODY));
    }
    let read = Limited::new(body, MAX_BODY).collect();
    let body: Bytes = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Refusal::BodyTooLarge(MAX_BODY));
        }
        Ok(Err(_)) => return Err(Refusal::BodyUnreadable),
        Err(_) => return Err(Refusal::BodyTimeout),
    };
    Ok(Unverified { headers: parts.headers, body, received_at: clock::now() })
}
