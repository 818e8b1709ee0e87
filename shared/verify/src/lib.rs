#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod canonical;
mod catalogue;
mod claims;
mod content;
mod documented;
pub mod event;
mod explain;
mod fetched;
mod form;
mod handshake;
mod identity;
mod items;
mod jwk;
mod key;
mod multipart;
mod place;
mod pointer;
mod request;
mod scheme;
mod secret;
mod sign;
mod signature;
pub mod standard_webhooks;
mod table;
mod template;
mod time;
pub mod timestamp;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::Value;
use subtle::ConstantTimeEq;

use content::Content;
pub use event::{Batch, Context, Identity, VerifiedEvent, Weakness};
use event::{MAX_CONTENT_TYPE, MAX_CONTEXT, body_sha256, usable_id, usable_type};
pub use explain::{Explanation, Step, captured};
pub use handshake::Answered;
use identity::Item;
pub use items::MAX_ITEMS;
pub use key::{Algorithm, KeyFormat};
pub use place::Location;
use place::Lookup;
pub use pointer::{pointer_steps, texts_at};
pub use request::{MAX_HEADERS as MAX_FORWARDED_HEADERS, MAX_QUERY};
use scheme::Required;
pub use scheme::{IdNames, Scheme};
pub use secret::Secret;
pub use sign::{Callback, Signed, Unsignable};
use signature::{Piece, Read};
pub use table::table;
use template::Template;
pub use timestamp::Timestamp;

/// Where one provider's callbacks arrive: how they are signed, and with which secrets.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The provider's name.
    pub provider: String,
    /// The provider's scheme.
    pub scheme: Scheme,
    /// The address that the provider sends to, without the query. Needed only by schemes that sign
    /// it: see [`Scheme::signs_url`].
    pub public_url: Option<String>,
    /// The token that the provider shows in a handshake, if it does.
    pub handshake_token: Option<Secret>,
    /// The active secrets. A callback is genuine if it fits one of them.
    pub secrets: Vec<NamedSecret>,
    /// Maximum size of a body after decompression, in bytes.
    pub max_body: usize,
    /// Whether the provider's id is the identity even if the signature doesn't cover it.
    pub trusts_id: bool,
}

impl Endpoint {
    /// An endpoint of a provider of the catalogue ([`Scheme::names`]) with one secret, as the
    /// provider shows it. Bodies are taken up to 1 MiB. `None` for a provider that isn't in the
    /// catalogue.
    pub fn new(provider: &str, secret: impl Into<Vec<u8>>) -> Option<Self> {
        let secret = NamedSecret { name: "default".into(), secret: Secret::new(secret) };
        Some(Self {
            provider: provider.into(),
            scheme: Scheme::named(provider)?,
            public_url: None,
            handshake_token: None,
            secrets: vec![secret],
            max_body: 1024 * 1024,
            trusts_id: false,
        })
    }
}

/// The answer to an accepted callback.
#[derive(Clone, Debug)]
pub struct Success {
    /// Status, a 2xx.
    pub status: StatusCode,
    /// Body: empty, text or JSON.
    pub body: Bytes,
}

/// A named secret of an endpoint.
#[derive(Clone, Debug)]
pub struct NamedSecret {
    /// Name, to see which secret verified a callback.
    pub name: String,
    /// The secret as the provider shows it.
    pub secret: Secret,
}

