//! Headers and query that are kept of a request, and what the signature covers.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Refusal;
use super::canonical::Canonical;
use super::place::Location;
use super::scheme::Scheme;
use super::template::Part;
use crate::event::Weakness;

/// Maximum size of kept headers (names and values), in bytes. More is refused.
pub const MAX_HEADERS: usize = 24 * 1024;

/// Maximum length of a kept query, in bytes. A longer one is refused.
pub const MAX_QUERY: usize = 8 * 1024;

/// Of one hop, or of the message's framing (RFC 9110, sections 7.6.1 and 8.6; RFC 9112).
const HOP_BY_HOP: [HeaderName; 12] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The headers that go on, in their order.
///
/// # Errors
/// [`Refusal::HeadersTooLarge`] beyond [`MAX_HEADERS`].
pub(super) fn headers(all: &HeaderMap, scheme: &Scheme) -> Result<Vec<(String, String)>, Refusal> {
    let named = all.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    let goes_on = |name: &HeaderName| {
        !is_hop_by_hop(name)
            && !named.iter().any(|named| name.as_str().eq_ignore_ascii_case(named))
            // What is beside the body already.
            && *name != header::CONTENT_TYPE
            && !is_secret(name, scheme)
    };
    let (mut on, mut bytes) = (Vec::new(), 0_usize);
    for (name, value) in all.iter().filter(|(name, _)| goes_on(name)) {
        bytes = bytes.saturating_add(name.as_str().len() + value.len());
        if bytes > MAX_HEADERS {
            return Err(Refusal::HeadersTooLarge);
        }
        on.push((name.as_str().to_owned(), text(value)));
    }
    Ok(on)
}

/// Some servers take `_` for `-`.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    let text = name.as_str().replace('_', "-");
    HOP_BY_HOP.iter().any(|known| known.as_str() == text)
}

/// A signature, or a credential.
fn is_secret(name: &HeaderName, scheme: &Scheme) -> bool {
    scheme.signs_in(name) || is_signature(name) || is_credential(name)
}

/// Whether a header's name says that a signature is in it, be it one that isn't looked at.
fn is_signature(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["signature", "hmac", "content-mac"].iter().any(|word| name.contains(word))
}

/// Whether a header's name says that it may hold a credential. An idempotency key or token is none,
/// and neither is the id of a key.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    const WORDS: [&str; 15] = [
        "accesstoken",
        "auth",
        "authorization",
        "authentication",
        "apikey",
        "cookie",
        "credential",
        "jwt",
        "key",
        "oidc",
        "password",
        "secret",
        "session",
        "token",
        "tokens",
    ];
    const HARMLESS: [&str; 7] =
        ["-id", "-algo", "-algorithm", "-type", "-url", "-uuid", "-version"];
    let text = name.as_str().replace('_', "-");
    let harmless = ["idempotency-key", "idempotency-token"].iter().any(|end| text.ends_with(end))
        || HARMLESS.iter().any(|end| text.ends_with(end));
    !harmless && text.split('-').any(|word| WORDS.contains(&word))
}

/// As it stands; what is no UTF-8 is read as Latin-1, byte by byte.
fn text(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

/// The query that goes on: without the parameters that are signatures.
///
/// # Errors
/// [`Refusal::QueryTooLong`] beyond [`MAX_QUERY`].
pub(super) fn query(query: Option<&str>, scheme: &Scheme) -> Result<Option<String>, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    if query.len() > MAX_QUERY {
        return Err(Refusal::QueryTooLong);
    }
    let signature = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let at = |at: &Location| matches!(at, Location::Query(known) if known == name);
        scheme.signature.at.iter().any(at)
    };
    let pairs: Vec<&str> = query.split('&').filter(|pair| !signature(pair)).collect();
    Ok(Some(pairs.join("&")).filter(|query| !query.is_empty()))
}

