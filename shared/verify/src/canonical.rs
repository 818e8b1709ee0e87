//! What no template can say: providers that sign a form of their own, each by its name. Proven by
//! their SDKs, as the rest is (`tests/vectors/sdks/canonical.mjs`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, Uri, header};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::form::{Parameter, by_name_and_value, parameters};
use super::place::{Location, Lookup};
use super::signature::{Piece, Read};

const TRUELAYER_TIME: HeaderName = HeaderName::from_static("x-tl-webhook-timestamp");

/// A form of one provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// The address, and the form's fields by name, each value once
    /// (<https://www.twilio.com/docs/usage/security#validating-requests>). Another body than a form
    /// is signed by its digest in the query, `bodySHA256`.
    Twilio,
    /// The address with its query in order, and the form's fields by name, version 3
    /// (<https://www.plivo.com/docs/messaging/concepts/signature-validation/>).
    Plivo,
    /// Method, path, the headers that it names, and the body, a line each
    /// (<https://www.contentful.com/developers/docs/extensibility/app-framework/request-verification/>).
    Contentful,
    /// The body, with its whole weights as `N.0`: what was signed before JavaScript wrote it
    /// (the vendor's SDK, `validateWebhook`).
    Easypost,
    /// Some of the message's fields, by name, each name and value a line: signature version 2
    /// (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
    Sns,
    /// Method, path, the headers that the signature's own header names, and the body, as the
    /// payload of a detached JSON Web Signature (RFC 7515, appendix F)
    /// (<https://docs.truelayer.com/docs/signing-your-requests>).
    Truelayer,
    /// The body's CRC-32, in decimal.
    Crc32,
    /// The body with all but ASCII, and slashes, escaped as JSON may: how Box writes some bodies
    /// before it signs them (the vendor's SDK, `jsonStringifyWithEscapedUnicode`).
    Box,
}

impl Canonical {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "twilio" => Some(Self::Twilio),
            "plivo" => Some(Self::Plivo),
            "contentful" => Some(Self::Contentful),
            "easypost" => Some(Self::Easypost),
            "sns" => Some(Self::Sns),
            "truelayer" => Some(Self::Truelayer),
            "crc32" => Some(Self::Crc32),
            "box" => Some(Self::Box),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
            Self::Plivo => "plivo",
            Self::Contentful => "contentful",
            Self::Easypost => "easypost",
            Self::Sns => "sns",
            Self::Truelayer => "truelayer",
            Self::Crc32 => "crc32",
            Self::Box => "box",
        }
    }

    /// Whether the configured address is needed for it.
    pub(super) fn is_url(self) -> bool {
        matches!(self, Self::Twilio | Self::Plivo | Self::Contentful | Self::Truelayer)
    }

    /// The header with the time that it signs.
    pub(super) fn time(self) -> Option<HeaderName> {
        match self {
            Self::Contentful => Some(HeaderName::from_static("x-contentful-timestamp")),
            Self::Truelayer => Some(TRUELAYER_TIME),
            _ => None,
        }
    }

    /// The header by which it says which headers it signs, and the least that it names.
    pub(super) fn announces(self) -> Option<(HeaderName, &'static str)> {
        let name = || HeaderName::from_static("x-contentful-signed-headers");
        let contentful = self == Self::Contentful;
        contentful.then(|| (name(), "x-contentful-signed-headers,x-contentful-timestamp"))
    }

    /// Other ways in which the provider may have written the address. Twilio signs some requests
    /// with the port and some without; its SDKs try both (twilio-node#411).
    pub(super) fn other_urls(self, url: &str) -> Vec<String> {
        if self != Self::Twilio {
            return Vec::new();
        }
        let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let port = if scheme == "http" { 80 } else { 443 };
        let all = [format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{port}{path}")];
        all.into_iter().filter(|other| other != url).collect()
    }

    /// Whether it signs this header.
    pub(super) fn needs(self, header: &HeaderName) -> bool {
        match self {
            // Which ones, the callback says.
            Self::Contentful => {
                header.as_str().starts_with("x-contentful-") || *header == header::CONTENT_TYPE
            }
            Self::Truelayer => header.as_str().starts_with("x-tl-"),
            _ => false,
        }
    }

    /// In pieces, so that a body is signed where it lies. None where what is signed isn't there.
    pub(super) fn content<'b>(
        self,
        found: &'b Lookup<'_>,
        read: &Read,
        url: Option<&str>,
        body: &'b [u8],
    ) -> Option<Vec<Piece<'b>>> {
        let whole = |content: Vec<u8>| vec![owned(content)];
        match self {
            Self::Twilio => twilio(found, url?, body),
            Self::Plivo => plivo(found, url?),
            Self::Contentful => contentful(found, url?, body),
            Self::Easypost => Some(easypost(body).into_iter().map(Piece::Bytes).collect()),
            Self::Sns => sns(found).map(whole),
            Self::Truelayer => truelayer(found, read.item("header")?, url?, body).map(whole),
            Self::Crc32 => Some(whole(crc32fast::hash(body).to_string().into_bytes())),
            Self::Box => box_escaped(body).map(whole),
        }
    }
}

