//! Refusals: each has a stable reason and a status.

use http::StatusCode;
use zentra_store::queue::QueueError;

/// A refusal, for provider, log and metrics.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such source, or no such path.
    #[error("unknown source; send callbacks by POST /in/{{source}}")]
    UnknownSource,
    /// The provider doesn't use this method.
    #[error("this source does not accept this method")]
    MethodNotAllowed,
    /// More connections than the bound, and none of them idle.
    #[error("too many connections; retry later")]
    TooManyConnections,
    /// The TLS handshake failed or took too long.
    #[error("the TLS handshake failed")]
    Tls,
    /// The headers didn't arrive in time.
    #[error("the headers did not arrive in time")]
    HeaderTimeout,
    /// Too many headers, or too long ones.
    #[error("the headers are too many or too long")]
    HeadersTooLarge,
    /// Malformed HTTP request.
    #[error("malformed HTTP request")]
    BadRequest,
    /// Too many callbacks, or too many of their bytes, at a time.
    #[error("too many concurrent callbacks; retry later")]
    Overloaded,
    /// The body is larger than `max_body`.
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body didn't arrive in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body broke off.
    #[error("the body ended early")]
    BodyUnreadable,
    /// Signature or freshness.
    #[error(transparent)]
    Verify(#[from] webhook_verify::Refusal),
    /// Genuine, but the queue failed. The provider should send it again.
    #[error("the event could not be queued; retry later")]
    Queue(#[from] QueueError),
    /// The event couldn't be sealed.
    #[error("the event could not be sealed; retry later")]
    Seal,
}

impl Refusal {
    /// Stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooManyConnections => "too_many_connections",
            Self::Tls => "tls_handshake",
            Self::HeaderTimeout => "header_timeout",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BadRequest => "bad_request",
            Self::Overloaded => "overloaded",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyUnreadable => "body_unreadable",
            Self::Verify(refusal) => refusal.reason(),
            Self::Queue(QueueError::TooLarge(_)) => "body_too_large",
            Self::Queue(_) => "queue_unavailable",
            Self::Seal => "seal_unavailable",
        }
    }

    /// The HTTP status: 4xx when sending the same again can't help, 5xx when it will.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownSource => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge(_)
            | Self::Queue(QueueError::TooLarge(_))
            | Self::Verify(
                webhook_verify::Refusal::BatchTooLarge | webhook_verify::Refusal::BodyTooLarge,
            ) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeaderTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeadersTooLarge | Self::Verify(webhook_verify::Refusal::HeadersTooLarge) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Verify(webhook_verify::Refusal::QueryTooLong) => StatusCode::URI_TOO_LONG,
            Self::Tls
            | Self::BadRequest
            | Self::BodyUnreadable
            | Self::Verify(webhook_verify::Refusal::SignatureMalformed) => StatusCode::BAD_REQUEST,
            Self::Verify(webhook_verify::Refusal::KeyUnavailable) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Verify(_) => StatusCode::UNAUTHORIZED,
            Self::TooManyConnections | Self::Overloaded | Self::Queue(_) | Self::Seal => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}
