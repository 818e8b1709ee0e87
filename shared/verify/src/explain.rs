//! Explains step by step why a callback verifies or not, with usual causes. It shows names of
//! headers and secrets, lengths and times; never a secret, never a valid signature.

use bytes::Bytes;
use http::HeaderMap;

use super::key::KeyFormat;
use super::place::Lookup;
use super::scheme::Grammar;
use super::template::Part;
use super::{Endpoint, MAX_ITEMS, NamedSecret, Refusal, Scheme, Unverified};
use crate::secret::Secret;

/// An explanation.
#[derive(Debug)]
pub struct Explanation {
    /// Steps in their order. If one failed, it is the last.
    pub steps: Vec<Step>,
    /// Probable causes. Empty if the callback verifies, or if no usual cause was found.
    pub hints: Vec<String>,
    /// The refusal; `None` if the callback verifies.
    pub refusal: Option<Refusal>,
}

/// One step of an explanation.
#[derive(Debug)]
pub struct Step {
    /// Whether the step succeeded.
    pub good: bool,
    /// What was found.
    pub found: String,
}

impl Unverified {
    /// Explains what [`Unverified::verify`] makes of it. The `others`, with their names, are
    /// endpoints whose secrets it may have been signed with instead.
    /// The `key` is that of [`Unverified::key_address`], if it can be had.
    pub fn explain(
        &self,
        endpoint: &Endpoint,
        others: &[(&str, &Endpoint)],
        key: Option<&Secret>,
    ) -> Explanation {
        let refusal = match self.key_address(endpoint) {
            Ok(_) => self.verify_by(endpoint, key).err(),
            Err(refusal) => Some(refusal),
        };
        let mut steps = Vec::new();
        match &endpoint.scheme.items {
            Some(pointer) if endpoint.scheme.items_signed => {
                self.walk_each(endpoint, pointer, &mut steps);
            }
            _ => self.walk(endpoint, key, &mut steps),
        }
        if refusal == Some(Refusal::BatchTooLarge) {
            let found = format!("It holds more than {MAX_ITEMS} events.");
            steps.push(Step { good: false, found });
        }
        let hints = match refusal {
            Some(Refusal::SignatureMismatch) => self.mismatch(endpoint, others, key),
            Some(Refusal::SignatureMissing | Refusal::SignatureMalformed) => {
                self.elsewhere(endpoint).into_iter().chain(self.no_form(endpoint)).collect()
            }
            Some(Refusal::TimestampStale) => vec![
                "It was signed longer ago than the window allows. A captured request? Give the \
                 time of its receipt with --at. A live one? Then this machine's clock is ahead, \
                 or the callback has waited somewhere on its way."
                    .into(),
            ],
            Some(Refusal::TimestampFuture) => {
                vec!["Its time is yet to come: this machine's clock is behind (NTP?).".into()]
            }
            Some(Refusal::KeyUnavailable) => {
                vec!["The ingress fetches the key there; give it here with --key FILE.".into()]
            }
            _ => Vec::new(),
        };
        Explanation { steps, hints, refusal }
    }

    /// Explains the first item that fails, or the first one.
    fn walk_each(&self, endpoint: &Endpoint, pointer: &str, steps: &mut Vec<Step>) {
        let items = match self.each(endpoint, pointer) {
            Ok(items) => items,
            Err(Refusal::BatchTooLarge) => return,
            Err(_) => {
                let found = format!("There is no item at `{pointer}`, and nothing else is signed.");
                return steps.push(Step { good: false, found });
            }
        };
        let one = |body: &Bytes| Self { body: body.clone(), ..self.clone() };
        let fails = items.iter().position(|item| one(item).verify_whole(endpoint, None).is_err());
        let (at, of) = (fails.unwrap_or_default(), items.len());
        let found =
            format!("Items at `{pointer}`, each with its signature: {of}. Number {}:", at + 1);
        steps.push(Step { good: true, found });
        one(&items[at]).walk(endpoint, None, steps);
    }

