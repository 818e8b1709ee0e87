//! Answers to providers.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

use webhook_verify::{Answered, Success};

use crate::refusal::Refusal;

/// Value of `Retry-After`, in seconds.
const RETRY: &str = "5";
const PROBLEM: &str = "application/problem+json";

/// The event is durable: what this source's provider takes for a yes.
pub(crate) fn accepted(success: &Success) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(success.body.clone()));
    *response.status_mut() = success.status;
    if !success.body.is_empty() {
        let kind = match success.body.first() {
            Some(b'{' | b'[') => "application/json",
            _ => "text/plain; charset=utf-8",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

/// What a provider that makes sure of the endpoint wants to read. It may be what whoever asks has
/// sent: no browser is to take it for anything but what it says it is.
pub(crate) fn handshake(answer: Answered) -> Response<Full<Bytes>> {
    let empty = answer.body.is_empty();
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if !empty {
        headers.insert(CONTENT_TYPE, answer.content_type);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    headers.extend(answer.header);
    response
}

/// RFC 9457 problem details with the stable reason.
pub(crate) fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = refusal.status();
    let mut response = Response::new(Full::new(problem(refusal)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        // The rest of the body is unread, so the connection has to close.
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// The same as bytes of HTTP/1.1, for a connection on which no request could be read.
pub(crate) fn last_words(refusal: &Refusal) -> Vec<u8> {
    let (status, body) = (refusal.status(), problem(refusal));
    let retry = match status {
        StatusCode::SERVICE_UNAVAILABLE => format!("retry-after: {RETRY}\r\n"),
        _ => String::new(),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM}\r\n{retry}content-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

fn problem(refusal: &Refusal) -> Bytes {
    let status = refusal.status();
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "reason": refusal.reason(),
        "detail": refusal.to_string(),
    });
    Bytes::from(format!("{body}\n"))
}
