//! The event: a verified callback, and what identifies it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use webhook_verify::VerifiedEvent;
pub use webhook_verify::event::{
    Batch, Context, Identity, MAX_CONTENT_TYPE, MAX_CONTEXT, MAX_ID, MAX_TYPE, Weakness,
    body_sha256, usable_id, usable_type,
};

use crate::clock::{Timestamp, as_millis};
use crate::lifecycle::{DeadReason, Fingerprint};
use crate::source::Source;

/// The first eight bytes of a text's SHA-256.
pub(crate) fn digest_start(text: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The identity of another event that came under `identity`. It is named by the difference.
fn differing_in(identity: &Identity, text: &str) -> Identity {
    Identity::from_text(&format!("{}+{}", identity.as_str(), hex::encode(id_print(text))))
}

fn id_print(id: &str) -> [u8; 8] {
    digest_start(id).to_be_bytes()
}

/// A type as a part of a route: wildcards of patterns are escaped.
fn in_route(kind: &str) -> Cow<'_, str> {
    if !kind.contains(['%', '*', '#']) {
        return Cow::Borrowed(kind);
    }
    let words = kind.replace('%', "%25").replace('*', "%2A").replace('#', "%23");
    Cow::Owned(words)
}

/// Everything about an event except its body. The ingress seals it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`Envelope::VERSION`].
    pub v: u8,
    /// Name of the source.
    pub source: String,
    /// Name of the provider.
    pub provider: String,
    /// Identity: copies have the same.
    pub identity: Identity,
    /// The provider's id if it isn't the identity, because the signature doesn't cover it or it is
    /// unusable. For display only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned_id: Option<String>,
    /// The provider's event type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The callback's content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Time of receipt: when the ingress had read it.
    #[serde(serialize_with = "as_millis::serialize")]
    pub received_at: Timestamp,
    /// The time that the provider signed, if its scheme has one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_millis::serialize"
    )]
    pub provider_time: Option<Timestamp>,
    /// Name of the secret that verified it.
    pub verified_with: String,
    /// Context of the callback.
    #[serde(default)]
    pub context: Context,
    /// Who admitted it, if it was refused first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
    /// Whether another body under the same identity is a retry that the provider rendered again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renders_retries: bool,
    /// Digest that all callbacks with the same signed bytes share. Set if nothing shows whether
    /// this one is a copy, and no signed time limits repetition. A worker limits how many of them
    /// are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_bytes: Option<Identity>,
    /// Whether a worker of an older version marked it as a suspected replay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected: bool,
    /// Why a worker set it apart from the event with the same identity. It is a delivery of its own
    /// then, and waits for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_apart: Option<SetApart>,
}

/// How an event differs from another one with the same identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "differs_in", rename_all = "snake_case")]
pub enum SetApart {
    /// The same signed bytes under another unsigned id.
    Id,
    /// The same signed bytes under another unsigned type.
    Type,
    /// The same signed bytes too often within an hour.
    Repeat,
    /// Another body under the same id.
    Body {
        /// SHA-256 of the body, in hex.
        sha256: String,
    },
}

impl SetApart {
    /// Reason of its dead letter.
    pub fn reason(&self) -> DeadReason {
        match self {
            Self::Id | Self::Type | Self::Repeat => DeadReason::SuspectedReplay,
            Self::Body { .. } => DeadReason::Conflict,
        }
    }
}

impl Envelope {
    /// Version of this record. Each version has `v` and `received_at`.
    pub const VERSION: u8 = 1;

    /// The provider's id for display, signed or not.
    pub fn event_id(&self) -> Option<&str> {
        self.identity.id().or(self.unsigned_id.as_deref())
    }

    /// The identity in its delivery keys: the identity itself, or with the difference if it was set
    /// apart.
    pub fn name(&self) -> Identity {
        let unsigned_id = self.unsigned_id.as_deref().unwrap_or_default();
        match &self.set_apart {
            Some(SetApart::Type) => {
                let kind = self.event_type.as_deref().unwrap_or_default();
                differing_in(&self.identity, &format!("{unsigned_id}\n{kind}"))
            }
            Some(SetApart::Body { sha256 }) => differing_in(&self.identity, sha256),
            Some(SetApart::Id) => differing_in(&self.identity, unsigned_id),
            None if self.suspected => differing_in(&self.identity, unsigned_id),
            // Its identity is already unique.
            Some(SetApart::Repeat) | None => self.identity.clone(),
        }
    }

