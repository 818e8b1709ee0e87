//! Verification: signature and freshness on the raw bytes, then identity.
//!
//! [`Verified`] has no other constructor than [`Unverified::verify`], and the ingress
//! queues nothing else.

mod key;
mod scheme;
mod sign;
mod signature;
mod table;
mod template;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::event::{
    Context, Envelope, Event, Identity, MAX_CONTENT_TYPE, MAX_CONTEXT, usable_id, usable_type,
};
use crate::secret::Secret;

pub use key::{Algorithm, KeyFormat};
pub use scheme::{Location, Scheme, TimeLocation};
pub use sign::Callback;
pub use table::table;
use template::Part;

/// A source: whose callbacks they are, how they are signed, and with which secrets.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the config, and in `POST /in/{source}`.
    pub name: String,
    /// The provider scheme's name.
    pub provider: String,
    /// The provider scheme.
    pub scheme: Scheme,
    /// Where the provider sends to, without the query; for schemes that sign it.
    pub public_url: Option<String>,
    /// The active secrets; any may fit.
    pub secrets: Vec<NamedSecret>,
    /// The largest body taken, in bytes.
    pub max_body: usize,
    /// Whether the provider's id is the identity even if nothing signs it.
    pub trusts_id: bool,
    /// How long its deliveries are remembered after their last change.
    pub retention: Duration,
    /// What its events are for, in the user's words; `production` isn't rehearsed in.
    pub environment: String,
    /// Whether its accepted events are archived, too.
    pub archive: bool,
    /// What the provider is answered when the event is taken.
    pub success: Success,
}

/// The answer that tells a provider that its event is taken.
#[derive(Clone, Debug)]
pub struct Success {
    /// A 2xx.
    pub status: StatusCode,
    /// Empty, text or JSON.
    pub body: Bytes,
}

/// One of a source's secrets.
#[derive(Clone, Debug)]
pub struct NamedSecret {
    /// For the history: which secret fitted.
    pub name: String,
    /// As the provider gave it out.
    pub secret: Secret,
}

/// Why a callback isn't let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The signature header isn't there.
    #[error("the callback carries no signature")]
    SignatureMissing,
    /// It, or a header that it covers, can't be read.
    #[error("the signature, or a header that it covers, can't be read")]
    SignatureMalformed,
    /// No active secret makes this signature over these bytes.
    #[error("the signature doesn't fit the bytes under any active secret")]
    SignatureMismatch,
    /// Genuine, but signed too long ago.
    #[error("the signed time is too long ago")]
    TimestampStale,
    /// Genuine, but its time is yet to come.
    #[error("the signed time is in the future")]
    TimestampFuture,
}

impl Refusal {
    /// The stable name, as in responses, logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampStale => "timestamp_stale",
            Self::TimestampFuture => "timestamp_future",
        }
    }
}

/// A callback as it was read: nothing of it has been looked at.
#[derive(Debug)]
pub struct Unverified {
    /// The request's headers.
    pub headers: HeaderMap,
    /// The request's query, without the `?`; only where the scheme signs it.
    pub query: Option<String>,
    /// The address that sent it, if it is known.
    pub peer: Option<IpAddr>,
    /// The raw body.
    pub body: Bytes,
    /// When it had been read.
    pub received_at: Timestamp,
}

/// A callback whose signature fits and whose time is fresh.
#[derive(Debug)]
pub struct Verified(Event);

impl Verified {
    /// The event that it is.
    pub fn into_event(self) -> Event {
        self.0
    }
}

impl Unverified {
    /// Signature, then freshness, then identity; the body is parsed only after both.
    pub fn verify(&self, source: &Source) -> Result<Verified, Refusal> {
        let scheme = &source.scheme;
        let read = scheme.signature.read(&self.headers)?;
        let time = match scheme.timestamp.as_ref().map(|time| &time.at) {
            None => None,
            Some(TimeLocation::Item(name)) => read.item(name),
            Some(TimeLocation::Header(name)) => self.header(name),
            // Only what is signed is parsed.
            Some(TimeLocation::Json(_)) => None,
        };
        let url = self.url(source);
        let pieces = self.pieces(scheme, time, url.as_deref())?;
        let secret = source
            .secrets
            .iter()
            .find(|named| scheme.signature.fits(&named.secret, &pieces, &read.signatures))
            .ok_or(Refusal::SignatureMismatch)?;
        let provider_time = self.fresh(scheme, time)?;
        let envelope = self.envelope(source, secret, provider_time)?;
        Ok(Verified(Event { envelope, body: self.body.clone() }))
    }

    /// A header's value if it occurs exactly once: of two, the provider signed one.
    fn header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// The address as the provider knows it: behind a proxy, only the config does as well.
    fn url(&self, source: &Source) -> Option<String> {
        let url = source.public_url.as_ref().filter(|_| source.scheme.signs_url())?;
        Some(match &self.query {
            Some(query) => format!("{url}?{query}"),
            None => url.clone(),
        })
    }

