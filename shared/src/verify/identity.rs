//! What tells a callback from any other where its id isn't signed.

use sha2::{Digest, Sha256};

use super::Judged;
use super::place::Location;
use super::signature::Piece;
use super::template::Part;
use crate::event::Identity;

impl Judged<'_> {
    /// The digest over all that is signed, whose pieces these are, or over what the entry names
    /// instead; but not over the time, which changes when a provider signs a retry anew. Where
    /// something isn't there that the entry names, it is the body's: two events are never one.
    pub(super) fn identity(&self, signed: &[Piece<'_>]) -> Identity {
        let (scheme, body) = (&self.source.scheme, &self.callback.body);
        if let Some(named) = &scheme.identity {
            let pieces = named.parts().iter().map(|part| self.content.piece(part));
            let pieces: Option<Vec<_>> = pieces.collect();
            return pieces.map_or_else(|| whole(body), |pieces| digest(named.parts(), &pieces));
        }
        // A token signs nothing, and a claim stands for the body: it is what tells two events
        // apart.
        match scheme.is_token() || scheme.claims.is_some() {
            true => whole(body),
            false => digest(scheme.signature.content.parts(), signed),
        }
    }
}

/// Each part's piece is preceded by its length, so pieces can't run into each other.
fn digest(parts: &[Part], pieces: &[Piece<'_>]) -> Identity {
    let mut hash = Sha256::new();
    for (part, piece) in parts.iter().zip(pieces) {
        if matches!(
            part,
            Part::Literal(_)
                | Part::Timestamp
                | Part::Method
                | Part::Url
                | Part::Path
                | Part::Secret
                | Part::At(Location::Item(_))
        ) {
            continue;
        }
        let Some(length) = piece.len() else { continue };
        hash.update((length as u64).to_be_bytes());
        piece.each(b"", &mut |bytes| hash.update(bytes));
    }
    Identity::from_digest(&hash.finalize())
}

/// The identity of what is one whole.
pub(super) fn whole(bytes: &[u8]) -> Identity {
    let mut hash = Sha256::new();
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
    Identity::from_digest(&hash.finalize())
}
