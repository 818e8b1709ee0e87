//! What a verified callback says: one event with its identity and its context.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::timestamp::Timestamp;

/// The longest provider id that is used as an identity, in bytes. A longer one, or one
/// with anything but visible ASCII, is digested with the body instead: the identity
/// travels in a header and in keys.
pub const MAX_ID: usize = 128;

/// The longest event type kept, in bytes: it becomes part of an AMQP routing key.
pub const MAX_TYPE: usize = 128;

/// The longest content type kept, in bytes. A longer one is left out.
pub const MAX_CONTENT_TYPE: usize = 255;

/// The longest attempt number or reason of a provider kept in a [`Context`], in characters; a longer
/// one is cut off.
pub const MAX_CONTEXT: usize = 200;

/// How a body is known where it isn't shown: its SHA-256 in hex.
pub fn body_sha256(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
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

    /// As text: the provider's id, or `sha256:` and hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a provider's id may be kept as it is: 1 to [`MAX_ID`] bytes of visible ASCII.
pub fn usable_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether an event type may be kept: 1 to [`MAX_TYPE`] bytes without control characters. `%`, `*`
/// and `#` count as three bytes, since they are percent-encoded in a routing key.
pub fn usable_type(kind: &str) -> bool {
    !kind.contains(char::is_control) && (1..=MAX_TYPE).contains(&routing_length(kind))
}

fn routing_length(kind: &str) -> usize {
    kind.len() + 2 * kind.bytes().filter(|byte| b"%*#".contains(byte)).count()
}

/// One event of a verified callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvent {
    /// Two callbacks with the same identity are copies of one event.
    pub identity: Identity,
    /// The provider's id where it isn't the identity, because the signature doesn't cover it or
    /// because [`usable_id`] refuses it. For display only.
    pub unsigned_id: Option<String>,
    /// The provider's event type.
    pub event_type: Option<String>,
    /// The callback's content type, up to [`MAX_CONTENT_TYPE`] bytes.
    pub content_type: Option<String>,
    /// When the callback had been read.
    pub received_at: Timestamp,
    /// The time that the provider signed, if its scheme has one.
    pub provider_time: Option<Timestamp>,
    /// The name of the secret that fits.
    pub verified_with: String,
    /// How the callback came.
    pub context: Context,
    /// Whether the provider may write the body anew for a retry, under the same id.
    pub renders_retries: bool,
    /// A digest that all callbacks with the same signed bytes share. Set if nothing shows whether
    /// this event is a copy, and no signed time limits how long it can be sent again.
    pub same_bytes: Option<Identity>,
    /// The bytes as the provider sent them; in a batch, the item's part of them.
    pub body: Bytes,
}

impl VerifiedEvent {
    /// The provider's id for display, signed or not.
    pub fn event_id(&self) -> Option<&str> {
        self.identity.id().or(self.unsigned_id.as_deref())
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
    fn a_type_is_bounded_as_it_is_in_a_routing_key() {
        for kind in ["orders/create", "Push Hook", "a.*.#", "100%", "Änderung"] {
            assert!(usable_type(kind), "{kind}");
        }
        for kind in ["", "a\nb", &"x".repeat(MAX_TYPE + 1), &"%".repeat(MAX_TYPE)] {
            assert!(!usable_type(kind), "{kind:?}");
        }
    }
}
