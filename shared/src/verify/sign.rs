//! Signing as the provider would, by the same data that verifies: for rehearsals. That the data
//! are right is proven elsewhere, by the providers' own tools.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::scheme::{Grammar, Location, Scheme, Time, TimeLocation};
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
    /// Writes id, type and time into a JSON body where the provider has them there.
    pub fn write_into(&self, body: &mut Value, id: &str, kind: &str, time: Timestamp) {
        if let Some(Time { at: TimeLocation::Json(pointer), unit, .. }) = &self.timestamp {
            *place(body, pointer) = Value::String(unit.write(time));
        }
        for (at, text) in [(&self.id, id), (&self.kind, kind)] {
            if let Some(Location::Json(pointer)) = at {
                *place(body, pointer) = Value::String(text.into());
            }
        }
    }

    /// The headers that the provider would send with it. `None` if the secret hasn't the
    /// scheme's form, or a value can't be a header's.
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
        if let Some(TimeLocation::Header(name)) = at {
            set(name, &time)?;
        }
        let signature = &self.signature;
        let key = signature.key.key(secret)?;
        let pieces = signature.content.parts().iter().map(|part| match part {
            Part::Literal(text) => Some(text.as_bytes()),
            Part::Body => Some(callback.body),
            Part::Timestamp => Some(time.as_bytes()),
            Part::Header(name) => Some(headers.get(name)?.as_bytes()),
            Part::Method => Some(&b"POST"[..]),
            Part::Url => Some(callback.url.as_bytes()),
        });
        let tag = signature.algorithm.sign(&key, &pieces.collect::<Option<Vec<_>>>()?)?;
        let text = signature.encoding.encode(&tag)?;
        let value = match (&signature.grammar, at) {
            (Grammar::Bare, _) => text,
            (Grammar::Prefix(prefix), _) => format!("{prefix}{text}"),
            (Grammar::List { separator, assign, item }, Some(TimeLocation::Item(name))) => {
                format!("{name}{assign}{time}{separator}{item}{assign}{text}")
            }
            (Grammar::List { assign, item, .. }, _) => format!("{item}{assign}{text}"),
        };
        headers.insert(signature.header.clone(), HeaderValue::from_str(&value).ok()?);
        Some(headers)
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