fn owned<'b>(bytes: impl Into<Vec<u8>>) -> Piece<'b> {
    Piece::Bytes(Cow::Owned(bytes.into()))
}

/// Something, and each field's name and value.
fn and_fields<'b>(first: String, fields: &[Parameter<'b>]) -> Vec<Piece<'b>> {
    let mut content = Vec::with_capacity(1 + 2 * fields.len());
    content.push(owned(first));
    for (name, value) in fields {
        content.extend([*name, *value].map(Piece::Encoded));
    }
    content
}

fn twilio<'b>(found: &'b Lookup<'_>, url: &str, body: &[u8]) -> Option<Vec<Piece<'b>>> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = parameters(query.as_bytes())?;
    if let Some((_, claimed)) = query.iter().find(|(name, _)| name.is("bodySHA256")) {
        let own = hex::encode(Sha256::digest(body));
        let fits = own.as_bytes().ct_eq(claimed.text()?.as_bytes());
        return bool::from(fits).then(|| and_fields(url.to_owned(), &[]));
    }
    let fields = by_name_and_value(found.form()?, true);
    Some(and_fields(url.to_owned(), &fields))
}

fn plivo<'b>(found: &'b Lookup<'_>, url: &str) -> Option<Vec<Piece<'b>>> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let query = by_name_and_value(&parameters(query.as_bytes())?, false);
    let fields = by_name_and_value(found.form()?, false);
    let query =
        query.iter().map(|(name, value)| Some(format!("{}={}", name.text()?, value.text()?)));
    let query = query.collect::<Option<Vec<_>>>()?.join("&");
    let mut head = base.to_owned();
    if !query.is_empty() || !fields.is_empty() {
        head += "?";
        head += &query;
    }
    if !query.is_empty() && !fields.is_empty() {
        head += ".";
    }
    Some(and_fields(head, &fields))
}

/// Each UTF-16 unit from U+007F on as `\uXXXX`, and each slash that no backslash stands before.
fn box_escaped(body: &[u8]) -> Option<Vec<u8>> {
    let mut escaped = String::with_capacity(body.len());
    let mut before = '\0';
    for c in std::str::from_utf8(body).ok()?.chars() {
        match c {
            '/' if before != '\\' => escaped += "\\/",
            '\0'..'\u{7f}' => escaped.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped += &format!("\\u{unit:04x}");
                }
            }
        }
        before = c;
    }
    Some(escaped.into_bytes())
}

/// Path and query as Contentful signs them: the query is escaped whole, and both once more (the
/// vendor's SDK, `getNormalizedEncodedURI`).
fn contentful_path(url: &Uri) -> String {
    // What `querystring.escape` leaves as it is, and what `encodeURI` does besides.
    const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'!')
        .remove(b'~')
        .remove(b'*')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')');
    const URI: &AsciiSet = &COMPONENT
        .remove(b';')
        .remove(b',')
        .remove(b'/')
        .remove(b'?')
        .remove(b':')
        .remove(b'@')
        .remove(b'&')
        .remove(b'=')
        .remove(b'+')
        .remove(b'$')
        .remove(b'#');
    let search = url.query().unwrap_or_default();
    let search = utf8_percent_encode(search, COMPONENT).to_string();
    let uri = match search.as_str() {
        "" => url.path().to_owned(),
        search => format!("{}?{search}", url.path()),
    };
    utf8_percent_encode(&uri, URI).to_string()
}

