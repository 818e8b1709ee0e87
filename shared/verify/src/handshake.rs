//! Handshakes: requests by which a provider checks an endpoint, and their answers. They are not
//! events.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::key::Algorithm;
use super::place::{Location, Lookup, header_name};
use super::scheme::Encoding;
use super::{Endpoint, Success};

/// Maximum length of a returned value, in bytes.
const MAX_VALUE: usize = 1024;

/// A handshake and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// Method of the request.
    #[serde(default)]
    pub method: HandshakeMethod,
    /// Place that must have a value.
    pub when: Option<Location>,
    /// Required value; if it is not set, any value.
    pub is: Option<String>,
    /// Whether it is answered without a signature. Handshakes by GET and HEAD never have one.
    #[serde(default)]
    pub unsigned: bool,
    /// Place that must have the endpoint's `handshake_token`.
    pub token: Option<Location>,
    /// Place of the address that confirms the endpoint when it is visited. It must be at one of the
    /// hosts of the scheme's keys.
    pub visit: Option<Location>,
    /// The answer.
    #[serde(default)]
    pub answer: Answer,
    /// Status of the answer.
    #[serde(default, deserialize_with = "status")]
    pub status: Option<StatusCode>,
}

/// A method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandshakeMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    #[default]
    Post,
}

/// An answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// No body.
    #[default]
    Nothing,
    /// The value at a place, as text.
    Text(Location),
    /// A JSON object.
    Json(BTreeMap<String, Term>),
    /// The request's header of this name, unchanged.
    Header(#[serde(deserialize_with = "header_name")] HeaderName),
}

/// A value of an answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Term {
    /// The value at a place.
    Value(Location),
    /// Its HMAC-SHA256 under the endpoint's first secret.
    Mac {
        /// Place of the signed value.
        of: Location,
        /// How it is written.
        encoding: Encoding,
        /// Text before it.
        #[serde(default)]
        prefix: String,
    },
}

/// The answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
    /// `text/plain` or `application/json`.
    pub content_type: HeaderValue,
    /// Additional header.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// Address to visit before the answer.
    pub visit: Option<Uri>,
}

impl HandshakeMethod {
    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => *method == Method::GET,
            Self::Head => *method == Method::HEAD,
            Self::Post => *method == Method::POST,
        }
    }
}

impl Handshake {
    /// Whether it has no signature.
    pub(super) fn is_unsigned(&self) -> bool {
        self.unsigned || self.method != HandshakeMethod::Post
    }

    /// Whether anyone can have a text signed by it.
    pub(super) fn signs_for_anyone(&self) -> bool {
        let signs = |term: &Term| matches!(term, Term::Mac { .. });
        self.is_unsigned()
            && matches!(&self.answer, Answer::Json(terms) if terms.values().any(signs))
    }

    /// All places that it reads.
    pub(super) fn places(&self) -> impl Iterator<Item = &Location> {
        let answered: Vec<&Location> = match &self.answer {
            Answer::Text(at) => vec![at],
            Answer::Json(terms) => terms.values().map(Term::place).collect(),
            Answer::Nothing | Answer::Header(_) => Vec::new(),
        };
        self.when.iter().chain(&self.token).chain(answered)
    }

    fn fits(&self, method: &Method, found: &Lookup<'_>, endpoint: &Endpoint) -> bool {
        let there = |at: &Location| found.text(at);
        self.method.is(method)
            && self.when.as_ref().is_none_or(|at| {
                there(at).is_some_and(|text| self.is.as_ref().is_none_or(|is| *is == text))
            })
            && self.token.as_ref().is_none_or(|at| {
                let token = endpoint.handshake_token.as_ref();
                let given = there(at);
                token
                    .zip(given)
                    .is_some_and(|(token, given)| token.expose().ct_eq(given.as_bytes()).into())
            })
    }

