//! Signs as a provider does, with the data of verification: for tests and rehearsals. Vectors of
//! the vendors' SDKs prove the data.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value};

use super::content::Content;
use super::multipart::{self, Field};
use super::place::{Location, Lookup};
use super::pointer::pointer_steps;
use super::scheme::{Grammar, Scheme};
use super::signature::{self, Read};
use super::template::Part;
use super::time::Time;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// A callback to sign.
#[derive(Clone, Debug)]
pub struct Callback<'a> {
    /// The event's id.
    pub id: &'a str,
    /// The event's type.
    pub kind: &'a str,
    /// Signed time.
    pub time: Timestamp,
    /// Exact body.
    pub body: &'a [u8],
    /// Address without the query, for schemes that sign it.
    pub url: &'a str,
}

/// A signed request.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Headers, without those that every request has.
    pub headers: HeaderMap,
    /// Query without the `?`, if the scheme needs one.
    pub query: Option<String>,
    /// Body; with the signature, if the scheme puts it there.
    pub body: Bytes,
}

/// Why a callback can't be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// The scheme signs with a private key, which the configuration doesn't have.
    #[error("it is signed with a private key, which the config doesn't have")]
    PrivateKey,
    /// The secret has the wrong form.
    #[error("the secret does not have the form of this provider's secrets")]
    Secret,
    /// The body lacks something that is signed, or the place of the signature.
    #[error("its body needs {0}, and that isn't there")]
    Body(String),
    /// Id, type or signature has characters that can't be sent there.
    #[error("what goes into {0} can't stand there")]
    Unsendable(String),
}

impl Scheme {
    /// Writes id, type and time into a JSON body where the provider has them there; where it sends
    /// several events in one callback, the body becomes one of them.
    pub fn write_into(&self, body: &mut Value, id: &str, kind: &str, time: Timestamp) {
        for (at, text) in [(&self.id, id), (&self.kind, kind)] {
            for at in at.iter().flat_map(Location::filled) {
                if let Some(pointer) = in_json(at) {
                    *place(body, pointer) = Value::String(text.into());
                }
            }
        }
        if let Some(pointer) = &self.items {
            let item = body.take();
            *place(body, pointer) = Value::Array(vec![item]);
        }
        if let Some(Time { at, unit, .. }) = &self.timestamp
            && let Some(pointer) = in_json(at)
        {
            *place(body, pointer) = Value::String(unit.write(time));
        }
    }

    /// The request that the provider would send.
    pub fn sign(&self, secret: &Secret, callback: &Callback<'_>) -> Result<Signed, Unsignable> {
        match &self.items {
            Some(pointer) if self.items_signed => self.sign_each(secret, callback, pointer),
            _ => self.sign_whole(secret, callback),
        }
    }

    /// Each item gets a signature of its own.
    fn sign_each(
        &self,
        secret: &Secret,
        callback: &Callback<'_>,
        pointer: &str,
    ) -> Result<Signed, Unsignable> {
        let lacking = || Unsignable::Body(format!("items at `{pointer}`"));
        let mut body: Value = serde_json::from_slice(callback.body).map_err(|_| lacking())?;
        let items = body.pointer_mut(pointer).and_then(Value::as_array_mut);
        for item in items.filter(|items| !items.is_empty()).ok_or_else(lacking)? {
            let text = item.to_string();
            let one = Callback { body: text.as_bytes(), ..callback.clone() };
            let signed = self.sign_whole(secret, &one)?;
            *item = serde_json::from_slice(&signed.body).map_err(|_| lacking())?;
        }
        let body = body.to_string().into();
        Ok(Signed { headers: HeaderMap::new(), query: None, body })
    }