fn contentful<'b>(found: &Lookup<'_>, url: &str, body: &'b [u8]) -> Option<Vec<Piece<'b>>> {
    let url = url.parse::<Uri>().ok()?;
    // What follows a second `?` isn't signed.
    if url.query().is_some_and(|query| query.contains('?')) {
        return None;
    }
    let names = found.header(&HeaderName::from_static("x-contentful-signed-headers"))?;
    let mut headers = BTreeMap::new();
    for name in names.split(',') {
        let name = HeaderName::try_from(name.trim()).ok()?;
        let value = found.header(&name)?.trim();
        headers.insert(name.as_str().to_owned(), value);
    }
    // It says itself what it signs: the time must be among it.
    if !headers.contains_key("x-contentful-timestamp") {
        return None;
    }
    let headers: Vec<String> =
        headers.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let head = format!("POST\n{}\n{}\n", contentful_path(&url), headers.join(";"));
    Some(vec![owned(head), Piece::Bytes(Cow::Borrowed(body))])
}

/// A line each for `POST` with the path and for each header, spelt as the signature does, before
/// the body.
fn truelayer(found: &Lookup<'_>, header: &str, url: &str, body: &[u8]) -> Option<Vec<u8>> {
    let said: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let mut payload = format!("POST {}\n", url.parse::<Uri>().ok()?.path());
    let mut timed = false;
    for named in said["tl_headers"].as_str()?.split(',') {
        let name = HeaderName::try_from(named).ok()?;
        timed |= name == TRUELAYER_TIME;
        payload += &format!("{named}: {}\n", found.header(&name)?);
    }
    // It says itself what it signs: the time must be among it.
    let payload = URL_SAFE_NO_PAD.encode([payload.as_bytes(), body].concat());
    timed.then(|| format!("{header}.{payload}").into_bytes())
}

/// Only version 2: the first one is by SHA-1.
fn sns(found: &Lookup<'_>) -> Option<Vec<u8>> {
    let field = |name: &str| found.text(&Location::Json(format!("/{name}")));
    if field("SignatureVersion")? != "2" {
        return None;
    }
    let names: &[&str] = match &*field("Type")? {
        "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
            &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        }
        _ => return None,
    };
    let mut content = String::new();
    for name in names {
        match field(name) {
            // Only a message has several lines: others would let the text be cut in other ways.
            Some(value) if *name != "Message" && value.contains('\n') => return None,
            Some(value) => {
                for line in [*name, &*value] {
                    content += line;
                    content += "\n";
                }
            }
            // A notification may do without.
            None if *name == "Subject" => {}
            None => return None,
        }
    }
    Some(content.into_bytes())
}

/// `"weight": 12}` is `"weight": 12.0}`: a whole number before a comma or a brace, and the white
/// space after it goes.
fn easypost(body: &[u8]) -> Vec<Cow<'_, [u8]>> {
    const KEY: &[u8] = b"\"weight\":";
    let mut content = Vec::new();
    let mut rest = body;
    while let Some(at) = memmem::find(rest, KEY) {
        let (before, after) = rest.split_at(at + KEY.len());
        content.push(Cow::Borrowed(before));
        rest = after;
        let space = length(rest, u8::is_ascii_whitespace);
        let digits = length(&rest[space..], u8::is_ascii_digit);
        let end = space + digits;
        let more = length(&rest[end..], u8::is_ascii_whitespace);
        if digits > 0 && matches!(rest.get(end + more), Some(b',' | b'}')) {
            content.push(Cow::Borrowed(&rest[..end]));
            content.push(Cow::Borrowed(b".0"));
            rest = &rest[end + more..];
        }
    }
    content.push(Cow::Borrowed(rest));
    content
}

/// `POST&PATH&QUERY`: without the query's own `jwt`, its names in order, each with its values in
/// order and commas between them. None if the address can't be read.
pub(super) fn atlassian_qsh(url: &[u8]) -> Option<String> {
    // What RFC 3986 leaves as it is.
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let url = std::str::from_utf8(url).ok()?.parse::<Uri>().ok()?;
    let path = url.path().replace('&', "%26");
    let path = match path.strip_suffix('/') {
        Some("") | None => &path,
        Some(path) => path,
    };
    let query = parameters(url.query().unwrap_or_default().as_bytes())?;
    let query = query.iter().filter(|(name, _)| !name.is("jwt"));
    let query = query.map(|(name, value)| Some((escaped(&name.text()?), escaped(&value.text()?))));
    let mut query: Vec<_> = query.collect::<Option<_>>()?;
    query.sort();
    let query = query.chunk_by(|a, b| a.0 == b.0).map(|same| {
        let values: Vec<&str> = same.iter().map(|(_, value)| value.as_str()).collect();
        format!("{}={}", same[0].0, values.join(","))
    });
    Some(format!("POST&{path}&{}", query.collect::<Vec<_>>().join("&")))
}

