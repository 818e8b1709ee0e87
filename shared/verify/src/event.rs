//! An event of a verified callback, with identity and context.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::timestamp::Timestamp;

/// Maximum length of a provider's id that is used as identity, in bytes. A longer one, or one with
/// characters other than visible ASCII, is not used: identities are part of headers and keys.
pub const MAX_ID: usize = 128;

/// Maximum length of an event type, in bytes: it can become part of an AMQP routing key.
pub const MAX_TYPE: usize = 128;

/// Maximum length of a content type, in bytes. A longer one is left out.
pub const MAX_CONTENT_TYPE: usize = 255;

/// Maximum length of a provider's attempt number or reason in a [`Context`], in characters. A
/// longer one is cut off.
pub const MAX_CONTEXT: usize = 200;

/// SHA-256 of a body, in hex.
pub fn body_sha256(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Identity of an event: copies of one event have the same. It is the provider's id or `sha256:`
/// and a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    const DIGEST: &str = "sha256:";

    /// An identity from a trusted provider's id. `None` if [`usable_id`] refuses the id, or if it
    /// looks like a digest.
    pub fn from_id(id: &str) -> Option<Self> {
        (usable_id(id) && !id.starts_with(Self::DIGEST)).then(|| Self(id.into()))
    }

    /// An identity from a digest of the signed content.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(format!("{}{}", Self::DIGEST, hex::encode(digest)))
    }

    /// The identity of a later item with the same bytes in a batch; `before` is the number of equal
    /// items before it.
    pub(crate) fn again(&self, before: u32) -> Self {
        Self::from_digest(&Sha256::digest(format!("{}\n{before}", self.0)))
    }

    /// An identity from its text, unchecked.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The provider's id, unless it is a digest.
    pub fn id(&self) -> Option<&str> {
        (!self.0.starts_with(Self::DIGEST)).then_some(&self.0)
    }

    /// As text: the provider's id, or `sha256:` and hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a provider's id is usable: 1 to [`MAX_ID`] bytes of visible ASCII.
pub fn usable_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether an event type is usable: 1 to [`MAX_TYPE`] bytes without control characters. `%`, `*`
/// and `#` count as three bytes, because they are percent-encoded in a routing key.
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

/// Context of a callback, for people. It never has a signature or a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Method of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Address of the sender: the provider, or the nearest proxy that isn't trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Headers of the request, without hop-by-hop headers, credentials and signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Query of the request, without signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the signature covers: `body`, `query`, `method`, `type`, and names of headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<String>,
    /// The provider's own attempt count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_attempt: Option<String>,
    /// The provider's own reason for a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_reason: Option<String>,
    /// Weakness of the provider's scheme, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<Weakness>,
    /// Position in the callback, if that had several events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Whether the signature doesn't cover the event type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub type_unsigned: bool,
}

/// A weakness of a provider's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakness {
    /// No signature: the secret itself is sent.
    Token,
    /// The signature doesn't cover the body.
    BodyUnsigned,
    /// The signature covers only a checksum of the body, which protects against nobody.
    Checksum,
    /// A plain digest that can be extended (length extension).
    LengthExtension,
    /// One key signs for all customers of the provider, and nothing names the customer.
    AnyCustomer,
}

impl Weakness {
    /// Description, starting with "it".
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

/// Position of an event in a callback with several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// SHA-256 of the callback's body, in hex.
    pub body_sha256: String,
    /// Number of the event, from 1.
    pub item: u32,
    /// Number of events in the callback.
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