    fn walk(&self, endpoint: &Endpoint, key: Option<&Secret>, steps: &mut Vec<Step>) {
        let mut step = |good: bool, found: String| steps.push(Step { good, found });
        let scheme = &endpoint.scheme;
        let signature = &scheme.signature;
        let found = self.lookup(endpoint);
        let places = signature.at.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let read = match signature.read(&found) {
            Ok(read) => read,
            Err(Refusal::SignatureMissing) => {
                return step(
                    false,
                    format!("There is no {places}: {} signs there.", endpoint.provider),
                );
            }
            Err(_) => {
                let wanted = grammar(&signature.grammar);
                return step(
                    false,
                    format!("The {places} isn't {wanted}, or not in {:?}.", signature.encoding),
                );
            }
        };
        let count = read.signatures.len();
        step(true, format!("Signatures in the {places}: {count}."));
        match self.key_address(endpoint) {
            Err(refusal) => return step(false, format!("{refusal}.")),
            Ok(Some(address)) => step(key.is_some(), format!("Its key is at {address}.")),
            Ok(None) => {}
        }
        if endpoint.scheme.keys.is_some() && key.is_none() {
            return;
        }
        let url = self.url(endpoint);
        let others = url.iter().flat_map(|url| scheme.other_urls(url));
        let fits = |url: &String| {
            let judged = self.verify_at(endpoint, key, Some(url.clone()));
            judged.err() != Some(Refusal::SignatureMismatch)
        };
        let url = url.clone().filter(fits).or_else(|| others.into_iter().find(fits)).or(url);
        let judged = self.judged(endpoint, key, url, found, read);
        let (mut pieces, mut lengths) = (Vec::new(), Vec::new());
        for part in signature.content.parts() {
            match judged.content.piece(part) {
                Some(piece) => {
                    lengths.push(match piece.len() {
                        Some(length) => format!("{part} {length}"),
                        None => format!("{part} hidden"),
                    });
                    pieces.push(piece);
                }
                None => {
                    return step(
                        false,
                        format!(
                            "What is signed needs {part}, and it isn't there, or is there twice."
                        ),
                    );
                }
            }
        }
        if !lengths.is_empty() {
            step(true, format!("Signed content, in bytes: {}.", lengths.join(", ")));
        }
        let names = endpoint.secrets.iter().map(|named| named.name.as_str()).collect::<Vec<_>>();
        match judged.secret(&pieces) {
            Err(_) => {
                let names = names.join(", ");
                return step(
                    false,
                    format!(
                        "It fits none of the secrets: {names} ({}).",
                        signature.algorithm.name()
                    ),
                );
            }
            Ok(secret) => step(
                true,
                format!("It fits the secret {} ({}).", secret.name, signature.algorithm.name()),
            ),
        }
        let claims = match judged.claims() {
            Err(refusal) => {
                return step(
                    false,
                    format!("The token's claims aren't those of this request: {refusal}."),
                );
            }
            Ok(claims) => claims,
        };
        let Some(rule) = &scheme.timestamp else {
            return step(true, "No time is signed, so how old it is can't be judged.".into());
        };
        let window = humantime::format_duration(rule.tolerance);
        match judged.fresh(claims.as_ref()) {
            Ok(signed) => {
                let signed = signed.unwrap_or_default();
                step(
                    true,
                    format!(
                        "Signed at {signed}, received at {}: within {window}.",
                        self.received_at
                    ),
                );
            }
            Err(Refusal::SignatureMalformed) => {
                let (at, unit) = (&rule.at, rule.unit);
                step(false, format!("The signed time ({at}) isn't there, or isn't {unit}."));
            }
            Err(_) => {
                let time = judged.content.time().unwrap_or_default();
                step(
                    false,
                    format!(
                        "Signed at {time}, received at {}: not within {window}.",
                        self.received_at
                    ),
                );
            }
        }
    }

    /// Whether the signature fits, at any time.
    fn fits(&self, endpoint: &Endpoint, key: Option<&Secret>) -> bool {
        let late = [Refusal::TimestampStale, Refusal::TimestampFuture, Refusal::BatchTooLarge];
        self.verify_by(endpoint, key).map_or_else(|refusal| late.contains(&refusal), |_| true)
    }

