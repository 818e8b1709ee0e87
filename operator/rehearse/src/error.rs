//! Errors of a rehearsal.

use zentra_admin::{AdminError, ErrorCode};

/// The rehearsal itself failed, not an expectation.
pub(crate) fn broken(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::Internal, message)
}

/// The request cannot be rehearsed.
pub(crate) fn unusable(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidRequest, message)
}
