//! The seal: the ingress signs what it queues, and workers open nothing else.
//!
//! Somebody with write access to the broker but without a seal key can neither add nor change
//! events. The seal is an HMAC-SHA256 over domain, length of the envelope, envelope and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::event::{Envelope, Event};
use crate::trace::Trace;
use webhook_verify::Secret;

/// Minimum length of a seal key, in bytes.
pub const MIN_KEY: usize = 16;

/// A named key. The seal has the name, so keys can rotate.
#[derive(Clone, Debug)]
pub struct Key {
    /// Unique among the keys; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// At least [`MIN_KEY`] bytes.
    pub secret: Secret,
}

/// A sealed event: exact body, and an envelope that can't be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The envelope's JSON, as sealed.
    pub envelope: Bytes,
    /// `v1,<key name>,<base64 of the HMAC>`.
    pub seal: String,
    /// The provider's body.
    pub body: Bytes,
    /// `source.event_type`, for routing. Not sealed, and not trusted.
    pub route: String,
    /// `source/identity`, the message's id at the broker. Not sealed.
    pub id: String,
    /// Trace. Not sealed.
    pub trace: Option<Trace>,
}

/// Why a seal is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not of the form `v1,name,base64`.
    #[error("the seal has an unknown format")]
    Malformed,
    /// Sealed with a key that the configuration doesn't have.
    #[error("the seal's key is not in [seal] keys")]
    UnknownKey,
    /// The HMAC is wrong.
    #[error("the seal does not match the message")]
    Mismatch,
    /// The seal is valid, but the envelope can't be read.
    #[error("the envelope cannot be read")]
    Envelope,
    /// The seal is valid, and a newer version of Zentra wrote the envelope.
    #[error("a newer version of Zentra wrote the envelope (form {version}): upgrade this one")]
    Newer {
        /// Version of the envelope.
        version: u8,
        /// Time of receipt.
        received_at: Timestamp,
    },
}

/// Seals with the first key, opens with any.
#[derive(Clone, Debug)]
pub struct Sealer {
    keys: Vec<Key>,
}

impl Sealer {
    /// `None` without a key, or if one is too short.
    pub fn new(keys: Vec<Key>) -> Option<Self> {
        let usable = keys.iter().all(|key| key.secret.expose().len() >= MIN_KEY);
        (usable && !keys.is_empty()).then_some(Self { keys })
    }

    /// The keys; the first one seals.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Seals an event with the first key. Also returns its envelope.
    pub fn seal(&self, event: Event) -> Result<(Envelope, Sealed), SealError> {
        let Event { envelope, body } = event;
        let bytes = serde_json::to_vec(&envelope).map_err(|_| SealError::Envelope)?;
        let seal = self.sign(Domain::Event, &bytes, &body)?;
        let id = format!("{}/{}", envelope.source, envelope.name().as_str());
        let route = envelope.route();
        let sealed = Sealed { envelope: bytes.into(), seal, body, route, id, trace: None };
        Ok((envelope, sealed))
    }

    /// Opens a sealed event. The envelope is parsed only after the HMAC was checked.
    pub fn open(&self, sealed: &Sealed) -> Result<Event, SealError> {
        self.check(Domain::Event, &sealed.seal, &sealed.envelope, &sealed.body)?;
        let envelope: Envelope =
            read(&sealed.envelope, Envelope::VERSION, |envelope: &Envelope| envelope.v)?;
        Ok(Event { envelope, body: sealed.body.clone() })
    }

    /// The seal of these bytes with the first key.
    pub fn sign(&self, domain: Domain, envelope: &[u8], body: &[u8]) -> Result<String, SealError> {
        let key = self.keys.first().ok_or(SealError::UnknownKey)?;
        let tag = STANDARD.encode(mac(key, domain, envelope, body)?.finalize().into_bytes());
        Ok(format!("v1,{},{tag}", key.name))
    }

    /// Checks the seal of these bytes.
    pub fn check(
        &self,
        domain: Domain,
        seal: &str,
        envelope: &[u8],
        body: &[u8],
    ) -> Result<(), SealError> {
        let mut parts = seal.splitn(3, ',');
        let (Some("v1"), Some(name), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealError::Malformed);
        };
        let tag = STANDARD.decode(tag).map_err(|_| SealError::Malformed)?;
        let key = self.keys.iter().find(|key| key.name == name);
        let key = key.ok_or(SealError::UnknownKey)?;
        let mac = mac(key, domain, envelope, body)?;
        mac.verify_slice(&tag).map_err(|_| SealError::Mismatch)
    }
}

/// What each version of an envelope has.
#[derive(Deserialize)]
struct Every {
    v: u8,
    received_at: Timestamp,
}

