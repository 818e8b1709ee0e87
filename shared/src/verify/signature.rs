//! Reading a signature header and comparing what it holds, in constant time.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use super::Refusal;
use super::scheme::{Encoding, Grammar, KeyFormat, Signature};
use crate::secret::Secret;

/// The most signatures looked at in one callback: each costs a comparison.
const MAX_SIGNATURES: usize = 16;

/// What a signature header holds.
pub(super) struct Read<'a> {
    /// The decoded signatures; any may fit.
    pub(super) signatures: Vec<Vec<u8>>,
    /// The other items of a list: name and value.
    pub(super) items: Vec<(&'a str, &'a str)>,
}

impl Read<'_> {
    /// The one item of this name. Two would let a forger choose which one counts.
    pub(super) fn item(&self, name: &str) -> Option<&str> {
        let mut found = self.items.iter().filter(|(key, _)| *key == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(*value)
    }
}

impl Signature {
    /// Reads every line of the signature header.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap) -> Result<Read<'a>, Refusal> {
        let mut read = Read { signatures: Vec::new(), items: Vec::new() };
        let mut lines = headers.get_all(&self.header).iter().peekable();
        if lines.peek().is_none() {
            return Err(Refusal::SignatureMissing);
        }
        for line in lines {
            let text = line.to_str().map_err(|_| Refusal::SignatureMalformed)?;
            self.read_line(text, &mut read)?;
        }
        if read.signatures.is_empty() {
            return Err(Refusal::SignatureMalformed);
        }
        Ok(read)
    }

    fn read_line<'a>(&self, text: &'a str, read: &mut Read<'a>) -> Result<(), Refusal> {
        match &self.grammar {
            Grammar::Bare => self.push(text.trim(), read),
            Grammar::Prefix(prefix) => {
                let rest = text.trim().strip_prefix(prefix.as_str());
                self.push(rest.ok_or(Refusal::SignatureMalformed)?, read)
            }
            Grammar::List { separator, assign, item } => {
                for entry in text.split(*separator).map(str::trim) {
                    match entry.split_once(*assign) {
                        Some((name, value)) if name == item => self.push(value, read)?,
                        Some(pair) if read.items.len() < MAX_SIGNATURES => read.items.push(pair),
                        _ if entry.is_empty() => {}
                        _ => return Err(Refusal::SignatureMalformed),
                    }
                }
                Ok(())
            }
        }
    }

    fn push(&self, text: &str, read: &mut Read<'_>) -> Result<(), Refusal> {
        let bytes = match self.encoding {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => STANDARD.decode(text).ok(),
        };
        let bytes = bytes.ok_or(Refusal::SignatureMalformed)?;
        if bytes.is_empty() || read.signatures.len() == MAX_SIGNATURES {
            return Err(Refusal::SignatureMalformed);
        }
        read.signatures.push(bytes);
        Ok(())
    }

    /// Whether any signature is the one that this secret makes over the pieces.
    pub(super) fn fits(&self, secret: &Secret, pieces: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        let Some(mac) = self.key.mac(secret) else {
            return false;
        };
        let mac = pieces.iter().fold(mac, |mac, piece| mac.chain_update(piece));
        // Every one is compared, in constant time each.
        signatures
            .iter()
            .fold(false, |fits, candidate| fits | mac.clone().verify_slice(candidate).is_ok())
    }
}

impl KeyFormat {
    /// Whether a secret has this format: told at start rather than at each callback.
    pub fn accepts(self, secret: &Secret) -> bool {
        self.mac(secret).is_some()
    }

    pub(crate) fn mac(self, secret: &Secret) -> Option<Hmac<Sha256>> {
        let bytes = secret.expose();
        if bytes.is_empty() {
            return None;
        }
        match self {
            Self::Utf8 => Hmac::new_from_slice(bytes).ok(),
            Self::Whsec => {
                let text = bytes.strip_prefix(b"whsec_").unwrap_or(bytes);
                let key = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
                Hmac::new_from_slice(&key.ok().filter(|key| !key.is_empty())?).ok()
            }
        }
    }
}
