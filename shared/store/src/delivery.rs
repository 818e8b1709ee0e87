//! A queued message, opened: one event's delivery to one destination, or a message without a valid
//! seal, of which nothing is trusted.

use sha2::{Digest, Sha256};

use crate::journal::Summary;
use crate::queue::Message;
use zentra_core::event::{DeliveryKey, Event, Identity};
use zentra_core::lifecycle::{DeadReason, Fingerprint};
use zentra_core::seal::{Domain, SealError, Sealed, Sealer};
use zentra_core::trace::Trace;

/// Source name for messages without a valid seal.
pub const UNVERIFIED: &str = "unverified";

/// A message whose seal was checked.
#[derive(Debug)]
pub struct OpenedMessage {
    /// Key of the delivery.
    pub key: DeliveryKey,
    /// What copies have in common.
    pub fingerprint: Fingerprint,
    /// What histories show of the event.
    pub summary: Summary,
    /// The event, or why the seal is invalid.
    pub event: Result<Event, (DeadReason, SealError)>,
}

impl OpenedMessage {
    /// Changes the key to another destination.
    pub fn turn(&mut self, destination: &str) {
        let identity = Identity::from_text(self.key.identity());
        self.key = DeliveryKey::new(destination, self.key.source(), &identity);
    }
}

/// Opens a message from a queue of this destination.
pub fn open(sealer: &Sealer, destination: &str, sealed: &Sealed) -> OpenedMessage {
    match sealer.open(sealed) {
        Ok(event) => {
            let fingerprint = event.fingerprint();
            let trace = sealed.trace.map(Trace::id);
            OpenedMessage {
                key: DeliveryKey::new(destination, &event.envelope.source, &event.envelope.name()),
                fingerprint,
                summary: Summary { trace, ..Summary::of(&event, &fingerprint) },
                event: Ok(event),
            }
        }
        Err(error) => {
            let reason = match sealed.envelope.is_empty() {
                true => DeadReason::NotOurs,
                false => DeadReason::SealBroken,
            };
            let fingerprint = Fingerprint { body: Sha256::digest(&sealed.body).into(), id: None };
            OpenedMessage {
                key: DeliveryKey::new(destination, UNVERIFIED, &message_digest(sealed)),
                fingerprint,
                summary: Summary {
                    source: UNVERIFIED.into(),
                    body_sha256: hex::encode(fingerprint.body),
                    ..Summary::default()
                },
                event: Err((reason, error)),
            }
        }
    }
}

/// Signs destination, generation and attempt of a message, which its seal doesn't cover. Called by
/// every program that sends a message on. Otherwise somebody with write access to the broker only
/// could raise them, or have an event delivered to another destination.
pub fn countersign(
    sealer: &Sealer,
    destination: &str,
    message: Message,
) -> Result<Message, SealError> {
    let signed = sealer.sign(Domain::Attempt, &stand(destination, &message), &[])?;
    Ok(Message { countersignature: Some(signed), ..message })
}

/// Whether the message is countersigned for this destination, generation and attempt.
pub fn is_countersigned(sealer: &Sealer, destination: &str, message: &Message) -> bool {
    let Some(signed) = &message.countersignature else { return false };
    sealer.check(Domain::Attempt, signed, &stand(destination, message), &[]).is_ok()
}

/// The seal represents envelope and body.
fn stand(destination: &str, message: &Message) -> Vec<u8> {
    let Message { sealed, generation, attempt, .. } = message;
    format!("{destination}\n{generation}\n{attempt}\n{}", sealed.seal).into_bytes()
}

/// A message without a valid seal is identified by its bytes.
fn message_digest(sealed: &Sealed) -> Identity {
    let mut hash = Sha256::new();
    for part in [&sealed.envelope[..], sealed.seal.as_bytes(), &sealed.body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Identity::from_digest(&hash.finalize())
}