    fn sign_whole(&self, secret: &Secret, callback: &Callback<'_>) -> Result<Signed, Unsignable> {
        let signature = &self.signature;
        if signature.algorithm.is_public() {
            return Err(Unsignable::PrivateKey);
        }
        let key = signature.key.key(secret).ok_or(Unsignable::Secret)?;
        let mut made = self.unsigned(callback)?;
        let url = match &made.query {
            Some(query) => format!("{}?{query}", callback.url),
            None => callback.url.to_owned(),
        };
        let (header, payload) = self.token(callback, &url);
        let time = self.written(callback.time);
        let items = [("header", &header), ("payload", &payload)];
        let mut read = Read::of(items.map(|(name, value)| (name.to_owned(), value.clone())).into());
        if let Some(Time { at: Location::Item(name), .. }) = &self.timestamp {
            read = Read::of(vec![(name.clone(), time.clone())]);
        }
        let found = Lookup::new(&made.headers, made.query.as_deref(), &made.body);
        let method = self.methods.first().unwrap_or(&Method::POST);
        let content = Content::new(self, method, &made.body, Some(url), found, read);
        let parts = signature.content.parts().iter();
        let pieces =
            parts.map(|part| content.piece(part).ok_or_else(|| Unsignable::Body(part.to_string())));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let content = signature::Signed { pieces: &pieces, secret };
        let tag = signature.algorithm.sign(&key, &content).ok_or(Unsignable::PrivateKey)?;
        let text = signature.encoding.encode(&tag).ok_or(Unsignable::Secret)?;
        let text = match &signature.grammar {
            Grammar::Bare => text,
            Grammar::Prefix(prefix) => format!("{prefix}{text}"),
            Grammar::List { separator, assign, item } => {
                let item = match (&**item, &**assign) {
                    ("*", "") => "",
                    ("*", _) => "1",
                    (item, _) => item,
                };
                match &self.timestamp {
                    Some(Time { at: Location::Item(name), .. }) => {
                        let between = separator.chars().next().unwrap_or(',');
                        format!("{name}{assign}{time}{between}{item}{assign}{text}")
                    }
                    _ => format!("{item}{assign}{text}"),
                }
            }
            Grammar::TimeFirst => format!("{time},{text}"),
            Grammar::Jws => format!("{header}.{payload}.{text}"),
        };
        if let Some(at) = signature.at.first() {
            made.put(at, &text)?;
        }
        Ok(made)
    }

    /// All of it but the signature.
    fn unsigned(&self, callback: &Callback<'_>) -> Result<Signed, Unsignable> {
        let body = Bytes::copy_from_slice(callback.body);
        let mut made = Signed { headers: HeaderMap::new(), query: None, body };
        if let Some(field) = self.multipart_field() {
            let body = std::mem::take(&mut made.body);
            made.write_form(&[(field, &body)]);
        }
        let sent = |at: &&Location| matches!(at, Location::Header(_) | Location::Query(_));
        for (at, text) in [(&self.id, callback.id), (&self.kind, callback.kind)] {
            for at in at.iter().flat_map(Location::filled).filter(sent) {
                made.put(at, text)?;
            }
        }
        if let Some(time) = &self.timestamp {
            let inside = self.signature.content.covers(&Part::Timestamp);
            match &time.at {
                Location::Json(_) | Location::Form(_) | Location::Multipart(_) if !inside => {}
                Location::Item(_) | Location::Claim(_) => {}
                at => made.put(at, &self.written(callback.time))?,
            }
        }
        let parts = self.signature.content.parts();
        for part in parts {
            if let Part::Canonical(form) = part
                && let Some((name, value)) = form.announces()
            {
                made.put(&Location::Header(name), value)?;
            }
        }
        for required in &self.required {
            if let Some(is) = required.is.as_ref().filter(|_| sent(&&required.at)) {
                made.put(&required.at, is)?;
            }
        }
        // What else is signed along: any text will do.
        for at in parts.iter().filter_map(Part::place).flat_map(Location::filled).filter(sent) {
            let found = Lookup::new(&made.headers, made.query.as_deref(), &made.body);
            if found.text(at).is_none() {
                made.put(at, callback.id)?;
            }
        }
        Ok(made)
    }

    fn written(&self, time: Timestamp) -> String {
        self.timestamp.as_ref().map(|time| time.unit).unwrap_or_default().write(time)
    }

