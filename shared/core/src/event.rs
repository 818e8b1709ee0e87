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

/// Tells one text from another, in the room of eight bytes: the start of its SHA-256.
pub(crate) fn digest_start(text: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The identity of what came under `identity` and isn't the same event: an event of its own, named
/// by what it differs in.
fn differing_in(identity: &Identity, text: &str) -> Identity {
    Identity::from_text(&format!("{}+{}", identity.as_str(), hex::encode(id_print(text))))
}

fn id_print(id: &str) -> [u8; 8] {
    digest_start(id).to_be_bytes()
}

/// A type as a part of a route: what patterns have as wildcards is escaped.
fn in_route(kind: &str) -> Cow<'_, str> {
    if !kind.contains(['%', '*', '#']) {
        return Cow::Borrowed(kind);
    }
    let words = kind.replace('%', "%25").replace('*', "%2A").replace('#', "%23");
    Cow::Owned(words)
}

/// What is known of an event besides its bytes. Sealed by the ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The form of this record; 1.
    pub v: u8,
    /// The source's name in the config.
    pub source: String,
    /// The provider scheme that verified it.
    pub provider: String,
    /// What deduplicates it.
    pub identity: Identity,
    /// The provider's id where it isn't the identity, since the signature doesn't cover it
    /// or it is unfit: for display only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned_id: Option<String>,
    /// The provider's event type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The callback's content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When the ingress had read it.
    #[serde(serialize_with = "as_millis::serialize")]
    pub received_at: Timestamp,
    /// The time that the provider signed, if its scheme has one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_millis::serialize"
    )]
    pub provider_time: Option<Timestamp>,
    /// The name of the secret that fitted.
    pub verified_with: String,
    /// How it came.
    #[serde(default)]
    pub context: Context,
    /// How it came in, if it was refused at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
    /// Whether another body under its identity is the same event, written anew for a retry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renders_retries: bool,
    /// Digest that all callbacks with the same signed bytes share. Set if nothing shows whether this
    /// one is a copy, and no signed time limits how long it can be sent again: then a worker limits
    /// how many of them are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_bytes: Option<Identity>,
    /// Whether a worker of an older version took it for a replay under another unsigned id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected: bool,
    /// Why a worker set it apart from what has the same identity. From then on it is a delivery of
    /// its own, which waits for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_apart: Option<SetApart>,
}

/// In what an event differs from another one with the same identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "differs_in", rename_all = "snake_case")]
pub enum SetApart {
    /// The same signed bytes came under another unsigned id.
    Id,
    /// The same signed bytes came under another unsigned type.
    Type,
    /// The same signed bytes came too often within an hour.
    Repeat,
    /// Another body came under the same id.
    Body {
        /// Its SHA-256, in hex.
        sha256: String,
    },
}

impl SetApart {
    /// Why its dead letter waits.
    pub fn reason(&self) -> DeadReason {
        match self {
            Self::Id | Self::Type | Self::Repeat => DeadReason::SuspectedReplay,
            Self::Body { .. } => DeadReason::Conflict,
        }
    }
}

impl Envelope {
    /// The provider's id for display, signed or not.
    pub fn event_id(&self) -> Option<&str> {
        self.identity.id().or(self.unsigned_id.as_deref())
    }

    /// What names its deliveries: the identity, and the unsigned id with it if it is a
    /// suspected replay.
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
            // Its identity is its own already.
            Some(SetApart::Repeat) | None => self.identity.clone(),
        }
    }

    /// Why it waits for an operator, if a worker set it apart.
    pub fn waits_for(&self) -> Option<DeadReason> {
        let suspected = self.suspected.then_some(DeadReason::SuspectedReplay);
        self.set_apart.as_ref().map(SetApart::reason).or(suspected)
    }

    /// What subscriptions are matched with: `source.event_type`, or `source` alone. In the type, `*`,
    /// `#` and `%` are escaped as in patterns.
    pub fn route(&self) -> String {
        match &self.event_type {
            Some(kind) => format!("{}.{}", self.source, in_route(kind)),
            None => self.source.clone(),
        }
    }
}

/// Who let a callback in that had been refused, after what had been wrong was mended; or an event
/// that hadn't come at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Admitted {
    /// The operator.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why it had been refused, or [`Admitted::NOT_RECEIVED`].
    pub refused_for: String,
}

impl Admitted {
    /// It had not come: it was made from the provider's list of events.
    pub const NOT_RECEIVED: &str = "not_received";
}

/// An event: envelope and exact body bytes.
#[derive(Clone, Debug)]
pub struct Event {
    /// What is known of it.
    pub envelope: Envelope,
    /// The bytes as the provider sent and signed them.
    pub body: Bytes,
}

impl Event {
    /// A verified event of this source.
    pub fn of(source: &Source, verified: VerifiedEvent) -> Self {
        let VerifiedEvent { identity, unsigned_id, event_type, content_type, .. } = verified;
        let VerifiedEvent { received_at, provider_time, verified_with, context, .. } = verified;
        let VerifiedEvent { renders_retries, same_bytes, body, .. } = verified;
        let envelope = Envelope {
            v: 1,
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
        // The provider's list may write the same event in other bytes than its callback does.
        let body = match admitted {
            Some(admitted) if admitted.refused_for == Admitted::NOT_RECEIVED => {
                Fingerprint::UNKNOWN
            }
            _ => Sha256::digest(&self.body).into(),
        };
        Fingerprint { body, id }
    }
}

/// `destination/source/identity`: names one delivery over all its retries and replays,
/// and is what the destination gets as its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryKey(String);

impl DeliveryKey {
    /// Names of sources and destinations hold no `/`, so two keys are equal only if all
    /// three parts are.
    pub fn new(destination: &str, source: &str, identity: &Identity) -> Self {
        Self(format!("{destination}/{source}/{}", identity.as_str()))
    }

    /// A key as an operator writes it or an index holds it. `None` without three parts.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let full = parts.by_ref().take(3).filter(|part| !part.is_empty()).count() == 3;
        full.then(|| Self(text.into()))
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first part.
    pub fn destination(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Its second part.
    pub fn source(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// Its third part.
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