/// Why a callback is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no signature.
    #[error("the callback has no signature")]
    SignatureMissing,
    /// The signature, or a header that it covers, can't be read.
    #[error("the signature, or a header that it covers, can't be read")]
    SignatureMalformed,
    /// The signature fits none of the active secrets.
    #[error("the signature fits none of the active secrets")]
    SignatureMismatch,
    /// Genuine, but the signed time is too long ago.
    #[error("the signed time is too long ago")]
    TimestampStale,
    /// Genuine, but the signed time is in the future.
    #[error("the signed time is in the future")]
    TimestampFuture,
    /// The key's address isn't one of the provider's.
    #[error("the address of its key isn't one of the provider's")]
    KeyNotAllowed,
    /// The provider's published key is not available now. The callback should be sent again.
    #[error("the provider's key is not available now; send the callback again")]
    KeyUnavailable,
    /// Genuine, but with more events than [`MAX_ITEMS`].
    #[error("the callback has more than {MAX_ITEMS} events")]
    BatchTooLarge,
    /// Genuine, but with more than [`MAX_FORWARDED_HEADERS`] bytes of headers.
    #[error("the headers are larger than {MAX_FORWARDED_HEADERS} bytes")]
    HeadersTooLarge,
    /// Genuine, but its query is longer than [`MAX_QUERY`] bytes.
    #[error("the query is longer than {MAX_QUERY} bytes")]
    QueryTooLong,
    /// The decompressed body is larger than [`Endpoint::max_body`].
    #[error("the decompressed body is larger than max_body")]
    BodyTooLarge,
}

impl Refusal {
    /// Stable name, for responses, logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampStale => "timestamp_stale",
            Self::TimestampFuture => "timestamp_future",
            Self::KeyNotAllowed => "key_not_allowed",
            Self::KeyUnavailable => "key_unavailable",
            Self::BatchTooLarge => "batch_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::QueryTooLong => "query_too_long",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}

/// A callback as it was received; nothing of it is trusted.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// Method of the request.
    pub method: Method,
    /// Headers of the request.
    pub headers: HeaderMap,
    /// Query of the request without the `?`.
    pub query: Option<String>,
    /// Address of the sender, if it is known.
    pub peer: Option<IpAddr>,
    /// The raw body.
    pub body: Bytes,
    /// Time of receipt: when the request had been read.
    pub received_at: Timestamp,
    /// A random number that distinguishes callbacks with the same bytes.
    pub receipt: u64,
}

/// A callback whose signature fits and whose time is fresh. Only [`Unverified::verify`] and its
/// variants create it.
#[derive(Debug)]
pub struct Verified {
    events: Vec<VerifiedEvent>,
    handshake: Option<Answered>,
}

impl Verified {
    /// The answer, if it is a handshake.
    pub fn handshake(&self) -> Option<&Answered> {
        self.handshake.as_ref()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has no event, as a handshake.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events, in their order: usually one; any number if the provider sends several in one
    /// callback. Each has its part of the body.
    pub fn into_events(self) -> Vec<VerifiedEvent> {
        self.events
    }
}

impl Unverified {
    /// A POST request without a query that was received now.
    pub fn post(headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            headers,
            query: None,
            peer: None,
            body: body.into(),
            received_at: SystemTime::now().into(),
            receipt: rand::random(),
        }
    }

    /// The event id that it claims, unverified.
    pub fn claimed_id(&self, scheme: &Scheme) -> Option<String> {
        let found = Lookup::new(&self.headers, self.query.as_deref(), &self.body);
        found.text(scheme.id.as_ref()?).map(Cow::into_owned)
    }

    /// Verifies signature, then freshness, then identity. The body is parsed only afterwards,
    /// except where the provider puts the signature into the body. If the scheme's keys are
    /// published, use [`Unverified::verify_by`].
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn verify(&self, endpoint: &Endpoint) -> Result<Verified, Refusal> {
        self.verify_by(endpoint, None)
    }

    /// Address of the key, if the scheme's keys are published.
    ///
    /// # Errors
    /// [`Refusal::KeyNotAllowed`] if the address isn't one of the provider's; others if the
    /// signature can't be read.
    pub fn key_address(&self, endpoint: &Endpoint) -> Result<Option<Uri>, Refusal> {
        let Some(keys) = &endpoint.scheme.keys else { return Ok(None) };
        let found = self.lookup(endpoint);
        endpoint.scheme.signature.read(&found)?;
        keys.address(&found, &endpoint.secrets).map(Some)
    }

