//! The event: a verified callback, and what identifies it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::{Timestamp, as_millis};
use crate::lifecycle::{DeadReason, Print};

/// The longest provider id that is used as an identity, in bytes. A longer one, or one
/// with anything but visible ASCII, is digested with the body instead: the identity
/// travels in a header and in keys.
pub const MAX_ID: usize = 128;

/// The longest event type kept, in bytes: it becomes part of an AMQP routing key.
pub const MAX_TYPE: usize = 128;

/// The longest content type kept, in bytes. Provider and delivery need no longer one, and
/// the envelope has to fit into one AMQP frame.
pub const MAX_CONTENT_TYPE: usize = 255;

/// The longest attempt number or reason of a provider kept in a [`Context`], in characters; a longer
/// one is cut off.
pub const MAX_CONTEXT: usize = 200;

/// How a body is known where it isn't shown: its SHA-256 in hex.
pub fn body_sha256(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Tells one text from another, in the room of eight bytes: the start of its SHA-256.
pub(crate) fn digest_start(text: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn id_print(id: &str) -> [u8; 8] {
    digest_start(id).to_be_bytes()
}

/// What makes two callbacks of one source the same event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    const DIGEST: &str = "sha256:";

    /// The provider's own id, when it can be trusted. `None` if it is empty, too
    /// long, not visible ASCII, or looks like a digest.
    pub fn from_id(id: &str) -> Option<Self> {
        (usable_id(id) && !id.starts_with(Self::DIGEST)).then(|| Self(id.into()))
    }

    /// The digest over body and signed parts, when there is no signed id.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(format!("{}{}", Self::DIGEST, hex::encode(digest)))
    }

    /// The identity of a later item with the same bytes in a batch: `before` is its place among them.
    pub(crate) fn again(&self, before: u32) -> Self {
        Self::from_digest(&Sha256::digest(format!("{}\n{before}", self.0)))
    }

    /// As an operator writes it.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The provider's own id, if that is what it is.
    pub fn id(&self) -> Option<&str> {
        (!self.0.starts_with(Self::DIGEST)).then_some(&self.0)
    }

    /// What came under this identity and isn't the same event: an event of its own, named by what
    /// it differs in.
    fn differing_in(&self, text: &str) -> Self {
        Self(format!("{}+{}", self.0, hex::encode(id_print(text))))
    }

    /// As text: the provider's id, or `sha256:` and hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a provider's id may be kept as it is: 1 to [`MAX_ID`] bytes of visible ASCII.
pub fn usable_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether an event type may be kept: 1 to [`MAX_TYPE`] bytes, as it is in a route, without control
/// characters.
pub fn usable_type(kind: &str) -> bool {
    !kind.contains(char::is_control) && (1..=MAX_TYPE).contains(&in_route(kind).len())
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
                self.identity.differing_in(&format!("{unsigned_id}\n{kind}"))
            }
            Some(SetApart::Body { sha256 }) => self.identity.differing_in(sha256),
            Some(SetApart::Id) => self.identity.differing_in(unsigned_id),
            None if self.suspected => self.identity.differing_in(unsigned_id),
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

/// How a callback came: for an operator to see, and never a signature or a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Context {
    /// The request's method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The address that sent it: the provider's, or that of the nearest proxy that isn't trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub peer: Option<IpAddr>,
    /// The request's headers, but for hop-by-hop ones, credentials and signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The request's query, but for signatures in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What of the request the signature covers: `body`, `query`, `method`, `type`, and names of
    /// headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<String>,
    /// The provider's own count of this delivery, as it sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_attempt: Option<String>,
    /// The provider's own reason for sending it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_reason: Option<String>,
    /// What its provider's scheme leaves open, if it is a weak one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<Weakness>,
    /// The callback that it came in, if that had several events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Whether the signature leaves its type open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub type_unsigned: bool,
}

/// What a provider's scheme leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Weakness {
    /// It signs nothing: the secret itself is sent along.
    Token,
    /// It signs something, but not the body.
    BodyUnsigned,
    /// It signs a checksum of the body that is no protection against anyone.
    Checksum,
    /// It signs by a plain digest that can be gone on with.
    LengthExtension,
    /// It signs for all of the provider's customers by one key, and nothing says for which.
    AnyCustomer,
}

impl Weakness {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Token => {
                "it signs nothing, it sends the secret itself: whoever has seen a callback can \
                 forge any"
            }
            Self::BodyUnsigned => {
                "it doesn't sign the body: whoever has seen a callback can send it with another \
                 body"
            }
            Self::Checksum => {
                "it signs a checksum of the body: whoever has seen a callback can send it with \
                 another body that has the same"
            }
            Self::LengthExtension => {
                "it signs by a plain digest that begins with the secret: whoever has seen a callback \
                 can add to the end of its body (length extension)"
            }
            Self::AnyCustomer => {
                "its provider signs for all customers by the same keys, and nothing says for whom: \
                 any of them can have a callback signed and send it to this address"
            }
        }
    }
}

/// An event's place in the callback that it came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Batch {
    /// The SHA-256 of the callback's body, in hex.
    pub body_sha256: String,
    /// Which one it was, from 1.
    pub item: u32,
    /// Of how many.
    pub of: u32,
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
    /// What its copies have in common.
    pub fn print(&self) -> Print {
        let id = self.envelope.unsigned_id.as_deref().map(id_print);
        let admitted = self.envelope.admitted.as_ref();
        // The provider's list may write the same event in other bytes than its callback does.
        let body = match admitted {
            Some(admitted) if admitted.refused_for == Admitted::NOT_RECEIVED => Print::UNKNOWN,
            _ => Sha256::digest(&self.body).into(),
        };
        Print { body, id }
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
    fn an_id_that_could_break_a_header_or_pass_for_a_digest_is_no_identity() {
        assert!(Identity::from_id("evt_1").is_some());
        for id in ["", "a b", "é", "sha256:00", "a\r\nb", &"x".repeat(MAX_ID + 1)] {
            assert!(Identity::from_id(id).is_none(), "{id:?}");
        }
    }

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
            assert!(usable_type(kind), "{kind}");
            assert_eq!(format!("s.{}", in_route(kind)), route);
        }
        for kind in ["", "a\nb", &"x".repeat(MAX_TYPE + 1), &"%".repeat(MAX_TYPE)] {
            assert!(!usable_type(kind), "{kind:?}");
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
