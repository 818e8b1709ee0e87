//! A look through a queue that changes nothing.

use zentra_store::queue::{Message, Operate, Place, QueueError, Walk};

use crate::error::AdminError;

/// Shows each of the first `most` messages, until `enough` is true. A queue that wasn't declared
/// yet is empty.
pub(crate) async fn each(
    queue: &impl Operate,
    place: Place<'_>,
    most: usize,
    mut enough: impl FnMut(&Message) -> bool,
) -> Result<(), AdminError> {
    let mut walk = queue.walk(place).await?;
    for _ in 0..most {
        match walk.next().await {
            Ok(Some((message, _held))) if enough(&message) => break,
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(QueueError::Missing(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(walk.finish().await?)
}
