//! Places in a callback, and lookups.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::io::Read;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Deserializer};

use super::Refusal;
use super::form::{Parameter, parameters};
use super::multipart::{self, Field};
use super::pointer::{text_at, texts_at};

/// A place of a value in a callback.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Location {
    /// Value of a header.
    Header(#[serde(deserialize_with = "header_name")] HeaderName),
    /// An item of the signature's list.
    Item(String),
    /// A claim of the token that the signature is.
    Claim(String),
    /// A string or number in the JSON body, by JSON pointer (RFC 6901).
    Json(String),
    /// A parameter of the request's query.
    Query(String),
    /// A field of the body, an `application/x-www-form-urlencoded` form.
    Form(String),
    /// A field of the body, a `multipart/form-data` form; or what is in the field's JSON, by a
    /// pointer behind its name: `json/event/type`.
    Multipart(String),
    /// Values of all these places, with `:` between.
    All(Vec<Self>),
    /// The first of these places that has a value.
    Any(Vec<Self>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Item(name) => write!(f, "item `{name}` of the signature"),
            Self::Claim(name) => write!(f, "claim `{name}` of the token"),
            Self::Json(pointer) => write!(f, "`{pointer}` of the JSON body"),
            Self::Query(name) => write!(f, "parameter `{name}` of the query"),
            Self::Form(name) => write!(f, "field `{name}` of the form"),
            Self::Multipart(path) => match multipart::split(path) {
                (name, "") => write!(f, "field `{name}` of the multipart form"),
                (name, pointer) => {
                    write!(f, "`{pointer}` of the JSON in field `{name}` of the multipart form")
                }
            },
            Self::All(places) => {
                let places: Vec<String> = places.iter().map(ToString::to_string).collect();
                f.write_str(&places.join(", "))
            }
            Self::Any(places) => {
                let places: Vec<String> = places.iter().map(ToString::to_string).collect();
                f.write_str(&places.join(" or "))
            }
        }
    }
}

impl Location {
    /// The single places of this place.
    pub(super) fn each(&self) -> Vec<&Self> {
        match self {
            Self::All(places) | Self::Any(places) => places.iter().flat_map(Self::each).collect(),
            one => vec![one],
        }
    }

    /// The single places that signing fills: of alternatives, the first.
    pub(super) fn filled(&self) -> Vec<&Self> {
        match self {
            Self::All(places) => places.iter().flat_map(Self::filled).collect(),
            Self::Any(places) => places.first().map(Self::filled).unwrap_or_default(),
            one => vec![one],
        }
    }

    /// Whether all of it is in the body.
    pub(super) fn is_in_body(&self) -> bool {
        let inside = |at: &Self| matches!(at, Self::Json(_) | Self::Form(_) | Self::Multipart(_));
        self.each().into_iter().all(inside)
    }

    /// The place of the time in the time-first grammar.
    pub(super) fn time_first() -> Self {
        Self::Item("time".into())
    }
}

pub(super) fn header_name<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(from)?;
    HeaderName::try_from(text).map_err(|_| serde::de::Error::custom("not a header name"))
}