fn length(bytes: &[u8], fits: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| fits(byte)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_weights_are_written_as_they_were_signed() {
        let cases = [
            (r#"{"weight":12}"#, r#"{"weight":12.0}"#),
            (r#"{"weight": 12 , "a":1}"#, r#"{"weight": 12.0, "a":1}"#),
            (r#"{"weight":12.5,"b":{"weight":7}}"#, r#"{"weight":12.5,"b":{"weight":7.0}}"#),
            (r#"{"weight":"12"}"#, r#"{"weight":"12"}"#),
            (r#"{"weight":1"#, r#"{"weight":1"#),
            (r#""weight":"weight":3}"#, r#""weight":"weight":3.0}"#),
        ];
        for (body, signed) in cases {
            assert_eq!(String::from_utf8(easypost(body.as_bytes()).concat()).unwrap(), signed);
        }
    }

    /// The check value of CRC-32 (ISO 3309), in decimal.
    #[test]
    fn a_checksum_is_of_the_body_in_decimal() {
        let headers = http::HeaderMap::new();
        let found = Lookup::new(&headers, None, b"123456789");
        let content = Canonical::Crc32.content(&found, &Read::default(), None, b"123456789");
        let mut signed = Vec::new();
        Piece::Many(content.unwrap()).each(b"", &mut |bytes| signed.extend_from_slice(bytes));
        assert_eq!(signed, b"3421780262");
    }

    #[test]
    fn truelayers_signature_must_name_the_time_and_each_header_that_it_names_must_be_there() {
        let mut headers = http::HeaderMap::new();
        headers.insert(TRUELAYER_TIME, http::HeaderValue::from_static("2026-11-26T10:00:00Z"));
        let found = Lookup::new(&headers, None, b"{}");
        let signed = |names: &str| {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"tl_headers\":\"{names}\"}}"));
            truelayer(&found, &header, "https://a.example/in/t?x=1", b"{}")
                .map(|content| URL_SAFE_NO_PAD.decode(&content[header.len() + 1..]).unwrap())
        };
        let payload = b"POST /in/t\nX-TL-Webhook-Timestamp: 2026-11-26T10:00:00Z\n{}";
        assert_eq!(signed("X-TL-Webhook-Timestamp").as_deref(), Some(&payload[..]));
        for names in ["", "X-Other", "X-TL-Webhook-Timestamp,X-Other", "x y"] {
            assert_eq!(signed(names), None, "{names}");
        }
    }

    #[test]
    fn atlassians_hash_is_of_what_is_escaped_and_in_order() {
        let cases = [
            ("https://a.example/x&y/?b=2&a=%20&b=1&jwt=t&c", "POST&/x%26y&a=%20&b=1,2&c="),
            ("https://a.example/?a=x+y&A=*~", "POST&/&A=%2A~&a=x%20y"),
            ("https://a.example", "POST&/&"),
        ];
        for (url, canonical) in cases {
            assert_eq!(atlassian_qsh(url.as_bytes()).as_deref(), Some(canonical));
        }
        assert_eq!(atlassian_qsh(b"https://a.example/?a=%ff"), None);
    }

    proptest! {
        #[test]
        fn no_address_and_no_header_panics(
            url in "(https://a\\.example)?/\\PC{0,20}(\\?\\PC{0,40})?",
            names in "(X-TL-Webhook-Timestamp|,|x|:|\\PC){0,6}",
            header in any::<Vec<u8>>(),
        ) {
            let _ = atlassian_qsh(url.as_bytes());
            let headers = http::HeaderMap::new();
            let found = Lookup::new(&headers, None, b"{}");
            let named = serde_json::json!({ "tl_headers": names }).to_string().into_bytes();
            for header in [named, header] {
                let content = truelayer(&found, &URL_SAFE_NO_PAD.encode(header), &url, b"{}");
                prop_assert_eq!(content, None, "the time isn't there");
            }
        }

        #[test]
        fn the_order_of_a_query_is_nothing_to_atlassian(
            mut query in prop::collection::vec(("[a-c é]{1,2}", "[x~*]{0,2}"), 0..6),
        ) {
            let written = |query: &[(String, String)]| {
                let mut form = form_urlencoded::Serializer::new(String::new());
                let text = form.extend_pairs(query).finish();
                atlassian_qsh(format!("https://a.example/?{text}").as_bytes()).unwrap()
            };
            let one = written(&query);
            query.reverse();
            prop_assert_eq!(one, written(&query));
        }

        #[test]
        fn no_body_panics(body in "(\"weight\":|[0-9]| |,|\\}|x){0,12}") {
            let _ = easypost(body.as_bytes());
        }
    }
}
