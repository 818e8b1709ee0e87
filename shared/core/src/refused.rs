//! A refused callback. It is kept so that an operator can look at it, and admit it after the cause
//! was fixed.
//!
//! The record is sealed in a domain of its own: freshness is judged by its time of receipt, so only
//! the ingress may write it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event::digest_start;
use crate::seal::{self, Domain, SealError, Sealed, Sealer};
use crate::source::Source;
use webhook_verify::{Refusal, Scheme, Unverified};

/// Replacement for a credential.
pub const MASKED: &str = "(masked)";
/// Maximum size of the headers that are kept, in bytes, so that they fit into one AMQP frame.
/// Headers that verification needs come first.
const MAX_HEADERS: usize = 32 * 1024;

/// A refused callback without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// [`RefusedRecord::VERSION`].
    pub v: u8,
    /// Id, for `zentra refused`.
    pub id: String,
    /// Name of the source.
    pub source: String,
    /// Reason of the refusal.
    pub reason: String,
    /// Time of receipt: when the ingress had read it.
    pub received_at: Timestamp,
    /// Address of the sender, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Method; `None` means POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Query, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Headers. Credentials that verification doesn't need are masked.
    pub headers: Vec<(String, String)>,
}

impl RefusedRecord {
    /// Version of this record. Each version has `v` and `received_at`.
    pub const VERSION: u8 = 1;

    /// The record of a callback.
    pub fn of(callback: &Unverified, source: &Source, refusal: Refusal) -> Self {
        let (millis, chance) = (callback.received_at.millis(), rand::random::<u32>());
        Self {
            v: Self::VERSION,
            id: format!("{millis:x}-{chance:08x}"),
            source: source.name.clone(),
            reason: refusal.reason().into(),
            received_at: callback.received_at,
            peer: callback.peer,
            method: (callback.method != Method::POST).then(|| callback.method.to_string()),
            query: callback.query.clone(),
            headers: headers(&callback.headers, &source.endpoint.scheme),
        }
    }

    /// Seals the record with the callback's body.
    pub fn seal(&self, sealer: &Sealer, callback: &Unverified) -> Result<Sealed, SealError> {
        let envelope = serde_json::to_vec(self).map_err(|_| SealError::Envelope)?;
        Ok(Sealed {
            seal: sealer.sign(Domain::Refused, &envelope, &callback.body)?,
            envelope: envelope.into(),
            body: callback.body.clone(),
            route: String::new(),
            id: self.id.clone(),
            trace: None,
        })
    }

    /// Opens a sealed record, and returns the callback as it was received.
    pub fn open(sealer: &Sealer, sealed: &Sealed) -> Result<(Self, Unverified), SealError> {
        sealer.check(Domain::Refused, &sealed.seal, &sealed.envelope, &sealed.body)?;
        let kept: Self = seal::read(&sealed.envelope, Self::VERSION, |kept: &Self| kept.v)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &kept.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.append(name, value);
            }
        }
        let (body, received_at, peer) = (sealed.body.clone(), kept.received_at, kept.peer);
        let query = kept.query.clone();
        // The same each time it is admitted.
        let receipt = digest_start(&kept.id);
        let method = kept.method.as_deref().and_then(|text| text.parse().ok());
        let method = method.unwrap_or(Method::POST);
        Ok((kept, Unverified { method, headers, query, peer, body, received_at, receipt }))
    }
}