    fn mismatch(
        &self,
        endpoint: &Endpoint,
        others: &[(&str, &Endpoint)],
        key: Option<&Secret>,
    ) -> Vec<String> {
        let mut hints = Vec::new();
        for (name, body) in other_bodies(&self.body) {
            if body != self.body && (Self { body: body.into(), ..self.clone() }).fits(endpoint, key)
            {
                hints.push(format!(
                    "It fits the same body {name}: something on the way has changed the body. \
                     Zentra needs its bytes as they were sent."
                ));
            }
        }
        for (name, other) in others {
            let swapped = Endpoint { secrets: other.secrets.clone(), ..endpoint.clone() };
            if self.fits(&swapped, key) {
                hints.push(format!(
                    "It fits a secret of the source {name}: two endpoints' secrets are mixed up.",
                ));
            }
        }
        for (name, swapped) in other_keys(endpoint) {
            if self.fits(&swapped, key) {
                hints.push(format!("It fits when the secret is taken {name}."));
            }
        }
        for (url, swapped) in other_urls(endpoint) {
            if self.fits(&swapped, key) {
                hints.push(format!(
                    "It fits the address {url}: set public_url to what the provider has."
                ));
            }
        }
        if endpoint.scheme.signs_url() && self.query.is_some() {
            let without = Self { query: None, ..self.clone() };
            if without.fits(endpoint, key) {
                hints.push("It fits the address without its query: a proxy has added one.".into());
            }
        }
        hints.extend(self.elsewhere(endpoint));
        if self.headers.contains_key(http::header::CONTENT_ENCODING)
            && !endpoint.scheme.signs_decoded_body
        {
            hints.push(
                "The request has a Content-Encoding: it is the encoded bytes that are verified, so \
                 the capture must be of those."
                    .into(),
            );
        }
        if hints.is_empty() {
            hints.push(
                "None of the usual reasons fits. Most often it is the secret of another endpoint \
                 (or of test instead of live), a body that was captured after a framework had \
                 parsed and written it again, or a secret that was rotated."
                    .into(),
            );
        }
        hints
    }

    /// Providers as which it verifies, or whose signature header it has.
    fn elsewhere(&self, endpoint: &Endpoint) -> Vec<String> {
        let known = Scheme::names().filter(|name| *name != endpoint.provider);
        let as_another = known.filter_map(|name| Some((name, Scheme::named(name)?)));
        let fits = as_another.filter(|(_, scheme)| {
            !scheme.is_token()
                && self.fits(&Endpoint { scheme: scheme.clone(), ..endpoint.clone() }, None)
        });
        fits.map(|(name, _)| format!("It verifies as a callback of the provider {name}.")).collect()
    }

    /// Where the provider sends multipart forms, and this is none.
    fn no_form(&self, endpoint: &Endpoint) -> Option<String> {
        let found = Lookup::new(&self.headers, None, &self.body);
        endpoint.scheme.multipart_field().filter(|_| found.fields().is_none())?;
        // Without the header itself: whatever stands there isn't told.
        Some(
            "The body can't be read as a multipart form with the boundary that its Content-Type \
             names: both must be as they were sent."
                .into(),
        )
    }
}

fn grammar(grammar: &Grammar) -> String {
    match grammar {
        Grammar::Bare => "a signature alone".into(),
        Grammar::Prefix(prefix) => format!("{prefix:?} and a signature"),
        Grammar::List { assign, item, .. } => format!("a list with {item}{assign}SIGNATURE"),
        Grammar::TimeFirst => "a time and signatures, with commas between".into(),
        Grammar::Jws => "a JSON Web Token by this scheme's algorithm".into(),
    }
}

/// Variants of the body before something changed it.
fn other_bodies(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8_lossy(body);
    let spaced = |indent: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(indent);
        let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
        serde::Serialize::serialize(&value, &mut writer).ok()?;
        Some(out)
    };
    let mut all = vec![
        ("without the white space at its end", text.trim_end().as_bytes().to_vec()),
        ("with a line break at its end", [body, b"\n"].concat()),
        ("with LF instead of CRLF", text.replace("\r\n", "\n").into_bytes()),
        ("with CRLF instead of LF", text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()),
        ("without white space in its JSON", compact(body)),
        ("as an empty one", Vec::new()),
    ];
    all.extend(spaced(b"  ").map(|body| ("with its JSON indented by two", body)));
    all.extend(spaced(b"    ").map(|body| ("with its JSON indented by four", body)));
    all
}

