//! Maps errors of the client library to errors of the seam.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use zentra_config::remedy;
use zentra_store::queue::QueueError;

/// The seam's error for an error of the client library.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn failed(error: lapin::Error) -> QueueError {
    if let ErrorKind::ProtocolError(reply) = error.kind()
        && is_missing(&error)
    {
        return QueueError::Missing(reply.get_message().to_string());
    }
    let other = || QueueError::Broker(error.to_string());
    unusable(&error).map_or_else(other, QueueError::Unusable)
}

/// What to change, if a retry does not help.
fn unusable(error: &lapin::Error) -> Option<String> {
    let reply = match error.kind() {
        ErrorKind::ProtocolError(reply) => reply,
        ErrorKind::IOError(cause) => return remedy(cause.as_ref(), "rabbitmq"),
        _ => return None,
    };
    let text = reply.get_message();
    match reply.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Some(format!(
            "it refuses access ({text}): check user and password in rabbitmq.urls; \
             docs/deploying.md has the permissions"
        )),
        // A connection limit is reached for a while.
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.as_str().contains("limit") => None,
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Some(format!(
            "it refuses the virtual host ({text}): check it in rabbitmq.urls, and the user's \
             permissions for it"
        )),
        _ => None,
    }
}

/// Whether the error says that a queue or an exchange does not exist.
pub(crate) fn is_missing(error: &lapin::Error) -> bool {
    let not_found = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
    matches!(error.kind(), ErrorKind::ProtocolError(reply) if *reply.kind() == not_found)
}

/// Whether the broker itself failed, at something that it was asked on this connection.
pub(crate) fn is_broken(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(reply) = error.kind() else { return false };
    let broken = [AMQPHardError::INTERNALERROR, AMQPHardError::RESOURCEERROR];
    broken.into_iter().any(|hard| *reply.kind() == AMQPErrorKind::Hard(hard))
}