/// Lookups in a callback. Parsing happens at the first use.
pub(super) struct Lookup<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    body: &'a [u8],
    /// Maximum size after decompression, in bytes.
    most: usize,
    decoded: OnceCell<Result<Option<Bytes>, Refusal>>,
    form: OnceCell<Option<Vec<Parameter<'a>>>>,
    fields: OnceCell<Option<Vec<Field<'a>>>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(headers: &'a HeaderMap, query: Option<&'a str>, body: &'a [u8]) -> Self {
        let (form, fields) = (OnceCell::new(), OnceCell::new());
        Self { headers, query, body, most: MOST, decoded: OnceCell::new(), form, fields }
    }

    /// The same, with another bound for what is compressed.
    pub(super) fn within(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The body without its compression, if that is one that is known and fits. A byte order mark
    /// before JSON isn't part of it (RFC 8259, section 8.1): see [`Lookup::json`].
    pub(super) fn plain(&self) -> Result<&[u8], Refusal> {
        let decode = || {
            let encoding = self.header(&header::CONTENT_ENCODING).unwrap_or_default();
            decoded(encoding, self.body, self.most)
        };
        match self.decoded.get_or_init(decode) {
            Ok(Some(plain)) => Ok(plain),
            Ok(None) => Ok(self.body),
            Err(refusal) => Err(*refusal),
        }
    }

    /// The same, as bytes that share the body's memory where nothing was compressed.
    pub(super) fn plain_bytes(&self, body: &Bytes) -> Result<Bytes, Refusal> {
        self.plain()?;
        let plain = match self.decoded.get() {
            Some(Ok(Some(plain))) => plain.clone(),
            _ => body.clone(),
        };
        let mark = plain.len() - without_mark(&plain).len();
        Ok(plain.slice(mark..))
    }

    fn json(&self) -> &[u8] {
        without_mark(self.plain().unwrap_or_default())
    }

    /// The value at a place, if it occurs exactly once.
    pub(super) fn text(&self, at: &Location) -> Option<Cow<'_, str>> {
        match at {
            Location::Header(name) => self.header(name).map(Cow::Borrowed),
            Location::Json(pointer) => text_at(self.json(), pointer).map(Cow::Owned),
            Location::Query(name) => only(&parameters(self.query?.as_bytes())?, name),
            Location::Form(name) => {
                let read = self.form.get().is_some() || may_name(self.body, name);
                only(read.then(|| self.form())??, name)
            }
            Location::Multipart(path) => multipart::text(self.fields()?, path),
            Location::All(places) => {
                let texts: Option<Vec<_>> = match pointers(places) {
                    Some(pointers) => {
                        let texts = texts_at(self.json(), &pointers).into_iter();
                        texts.map(|text| text.map(Cow::Owned)).collect()
                    }
                    None => places.iter().map(|at| self.text(at)).collect(),
                };
                Some(Cow::Owned(texts?.join(":")))
            }
            Location::Any(places) => places.iter().find_map(|at| self.text(at)),
            Location::Item(_) | Location::Claim(_) => None,
        }
    }

    /// All that is at a place: each line of a header, or the one value elsewhere. `None` where a
    /// header's line is no text.
    pub(super) fn all(&self, at: &Location) -> Vec<Option<Cow<'_, str>>> {
        match at {
            Location::Header(name) => {
                let lines = self.headers.get_all(name).iter();
                lines.map(|line| line.to_str().ok().map(Cow::Borrowed)).collect()
            }
            _ => self.text(at).map(Some).into_iter().collect(),
        }
    }

    pub(super) fn is_doubled(&self, name: &HeaderName) -> bool {
        self.headers.get_all(name).iter().nth(1).is_some()
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&'a str> {
        one(self.headers.get_all(name).iter())?.to_str().ok()
    }

    /// The body's fields, in their order.
    pub(super) fn form(&self) -> Option<&[Parameter<'a>]> {
        self.form.get_or_init(|| parameters(self.body)).as_deref()
    }

    /// The same, where it is a multipart form.
    pub(super) fn fields(&self) -> Option<&[Field<'a>]> {
        let read = || multipart::fields(self.header(&header::CONTENT_TYPE)?, self.body);
        self.fields.get_or_init(read).as_deref()
    }
}

/// Default maximum size after decompression.
const MOST: usize = 1 << 20;
/// The members of a gzip file that are read: senders write one. Each costs as much as 1 KiB, however
/// short it is.
const MEMBERS: usize = 16;

/// A body without its compression (RFC 9110, section 8.4). None where it isn't compressed, not in a
/// way that is known, or not what its header says: then it is looked at as it is.
fn decoded(encoding: &str, body: &[u8], most: usize) -> Result<Option<Bytes>, Refusal> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = |from: &mut dyn Read| {
        let mut plain = Vec::new();
        from.take(limit).read_to_end(&mut plain).ok().map(|_| plain)
    };
    // The header isn't signed: whoever leaves it out must not hide the id. No JSON begins so.
    let plain = match (body, encoding.trim().to_ascii_lowercase().as_str()) {
        _ if begins_as_gzip(body) => gunzipped(body, limit),
        _ if begins_as_zlib(body) => read(&mut ZlibDecoder::new(body)),
        // By RFC 9110 it is zlib's form; some send the bare one.
        (_, "deflate") if !begins_as_json(body) => read(&mut DeflateDecoder::new(body)),
        _ => None,
    };
    match plain {
        Some(plain) if plain.len() > most => Err(Refusal::BodyTooLarge),
        plain => Ok(plain.map(Bytes::from)),
    }
}