    /// Header and payload of the token that the signature is, if it is one.
    fn token(&self, callback: &Callback<'_>, url: &str) -> (String, String) {
        let Some(claims) = &self.claims else { return Default::default() };
        let now = callback.time.secs();
        let mut said = serde_json::json!({ "iat": now, "nbf": now, "exp": now + 60 });
        if let Some(issuer) = &claims.issuer {
            said["iss"] = Value::String(issuer.clone());
        }
        let bounds = [(&claims.body, callback.body), (&claims.url, url.as_bytes())];
        for (bound, bytes) in bounds {
            if let Some(bound) = bound {
                said[bound.claim.as_str()] = bound.form.of(bytes).into();
            }
        }
        let algorithm = self.signature.algorithm.jws().unwrap_or_default();
        let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        (encode(&header), encode(&said))
    }
}

impl Signed {
    /// Makes the body a multipart form of these fields.
    fn write_form(&mut self, fields: &[Field<'_>]) {
        let (kind, body) = multipart::form(fields);
        self.body = body;
        self.headers.insert(header::CONTENT_TYPE, kind);
    }

    /// Puts a text where the provider has it.
    fn put(&mut self, at: &Location, text: &str) -> Result<(), Unsignable> {
        let unsendable = || Unsignable::Unsendable(at.to_string());
        let lacking = || Unsignable::Body(at.to_string());
        // In the place of what may stand there already.
        let pair = |name: &str, before: &str| {
            let others = form_urlencoded::parse(before.as_bytes()).filter(|(key, _)| key != name);
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(others).append_pair(name, text).finish()
        };
        match at {
            Location::Header(name) => {
                let value = HeaderValue::from_str(text).map_err(|_| unsendable())?;
                self.headers.insert(HeaderName::clone(name), value);
            }
            Location::Query(name) => {
                self.query = Some(pair(name, self.query.as_deref().unwrap_or_default()));
            }
            Location::Form(name) => {
                let form = std::str::from_utf8(&self.body).map_err(|_| unsendable())?;
                self.body = pair(name, form).into();
            }
            Location::Json(pointer) => {
                self.body = with(&self.body, pointer, text).ok_or_else(lacking)?;
            }
            Location::Multipart(path) => {
                let (name, pointer) = multipart::split(path);
                let (headers, before) = (self.headers.clone(), self.body.clone());
                let found = Lookup::new(&headers, None, &before);
                let fields = found.fields().ok_or_else(lacking)?;
                let value = match fields.iter().find(|(field, _)| *field == name) {
                    _ if pointer.is_empty() => Bytes::copy_from_slice(text.as_bytes()),
                    Some((_, json)) => with(json, pointer, text).ok_or_else(lacking)?,
                    None => return Err(lacking()),
                };
                let others = fields.iter().filter(|(field, _)| *field != name).copied();
                let fields: Vec<_> = others.chain([(name, &value[..])]).collect();
                self.write_form(&fields);
            }
            Location::Any(places) => {
                let first = places.first().ok_or_else(unsendable)?;
                return self.put(first, text);
            }
            Location::Item(_) | Location::Claim(_) | Location::All(_) => return Err(unsendable()),
        }
        let found = Lookup::new(&self.headers, self.query.as_deref(), &self.body);
        match found.text(at).as_deref() == Some(text) {
            true => Ok(()),
            false => Err(unsendable()),
        }
    }
}

/// Where in a JSON body, or in the JSON of a field, it is.
fn in_json(at: &Location) -> Option<&str> {
    match at {
        Location::Json(pointer) => Some(pointer),
        Location::Multipart(path) => {
            Some(multipart::split(path).1).filter(|pointer| !pointer.is_empty())
        }
        _ => None,
    }
}

/// The JSON with a text at this place.
fn with(json: &[u8], pointer: &str, text: &str) -> Option<Bytes> {
    let mut json: Value = serde_json::from_slice(json).ok()?;
    *place(&mut json, pointer) = Value::String(text.into());
    Some(json.to_string().into())
}

/// The place of a JSON pointer, made where it isn't there.
fn place<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut at = value;
    for step in pointer_steps(pointer) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[&*step];
    }
    at
}