fn headers(all: &HeaderMap, scheme: &Scheme) -> Vec<(String, String)> {
    let (needed, others): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| scheme.needs(name));
    let mut left = MAX_HEADERS;
    let mut kept = Vec::new();
    for (name, value) in needed.into_iter().chain(others) {
        let value = match credential(name) && !scheme.needs(name) {
            true => MASKED.into(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        let Some(rest) = left.checked_sub(name.as_str().len() + value.len()) else {
            continue;
        };
        left = rest;
        kept.push((name.as_str().to_owned(), value));
    }
    kept
}

/// Whether a header's name says that it may hold a credential.
fn credential(name: &HeaderName) -> bool {
    const WORDS: [&str; 6] = ["auth", "cookie", "token", "secret", "password", "key"];
    *name == header::AUTHORIZATION || WORDS.iter().any(|word| name.as_str().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Key;
    use webhook_verify::Secret;
    use webhook_verify::{Endpoint, NamedSecret, Success};

    fn sealer(fill: &str) -> Sealer {
        let secret = Secret::new(fill.repeat(32));
        Sealer::new(vec![Key { name: "k".into(), secret }]).unwrap()
    }

    fn source() -> Source {
        Source {
            name: "github".into(),
            endpoint: Endpoint {
                provider: "github".into(),
                scheme: Scheme::named("github").unwrap(),
                secrets: vec![NamedSecret { name: "k1".into(), secret: Secret::new("s") }],
                max_body: 1024,
                trusts_id: false,
                public_url: None,
                handshake_token: None,
            },
            redact: crate::redact::Redact::default(),
            environment: String::new(),
            retention: std::time::Duration::ZERO,
            archive: false,
            success: Success { status: http::StatusCode::OK, body: "".into() },
        }
    }

    fn callback() -> Unverified {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer sk_live"),
            ("cookie", "session=sk_live"),
            ("x-api-key", "sk_live"),
            ("user-agent", "GitHub-Hookshot"),
            ("x-hub-signature-256", "sha256=00"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let received_at = Timestamp::from_secs(7);
        Unverified {
            method: Method::POST,
            headers,
            query: Some("a=1".into()),
            peer: None,
            body: "{}".into(),
            received_at,
            receipt: 0,
        }
    }

    #[test]
    fn credentials_are_masked_and_what_verification_needs_is_not() {
        let kept = RefusedRecord::of(&callback(), &source(), Refusal::SignatureMismatch);
        let text = serde_json::to_string(&kept).unwrap();
        assert!(!text.contains("sk_live"), "{text}");
        assert!(text.contains("sha256=00") && text.contains("GitHub-Hookshot"), "{text}");
    }

    #[test]
    fn it_opens_as_it_was_received_and_not_when_altered_or_as_an_event() {
        let kept = RefusedRecord::of(&callback(), &source(), Refusal::SignatureMismatch);
        let sealed = kept.seal(&sealer("a"), &callback()).unwrap();
        let (opened, again) = RefusedRecord::open(&sealer("a"), &sealed).unwrap();
        assert_eq!(opened, kept);
        assert_eq!(again.received_at, Timestamp::from_secs(7));
        assert_eq!(again.headers["x-hub-signature-256"], "sha256=00");
        assert_eq!(again.query.as_deref(), Some("a=1"));
        assert_eq!(RefusedRecord::open(&sealer("b"), &sealed).unwrap_err(), SealError::Mismatch);
        assert_eq!(sealer("a").open(&sealed).unwrap_err(), SealError::Mismatch);
        let json = String::from_utf8(sealed.envelope.to_vec()).unwrap();
        let later = json.replace("00:00:07.000Z", "00:00:09.000Z");
        assert_ne!(json, later);
        let altered = Sealed { envelope: later.into(), ..sealed.clone() };
        assert_eq!(RefusedRecord::open(&sealer("a"), &altered).unwrap_err(), SealError::Mismatch);
        let altered = Sealed { body: "[]".into(), ..sealed };
        assert_eq!(RefusedRecord::open(&sealer("a"), &altered).unwrap_err(), SealError::Mismatch);
    }

    #[test]
    fn what_verification_needs_is_kept_before_anything_else() {
        let mut callback = callback();
        let long = "x".repeat(30_000);
        let all =
            [("a-first", long.as_str()), ("b-second", &long), ("x-hub-signature-256", "sha256=11")];
        callback.headers.clear();
        for (name, value) in all {
            callback.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let kept = RefusedRecord::of(&callback, &source(), Refusal::SignatureMismatch);
        let names: Vec<&str> = kept.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-hub-signature-256", "a-first"]);
    }
}
