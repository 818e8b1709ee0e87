//! What tells a callback from any other where its id isn't signed.

use sha2::{Digest, Sha256};

use super::place::Location;
use super::signature::Piece;
use super::template::Part;
use super::{Judged, Refusal};
use crate::event::Identity;

impl Judged<'_> {
    /// The digest over all that is signed, or over what the entry names instead; but not over the
    /// time, which changes when a provider signs a retry anew. Where something isn't there that the
    /// entry names, it is the body's: two events are never one.
    pub(super) fn identity(&self) -> Result<Identity, Refusal> {
        let (scheme, body) = (&self.source.scheme, &self.callback.body);
        if let Some(named) = &scheme.identity {
            return Ok(self.digest(named.parts()).unwrap_or_else(|| whole(body)));
        }
        // A token signs nothing, and a claim stands for the body: it is what tells two events
        // apart.
        match scheme.is_token() || scheme.claims.is_some() {
            true => Ok(whole(body)),
            false => {
                let signed = self.digest(scheme.signature.content.parts());
                signed.ok_or(Refusal::SignatureMalformed)
            }
        }
    }

    /// Each piece is preceded by its length, so pieces can't run into each other. None: one of them
    /// isn't there.
    fn digest(&self, parts: &[Part]) -> Option<Identity> {
        let mut hash = Sha256::new();
        for part in parts {
            let piece = match part {
                Part::Literal(_)
                | Part::Timestamp
                | Part::Method
                | Part::Url
                | Part::Path
                | Part::Secret
                | Part::At(Location::Item(_)) => continue,
                part => self.content.piece(part)?,
            };
            let Some(length) = piece.len() else { continue };
            hash.update((length as u64).to_be_bytes());
            match piece {
                Piece::Bytes(bytes) => hash.update(bytes),
                Piece::Many(all) => all.iter().for_each(|bytes| hash.update(bytes)),
                Piece::Secret => {}
            }
        }
        Some(Identity::from_digest(&hash.finalize()))
    }
}

/// The identity of what is one whole.
pub(super) fn whole(bytes: &[u8]) -> Identity {
    let mut hash = Sha256::new();
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
    Identity::from_digest(&hash.finalize())
}