    /// The answer. `None` if a value is missing or can't be sent back.
    fn answered(&self, found: &Lookup<'_>, endpoint: &Endpoint) -> Option<Answered> {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut answer = Answered {
            status: self.status.unwrap_or(StatusCode::OK),
            body: Bytes::new(),
            content_type: plain,
            header: None,
            visit: None,
        };
        if let Some(at) = &self.visit {
            let own =
                |uri: &Uri| endpoint.scheme.keys.as_ref().is_some_and(|keys| keys.is_host(uri));
            answer.visit = Some(found.text(at)?.parse().ok().filter(own)?);
        }
        match &self.answer {
            Answer::Nothing => {}
            Answer::Text(at) => answer.body = short(found, at)?.into(),
            Answer::Json(terms) => {
                let fields = terms.iter().map(|(name, term)| {
                    Some((name.clone(), Value::String(term.said(found, endpoint)?)))
                });
                let object = fields.collect::<Option<Map<_, _>>>()?;
                answer.body = Value::Object(object).to_string().into();
                answer.content_type = HeaderValue::from_static("application/json");
            }
            Answer::Header(name) => {
                let text = short(found, &Location::Header(name.clone()))?;
                answer.header = Some((name.clone(), HeaderValue::from_str(&text).ok()?));
            }
        }
        Some(answer)
    }
}

impl Term {
    fn place(&self) -> &Location {
        match self {
            Self::Value(at) | Self::Mac { of: at, .. } => at,
        }
    }

    fn said(&self, found: &Lookup<'_>, endpoint: &Endpoint) -> Option<String> {
        let text = short(found, self.place())?;
        let Self::Mac { encoding, prefix, .. } = self else { return Some(text) };
        if !challenge(text.as_bytes()) {
            return None;
        }
        let secret = &endpoint.secrets.first()?.secret;
        let key = endpoint.scheme.signature.key.key(secret)?;
        let tag = Algorithm::HmacSha256.sign(&key, &[text.as_bytes()])?;
        Some(format!("{prefix}{}", encoding.encode(&tag)?))
    }
}

/// Whether these bytes could be a challenge that is signed for anyone. A JSON object never is.
pub(super) fn challenge(bytes: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+/=".contains(byte);
    bytes.iter().all(plain)
}

fn short(found: &Lookup<'_>, at: &Location) -> Option<String> {
    found.text(at).filter(|text| text.len() <= MAX_VALUE).map(|text| text.into_owned())
}

impl Endpoint {
    /// The answer to a genuine request, if it is a handshake.
    pub(super) fn handshake(&self, found: &Lookup<'_>) -> Option<Answered> {
        self.answer(&Method::POST, found, |_| true)
    }

    /// The answer to an unsigned request, if it is a handshake.
    pub(super) fn unsigned_handshake(
        &self,
        method: &Method,
        found: &Lookup<'_>,
    ) -> Option<Answered> {
        self.answer(method, found, Handshake::is_unsigned)
    }

    fn answer(
        &self,
        method: &Method,
        found: &Lookup<'_>,
        allowed: impl Fn(&Handshake) -> bool,
    ) -> Option<Answered> {
        let known = self.scheme.handshakes.iter().filter(|handshake| allowed(handshake));
        let mut fitting = known.filter(|handshake| handshake.fits(method, found, self));
        fitting.next()?.answered(found, self)
    }
}

/// The answer that a provider expects to an accepted callback.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessResponse {
    #[serde(default, deserialize_with = "status")]
    status: Option<StatusCode>,
    #[serde(default)]
    body: String,
}

impl SuccessResponse {
    /// As an answer.
    pub fn success(&self) -> Success {
        let status = self.status.unwrap_or(StatusCode::OK);
        Success { status, body: self.body.clone().into() }
    }
}

fn status<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StatusCode>, D::Error> {
    let status = StatusCode::from_u16(u16::deserialize(from)?).ok().filter(StatusCode::is_success);
    status.map(Some).ok_or_else(|| serde::de::Error::custom("not a status from 200 to 299"))
}
