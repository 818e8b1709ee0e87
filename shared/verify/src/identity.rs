//! The identity of an event without a trusted id, and whether the signed content can be split in
//! one way only.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::place::{Location, Lookup};
use super::signature::Piece;
use super::template::Part;
use super::{Judged, Refusal};
use crate::event::Identity;
use crate::timestamp::Timestamp;

/// A text that reads as a time within this distance from the receipt could be taken for the signed
/// time.
const PLAUSIBLE: Duration = Duration::from_secs(400 * 24 * 3600);

/// Maximum number of digits of a time.
const MOST_DIGITS: usize = 32;

/// One event of a callback with several.
pub(super) struct Item<'a> {
    /// Its bytes.
    pub(super) body: &'a Bytes,
    /// Number of items with the same bytes before it.
    pub(super) before: u32,
    /// Its fields.
    pub(super) found: Lookup<'a>,
}

impl Judged<'_> {
    /// The digest over all that is signed, whose pieces these are, or over what the entry names
    /// instead; but not over the time, which changes when a provider signs a retry anew. Where
    /// something isn't there that the entry names, it is the body's: two events are never one.
    ///
    /// The second one is [`VerifiedEvent::same_bytes`].
    ///
    /// [`VerifiedEvent::same_bytes`]: crate::VerifiedEvent::same_bytes
    pub(super) fn identity(
        &self,
        signed: &[Piece<'_>],
        ambiguous: bool,
        item: Option<&Item<'_>>,
        event_type: Option<&str>,
    ) -> (Identity, Option<Identity>) {
        let scheme = &self.endpoint.scheme;
        let before = item.map(|item| item.before).filter(|before| *before > 0);
        let mut digest = self.digest(signed, ambiguous, item);
        // The type is unsigned, so it isn't part of this digest.
        let mut same_bytes = digest.clone();
        if scheme.types_share_bytes {
            digest.add(event_type.unwrap_or_default().as_bytes());
        }
        if let Some(before) = before {
            digest.add(&before.to_be_bytes());
            same_bytes.add(&before.to_be_bytes());
        }
        let lacks = self.lacks_what_tells_it_apart(item);
        if !scheme.repeats && !lacks {
            return (digest.identity(), None);
        }
        if let Some(time) = self.signed_time() {
            digest.add(time.as_bytes());
            return (digest.identity(), None);
        }
        digest.add(&self.callback.receipt.to_be_bytes());
        // A limit doesn't help against somebody who has seen a token.
        let limited = lacks && !scheme.is_token();
        (digest.identity(), limited.then(|| same_bytes.identity()))
    }

    /// Whether the entry names what differs between any two events, and this one hasn't it. Where the
    /// signature leaves that open, whoever has seen a callback could leave it out: then it isn't asked.
    fn lacks_what_tells_it_apart(&self, item: Option<&Item<'_>>) -> bool {
        let scheme = &self.endpoint.scheme;
        let place = scheme.told_apart_by.as_ref().filter(|at| scheme.covers(at));
        place.is_some_and(|at| self.find(at, item).is_none_or(|found| found.is_empty()))
    }

    /// The value at a place: in the item, if there is one and the place is in the body.
    pub(super) fn find(&self, at: &Location, item: Option<&Item<'_>>) -> Option<String> {
        match item.filter(|_| at.is_in_body()) {
            Some(item) => Some(item.found.text(at)?.into_owned()),
            None => Some(self.content.at(at)?.into_owned()),
        }
    }

    fn digest(&self, signed: &[Piece<'_>], ambiguous: bool, item: Option<&Item<'_>>) -> Fields {
        let (scheme, body) = (&self.endpoint.scheme, &self.callback.body);
        if let Some(named) = &scheme.identity {
            let pieces = named.parts().iter().map(|part| self.content.piece(part));
            let pieces: Option<Vec<_>> = pieces.collect();
            let own = pieces.map_or_else(|| Fields::of(body), |all| declared(named.parts(), &all));
            return match item {
                Some(item) => own.and(item.body),
                None => own,
            };
        }
        if let Some(item) = item {
            return Fields::of(item.body);
        }
        let parts = self.template().parts();
        match () {
            // A token signs nothing, and a claim stands for the body: it is what tells two events
            // apart.
            () if scheme.is_token() || scheme.claims.is_some() => Fields::of(body),
            // The SDK's other forms of a content are the same bytes in the end.
            () if ambiguous || !scheme.signature.also.is_empty() => run_together(parts, signed),
            () => fields(parts, signed),
        }
    }

    /// The text of the signed time, if the signature covers one.
    fn signed_time(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.content.at(&self.endpoint.scheme.timestamp.as_ref()?.at)
    }

    /// Whether the signed bytes can be taken apart in another way: a text holds what stands between
    /// it and the next one. What is read from such a place could be another's.
    pub(super) fn is_ambiguous(&self, signed: &[Piece<'_>]) -> bool {
        let parts = self.template().parts();
        if self.endpoint.scheme.claims.is_some() {
            return false;
        }
        let adjoin = |two: &[Part]| two.contains(&Part::Url) && two.contains(&Part::Form);
        if parts.windows(2).any(adjoin) {
            return true;
        }
        let around = |at: usize| {
            let neighbours = [at.checked_sub(1), at.checked_add(1)].into_iter().flatten();
            neighbours.filter_map(|at| match parts.get(at) {
                Some(Part::Literal(text)) => Some(text.as_str()),
                _ => None,
            })
        };
        let texts = parts.iter().zip(signed).enumerate().filter_map(|(at, (part, piece))| {
            let text = match (part.place(), piece) {
                (Some(_), Piece::Bytes(bytes)) => std::str::from_utf8(bytes).ok()?,
                _ => return None,
            };
            Some((at, text))
        });
        let mut texts = texts.filter(|_| parts.len() > 1);
        texts.any(|(at, text)| around(at).any(|between| text.contains(between)))
    }

    /// Refuses what is genuine as a whole and taken apart in another way than its provider did: a
    /// text that has swallowed the signed time, or an address that has swallowed a part of the body.
    pub(super) fn cut_as_sent(&self, signed: &[Piece<'_>]) -> Result<(), Refusal> {
        let scheme = &self.endpoint.scheme;
        if scheme.url_adjoins_body() {
            let query = self.callback.query.as_deref().unwrap_or_default();
            let json = |byte: &u8| b"{[\"".contains(byte) || byte.is_ascii_whitespace();
            let body = self.callback.body.first();
            if !query.bytes().all(in_query) || !body.is_none_or(json) {
                return Err(Refusal::SignatureMalformed);
            }
        }
        let parts = self.template().parts();
        // A text beside the body that holds what stands between them has swallowed a part of it.
        let swallows = parts.windows(3).zip(signed.windows(3)).any(|(three, pieces)| {
            let [first, Part::Literal(between), last] = three else { return false };
            let text = match (first.is_body(), last.is_body()) {
                (true, false) if last.place().is_some() => &pieces[2],
                (false, true) if first.place().is_some() => &pieces[0],
                _ => return false,
            };
            let Piece::Bytes(bytes) = text else { return false };
            std::str::from_utf8(bytes).is_ok_and(|text| text.contains(between.as_str()))
        });
        if swallows {
            return Err(Refusal::SignatureMalformed);
        }
        let Some(time) = parts.iter().position(|part| *part == Part::Timestamp) else {
            return Ok(());
        };
        let literal = |at: Option<usize>| match at.and_then(|at| parts.get(at)) {
            Some(Part::Literal(text)) => text.as_str(),
            _ => "",
        };
        let (before, after) = (literal(time.checked_sub(1)), literal(Some(time + 1)));
        let texts = parts[..time].iter().zip(signed).filter_map(|(part, piece)| match piece {
            Piece::Bytes(bytes) if part.place().is_some() => std::str::from_utf8(bytes).ok(),
            _ => None,
        });
        let mut texts = texts.peekable();
        // What stands before the time may have been shortened as well: then the body has the rest.
        let left = texts.peek().is_some() && self.begins_with_time(after);
        match left || texts.any(|text| self.holds_time(text, before, after)) {
            true => Err(Refusal::SignatureMalformed),
            false => Ok(()),
        }
    }

    fn begins_with_time(&self, after: &str) -> bool {
        let start = self.callback.body.get(..32).unwrap_or(&self.callback.body);
        let text = std::str::from_utf8(start).unwrap_or_default();
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        match after {
            "" => self.holds_time(text.get(..19).unwrap_or_default(), "", ""),
            after => {
                digits.starts_with(after)
                    && self.holds_time(&text[..text.len() - digits.len()], "", after)
            }
        }
    }

    /// Whether a text holds a time of now between what stands around the signed one.
    fn holds_time(&self, text: &str, before: &str, after: &str) -> bool {
        let Some(rule) = &self.endpoint.scheme.timestamp else { return false };
        let now = self.callback.received_at;
        let near = |time: Timestamp| now.since(time).max(time.since(now)) < PLAUSIBLE;
        let starts = text.char_indices().map(|(at, _)| &text[at..]);
        let mut times = starts.filter_map(|rest| rest.strip_prefix(before));
        times.any(|rest| {
            // A number ends with its digits.
            let digits = rest.bytes().take(MOST_DIGITS).take_while(u8::is_ascii_digit).count();
            let ended = digits < 10 || rest[digits..].starts_with(after) || digits == rest.len();
            ended && rule.unit.starting(rest).is_some_and(near)
        })
    }
}

/// What may stand in a query as it is (RFC 3986, section 3.4).
fn in_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

/// The length precedes each piece, so pieces can't be shifted.
fn fields(parts: &[Part], pieces: &[Piece<'_>]) -> Fields {
    let mut all = Fields::default();
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
        all.0.update((length as u64).to_be_bytes());
        piece.each(b"", &mut |bytes| all.0.update(bytes));
    }
    all
}

/// The same, of what an entry names: all of it but literal text.
fn declared(parts: &[Part], pieces: &[Piece<'_>]) -> Fields {
    let mut all = Fields::default();
    for (_, piece) in parts.iter().zip(pieces).filter(|(part, _)| !matches!(part, Part::Literal(_)))
    {
        let Some(length) = piece.len() else { continue };
        all.0.update((length as u64).to_be_bytes());
        piece.each(b"", &mut |bytes| all.0.update(bytes));
    }
    all
}

/// As they are signed, but for the time and the secret: the same, however they are taken apart.
fn run_together(parts: &[Part], pieces: &[Piece<'_>]) -> Fields {
    let mut all = Fields::default();
    for (part, piece) in parts.iter().zip(pieces) {
        if !matches!(part, Part::Timestamp | Part::Secret) {
            piece.each(b"", &mut |bytes| all.0.update(bytes));
        }
    }
    all
}

/// The input of an identity's digest.
#[derive(Clone, Default)]
struct Fields(Sha256);

impl Fields {
    fn of(bytes: &[u8]) -> Self {
        Self::default().and(bytes)
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    /// Adds bytes after their length.
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn identity(self) -> Identity {
        Identity::from_digest(&self.0.finalize())
    }
}