    /// Verifies with the key from [`Unverified::key_address`].
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn verify_by(
        &self,
        endpoint: &Endpoint,
        key: Option<&Secret>,
    ) -> Result<Verified, Refusal> {
        match &endpoint.scheme.items {
            Some(pointer) if endpoint.scheme.items_signed => self.verify_each(endpoint, pointer),
            _ => self.verify_whole(endpoint, key),
        }
    }

    /// Verifies with a second possible time of receipt, for a clock that was just stepped. If only
    /// the other time is fresh, it becomes the event's time of receipt.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn verify_by_either(
        &self,
        endpoint: &Endpoint,
        key: Option<&Secret>,
        other: impl FnOnce() -> Option<Timestamp>,
    ) -> Result<Verified, Refusal> {
        let verified = self.verify_by(endpoint, key);
        let Err(Refusal::TimestampStale | Refusal::TimestampFuture) = verified else {
            return verified;
        };
        let Some(received_at) = other() else { return verified };
        Self { received_at, ..self.clone() }.verify_by(endpoint, key).or(verified)
    }

    /// Verifies each item as a callback. A body without items has no signature.
    fn verify_each(&self, endpoint: &Endpoint, pointer: &str) -> Result<Verified, Refusal> {
        let items = self.each(endpoint, pointer)?;
        let headers: usize = self.headers.values().map(http::HeaderValue::len).sum();
        if headers.saturating_mul(items.len()) > MAX_BATCH_CONTEXT {
            return Err(Refusal::BatchTooLarge);
        }
        let (callback, of) = (body_sha256(&self.body), items.len() as u32);
        let mut events = Vec::with_capacity(items.len());
        let mut seen: HashMap<Bytes, u32> = HashMap::new();
        for (body, item) in items.into_iter().zip(1..) {
            let before = seen.entry(body.clone()).or_default();
            // Two items with the same bytes can be two events.
            let receipt = self.receipt.wrapping_add(item.into());
            let mut one = Self { receipt, body, ..self.clone() };
            // An item is a part of the decompressed body.
            one.headers.remove(header::CONTENT_ENCODING);
            for mut event in one.verify_whole(endpoint, None)?.events {
                let body_sha256 = callback.clone();
                event.context.batch = Some(Batch { body_sha256, item, of });
                // Without an id, a second item with the same bytes is a second event.
                if *before > 0 && event.identity.id().is_none() {
                    event.identity = event.identity.again(*before);
                }
                events.push(event);
            }
            *before += 1;
        }
        Ok(Verified { events, handshake: None })
    }

    fn each(&self, endpoint: &Endpoint, pointer: &str) -> Result<Vec<Bytes>, Refusal> {
        let body = self.lookup(endpoint).plain_bytes(&self.body)?;
        let items = items::items(&body, pointer)?.filter(|items| !items.is_empty());
        items.ok_or(Refusal::SignatureMissing)
    }

    /// Decompression has the same bound as the body.
    fn lookup(&self, endpoint: &Endpoint) -> Lookup<'_> {
        Lookup::new(&self.headers, self.query.as_deref(), &self.body).within(endpoint.max_body)
    }

    /// If a provider writes its address in several ways, each is tried.
    fn verify_whole(&self, endpoint: &Endpoint, key: Option<&Secret>) -> Result<Verified, Refusal> {
        let url = self.url(endpoint);
        let first = self.verify_at(endpoint, key, url.clone());
        let (Err(Refusal::SignatureMismatch), Some(url)) = (&first, url) else { return first };
        let mut others = endpoint.scheme.other_urls(&url).into_iter();
        let fits = others.find_map(|url| match self.verify_at(endpoint, key, Some(url)) {
            Err(Refusal::SignatureMismatch) => None,
            judged => Some(judged),
        });
        fits.unwrap_or(first)
    }

    fn verify_at(
        &self,
        endpoint: &Endpoint,
        key: Option<&Secret>,
        url: Option<String>,
    ) -> Result<Verified, Refusal> {
        let found = self.lookup(endpoint);
        let read = endpoint.scheme.signature.read(&found)?;
        let judged = self.judged(endpoint, key, url, found, read);
        if endpoint.scheme.signs_decoded_body {
            judged.content.found.plain()?;
        }
        let pieces = judged.content.pieces(&endpoint.scheme.signature.content)?;
        judged.required()?;
        let secret = judged.secret(&pieces)?;
        let pieces = match judged.fitted.get() {
            Some(other) => judged.content.pieces(other)?,
            None => pieces,
        };
        let claims = judged.claims()?;
        let provider_time = judged.fresh(claims.as_ref())?;
        judged.cut_as_sent(&pieces)?;
        let handshake = endpoint.handshake(&judged.content.found);
        let events = match handshake {
            Some(_) => Vec::new(),
            None => judged.events(secret, provider_time, &pieces)?,
        };
        Ok(Verified { events, handshake })
    }

    /// Whether its body is compressed.
    pub fn is_compressed(&self) -> bool {
        place::is_compressed(&self.headers, &self.body)
    }

    /// The answer, if it is an unsigned handshake. For POST, call it after [`Unverified::verify`]
    /// returned [`Refusal::SignatureMissing`].
    pub fn unsigned_handshake(&self, method: &Method, endpoint: &Endpoint) -> Option<Answered> {
        endpoint.unsigned_handshake(method, &self.lookup(endpoint))
    }

    fn judged<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        key: Option<&'a Secret>,
        url: Option<String>,
        found: Lookup<'a>,
        read: Read,
    ) -> Judged<'a> {
        let content = Content::new(&endpoint.scheme, &self.method, &self.body, url, found, read);
        Judged { callback: self, endpoint, key, content, fitted: OnceCell::new() }
    }

    /// The address that the provider sends to. Behind a proxy only the configuration has it.
    fn url(&self, endpoint: &Endpoint) -> Option<String> {
        let url = endpoint.public_url.as_ref().filter(|_| endpoint.scheme.signs_url())?;
        Some(match &self.query {
            Some(query) => format!("{url}?{query}"),
            None => url.clone(),
        })
    }
}

