//! Headers of the request that come from the provider's request.

use http::{HeaderName, HeaderValue, Method};
use zentra_core::event::Context;

/// Query of the callback.
const QUERY: HeaderName = HeaderName::from_static("zentra-query");
/// Method of the callback, if it isn't POST.
const METHOD: HeaderName = HeaderName::from_static("zentra-method");
/// What the signature of the callback covers.
const SIGNED: HeaderName = HeaderName::from_static("zentra-signed");
/// Prefix for a provider's header whose name Zentra uses itself.
const ORIGINAL: &str = "zentra-original-";

/// Headers that say something of this request, and not of the provider's: nobody but the worker
/// sets them. Others begin with `ce-`, `zentra-` or `x-forwarded-`.
const RESERVED: [&str; 27] = [
    "accept-encoding",
    "authorization",
    "cf-connecting-ip",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "origin",
    "range",
    "traceparent",
    "tracestate",
    "true-client-ip",
    "user-agent",
    "via",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// The provider's headers under their own names; those that the request has of its own under
/// `zentra-original-`. Then query, method, and what is signed.
pub(super) fn headers(context: &Context) -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value): &(String, String)| {
        let name = match is_reserved(name) {
            true => original(name),
            false => HeaderName::try_from(name.as_str()).ok(),
        };
        Some((name?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    let mut all: Vec<_> = context.headers.iter().filter_map(header).collect();
    let method = context.method.as_deref().filter(|method| *method != Method::POST.as_str());
    let signed = match context.signed.is_empty() {
        true => "nothing".to_owned(),
        false => context.signed.join(","),
    };
    let own = [(QUERY, context.query.as_deref()), (METHOD, method), (SIGNED, Some(&*signed))];
    all.extend(own.into_iter().filter_map(|(name, value)| {
        Some((name, HeaderValue::from_bytes(value?.as_bytes()).ok()?))
    }));
    all
}

/// The name of a provider's header whose own name the request needs.
pub(super) fn original(name: &str) -> Option<HeaderName> {
    HeaderName::try_from(format!("{ORIGINAL}{name}")).ok()
}

/// Some servers take `_` for `-`.
fn is_reserved(name: &str) -> bool {
    let name = name.replace('_', "-");
    let prefixes = ["ce-", "zentra-", "x-forwarded-"];
    RESERVED.contains(&name.as_str()) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(headers: &[(&str, &str)]) -> Context {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Context { headers: headers.iter().map(pair).collect(), ..Context::default() }
    }

    fn texts(context: &Context) -> Vec<String> {
        let text = |(name, value): (HeaderName, HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        headers(context).into_iter().map(text).collect()
    }

    #[test]
    fn the_providers_headers_keep_their_names_but_for_those_that_are_ours() {
        let context = Context {
            method: Some("GET".into()),
            query: Some("tenant=7&a=%C3%A4".into()),
            signed: vec!["body".into(), "x-a".into()],
            ..of(&[
                ("x-shopify-shop-domain", "ann.myshopify.com"),
                ("idempotency-key", "k1"),
                ("zentra-signed", "everything"),
                ("ce-id", "forged"),
                ("zentra_signed", "everything"),
                ("content-encoding", "gzip"),
            ])
        };
        let wanted = [
            "x-shopify-shop-domain: ann.myshopify.com",
            "zentra-original-idempotency-key: k1",
            "zentra-original-zentra-signed: everything",
            "zentra-original-ce-id: forged",
            "zentra-original-zentra_signed: everything",
            "content-encoding: gzip",
            "zentra-query: tenant=7&a=%C3%A4",
            "zentra-method: GET",
            "zentra-signed: body,x-a",
        ];
        assert_eq!(texts(&context), wanted);
        assert_eq!(texts(&of(&[])), ["zentra-signed: nothing"]);
    }

    proptest! {
        #[test]
        fn no_header_of_a_provider_has_a_name_of_ours(
            name in "(zentra|ce|x-forwarded|webhook|idempotency)-[a-z]{1,9}|[a-z-]{1,12}",
            value in "[ -~]{0,20}",
        ) {
            let context = of(&[(&name, &value)]);
            let own = headers(&of(&[]));
            for (name, _) in headers(&context).iter().take(headers(&context).len() - own.len()) {
                let name = name.as_str();
                prop_assert!(!is_reserved(name) || name.starts_with(ORIGINAL), "{name}");
            }
        }
    }
}