    /// Why it waits for an operator, if it was set apart.
    pub fn waits_for(&self) -> Option<DeadReason> {
        let suspected = self.suspected.then_some(DeadReason::SuspectedReplay);
        self.set_apart.as_ref().map(SetApart::reason).or(suspected)
    }

    /// The route that subscriptions match: `source.event_type`, or `source` alone. In the type,
    /// `*`, `#` and `%` are percent-encoded.
    pub fn route(&self) -> String {
        match &self.event_type {
            Some(kind) => format!("{}.{}", self.source, in_route(kind)),
            None => self.source.clone(),
        }
    }
}

/// Who admitted a callback that was refused first, or an event that never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Name of the operator.
    pub by: String,
    /// Time.
    pub at: Timestamp,
    /// Why it was refused, or [`Admitted::NOT_RECEIVED`].
    pub refused_for: String,
}

impl Admitted {
    /// The event never came: it was created from the provider's list.
    pub const NOT_RECEIVED: &str = "not_received";
}

/// An event: envelope and exact body.
#[derive(Clone, Debug)]
pub struct Event {
    /// Envelope.
    pub envelope: Envelope,
    /// The body as the provider sent and signed it.
    pub body: Bytes,
}

impl Event {
    /// A verified event of this source.
    pub fn of(source: &Source, verified: VerifiedEvent) -> Self {
        let VerifiedEvent { identity, unsigned_id, event_type, content_type, .. } = verified;
        let VerifiedEvent { received_at, provider_time, verified_with, context, .. } = verified;
        let VerifiedEvent { renders_retries, same_bytes, body, .. } = verified;
        let envelope = Envelope {
            v: Envelope::VERSION,
            source: source.name.clone(),
            provider: source.endpoint.provider.clone(),
            identity,
            unsigned_id,
            event_type,
            content_type,
            received_at,
            provider_time,
            verified_with,
            context,
            admitted: None,
            renders_retries,
            same_bytes,
            suspected: false,
            set_apart: None,
        };
        Self { envelope, body }
    }

    /// What its copies have in common.
    pub fn fingerprint(&self) -> Fingerprint {
        let id = self.envelope.unsigned_id.as_deref().map(id_print);
        let admitted = self.envelope.admitted.as_ref();
        // The provider's list can have other bytes than its callback for the same event.
        let body = match admitted {
            Some(admitted) if admitted.refused_for == Admitted::NOT_RECEIVED => {
                Fingerprint::UNKNOWN
            }
            _ => Sha256::digest(&self.body).into(),
        };
        Fingerprint { body, id }
    }
}

/// `destination/source/identity`: the key of one delivery across all retries and replays. It is the
/// idempotency key that the destination receives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryKey(String);

impl DeliveryKey {
    /// A key from its parts. Names of sources and destinations have no `/`, so keys are unique.
    pub fn new(destination: &str, source: &str, identity: &Identity) -> Self {
        Self(format!("{destination}/{source}/{}", identity.as_str()))
    }

    /// A key from text. `None` unless it has three parts.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let full = parts.by_ref().take(3).filter(|part| !part.is_empty()).count() == 3;
        full.then(|| Self(text.into()))
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The destination.
    pub fn destination(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The source.
    pub fn source(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// The identity.
    pub fn identity(&self) -> &str {
        self.0.splitn(3, '/').nth(2).unwrap_or_default()
    }
}

impl fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_taken_as_it_is_and_its_wildcards_are_escaped_in_a_route() {
        for (kind, route) in [
            ("orders/create", "s.orders/create"),
            ("Push Hook", "s.Push Hook"),
            ("jira:issue_created", "s.jira:issue_created"),
            ("zen:event-type:ticket.created", "s.zen:event-type:ticket.created"),
            ("Änderung", "s.Änderung"),
            ("a.*.#", "s.a.%2A.%23"),
            ("100%", "s.100%25"),
        ] {
            assert_eq!(format!("s.{}", in_route(kind)), route);
        }
    }

    #[test]
    fn a_delivery_key_keeps_slashes_in_the_identity() {
        let identity = Identity::from_id("a/b").unwrap();
        let key = DeliveryKey::new("ledger", "acme", &identity);
        assert_eq!(key.as_str(), "ledger/acme/a/b");
        assert_eq!(key.destination(), "ledger");
        assert_eq!(DeliveryKey::parse("ledger/acme/a/b"), Some(key));
        assert_eq!(DeliveryKey::parse("ledger/acme"), None);
        assert_eq!(DeliveryKey::parse("ledger//x"), None);
    }
}