fn begins_as_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

fn begins_as_zlib(body: &[u8]) -> bool {
    matches!(body, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..])
}

/// Such a body is no compressed one, but its first byte could begin one: whoever adds the header, which
/// nothing signs, must not hide what is in it. Compressed JSON begins otherwise (RFC 1951, section 3.2).
fn begins_as_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    matches!(body.trim_ascii_start(), [b'{' | b'[', ..])
}

/// Whether a body is compressed.
pub(super) fn is_compressed(headers: &HeaderMap, body: &[u8]) -> bool {
    let begins = begins_as_gzip(body) || begins_as_zlib(body);
    begins || headers.contains_key(header::CONTENT_ENCODING)
}

/// The members of a gzip file (RFC 1952, section 2.2), one after the other.
fn gunzipped(body: &[u8], limit: u64) -> Option<Vec<u8>> {
    let (mut plain, mut rest) = (Vec::new(), body);
    for _ in 0..MEMBERS {
        let left = limit.saturating_sub(plain.len() as u64);
        let mut member = GzDecoder::new(rest);
        (&mut member).take(left).read_to_end(&mut plain).ok()?;
        if plain.len() as u64 == limit {
            return Some(plain);
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return Some(plain);
        }
    }
    None
}

fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// The places' pointers, if all of them are in the JSON body: to be read in one pass.
fn pointers(places: &[Location]) -> Option<Vec<&str>> {
    let pointers = places.iter().map(|at| match at {
        Location::Json(pointer) => Some(pointer.as_str()),
        _ => None,
    });
    pointers.collect()
}

/// Whether a form may have a field of this name, which is encoded at most thrice as long. To read
/// all of a body as a form takes longer than its HMAC, and most are none.
fn may_name(form: &[u8], name: &str) -> bool {
    let mut pairs = form.split(|&byte| byte == b'&');
    pairs.any(|pair| {
        let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        end <= 3 * name.len()
    })
}

fn only<'a>(parameters: &[Parameter<'a>], name: &str) -> Option<Cow<'a, str>> {
    let (_, value) = one(parameters.iter().filter(|(key, _)| key.is(name)))?;
    value.text()
}

/// The only value; `None` if there are several.
pub(super) fn one<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut to = GzEncoder::new(Vec::new(), Compression::fast());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    #[test]
    fn more_members_of_gzip_than_the_bound_are_not_read_and_no_more_than_the_body_may_have() {
        let of = |count: usize, most| decoded("gzip", &member(b"ab").repeat(count), most);
        for count in [1, 2, MEMBERS] {
            let plain = b"ab".repeat(count);
            assert_eq!(of(count, plain.len()), Ok(Some(plain.clone().into())), "{count}");
            assert_eq!(of(count, plain.len() - 1), Err(Refusal::BodyTooLarge), "{count}");
        }
        assert_eq!(of(MEMBERS + 1, 1000), Ok(None));
        let broken = [member(b"ab"), b"\x1f\x8bno".to_vec()].concat();
        assert_eq!(decoded("gzip", &broken, 1000), Ok(None));
    }

    proptest! {
        #[test]
        fn a_field_is_found_where_all_of_the_form_is_read_and_nowhere_else(
            body in "[ab=&%+{]{0,12}|([ab]|%6[12]|%C3%A4){1,4}=[ab%]{0,3}(&([ab]|%6[12]){0,4}=x)?",
            name in "[ab]{1,3}|ä",
        ) {
            let (headers, body) = (HeaderMap::new(), body.as_bytes());
            let found = Lookup::new(&headers, None, body);
            let read = parameters(body).and_then(|all| only(&all, &name));
            prop_assert_eq!(found.text(&Location::Form(name)), read);
        }
    }
}
