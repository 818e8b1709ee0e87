//! How a rehearsal fails.

use zentra_admin::{AdminError, ErrorCode};

/// The rehearsal itself broke, not a contract.
pub(crate) fn broken(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::Internal, message)
}

/// What was asked for can't be rehearsed.
pub(crate) fn unusable(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidRequest, message)
}
