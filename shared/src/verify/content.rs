//! What a signature covers, taken out of a callback: the same for who verifies and who signs.

use std::borrow::Cow;
use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;

use super::Refusal;
use super::place::{Location, Lookup};
use super::pointer::text_at;
use super::scheme::Scheme;
use super::signature::{Piece, Read};
use super::template::Part;

/// A callback as its scheme looks at it.
pub(super) struct Content<'a> {
    pub(super) scheme: &'a Scheme,
    pub(super) body: &'a [u8],
    /// Where it was sent, as the provider knows it, with the query.
    pub(super) url: Option<String>,
    pub(super) found: Lookup<'a>,
    pub(super) read: Read,
    time: OnceCell<Option<String>>,
}

impl<'a> Content<'a> {
    pub(super) fn new(
        scheme: &'a Scheme,
        body: &'a [u8],
        url: Option<String>,
        found: Lookup<'a>,
        read: Read,
    ) -> Self {
        Self { scheme, body, url, found, read, time: OnceCell::new() }
    }

    /// The signed content, in pieces.
    pub(super) fn pieces(&self) -> Result<Vec<Piece<'_>>, Refusal> {
        let parts = self.scheme.signature.content.parts().iter();
        let pieces = parts.map(|part| self.piece(part).ok_or(Refusal::SignatureMalformed));
        pieces.collect()
    }

    pub(super) fn piece<'p>(&'p self, part: &'p Part) -> Option<Piece<'p>> {
        let text = |text: Cow<'p, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        let bytes = match part {
            Part::Literal(literal) => Cow::Borrowed(literal.as_bytes()),
            Part::Body => Cow::Borrowed(self.body),
            Part::Form => return self.sorted_form().map(Piece::Many),
            Part::Timestamp => Cow::Borrowed(self.time()?.as_bytes()),
            Part::At(at) => text(self.at(at)?),
            Part::Lower(at) => text(Cow::Owned(self.at(at)?.to_lowercase())),
            Part::Maybe(at) => text(self.at(at).unwrap_or_default()),
            // Nothing else is let in.
            Part::Method => Cow::Borrowed(&b"POST"[..]),
            Part::Url => Cow::Borrowed(self.url.as_ref()?.as_bytes()),
            Part::Path => {
                let url = self.url.as_ref()?.parse::<Uri>().ok()?;
                Cow::Owned(url.path().as_bytes().to_vec())
            }
            Part::Canonical(form) => {
                let url = self.url.as_deref();
                return form.content(&self.found, &self.read, url, self.body).map(Piece::Many);
            }
            Part::Secret => return Some(Piece::Secret),
        };
        Some(Piece::Bytes(bytes))
    }

    pub(super) fn at(&self, at: &Location) -> Option<Cow<'_, str>> {
        match at {
            Location::Item(name) => self.read.item(name).map(Cow::Borrowed),
            Location::Claim(name) => self.claim(name).map(Cow::Owned),
            _ => self.found.text(at),
        }
    }

    /// A claim of the token that the signature is: a string or a number.
    fn claim(&self, name: &str) -> Option<String> {
        let payload = URL_SAFE_NO_PAD.decode(self.read.item("payload")?).ok()?;
        text_at(&payload, &format!("/{}", name.replace('~', "~0").replace('/', "~1")))
    }

    /// The time as the provider wrote it; that in a token is read once its signature fits. Looked
    /// for once: it may be in the body, and is needed for the signature and for itself.
    pub(super) fn time(&self) -> Option<&str> {
        let find = || Some(self.at(&self.scheme.timestamp.as_ref()?.at)?.into_owned());
        self.time.get_or_init(find).as_deref()
    }

    fn sorted_form(&self) -> Option<Vec<Piece<'_>>> {
        let mut fields = self.found.form()?.to_vec();
        fields.sort_by_key(|(name, _)| *name);
        let texts = fields.into_iter().flat_map(|(name, value)| [name, value]);
        Some(texts.map(Piece::Encoded).collect())
    }
}
