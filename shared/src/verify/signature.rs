//! Reading a signature header and comparing what it holds, in constant time.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::HeaderMap;

use super::Refusal;
use super::scheme::{Encoding, Grammar, Signature};
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
        let bytes = self.encoding.decode(text).ok_or(Refusal::SignatureMalformed)?;
        if bytes.is_empty() || read.signatures.len() == MAX_SIGNATURES {
            return Err(Refusal::SignatureMalformed);
        }
        read.signatures.push(bytes);
        Ok(())
    }

    /// Whether any signature is the one that this secret makes over the pieces.
    pub(super) fn fits(&self, secret: &Secret, pieces: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        let key = self.key.key(secret);
        key.is_some_and(|key| self.algorithm.fits(&key, pieces, signatures))
    }
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok(),
            Self::Base64url => URL_SAFE.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok(),
            Self::Text => Some(text.as_bytes().to_vec()),
        }
    }

    /// As a provider would write it.
    pub(super) fn encode(self, bytes: &[u8]) -> Option<String> {
        Some(match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64url => URL_SAFE_NO_PAD.encode(bytes),
            Self::Text => String::from_utf8(bytes.to_vec()).ok()?,
        })
    }
}