/// A callback during verification.
struct Judged<'a> {
    callback: &'a Unverified,
    endpoint: &'a Endpoint,
    key: Option<&'a Secret>,
    content: Content<'a>,
    /// The content that the signature fits.
    fitted: OnceCell<&'a Template>,
}

impl<'a> Judged<'a> {
    /// The signed content, as far as it is known.
    fn template(&self) -> &'a Template {
        self.fitted.get().copied().unwrap_or(&self.endpoint.scheme.signature.content)
    }

    /// The secret that the signature fits.
    fn secret(&self, pieces: &[Piece<'_>]) -> Result<&'a NamedSecret, Refusal> {
        if self.endpoint.scheme.signs_for_anyone() && handshake::challenge(&self.callback.body) {
            return Err(Refusal::SignatureMismatch);
        }
        let Scheme { signature, keys, .. } = &self.endpoint.scheme;
        let pin = keys.as_ref().and_then(|keys| keys.pin.as_ref());
        let pinned = |secret: &Secret| match pin {
            Some(at) => self
                .content
                .at(at)
                .is_some_and(|whose| whose.as_bytes().ct_eq(secret.expose()).into()),
            None => true,
        };
        let by = match (keys, self.key) {
            (Some(_), None) => return Err(Refusal::KeyUnavailable),
            (Some(_), key) => key,
            (None, _) => None,
        };
        let fitting = |pieces: &[Piece<'_>]| {
            let fits = |named: &&NamedSecret| {
                let (key, read) = (by.unwrap_or(&named.secret), &self.content.read);
                pinned(&named.secret) && signature.fits(key, &named.secret, pieces, read)
            };
            self.endpoint.secrets.iter().find(fits)
        };
        let other = || {
            signature.also.iter().find_map(|also| {
                let secret = fitting(&self.content.pieces(also).ok()?)?;
                let _ = self.fitted.set(also);
                Some(secret)
            })
        };
        fitting(pieces).or_else(other).ok_or(Refusal::SignatureMismatch)
    }

    /// Checks required values.
    fn required(&self) -> Result<(), Refusal> {
        let there = |required: &Required| {
            let there = self.content.at(&required.at);
            there.is_some_and(|text| required.is.as_ref().is_none_or(|is| text == *is))
        };
        match self.endpoint.scheme.required.iter().all(there) {
            true => Ok(()),
            false => Err(Refusal::SignatureMalformed),
        }
    }

    /// Checks the claims of a token.
    fn claims(&self) -> Result<Option<Value>, Refusal> {
        let Some(claims) = &self.endpoint.scheme.claims else {
            return Ok(None);
        };
        let payload =
            self.content.read.item("payload").and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let said = payload.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let said = said.ok_or(Refusal::SignatureMalformed)?;
        let Unverified { body, received_at, .. } = self.callback;
        claims.judge(&said, body, self.content.url.as_deref(), *received_at)?;
        Ok(Some(said))
    }

    /// Compares the signed time with the time of receipt, both ways.
    fn fresh(&self, claims: Option<&Value>) -> Result<Option<Timestamp>, Refusal> {
        let Some(rule) = &self.endpoint.scheme.timestamp else {
            return Ok(None);
        };
        let text = match &rule.at {
            Location::Claim(name) => claims
                .and_then(|said| said[name.as_str()].as_u64())
                .map(|number| Cow::Owned(number.to_string())),
            _ => self.content.time().map(Cow::Borrowed),
        };
        let whole = |text: &str| !self.endpoint.scheme.time_adjoins() || rule.unit.is_whole(text);
        let signed = text.filter(|text| whole(text)).and_then(|text| rule.unit.read(&text));
        let signed = signed.ok_or(Refusal::SignatureMalformed)?;
        let received_at = self.callback.received_at;
        if received_at.since(signed) > rule.tolerance {
            return Err(Refusal::TimestampStale);
        }
        if signed.since(received_at) > rule.tolerance {
            return Err(Refusal::TimestampFuture);
        }
        Ok(Some(signed))
    }

    /// The events of a callback: one or several.
    fn events(
        &self,
        secret: &NamedSecret,
        provider_time: Option<Timestamp>,
        signed: &[Piece<'_>],
    ) -> Result<Vec<VerifiedEvent>, Refusal> {
        let forwarded = self.forwarded()?;
        let body = &self.content.found.plain_bytes(&self.callback.body)?;
        let items = match &self.endpoint.scheme.items {
            Some(pointer) if !self.endpoint.scheme.items_signed => items::items(body, pointer)?,
            _ => None,
        };
        let Some(items) = items else {
            return Ok(vec![self.event(secret, provider_time, signed, &forwarded, None)]);
        };
        // An item is a part of the decompressed body.
        let encoding = |(name, _): &(String, String)| name != header::CONTENT_ENCODING.as_str();
        let headers = forwarded.headers.into_iter().filter(encoding).collect();
        let forwarded = Forwarded { headers, ..forwarded };
        if forwarded.bytes().saturating_mul(items.len()) > MAX_BATCH_CONTEXT {
            return Err(Refusal::BatchTooLarge);
        }
        let (callback, of) = (body_sha256(&self.callback.body), items.len() as u32);
        let mut seen: HashMap<Bytes, u32> = HashMap::new();
        let events = items.into_iter().zip(1..).map(|(body, place)| {
            let before = seen.entry(body.clone()).or_default();
            let found = Lookup::new(&self.callback.headers, None, &body);
            let item = Item { body: &body, before: *before, found };
            *before += 1;
            let mut event = self.event(secret, provider_time, signed, &forwarded, Some(&item));
            let body_sha256 = callback.clone();
            event.context.batch = Some(Batch { body_sha256, item: place, of });
            event
        });
        Ok(events.collect())
    }

    /// One event. Id and type of an item are looked up in it, and it is identified by itself.
    fn event(
        &self,
        secret: &NamedSecret,
        provider_time: Option<Timestamp>,
        signed: &[Piece<'_>],
        forwarded: &Forwarded,
        item: Option<&Item<'_>>,
    ) -> VerifiedEvent {
        let Self { endpoint, callback, .. } = self;
        let scheme = &endpoint.scheme;
        let find = |at: &Option<Location>| self.find(at.as_ref()?, item);
        let event_id = find(&scheme.id).filter(|id| usable_id(id));
        let ambiguous = self.is_ambiguous(signed);
        let trusted = (scheme.id_is_identity() && !ambiguous) || endpoint.trusts_id;
        let identity = event_id.as_deref().filter(|_| trusted).and_then(Identity::from_id);
        let event_type = find(&scheme.kind).filter(|kind| usable_type(kind));
        let unsigned_id = event_id.filter(|_| identity.is_none());
        let (identity, same_bytes) = match identity {
            Some(identity) => (identity, None),
            None => self.identity(signed, ambiguous, item, event_type.as_deref()),
        };
        let content_type = self.content.found.header(&header::CONTENT_TYPE);
        VerifiedEvent {
            unsigned_id,
            identity,
            renders_retries: scheme.renders_retries(),
            event_type,
            content_type: content_type
                .filter(|kind| kind.len() <= MAX_CONTENT_TYPE)
                .map(str::to_owned),
            received_at: callback.received_at,
            provider_time,
            verified_with: secret.name.clone(),
            context: Context {
                method: Some(callback.method.to_string()),
                peer: callback.peer,
                headers: forwarded.headers.clone(),
                query: forwarded.query.clone(),
                signed: forwarded.signed.clone(),
                provider_attempt: find(&scheme.attempt.number).map(bounded),
                provider_reason: find(&scheme.attempt.reason).map(bounded),
                weakness: scheme.weakness(),
                batch: None,
                type_unsigned: scheme.type_unsigned(),
            },
            same_bytes,
            body: item.map_or(&callback.body, |item| item.body).clone(),
        }
    }

    /// What is kept of the request besides its body.
    fn forwarded(&self) -> Result<Forwarded, Refusal> {
        let (Unverified { headers, query, .. }, scheme) = (self.callback, &self.endpoint.scheme);
        let on = request::headers(headers, scheme)?;
        let signed = request::signed(scheme, &on, headers);
        Ok(Forwarded { headers: on, query: request::query(query.as_deref(), scheme)?, signed })
    }
}

/// Maximum total size of headers and query of all events in one callback, in bytes.
const MAX_BATCH_CONTEXT: usize = 32 * 1024 * 1024;

/// What is kept of a request besides its body.
struct Forwarded {
    headers: Vec<(String, String)>,
    query: Option<String>,
    signed: Vec<String>,
}

impl Forwarded {
    fn bytes(&self) -> usize {
        let pair = |(name, value): &(String, String)| name.len() + value.len();
        let headers: usize = self.headers.iter().map(pair).sum();
        let signed: usize = self.signed.iter().map(String::len).sum();
        headers + signed + self.query.as_ref().map_or(0, String::len)
    }
}

/// Cuts a text from outside to its maximum length.
fn bounded(value: String) -> String {
    match value.char_indices().nth(MAX_CONTEXT) {
        Some((end, _)) => value[..end].to_owned(),
        None => value,
    }
}

#[cfg(test)]
mod tests;
