//! A queued message as what it is: one event's delivery to one destination, or a
//! stranger's message that nothing in it is believed of.

use sha2::{Digest, Sha256};

use crate::journal::Summary;
use crate::queue::Message;
use zentra_core::event::{DeliveryKey, Event, Identity};
use zentra_core::lifecycle::{DeadReason, Fingerprint};
use zentra_core::seal::{Domain, SealError, Sealed, Sealer};
use zentra_core::trace::Trace;

/// The source under which messages without a fitting seal are remembered.
pub const UNVERIFIED: &str = "unverified";

/// A message whose seal was looked at.
#[derive(Debug)]
pub struct OpenedMessage {
    /// Names the delivery.
    pub key: DeliveryKey,
    /// What its copies have in common.
    pub fingerprint: Fingerprint,
    /// What is kept of it.
    pub summary: Summary,
    /// The event, or why there is none.
    pub event: Result<Event, (DeadReason, SealError)>,
}

impl OpenedMessage {
    /// The same event on its way to another destination.
    pub fn turn(&mut self, destination: &str) {
        let identity = Identity::from_text(self.key.identity());
        self.key = DeliveryKey::new(destination, self.key.source(), &identity);
    }
}

/// Opens a message that was found in a queue of this destination.
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

/// Signs where a message stands: its destination, generation and attempt, which its seal leaves open.
/// To be called by whoever sends it on. Whoever can only write to the broker could raise them
/// otherwise, or have an event delivered where nobody subscribes to it.
pub fn countersign(
    sealer: &Sealer,
    destination: &str,
    message: Message,
) -> Result<Message, SealError> {
    let signed = sealer.sign(Domain::Attempt, &stand(destination, &message), &[])?;
    Ok(Message { countersignature: Some(signed), ..message })
}

/// Whether [`countersign`] was called for this destination, generation and attempt.
pub fn is_countersigned(sealer: &Sealer, destination: &str, message: &Message) -> bool {
    let Some(signed) = &message.countersignature else { return false };
    sealer.check(Domain::Attempt, signed, &stand(destination, message), &[]).is_ok()
}

/// The seal stands for envelope and body.
fn stand(destination: &str, message: &Message) -> Vec<u8> {
    let Message { sealed, generation, attempt, .. } = message;
    format!("{destination}\n{generation}\n{attempt}\n{}", sealed.seal).into_bytes()
}

/// A stranger's message is known by its bytes, not by what it says.
fn message_digest(sealed: &Sealed) -> Identity {
    let mut hash = Sha256::new();
    for part in [&sealed.envelope[..], sealed.seal.as_bytes(), &sealed.body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Identity::from_digest(&hash.finalize())
}
