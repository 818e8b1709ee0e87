//! Signing as the provider would, by the same data that verifies: for rehearsals. That the data
//! are right is proven elsewhere, by the providers' own tools.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value};

use super::place::{Location, Lookup};
use super::scheme::{Grammar, Scheme, Time};
use super::template::Part;
use crate::clock::Timestamp;
use crate::secret::Secret;

/// What a provider says of an event beside its body.
#[derive(Clone, Debug)]
pub struct Callback<'a> {
    /// The event's id.
    pub id: &'a str,
    /// The event's type.
    pub kind: &'a str,
    /// When it is signed.
    pub time: Timestamp,
    /// The exact bytes.
    pub body: &'a [u8],
    /// Where it is sent, for schemes that sign it.
    pub url: &'a str,
}

impl Scheme {
    /// Writes id, type and time into a JSON body where the provider has them there; where it sends
    /// several events in one callback, the body becomes one of them.
    pub fn write_into(&self, body: &mut Value, id: &str, kind: &str, time: Timestamp) {
        for (at, text) in [(&self.id, id), (&self.kind, kind)] {
            for at in at.iter().flat_map(Location::each) {
                if let Location::Json(pointer) = at {
                    *place(body, pointer) = Value::String(text.into());
                }
            }
        }
        if let Some(pointer) = &self.items {
            let item = body.take();
            *place(body, pointer) = Value::Array(vec![item]);
        }
        if let Some(Time { at: Location::Json(pointer), unit, .. }) = &self.timestamp {
            *place(body, pointer) = Value::String(unit.write(time));
        }
    }

    /// The headers that the provider would send with it. `None` if the secret hasn't the
    /// scheme's form, a value can't be a header's, or the signature goes elsewhere than into a
    /// header.
    pub fn sign(&self, secret: &Secret, callback: &Callback<'_>) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut set = |name: &HeaderName, text: &str| {
            headers.insert(name.clone(), HeaderValue::from_str(text).ok()?);
            Some(())
        };
        let unit = self.timestamp.as_ref().map(|time| time.unit).unwrap_or_default();
        let time = unit.write(callback.time);
        for (at, text) in [(&self.id, callback.id), (&self.kind, callback.kind)] {
            if let Some(Location::Header(name)) = at {
                set(name, text)?;
            }
        }
        let at = self.timestamp.as_ref().map(|time| &time.at);
        if let Some(Location::Header(name)) = at {
            set(name, &time)?;
        }
        let signature = &self.signature;
        let Some(Location::Header(place)) = signature.at.first() else { return None };
        let (header, payload) = self.token(callback)?;
        let keys = signature.key.keys(secret);
        let found = Lookup::new(&headers, None, callback.body);
        let pieces = signature.content.parts().iter().map(|part| {
            let text = |at: &Location| match at {
                Location::Item(name) if name == "header" => Some(Cow::Borrowed(&*header)),
                Location::Item(name) if name == "payload" => Some(Cow::Borrowed(&*payload)),
                _ => found.text(at),
            };
            let bytes: Cow<'_, [u8]> = match part {
                Part::Literal(text) => text.as_bytes().into(),
                Part::Body => callback.body.into(),
                Part::Timestamp => time.as_bytes().into(),
                Part::At(at) => text(at)?.into_owned().into_bytes().into(),
                Part::Lower(at) => text(at)?.to_lowercase().into_bytes().into(),
                Part::Maybe(at) => text(at).unwrap_or_default().into_owned().into_bytes().into(),
                Part::Method => b"POST"[..].into(),
                Part::Url => callback.url.as_bytes().into(),
                Part::Path => {
                    callback.url.parse::<Uri>().ok()?.path().to_owned().into_bytes().into()
                }
                Part::Secret => secret.expose().into(),
                Part::Form | Part::Canonical(_) => return None,
            };
            Some(bytes)
        });
        let pieces = pieces.collect::<Option<Vec<_>>>()?;
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
        let tag = signature.algorithm.sign(keys.first()?, &pieces)?;
        let text = signature.encoding.encode(&tag)?;
        let value = match (&signature.grammar, at) {
            (Grammar::Bare, _) => text,
            (Grammar::Prefix(prefix), _) => format!("{prefix}{text}"),
            (Grammar::List { separator, assign, item }, at) => {
                let item = if item == "*" { "1" } else { item };
                let signed = format!("{item}{assign}{text}");
                match at {
                    Some(Location::Item(name)) => {
                        let between = separator.chars().next()?;
                        format!("{name}{assign}{time}{between}{signed}")
                    }
                    _ => signed,
                }
            }
            (Grammar::TimeFirst, _) => format!("{time},{text}"),
            (Grammar::Jws, _) => format!("{header}.{payload}.{text}"),
        };
        headers.insert(place.clone(), HeaderValue::from_str(&value).ok()?);
        Some(headers)
    }

    /// Header and payload of the token that the signature is, if it is one.
    fn token(&self, callback: &Callback<'_>) -> Option<(String, String)> {
        let Some(claims) = &self.claims else { return Some(Default::default()) };
        let now = callback.time.secs();
        let mut said = serde_json::json!({ "iat": now, "nbf": now, "exp": now + 60 });
        if let Some(issuer) = &claims.issuer {
            said["iss"] = Value::String(issuer.clone());
        }
        let bounds = [(&claims.body, callback.body), (&claims.url, callback.url.as_bytes())];
        for (bound, bytes) in bounds {
            if let Some(bound) = bound {
                said[bound.claim.as_str()] = Value::String(bound.form.of(bytes));
            }
        }
        let header = serde_json::json!({ "alg": self.signature.algorithm.jws()?, "typ": "JWT" });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        Some((encode(&header), encode(&said)))
    }
}

/// The place of a JSON pointer, made where it isn't there.
fn place<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut at = value;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[step];
    }
    at
}