/// JSON without white space between tokens.
fn compact(body: &[u8]) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let mut kept = Vec::with_capacity(body.len());
    for &byte in body {
        if !inside && byte.is_ascii_whitespace() {
            continue;
        }
        inside ^= byte == b'"' && !escaped;
        escaped = inside && byte == b'\\' && !escaped;
        kept.push(byte);
    }
    kept
}

/// Other interpretations of the secrets.
fn other_keys(endpoint: &Endpoint) -> Vec<(&'static str, Endpoint)> {
    let formats = [
        ("as its bytes (key = \"utf8\")", KeyFormat::Utf8),
        ("as base64, after whsec_ if that is there (key = \"whsec\")", KeyFormat::Whsec),
        ("as hexadecimal (key = \"hex\")", KeyFormat::Hex),
        ("as base64 (key = \"base64\")", KeyFormat::Base64),
    ];
    let own = endpoint.scheme.signature.key;
    let public = endpoint.scheme.signature.algorithm.is_public();
    let others = formats.into_iter().filter(|(_, format)| !public && *format != own);
    let mut all: Vec<_> = others
        .map(|(name, format)| {
            let mut other = endpoint.clone();
            other.scheme.signature.key = format;
            (name, other)
        })
        .collect();
    let secrets: Vec<NamedSecret> = endpoint
        .secrets
        .iter()
        .map(|named| {
            let trimmed = named.secret.expose().trim_ascii();
            NamedSecret { name: named.name.clone(), secret: Secret::new(trimmed) }
        })
        .collect();
    all.push(("without the white space around it", Endpoint { secrets, ..endpoint.clone() }));
    all
}

/// Other addresses that the provider may have.
fn other_urls(endpoint: &Endpoint) -> Vec<(String, Endpoint)> {
    let Some(url) = endpoint.public_url.as_deref().filter(|_| endpoint.scheme.signs_url()) else {
        return Vec::new();
    };
    let swapped = match url.split_once("://") {
        Some(("https", rest)) => format!("http://{rest}"),
        Some((_, rest)) => format!("https://{rest}"),
        None => url.to_owned(),
    };
    let slash = match url.strip_suffix('/') {
        Some(without) => without.to_owned(),
        None => format!("{url}/"),
    };
    let urls = [swapped, slash].into_iter();
    urls.map(|url| (url.clone(), Endpoint { public_url: Some(url), ..endpoint.clone() })).collect()
}

/// The headers of a captured request, as text: `Name: value` lines, a request line before them if
/// there is one, up to an empty line. Returns the query of the request line with them.
pub fn captured(text: &str) -> Result<(HeaderMap, Option<String>), String> {
    let mut headers = HeaderMap::new();
    let mut query = None;
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        let request = line.split(' ').nth(1).filter(|_| number == 1 && line.contains(" HTTP/"));
        if let Some(target) = request {
            query = target.split_once('?').map(|(_, query)| query.to_owned());
            continue;
        }
        if line.is_empty() {
            match headers.is_empty() {
                true => continue,
                false => break,
            }
        }
        let pair = line.split_once(':').and_then(|(name, value)| {
            let name = http::HeaderName::try_from(name.trim()).ok()?;
            Some((name, http::HeaderValue::try_from(value.trim()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| format!("line {number} is no \"Name: value\""))?;
        headers.append(name, value);
    }
    Ok((headers, query))
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(text) => write!(f, "{text:?}"),
            Self::Body => f.write_str("the body"),
            Self::Form => f.write_str("the form's fields"),
            Self::Timestamp => f.write_str("the time"),
            Self::At(at) | Self::Lower(at) | Self::Maybe(at) => write!(f, "the {at}"),
            Self::Method => f.write_str("the method"),
            Self::Url => f.write_str("the address"),
            Self::Path => f.write_str("the address's path"),
            Self::Canonical(form) => write!(f, "what {} makes of it", form.name()),
            Self::Secret => f.write_str("the secret"),
        }
    }
}