/// What the signature covers: `body`, `query`, `method`, `type`, and the names of headers that go
/// on. A token covers nothing.
pub(super) fn signed(scheme: &Scheme, on: &[(String, String)], all: &HeaderMap) -> Vec<String> {
    if scheme.is_token() {
        return Vec::new();
    }
    let content = &scheme.signature.content;
    let typed = scheme.kind.as_ref().is_some_and(|at| scheme.covers(at));
    // Some of its fields, or no more than a checksum of it.
    let part = |part: &Part| matches!(part, Part::Canonical(Canonical::Sns | Canonical::Crc32));
    let partly = content.parts().iter().any(part);
    let parts = [
        ("body", !scheme.body_unsigned && !partly),
        ("query", scheme.covers_query()),
        ("method", content.covers(&Part::Method)),
        ("type", typed && matches!(scheme.weakness(), None | Some(Weakness::AnyCustomer))),
    ];
    let listed = content.parts().iter().filter_map(|part| match part {
        Part::Canonical(form) => form.announces().map(|(name, _)| name),
        _ => None,
    });
    let listed: Vec<String> = listed
        .filter_map(|name| all.get(name)?.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let covered = on.iter().map(|(name, _)| name).filter(|name| {
        let place = HeaderName::try_from(name.as_str()).map(Location::Header);
        place.is_ok_and(|place| scheme.covers(&place)) || listed.contains(name)
    });
    let names = parts.into_iter().filter(|(_, signed)| *signed).map(|(name, _)| name.to_owned());
    names.chain(covered.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(all: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn all_goes_on_but_framing_credentials_and_signatures() {
        let scheme = Scheme::named("github").unwrap();
        let stays = [
            ("host", "h"),
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer s"),
            ("cookie", "s"),
            ("x-api-key", "s"),
            ("x-auth-token", "s"),
            ("api_key", "s"),
            ("cf-access-jwt-assertion", "s"),
            ("x-idempotency-secret", "s"),
            ("transfer_encoding", "chunked"),
            ("x-hub-signature", "sha1=00"),
            ("x-hub-signature-256", "sha256=00"),
        ];
        let goes = [
            ("x-github-event", "push"),
            ("x-github-delivery", "d1"),
            ("user-agent", "GitHub-Hookshot"),
            ("idempotency-key", "k1"),
            ("i-twilio-idempotency-token", "t"),
            ("x-circle-key-id", "k"),
            ("paypal-auth-algo", "SHA256withRSA"),
            ("x-author", "ann"),
            ("x-goog-channel-id", "c"),
            ("content-encoding", "gzip"),
        ];
        let all = [&stays[..], &goes[..]].concat();
        let on = headers(&map(&all), &scheme).unwrap();
        let mut names: Vec<&str> = on.iter().map(|(name, _)| name.as_str()).collect();
        let mut wanted: Vec<&str> = goes.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
    }

    #[test]
    fn beyond_the_bound_it_is_refused_and_never_cut() {
        let scheme = Scheme::named("github").unwrap();
        let long = "x".repeat(MAX_HEADERS - 3);
        assert!(headers(&map(&[("x-a", &long)]), &scheme).is_ok());
        let one_more = headers(&map(&[("x-a", &long), ("b", "")]), &scheme);
        assert_eq!(one_more, Err(Refusal::HeadersTooLarge));
        let long = "x".repeat(MAX_QUERY);
        assert_eq!(query(Some(&long), &scheme), Ok(Some(long.clone())));
        assert_eq!(query(Some(&format!("{long}x")), &scheme), Err(Refusal::QueryTooLong));
    }

    #[test]
    fn a_query_goes_on_without_the_signature_in_it() {
        let query = |text, provider| query(Some(text), &Scheme::named(provider).unwrap()).unwrap();
        let text = "tenant=7&signature=00&a[]=1";
        assert_eq!(query(text, "shopify").as_deref(), Some(text));
        assert_eq!(query(text, "pandadoc").as_deref(), Some("tenant=7&a[]=1"));
        assert_eq!(query("signature=00", "pandadoc"), None);
    }

    #[test]
    fn what_is_signed_is_named() {
        let of = |provider: &str, all: &[(&str, &str)]| {
            let (scheme, all) = (Scheme::named(provider).unwrap(), map(all));
            signed(&scheme, &headers(&all, &scheme).unwrap(), &all).join(",")
        };
        assert_eq!(of("github", &[("x-github-event", "push")]), "body");
        let id = [("webhook-id", "m"), ("x-other", "1")];
        assert_eq!(of("standard-webhooks", &id), "body,type,webhook-id");
        assert_eq!(of("hubspot", &[]), "body,query,method,type");
        assert_eq!(of("google-channels", &[("x-goog-channel-id", "c")]), "");
        let listed = [
            ("x-contentful-signed-headers", "x-contentful-signed-headers,X-Contentful-Topic"),
            ("x-contentful-topic", "t"),
            ("x-contentful-crn", "c"),
        ];
        let text = of("contentful", &listed);
        assert!(
            text.contains("x-contentful-topic") && !text.contains("x-contentful-crn"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn no_header_and_no_query_panics(
            name in "[a-z-]{1,20}",
            value in prop::collection::vec(any::<u8>(), 0..40),
            text in "[ -~]{0,60}",
        ) {
            let scheme = Scheme::named("pandadoc").unwrap();
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
                let all = HeaderMap::from_iter([(name, value)]);
                prop_assert!(headers(&all, &scheme).is_ok());
            }
            prop_assert!(query(Some(&text), &scheme).is_ok());
        }
    }
}
