//! Signed content of a callback, for verification and signing.

use std::borrow::Cow;
use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Uri};

use super::Refusal;
use super::form::by_name;
use super::place::{Location, Lookup};
use super::pointer::text_at;
use super::scheme::Scheme;
use super::signature::{Piece, Read};
use super::template::{Part, Template};

/// A callback as its scheme looks at it.
pub(super) struct Content<'a> {
    pub(super) scheme: &'a Scheme,
    method: &'a Method,
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
        method: &'a Method,
        body: &'a [u8],
        url: Option<String>,
        found: Lookup<'a>,
        read: Read,
    ) -> Self {
        Self { scheme, method, body, url, found, read, time: OnceCell::new() }
    }

    /// What a template stands for in this callback, in pieces.
    pub(super) fn pieces<'p>(&'p self, of: &'p Template) -> Result<Vec<Piece<'p>>, Refusal> {
        let parts = of.parts().iter();
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
            Part::Body => Cow::Borrowed(self.signed_body()?),
            Part::Form => return self.sorted_form().map(Piece::Many),
            Part::Timestamp => Cow::Borrowed(self.time()?.as_bytes()),
            Part::At(at) => text(self.at(at)?),
            Part::Lower(at) => text(Cow::Owned(self.at(at)?.to_lowercase())),
            // Of two, the provider meant one.
            Part::Maybe(Location::Header(name)) if self.found.is_doubled(name) => return None,
            Part::Maybe(at) => text(self.at(at).unwrap_or_default()),
            Part::Method => Cow::Borrowed(self.method.as_str().as_bytes()),
            Part::Url => Cow::Borrowed(self.url.as_ref()?.as_bytes()),
            Part::Path => {
                let url = self.url.as_ref()?.parse::<Uri>().ok()?;
                Cow::Owned(url.path().as_bytes().to_vec())
            }
            Part::Canonical(form) => {
                let url = self.url.as_deref();
                let body = self.signed_body()?;
                return form.content(&self.found, &self.read, url, body).map(Piece::Many);
            }
            Part::Secret => return Some(Piece::Secret),
        };
        Some(Piece::Bytes(bytes))
    }

    /// The bytes that the provider has signed: as they were sent, or before it compressed them.
    fn signed_body(&self) -> Option<&[u8]> {
        match self.scheme.signs_decoded_body {
            true => self.found.plain().ok(),
            false => Some(self.body),
        }
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
        let texts = by_name(self.found.form()?).into_iter().flat_map(|(name, value)| [name, value]);
        Some(texts.map(Piece::Encoded).collect())
    }
}