/// Reads a checked envelope of this version.
///
/// # Errors
/// [`SealError::Newer`] for a newer version, [`SealError::Envelope`] for everything else.
pub(crate) fn read<T: DeserializeOwned>(
    envelope: &[u8],
    this: u8,
    version: impl Fn(&T) -> u8,
) -> Result<T, SealError> {
    match serde_json::from_slice(envelope) {
        Ok(read) if version(&read) == this => Ok(read),
        _ => Err(match serde_json::from_slice(envelope) {
            Ok(Every { v, received_at }) if v > this => {
                SealError::Newer { version: v, received_at }
            }
            _ => SealError::Envelope,
        }),
    }
}

/// Domain of a seal. A seal of one domain is invalid in another.
#[derive(Clone, Copy)]
pub enum Domain {
    /// A verified event.
    Event,
    /// A refused callback.
    Refused,
    /// The destination, generation and attempt of a message.
    Attempt,
}

fn mac(key: &Key, domain: Domain, envelope: &[u8], body: &[u8]) -> Result<Hmac<Sha256>, SealError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.secret.expose()).map_err(|_| SealError::UnknownKey)?;
    mac.update(match domain {
        Domain::Event => b"zentra seal v1\n",
        Domain::Refused => b"zentra refused v1\n",
        Domain::Attempt => b"zentra attempt v1\n",
    });
    // With the length, so that no byte can move between envelope and body.
    mac.update(&(envelope.len() as u64).to_be_bytes());
    mac.update(envelope);
    mac.update(body);
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::event::Identity;

    fn key(name: &str, fill: char) -> Key {
        Key { name: name.into(), secret: Secret::new(fill.to_string().repeat(32)) }
    }

    fn event(body: &'static [u8]) -> Event {
        Event {
            envelope: Envelope {
                v: Envelope::VERSION,
                source: "acme".into(),
                provider: "standard-webhooks".into(),
                identity: Identity::from_id("evt_1").unwrap(),
                unsigned_id: None,
                event_type: Some("transfer.settled".into()),
                content_type: None,
                received_at: Timestamp::from_secs(1),
                provider_time: None,
                verified_with: "k1".into(),
                context: Default::default(),
                admitted: None,
                renders_retries: false,
                same_bytes: None,
                suspected: false,
                set_apart: None,
            },
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn a_sealed_event_opens_also_after_its_key_was_rotated_to_second_place() {
        let old = Sealer::new(vec![key("old", 'a')]).unwrap();
        let rotated = Sealer::new(vec![key("new", 'b'), key("old", 'a')]).unwrap();
        let (_, sealed) = old.seal(event(b"{}")).unwrap();
        assert_eq!(sealed.route, "acme.transfer.settled");
        let opened = rotated.open(&sealed).unwrap();
        assert_eq!(opened.body, "{}");
        assert_eq!(opened.envelope.identity.as_str(), "evt_1");
        let retired = Sealer::new(vec![key("new", 'b')]).unwrap();
        assert_eq!(retired.open(&sealed).unwrap_err(), SealError::UnknownKey);
    }

    #[test]
    fn a_short_key_or_none_makes_no_sealer() {
        assert!(Sealer::new(vec![]).is_none());
        let secret = Secret::new("short");
        let name = "k".into();
        assert!(Sealer::new(vec![Key { name, secret }]).is_none());
    }

    #[test]
    fn another_body_or_a_key_of_the_same_name_does_not_open() {
        let sealer = Sealer::new(vec![key("k", 'a')]).unwrap();
        let (_, mut sealed) = sealer.seal(event(b"{}")).unwrap();
        let other = Sealer::new(vec![key("k", 'b')]).unwrap();
        assert_eq!(other.open(&sealed).unwrap_err(), SealError::Mismatch);
        let intact = sealed.clone();
        sealed.body = Bytes::from_static(b"{ }");
        assert_eq!(sealer.open(&sealed).unwrap_err(), SealError::Mismatch);
        // Nor does a byte that has moved from the body to the envelope.
        sealed.envelope = [&intact.envelope[..], &intact.body[..1]].concat().into();
        sealed.body = intact.body.slice(1..);
        assert_eq!(sealer.open(&sealed).unwrap_err(), SealError::Mismatch);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_the_envelope_breaks_the_seal(at in 0usize..10_000, bit in 0u8..8) {
            let sealer = Sealer::new(vec![key("k", 'a')]).unwrap();
            let (_, mut sealed) = sealer.seal(event(b"{}")).unwrap();
            let mut bytes = sealed.envelope.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            sealed.envelope = bytes.into();
            prop_assert_eq!(sealer.open(&sealed).unwrap_err(), SealError::Mismatch);
        }

        #[test]
        fn no_text_as_a_seal_panics_or_opens(text in ".{0,200}") {
            let sealer = Sealer::new(vec![key("k", 'a')]).unwrap();
            let (_, mut sealed) = sealer.seal(event(b"{}")).unwrap();
            sealed.seal = text;
            prop_assert!(sealer.open(&sealed).is_err());
        }
    }
}
