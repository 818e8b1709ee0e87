//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use zentra_admin::{AdminError, ErrorCode};

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `urn:zentra:error:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status, in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Stable code for programs. `docs/errors.md` lists all codes.
    code: &'static str,
    /// What failed, and what to do.
    detail: String,
}

impl Problem {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let (status, code) = (status(code), code.as_str());
        Self {
            kind: format!("urn:zentra:error:{code}"),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code,
            detail: detail.into(),
        }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }
}

/// The HTTP status of a code.
pub fn status(code: ErrorCode) -> StatusCode {
    use ErrorCode as Code;
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::RoleRequired
        | Code::PayloadsRequired
        | Code::DestinationDenied
        | Code::AdmissionDisabled => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RouteNotFound
        | Code::EventNotFound
        | Code::ArchivedEventNotFound
        | Code::RefusedCallbackNotFound
        | Code::DestinationNotFound
        | Code::NotPulled
        | Code::SourceNotFound
        | Code::JobNotFound
        | Code::IncidentNotFound
        | Code::ReceiverNotFound
        | Code::TokenNotFound => StatusCode::NOT_FOUND,
        Code::DeadLetterUnavailable
        | Code::NothingMatches
        | Code::NotAdmitted
        | Code::JobBusy
        | Code::JobStopped
        | Code::IncidentClosed
        | Code::IncidentChanged
        | Code::TokenNameTaken
        | Code::AmbiguousId
        | Code::NotDead
        | Code::NotWaiting
        | Code::ReleaseRequired
        | Code::ReleaseNotApplicable
        | Code::ArchiveDisabled
        | Code::PayloadNotArchived
        | Code::IngestImpossible
        | Code::ReconcileFindings
        | Code::MigrationRefused
        | Code::LeaseLost
        | Code::LeaseLimit
        | Code::QueueNotDeclared => StatusCode::CONFLICT,
        Code::InvalidRequest
        | Code::InvalidCursor
        | Code::NothingSelected
        | Code::InvalidList
        | Code::ListTooLong
        | Code::ProviderApiUnknown
        | Code::ProviderApiDenied => StatusCode::BAD_REQUEST,
        Code::ConfigInvalid | Code::FileUnusable | Code::StorageUnusable | Code::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Code::Timeout
        | Code::ProviderApiFailed
        | Code::ReceiverFailed
        | Code::BrokerUnavailable
        | Code::BrokerBlocked
        | Code::StoreUnavailable
        | Code::StorageFull
        | Code::StorageFailed
        | Code::SealFailed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        Self::new(error.code, error.text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(error: QueryRejection) -> Self {
        Self::invalid(error.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(error: PathRejection) -> Self {
        Self::invalid(error.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(error: JsonRejection) -> Self {
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(ErrorCode::PayloadTooLarge, error.body_text())
            }
            _ => Self::invalid(error.body_text()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
