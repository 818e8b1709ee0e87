//! Maps errors of the client library to errors of the seam.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use zentra_store::queue::QueueError;

/// The seam's error for an error of the client library.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn failed(error: lapin::Error) -> QueueError {
    match error.kind() {
        ErrorKind::ProtocolError(reply) if is_missing(&error) => {
            QueueError::Missing(reply.get_message().to_string())
        }
        _ => QueueError::Broker(error.to_string()),
    }
}

/// Whether the error says that a queue or an exchange does not exist.
pub(crate) fn is_missing(error: &lapin::Error) -> bool {
    let not_found = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
    matches!(error.kind(), ErrorKind::ProtocolError(reply) if *reply.kind() == not_found)
}
