//! Reads signatures and compares them in constant time.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Refusal;
use super::form::Encoded;
use super::key::Chunks;
use super::place::Lookup;
use super::scheme::{Encoding, Grammar, Signature};
use crate::secret::Secret;

/// Maximum number of signatures in one callback; each costs a comparison.
const MAX_SIGNATURES: usize = 16;

/// What was read of the signatures.
#[derive(Default)]
pub(super) struct Read {
    /// The decoded signatures; any may fit.
    pub(super) signatures: Vec<Vec<u8>>,
    /// The other items of a list: name and value.
    items: Vec<(String, String)>,
}

impl Read {
    /// What will stand beside a signature.
    pub(super) fn of(items: Vec<(String, String)>) -> Self {
        Self { signatures: Vec::new(), items }
    }

    /// The item of this name.
    pub(super) fn item(&self, name: &str) -> Option<&str> {
        let found = self.items.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Two of one name would let a forger choose which one counts: groups may only say the same
    /// again.
    fn keep(&mut self, (name, value): (&str, &str), groups: bool) -> Result<(), Refusal> {
        let again = self.item(name);
        if again.is_some_and(|known| !groups || known != value)
            || self.items.len() == MAX_SIGNATURES
        {
            return Err(Refusal::SignatureMalformed);
        }
        if again.is_none() {
            self.items.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }
}

impl Signature {
    /// Reads every signature, wherever the scheme has them.
    pub(super) fn read(&self, callback: &Lookup<'_>) -> Result<Read, Refusal> {
        let mut read = Read::default();
        let mut found = false;
        for at in &self.at {
            for text in callback.all(at) {
                found = true;
                self.read_text(&text.ok_or(Refusal::SignatureMalformed)?, &mut read)?;
            }
        }
        match (found, read.signatures.is_empty()) {
            (false, _) => Err(Refusal::SignatureMissing),
            (true, true) => Err(Refusal::SignatureMalformed),
            (true, false) => Ok(read),
        }
    }

    fn read_text(&self, text: &str, read: &mut Read) -> Result<(), Refusal> {
        match &self.grammar {
            Grammar::Bare => self.push(text.trim(), read),
            Grammar::Prefix(prefix) => {
                let rest = text.trim().strip_prefix(prefix.as_str());
                self.push(rest.ok_or(Refusal::SignatureMalformed)?, read)
            }
            Grammar::List { separator, assign, item } => {
                let groups = separator.chars().nth(1).is_some();
                for entry in text.split(|c| separator.contains(c)).map(str::trim) {
                    match entry.split_once(assign.as_str()) {
                        Some((name, value)) if name == item || item == "*" => {
                            self.push(value, read)?;
                        }
                        Some(pair) => read.keep(pair, groups)?,
                        None if entry.is_empty() => {}
                        None => return Err(Refusal::SignatureMalformed),
                    }
                }
                Ok(())
            }
            Grammar::TimeFirst => {
                let (time, signatures) =
                    text.trim().split_once(',').ok_or(Refusal::SignatureMalformed)?;
                read.keep(("time", time), false)?;
                signatures.split(',').try_for_each(|text| self.push(text.trim(), read))
            }
            Grammar::Jws => self.read_token(text.trim(), read),
        }
    }

    /// The algorithm is the scheme's: what the token says of it may only agree.
    fn read_token(&self, text: &str, read: &mut Read) -> Result<(), Refusal> {
        // Atlassian has a word of its own for it.
        let bare = ["Bearer ", "JWT "].iter().find_map(|word| text.strip_prefix(word));
        let text = bare.unwrap_or(text);
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(Refusal::SignatureMalformed);
        };
        let said = URL_SAFE_NO_PAD.decode(header).ok();
        let said: Option<Value> = said.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let named = said.as_ref().and_then(|said| said["alg"].as_str());
        if named.is_none() || named != self.algorithm.jws() {
            return Err(Refusal::SignatureMalformed);
        }
        // RFC 7515, section 4.1.11: an extension that isn't understood makes the signature invalid.
        if said.is_some_and(|said| said.get("crit").is_some()) {
            return Err(Refusal::SignatureMalformed);
        }
        read.keep(("header", header), false)?;
        read.keep(("payload", payload), false)?;
        self.push(signature, read)
    }

    fn push(&self, text: &str, read: &mut Read) -> Result<(), Refusal> {
        let bytes = self.encoding.decode(text).ok_or(Refusal::SignatureMalformed)?;
        if bytes.is_empty() || read.signatures.len() == MAX_SIGNATURES {
            return Err(Refusal::SignatureMalformed);
        }
        read.signatures.push(bytes);
        Ok(())
    }

    /// Whether any signature is one that this key makes over the pieces, one of which may be the
    /// secret.
    pub(super) fn fits(
        &self,
        key: &Secret,
        secret: &Secret,
        pieces: &[Piece<'_>],
        read: &Read,
    ) -> bool {
        let signed = Signed { pieces, secret };
        let mut keys = self.key.keys(key).into_iter();
        keys.any(|key| self.algorithm.fits(&key, &signed, &read.signatures))
    }
}

/// A piece of what is signed.
pub(super) enum Piece<'a> {
    /// These bytes.
    Bytes(Cow<'a, [u8]>),
    /// What this stands for.
    Encoded(Encoded<'a>),
    /// These, one after the other.
    Many(Vec<Self>),
    /// The secret that is tried.
    Secret,
}

impl Piece<'_> {
    /// How many bytes it has, if that is no secret.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::Encoded(text) => Some(text.len()),
            Self::Many(all) => all.iter().map(Self::len).sum(),
            Self::Secret => None,
        }
    }

    /// Hands over its bytes.
    pub(super) fn each(&self, secret: &[u8], to: &mut impl FnMut(&[u8])) {
        match self {
            Self::Bytes(bytes) => to(bytes),
            Self::Encoded(text) => text.each(to),
            Self::Many(all) => all.iter().for_each(|piece| piece.each(secret, to)),
            Self::Secret => to(secret),
        }
    }
}

/// What is signed with a secret.
pub(super) struct Signed<'s> {
    pub(super) pieces: &'s [Piece<'s>],
    pub(super) secret: &'s Secret,
}

impl Chunks for Signed<'_> {
    fn each(&self, to: &mut impl FnMut(&[u8])) {
        self.pieces.iter().for_each(|piece| piece.each(self.secret.expose(), to));
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