    /// The signed content, in pieces.
    fn pieces<'a>(
        &'a self,
        scheme: &'a Scheme,
        time: Option<&'a str>,
        url: Option<&'a str>,
    ) -> Result<Vec<&'a [u8]>, Refusal> {
        let parts = scheme.signature.content.parts().iter();
        let pieces = parts.map(|part| match part {
            Part::Literal(text) => Some(text.as_bytes()),
            Part::Body => Some(&self.body[..]),
            Part::Timestamp => time.map(str::as_bytes),
            Part::Header(name) => self.header(name).map(str::as_bytes),
            // Nothing else is let in.
            Part::Method => Some(&b"POST"[..]),
            Part::Url => url.map(str::as_bytes),
        });
        pieces.collect::<Option<_>>().ok_or(Refusal::SignatureMalformed)
    }

    /// Judges the signed time against the time of receipt, both ways.
    fn fresh(&self, scheme: &Scheme, time: Option<&str>) -> Result<Option<Timestamp>, Refusal> {
        let Some(rule) = &scheme.timestamp else {
            return Ok(None);
        };
        let inside = match &rule.at {
            TimeLocation::Json(pointer) => text_at(self.json(scheme).as_ref(), pointer),
            _ => None,
        };
        let read = inside.as_deref().or(time).and_then(|text| rule.unit.read(text));
        let signed = read.ok_or(Refusal::SignatureMalformed)?;
        if self.received_at.since(signed) > rule.tolerance {
            return Err(Refusal::TimestampStale);
        }
        if signed.since(self.received_at) > rule.tolerance {
            return Err(Refusal::TimestampFuture);
        }
        Ok(Some(signed))
    }

    fn envelope(
        &self,
        source: &Source,
        secret: &NamedSecret,
        provider_time: Option<Timestamp>,
    ) -> Result<Envelope, Refusal> {
        let scheme = &source.scheme;
        let json = self.json(scheme);
        let find = |location: &Option<Location>| match location.as_ref()? {
            Location::Header(name) => self.header(name).map(str::to_owned),
            Location::Json(pointer) => text_at(json.as_ref(), pointer),
        };
        let event_id = find(&scheme.id).filter(|id| usable_id(id));
        let signed = scheme.id.as_ref().is_some_and(|at| scheme.covers(at));
        let trusted = signed || source.trusts_id;
        let identity = event_id.as_deref().filter(|_| trusted).and_then(Identity::from_id);
        Ok(Envelope {
            v: 1,
            source: source.name.clone(),
            provider: source.provider.clone(),
            unsigned_id: event_id.filter(|_| identity.is_none()),
            identity: match identity {
                Some(identity) => identity,
                None => self.digest(scheme)?,
            },
            event_type: find(&scheme.kind).filter(|kind| usable_type(kind)),
            content_type: self
                .header(&header::CONTENT_TYPE)
                .filter(|kind| kind.len() <= MAX_CONTENT_TYPE)
                .map(str::to_owned),
            received_at: self.received_at,
            provider_time,
            verified_with: secret.name.clone(),
            context: Context {
                method: Some(Method::POST.to_string()),
                peer: self.peer,
                headers: self.context(scheme),
                provider_attempt: find(&scheme.attempt.number).map(bounded),
                provider_reason: find(&scheme.attempt.reason).map(bounded),
            },
            admitted: None,
            suspected: false,
        })
    }

    fn context(&self, scheme: &Scheme) -> Vec<(String, String)> {
        let kept = scheme.context.iter().filter_map(|name| {
            let value = self.header(name)?.to_owned();
            Some((name.to_string(), bounded(value)))
        });
        kept.collect()
    }

    /// The body as JSON, if the scheme looks anything up in it and it is JSON.
    fn json(&self, scheme: &Scheme) -> Option<serde_json::Value> {
        let wanted = [&scheme.id, &scheme.kind, &scheme.attempt.number, &scheme.attempt.reason]
            .iter()
            .any(|at| matches!(at, Some(Location::Json(_))));
        let time =
            matches!(&scheme.timestamp, Some(time) if matches!(time.at, TimeLocation::Json(_)));
        (wanted || time).then(|| serde_json::from_slice(&self.body).ok())?
    }

    /// The identity of a callback without a signed id: the digest over all that is
    /// signed but the time, which changes when a provider signs a retry anew. Each piece
    /// is preceded by its length, so pieces can't run into each other.
    fn digest(&self, scheme: &Scheme) -> Result<Identity, Refusal> {
        let mut hash = Sha256::new();
        // A token signs nothing: the body is what tells two events apart.
        let body = [Part::Body];
        let signed = scheme.signature.content.parts();
        for part in if signed.is_empty() { &body[..] } else { signed } {
            let piece = match part {
                Part::Literal(_) | Part::Timestamp | Part::Method | Part::Url => continue,
                Part::Body => &self.body[..],
                Part::Header(name) => {
                    let value = self.header(name).ok_or(Refusal::SignatureMalformed)?;
                    value.as_bytes()
                }
            };
            hash.update((piece.len() as u64).to_be_bytes());
            hash.update(piece);
        }
        Ok(Identity::from_digest(&hash.finalize()))
    }
}

/// A string or integer in a JSON body.
fn text_at(body: Option<&serde_json::Value>, pointer: &str) -> Option<String> {
    match body?.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What comes from outside is cut off where it would grow too long.
fn bounded(value: String) -> String {
    match value.char_indices().nth(MAX_CONTEXT) {
        Some((end, _)) => value[..end].to_owned(),
        None => value,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
