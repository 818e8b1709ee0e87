use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const T: u64 = 1_700_000_000;
const STRIPE_BODY: &str =
    r#"{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"charge.succeeded"}"#;
/// Made by Stripe's Python SDK 16.1.0, over `T`, `STRIPE_BODY` and `whsec_test_secret`.
const STRIPE_V1: &str = "ea0a8c6df020a098fd57a17f7b76d3bb047829a08e9b0b1bfe25c016a3f34c61";

fn source(provider: &str, secrets: &[&str]) -> Source {
    Source {
        name: "src".into(),
        provider: provider.into(),
        scheme: Scheme::named(provider).unwrap(),
        secrets: secrets
            .iter()
            .enumerate()
            .map(|(i, secret)| NamedSecret { name: format!("k{i}"), secret: Secret::new(*secret) })
            .collect(),
        max_body: 1024,
        trusts_id: false,
        environment: String::new(),
        public_url: None,
        handshake_token: None,
        retention: Duration::ZERO,
        archive: false,
        success: Success { status: StatusCode::OK, body: Bytes::new() },
    }
}

fn callback(body: &str, now: u64, headers: &[(&'static str, &str)]) -> Unverified {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    Unverified {
        headers: map,
        query: None,
        peer: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: Timestamp::from_secs(now),
    }
}

fn envelope(callback: Unverified, source: &Source) -> Envelope {
    callback.verify(source).unwrap().into_events().remove(0).envelope
}

fn refusal(callback: Unverified, source: &Source) -> Refusal {
    callback.verify(source).unwrap_err()
}

fn stripe_at(now: u64, header: &str) -> Result<Verified, Refusal> {
    let source = source("stripe", &["whsec_test_secret"]);
    callback(STRIPE_BODY, now, &[("stripe-signature", header)]).verify(&source)
}

/// A signature for `secret` over `content`, for cases that no vector is published for.
fn hmac_hex(secret: &str, content: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hex::encode(mac.chain_update(content).finalize().into_bytes())
}

#[test]
fn stripes_own_signature_is_accepted_and_its_signed_id_is_the_identity() {
    let event = stripe_at(T + 10, &format!("t={T},v1={STRIPE_V1},v0=00")).unwrap();
    let Event { envelope, body } = event.into_events().remove(0);
    assert_eq!(body, STRIPE_BODY);
    assert_eq!(envelope.identity.as_str(), "evt_1NG8Du2eZvKYlo2CUI79vXWy");
    assert_eq!(envelope.unsigned_id, None);
    assert_eq!(envelope.event_type.as_deref(), Some("charge.succeeded"));
    assert_eq!(envelope.provider_time, Some(Timestamp::from_secs(T)));
    assert_eq!(envelope.verified_with, "k0");
}

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>,
/// "Testing the webhook payload validation".
#[test]
fn githubs_published_vector_is_accepted_and_its_unsigned_id_is_not_the_identity() {
    let source = source("github", &["It's a Secret to Everybody"]);
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let with_id = |id: &str| {
        let headers = [
            ("x-hub-signature-256", signature),
            ("x-github-delivery", id),
            ("x-github-event", "push"),
        ];
        envelope(callback("Hello, World!", T, &headers), &source)
    };
    let first = with_id("72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert!(first.identity.as_str().starts_with("sha256:"));
    assert_eq!(first.event_id(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    assert_eq!(first.event_type.as_deref(), Some("push"));
    let replayed = with_id("00000000-0000-0000-0000-000000000000");
    assert_eq!(first.identity, replayed.identity);
    assert_ne!(first.event_id(), replayed.event_id());
    // Kept as a suspected replay, it has a name of its own; and so where ids are trusted.
    let suspect = |envelope: &Envelope| Envelope { suspected: true, ..envelope.clone() }.name();
    assert_ne!(suspect(&first), suspect(&replayed));
    assert_eq!(first.name(), replayed.name());
    let trusting = Source { trusts_id: true, ..source.clone() };
    let headers = [("x-hub-signature-256", signature), ("x-github-delivery", "d-1")];
    let named = envelope(callback("Hello, World!", T, &headers), &trusting);
    assert_eq!((named.identity.as_str(), named.unsigned_id), ("d-1", None));
}

/// The vector of the Standard Webhooks reference libraries.
#[test]
fn standard_webhooks_published_vector_is_accepted() {
    let source = source("standard-webhooks", &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let headers = |signature| {
        [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ]
    };
    let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let body = r#"{"test": 2432232314}"#;
    let verify = |signature| callback(body, 1_614_265_330, &headers(signature)).verify(&source);
    let event = verify(good).unwrap().into_events().remove(0);
    assert_eq!(event.envelope.identity.as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    let several = format!("v1,bm90IGl0 v1a,xyz {good}");
    assert!(verify(&several).is_ok());
    assert_eq!(verify("v1,bm90IGl0").unwrap_err(), Refusal::SignatureMismatch);
    assert_eq!(verify("v2,bm90IGl0").unwrap_err(), Refusal::SignatureMalformed);
}

#[test]
fn freshness_is_judged_both_ways_and_only_after_the_signature() {
    let good = format!("t={T},v1={STRIPE_V1}");
    assert!(stripe_at(T + 300, &good).is_ok());
    assert_eq!(stripe_at(T + 301, &good).unwrap_err(), Refusal::TimestampStale);
    assert!(stripe_at(T - 300, &good).is_ok());
    assert_eq!(stripe_at(T - 301, &good).unwrap_err(), Refusal::TimestampFuture);
    // A forger learns nothing of the clock, and can't freshen a stale callback.
    let forged = format!("t={},v1={STRIPE_V1}", T + 400);
    assert_eq!(stripe_at(T + 400, &forged).unwrap_err(), Refusal::SignatureMismatch);
}

#[test]
fn a_header_that_can_not_be_read_is_malformed_and_an_absent_one_missing() {
    let malformed = [
        format!("v1={STRIPE_V1}"),
        format!("t={T}"),
        format!("t={T},t={T},v1={STRIPE_V1}"),
        format!("t={T},v1=zz"),
        format!("t={T},v1="),
        format!("t={T};v1={STRIPE_V1}"),
        "nonsense".into(),
        String::new(),
        format!("t={T}{}", format!(",v1={STRIPE_V1}").repeat(17)),
    ];
    for header in malformed {
        assert_eq!(stripe_at(T, &header).unwrap_err(), Refusal::SignatureMalformed, "{header}");
    }
    let source = source("stripe", &["whsec_test_secret"]);
    assert_eq!(refusal(callback(STRIPE_BODY, T, &[]), &source), Refusal::SignatureMissing);
}

#[test]
fn a_time_that_is_no_number_is_malformed_even_when_it_is_signed() {
    let source = source("stripe", &["s"]);
    for time in ["soon", "-1", "", "99999999999999999999999"] {
        let v1 = hmac_hex("s", &format!("{time}.{{}}"));
        let header = format!("t={time},v1={v1}");
        let callback = callback("{}", T, &[("stripe-signature", &header)]);
        assert_eq!(refusal(callback, &source), Refusal::SignatureMalformed, "{time}");
    }
}

#[test]
fn any_active_secret_may_fit_and_the_history_learns_which() {
    let rotated = source("stripe", &["whsec_new", "whsec_test_secret"]);
    let header = format!("t={T},v1={STRIPE_V1}");
    let fits = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
    assert_eq!(envelope(fits, &rotated).verified_with, "k1");
    let retired = source("stripe", &["whsec_new"]);
    let late = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
    assert_eq!(refusal(late, &retired), Refusal::SignatureMismatch);
}

#[test]
fn of_two_id_headers_none_is_taken() {
    let source = source("standard-webhooks", &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-id", "msg_other"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let twice = callback(r#"{"test": 2432232314}"#, 1_614_265_330, &headers);
    assert_eq!(refusal(twice, &source), Refusal::SignatureMalformed);
}

#[test]
fn without_a_usable_id_the_digest_is_the_identity_and_ignores_the_time() {
    let source = source("stripe", &["s"]);
    let at = |time: u64, body: &str| {
        let header = format!("t={time},v1={}", hmac_hex("s", &format!("{time}.{body}")));
        envelope(callback(body, T, &[("stripe-signature", &header)]), &source)
    };
    for body in ["not json", r#"{"id":null}"#, r#"{"id":"a b"}"#, "[]"] {
        let first = at(T, body);
        assert!(first.identity.as_str().starts_with("sha256:"), "{body}");
        assert_eq!(first.identity, at(T + 60, body).identity, "a provider's retry is a copy");
    }
    assert_ne!(at(T, "[]").identity, at(T, "[ ]").identity);
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(300));
    assert!(at(T, &long).identity.as_str().len() < 128);
}

proptest! {
    #[test]
    fn any_flipped_bit_of_the_body_is_refused(at in 0usize..STRIPE_BODY.len(), bit in 0u8..8) {
        let source = source("stripe", &["whsec_test_secret"]);
        let header = format!("t={T},v1={STRIPE_V1}");
        let mut flipped = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
        let mut bytes = flipped.body.to_vec();
        bytes[at] ^= 1 << bit;
        flipped.body = bytes.into();
        prop_assert_eq!(refusal(flipped, &source), Refusal::SignatureMismatch);
    }

    #[test]
    fn any_flipped_digit_of_the_signature_is_refused(at in 0usize..64, to in 0u8..16) {
        let mut digits: Vec<char> = STRIPE_V1.chars().collect();
        let to = char::from_digit(u32::from(to), 16).unwrap();
        prop_assume!(digits[at] != to);
        digits[at] = to;
        let forged: String = digits.into_iter().collect();
        let result = stripe_at(T, &format!("t={T},v1={forged}"));
        prop_assert_eq!(result.unwrap_err(), Refusal::SignatureMismatch);
    }

    #[test]
    fn no_header_text_panics_or_is_let_in(text in "[ -~]{0,120}", name in 0usize..3) {
        let provider = ["stripe", "github", "standard-webhooks"][name];
        let source = source(provider, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let headers = [
            ("stripe-signature", text.as_str()),
            ("x-hub-signature-256", text.as_str()),
            ("webhook-signature", text.as_str()),
            ("webhook-timestamp", text.as_str()),
            ("webhook-id", "x"),
        ];
        let result = callback("{}", T, &headers).verify(&source);
        prop_assert!(result.is_err());
    }
}

#[test]
fn tolerances_are_the_providers_own() {
    for name in ["stripe", "standard-webhooks"] {
        let scheme = Scheme::named(name).unwrap();
        assert_eq!(scheme.timestamp.unwrap().tolerance, Duration::from_secs(300));
    }
}

#[test]
fn what_is_signed_like_a_provider_verifies_under_its_name() {
    for (provider, secret) in [
        ("stripe", "whsec_stripe_test"),
        ("github", "It's a Secret to Everybody"),
        ("standard-webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ] {
        let source = source(provider, &[secret]);
        let mut body = serde_json::json!({ "amount": 5 });
        let time = Timestamp::from_secs(T);
        source.scheme.write_into(&mut body, "evt_1", "transfer.settled", time);
        let body = body.to_string();
        let secret = &source.secrets[0].secret;
        let made = Callback {
            id: "evt_1",
            kind: "transfer.settled",
            time,
            body: body.as_bytes(),
            url: "",
        };
        let headers = source.scheme.sign(secret, &made).unwrap();
        let received_at = Timestamp::from_secs(T + 1);
        let callback =
            Unverified { headers, query: None, peer: None, body: body.into(), received_at };
        let envelope = callback.verify(&source).unwrap().into_events().remove(0).envelope;
        assert_eq!(envelope.event_id(), Some("evt_1"), "{provider}");
        assert_eq!(envelope.event_type.as_deref(), Some("transfer.settled"), "{provider}");
    }
}

/// What the vendors' own SDKs have signed, or judged: see `tests/vectors/generate.mjs`.
#[derive(serde::Deserialize)]
struct Vectors {
    provider: String,
    proof: String,
    secret: String,
    /// Where it is sent, if that is signed.
    url: Option<String>,
    /// The published key, if there is one.
    key: Option<String>,
    now: u64,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
    expect: String,
}

/// As the ingress does it: first whether the key's address is believed.
fn judged(
    callback: &Unverified,
    source: &Source,
    key: Option<&Secret>,
) -> Result<Verified, Refusal> {
    callback.key_address(source)?;
    callback.verify_by(source, key)
}

#[test]
fn every_vector_of_the_vendors_sdks_is_judged_as_they_judge_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");
    let mut proven = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name.starts_with("package") {
            continue;
        }
        let vectors: Vectors = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut source = source(&vectors.provider, &[&vectors.secret]);
        assert_eq!(source.scheme.proof, Some(vectors.proof), "{name}");
        let addressed = source.scheme.signs_url() || source.scheme.needs_query();
        assert_eq!(addressed, vectors.url.is_some(), "{name}");
        let (url, query) = match vectors.url.as_deref().and_then(|url| url.split_once('?')) {
            Some((url, query)) => (Some(url.to_owned()), Some(query.to_owned())),
            None => (vectors.url, None),
        };
        source.public_url = url;
        assert!(source.scheme.accepts(&source.secrets[0].secret), "{name}");
        assert!(vectors.cases.iter().any(|case| case.expect == "ok"), "{name}");
        for case in vectors.cases {
            let mut headers = HeaderMap::new();
            for (name, value) in &case.headers {
                let name = HeaderName::try_from(name).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            let received_at = Timestamp::from_secs(vectors.now);
            let (query, body) = (query.clone(), case.body.into());
            let callback = Unverified { headers, query, peer: None, body, received_at };
            let key = vectors.key.as_deref().map(Secret::new);
            let judged = match judged(&callback, &source, key.as_ref()) {
                Ok(_) => "ok",
                Err(refusal) => refusal.reason(),
            };
            let refused = case.expect == "refused" && judged.starts_with("signature_");
            assert!(judged == case.expect || refused, "{name} {}: {judged}", case.name);
        }
        proven.push(vectors.provider);
    }
    proven.sort();
    proven.dedup();
    let says_so = |name: &&str| Scheme::named(name).is_some_and(|scheme| scheme.proof.is_some());
    assert!(Scheme::names().filter(says_so).eq(proven.iter().map(String::as_str)), "{proven:?}");
}

/// Signed by OpenSSL: see `tests/vectors/primitives.mjs`.
#[derive(serde::Deserialize)]
struct Primitives {
    vector: Vec<Primitive>,
}

#[derive(serde::Deserialize)]
struct Primitive {
    algorithm: String,
    encoding: String,
    key: String,
    secret: String,
    body: String,
    signature: String,
    of_another: String,
}

fn own(signature: &str) -> Result<Scheme, String> {
    Scheme::from_toml(
        format!("[signature]\nat = {{ header = \"x-signature\" }}\n{signature}").parse().unwrap(),
    )
}

#[test]
fn each_algorithm_encoding_and_key_format_fits_what_openssl_signs_and_nothing_else() {
    let text = include_str!("../../../tests/vectors/primitives.toml");
    let Primitives { vector } = toml::from_str(text).unwrap();
    for one in vector {
        let Primitive { algorithm, encoding, key, secret, body, signature, of_another } = one;
        let scheme = own(&format!(
            "grammar = \"bare\"\nalgorithm = \"{algorithm}\"\nencoding = \"{encoding}\"\n\
             key = \"{key}\"\ncontent = \"{{body}}\""
        ));
        let source = Source { scheme: scheme.unwrap(), ..source("github", &[&secret]) };
        let judge = |signature: &str, body: &str| {
            let callback = callback(body, T, &[("x-signature", signature)]);
            callback.verify(&source).map(drop).map_err(Refusal::reason)
        };
        assert_eq!(judge(&signature, &body), Ok(()), "{algorithm} {encoding} {key}");
        let mismatch = Err("signature_mismatch");
        assert_eq!(judge(&of_another, &body), mismatch, "{algorithm} {encoding} {key}");
        assert_eq!(judge(&signature, &format!("{body} ")), mismatch, "{algorithm}");
        // Any of several secrets may fit; one of another form is no key.
        let form = source.scheme.signature.key;
        assert!(form.accepts(&source.secrets[0].secret) && !form.accepts(&Secret::new("")));
    }
}

#[test]
fn a_token_is_the_secret_itself_and_basic_authentication_is_one_in_base64() {
    let token = "algorithm = \"token\"\nkey = \"utf8\"\ncontent = \"\"\n";
    let bare = format!("{token}grammar = \"bare\"\nencoding = \"text\"");
    let basic = format!("{token}grammar = {{ prefix = \"Basic \" }}\nencoding = \"base64\"");
    for (scheme, secret, good, bad) in [
        (bare, "s3cret", "s3cret", "s3cre"),
        (basic, "user:pass", "Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXN6"),
    ] {
        let source = Source { scheme: own(&scheme).unwrap(), ..source("github", &[secret]) };
        let judge = |text: &str| {
            let callback = callback("{}", T, &[("x-signature", text)]);
            callback.verify(&source).map(drop).map_err(Refusal::reason)
        };
        assert_eq!(judge(good), Ok(()));
        assert_eq!(judge(bad), Err("signature_mismatch"));
        assert!(judge("").is_err());
    }
}

#[test]
fn a_scheme_whose_parts_dont_go_together_is_refused() {
    let with = |algorithm: &str, key: &str, content: &str| {
        own(&format!(
            "grammar = \"bare\"\nalgorithm = \"{algorithm}\"\nencoding = \"hex\"\n\
             key = \"{key}\"\ncontent = \"{content}\""
        ))
        .is_ok()
    };
    assert!(with("hmac-sha512", "hex", "{body}") && with("ed25519", "hex", "{body}"));
    assert!(!with("ed25519", "utf8", "{body}"), "a public key is no text");
    assert!(!with("hmac-sha256", "spki", "{body}"), "an HMAC takes a secret");
    assert!(!with("hmac-sha256", "utf8", ""), "an HMAC covers the body");
    assert!(!with("token", "utf8", "{body}"), "a token covers nothing");
    let inside = |content: &str| {
        own(&format!(
            "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
             content = \"{content}\"\n[timestamp]\nat = {{ json = \"/at\" }}\ntolerance = \"1m\""
        ))
        .is_ok()
    };
    assert!(inside("{body}") && inside("{timestamp}.{body}"));
    assert!(!inside("{header:x-other}"), "the time is in what nothing signs");
}

#[test]
fn times_in_other_units_and_in_the_body_are_judged_as_well() {
    for (unit, text) in [("milliseconds", "1700000000000"), ("rfc3339", "2023-11-14T22:13:20Z")] {
        let scheme = own(&format!(
            "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
             content = \"{{body}}\"\n[timestamp]\nat = {{ json = \"/at\" }}\nunit = \"{unit}\"\n\
             tolerance = \"1m\""
        ));
        let source = Source { scheme: scheme.unwrap(), ..source("github", &["key"]) };
        let judge = |at: &str, now: u64| {
            let body = format!(r#"{{"at":"{at}"}}"#);
            let event = Callback {
                id: "",
                kind: "",
                time: Timestamp::default(),
                body: body.as_bytes(),
                url: "",
            };
            let headers = source.scheme.sign(&source.secrets[0].secret, &event).unwrap();
            let received_at = Timestamp::from_secs(now);
            let callback =
                Unverified { headers, query: None, peer: None, body: body.into(), received_at };
            callback.verify(&source).map(|of| of.into_events().remove(0).envelope.provider_time)
        };
        assert_eq!(judge(text, T + 60), Ok(Some(Timestamp::from_secs(T))), "{unit}");
        assert_eq!(judge(text, T + 61), Err(Refusal::TimestampStale));
        assert_eq!(judge(text, T - 61), Err(Refusal::TimestampFuture));
        assert_eq!(judge("soon", T), Err(Refusal::SignatureMalformed));
    }
}

#[test]
fn the_events_of_one_callback_have_identities_of_their_own_whatever_it_is_made_of() {
    let source = source("pusher", &["secret"]);
    let events = |body: &str| {
        let signature = hmac_hex("secret", body);
        let callback = callback(body, T, &[("x-pusher-signature", &signature)]);
        callback.verify(&source).unwrap().into_events()
    };
    let first = events(r#"{"time_ms":1,"events":[{"name":"a"},{"name":"b"},{"name":"a"}]}"#);
    let ids: Vec<&str> = first.iter().map(|event| event.envelope.identity.as_str()).collect();
    assert_eq!(ids[0], ids[2], "the same item is the same event");
    assert_ne!(ids[0], ids[1]);
    let bodies: Vec<&[u8]> = first.iter().map(|event| &event.body[..]).collect();
    let (a, b) = (&br#"{"name":"a"}"#[..], &br#"{"name":"b"}"#[..]);
    assert_eq!(bodies, [a, b, a]);
    let second = events(r#"{"time_ms":2,"events":[ {"name":"b"} ]}"#).remove(0);
    assert_eq!(second.envelope.identity, first[1].envelope.identity);
    assert_eq!(second.envelope.event_type.as_deref(), Some("b"));
    let place = |event: &Event| event.envelope.context.batch.clone().map(|of| (of.item, of.of));
    assert_eq!(place(&first[2]), Some((3, 3)));
    assert_eq!(events(r#"{"events":[]}"#).len(), 0);
    // What has no list there is one event, as it is.
    for body in [r#"{"events":{}}"#, "{}", "no JSON"] {
        let [event] = &events(body)[..] else { panic!("{body} is no event") };
        assert_eq!((&event.body[..], place(event)), (body.as_bytes(), None));
    }
}

#[test]
fn with_items_ids_are_in_them_and_not_in_a_header_that_all_would_share() {
    let signature = "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\n\
                     key = \"utf8\"\ncontent = \"{body}\"\n";
    let with = |items: &str, id: &str| {
        let text = format!(
            "items = \"{items}\"\n[signature]\nat = {{ header = \"x-signature\" }}\n{signature}[id]\n{id}"
        );
        Scheme::from_toml(text.parse().unwrap()).is_ok()
    };
    assert!(with("/events", "json = \"/id\"") && with("", "json = \"/id\""));
    assert!(!with("/events", "header = \"x-id\"") && !with("events", "json = \"/id\""));
}

/// Tokens by HS256, signed here by the rules of RFC 7515.
#[test]
fn a_token_is_held_to_its_algorithm_its_times_its_issuer_and_the_body() {
    let source = source("qstash", &["sig_1"]);
    let source = Source { public_url: Some("https://h.example.com/in/q".into()), ..source };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let body_claim = URL_SAFE_NO_PAD.encode(Sha256::digest("{}"));
    let good = format!(
        r#"{{"iss":"Upstash","sub":"https://h.example.com/in/q","exp":{},"nbf":{T},"body":"{body_claim}="}}"#,
        T + 60
    );
    let judge = |header: &str, claims: &str, key: &str| {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        let tag = mac.chain_update(&signed).finalize().into_bytes();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        let callback = callback("{}", T, &[("upstash-signature", &token)]);
        callback.verify(&source).map(drop).map_err(Refusal::reason)
    };
    let (hs256, without) = (r#"{"alg":"HS256"}"#, |claim: &str| good.replace(claim, "\"x"));
    assert_eq!(judge(hs256, &good, "sig_1"), Ok(()));
    assert_eq!(judge(hs256, &good, "sig_2"), Err("signature_mismatch"));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"RS256"}"#, "{}", "x"] {
        assert_eq!(judge(header, &good, "sig_1"), Err("signature_malformed"), "{header}");
    }
    for (wrong, reason) in [
        (good.replace("Upstash", "Another"), "signature_mismatch"),
        (good.replace("in/q", "in/r"), "signature_mismatch"),
        (good.replace(&body_claim, &body_claim.to_lowercase()), "signature_mismatch"),
        (without("\"body"), "signature_mismatch"),
        (without("\"sub"), "signature_mismatch"),
        (without("\"exp"), "signature_malformed"),
        (good.replace("\"nbf\":", "\"nbf\":-"), "signature_malformed"),
        (good.replace("\"exp\":", "\"exp\":\"soon\",\"x\":"), "signature_malformed"),
        (good.replace(&(T + 60).to_string(), &(T - 2).to_string()), "timestamp_stale"),
        (good.replace(&format!("\"nbf\":{T}"), &format!("\"nbf\":{}", T + 2)), "timestamp_future"),
        ("[]".into(), "signature_mismatch"),
        ("no JSON".into(), "signature_malformed"),
    ] {
        assert_eq!(judge(hs256, &wrong, "sig_1"), Err(reason), "{wrong}");
    }
    // Without any signature, and with more parts than three.
    for token in ["", ".", "..", "a.b", "a.b.c.d", &format!("{}.e30.", encode(hs256))] {
        let callback = callback("{}", T, &[("upstash-signature", token)]);
        assert_eq!(refusal(callback, &source), Refusal::SignatureMalformed, "{token}");
    }
}

/// The key is public: signing with it by an HMAC is what a confused verifier would take.
#[test]
fn a_public_key_is_no_secret_of_an_hmac() {
    let jwk = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let source = source("plaid", &[jwk]);
    assert!(source.scheme.accepts(&source.secrets[0].secret));
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#] {
        let claims = format!(r#"{{"iat":{T},"request_body_sha256":"{}"}}"#, body_sha256(b"{}"));
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mac = Hmac::<Sha256>::new_from_slice(jwk.as_bytes()).unwrap();
        let tag = mac.chain_update(&signed).finalize().into_bytes();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        let callback = callback("{}", T, &[("plaid-verification", &token)]);
        assert!(callback.verify(&source).is_err(), "{header}");
    }
}

#[test]
fn a_genuine_handshake_is_answered_with_what_it_asks_for_and_holds_no_event() {
    let source = source("zoom", &["token"]);
    let asked = |body: &str| {
        let signature = format!("v0={}", hmac_hex("token", &format!("v0:{T}:{body}")));
        let time = T.to_string();
        let headers = [("x-zm-signature", signature.as_str()), ("x-zm-request-timestamp", &time)];
        callback(body, T, &headers).verify(&source).unwrap()
    };
    let url = asked(
        r#"{"payload":{"plainToken":"q9ibPhGeRZ6ayx5WTrXjRw"},"event":"endpoint.url_validation"}"#,
    );
    let answer = url.handshake().unwrap();
    let encrypted = hmac_hex("token", "q9ibPhGeRZ6ayx5WTrXjRw");
    let wanted =
        format!(r#"{{"encryptedToken":"{encrypted}","plainToken":"q9ibPhGeRZ6ayx5WTrXjRw"}}"#);
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, wanted.as_bytes()));
    assert!(url.into_events().is_empty());
    // What it asks for isn't there, or is no challenge: then it is an event as any other.
    for token in ["", r#""plainToken":1.5e400"#, r#""plainToken":"{}""#, r#""plainToken":{}"#] {
        let other =
            asked(&format!(r#"{{"payload":{{{token}}},"event":"endpoint.url_validation"}}"#));
        assert_eq!((other.handshake().is_none(), other.into_events().len()), (true, 1), "{token}");
    }
    let event = asked(r#"{"payload":{"plainToken":"a"},"event":"meeting.started"}"#);
    assert_eq!((event.handshake().is_none(), event.into_events().len()), (true, 1));
}

#[test]
fn a_published_key_says_nothing_of_whose_callback_it_is_and_what_confirms_is_visited_at_its_host() {
    let read = |name: &str| {
        let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice::<Vectors>(&std::fs::read(path).unwrap()).unwrap()
    };
    let genuine = |vectors: &Vectors| {
        let valid = vectors.cases.iter().find(|case| case.expect == "ok").unwrap();
        callback(&valid.body, vectors.now, &[])
    };
    let vectors = read("aws-sns");
    let key = Secret::new(vectors.key.clone().unwrap());
    let own = source("aws-sns", &["arn:aws:sns:eu-west-1:123456789012:other", &vectors.secret]);
    let event = judged(&genuine(&vectors), &own, Some(&key)).unwrap().into_events().remove(0);
    assert_eq!(event.envelope.verified_with, "k1");
    assert_eq!(event.envelope.event_id(), Some("22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"));
    // Another topic's is as genuine, and not for us.
    let another = source("aws-sns", &["arn:aws:sns:eu-west-1:123456789012:other"]);
    let refusal = |source: &Source, key| judged(&genuine(&vectors), source, key).unwrap_err();
    assert_eq!(refusal(&another, Some(&key)), Refusal::SignatureMismatch);
    assert_eq!(refusal(&own, None), Refusal::KeyUnavailable);
    assert_eq!(refusal(&own, Some(&Secret::new("no certificate"))), Refusal::SignatureMismatch);

    let vectors = read("aws-sns-subscription");
    let key = Secret::new(vectors.key.clone().unwrap());
    let verified = judged(&genuine(&vectors), &own, Some(&key)).unwrap();
    let visit = verified.handshake().unwrap().visit.clone().unwrap();
    assert_eq!(visit.host(), Some("sns.eu-west-1.amazonaws.com"));
    assert!(verified.into_events().is_empty());
}

#[test]
fn what_is_only_seemingly_signed_is_not_taken_for_it() {
    let with = |grammar: &str, content: &str, more: &str| {
        own(&format!(
            "grammar = \"{grammar}\"\nalgorithm = \"hmac-sha256\"\nencoding = \"base64url\"\n\
             key = \"utf8\"\ncontent = \"{content}\"\n{more}"
        ))
    };
    let claims = "[claims]\nbody = { claim = \"body\", as = \"sha256-hex\" }";
    assert!(with("jws", "{item:header}.{item:payload}", claims).is_ok());
    for content in ["{item:header}", "{header:x-a}", "{body}"] {
        assert!(with("jws", content, claims).is_err(), "{content} leaves the claims unsigned");
    }
    let id = "[id]\nquery = \"id\"";
    let signed = |content: &str| {
        let scheme = with("bare", content, id).unwrap();
        scheme.covers(scheme.id.as_ref().unwrap())
    };
    assert!(signed("{url}{body}") && signed("{query:id}{body}"));
    assert!(!signed("{path}{body}") && !signed("{body}"), "the path hasn't the query");
}

#[test]
fn an_id_of_several_places_is_signed_only_where_all_of_them_are() {
    let with = |places: &str| {
        let scheme = own(&format!(
            "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
             content = \"{{body}}\"\n[id]\nall = [{places}]"
        ));
        Source { scheme: scheme.unwrap(), ..source("github", &["key"]) }
    };
    let judge = |source: &Source| {
        let body = r#"{"a":"x","b":7}"#;
        let signature = hmac_hex("key", body);
        let headers = [("x-signature", &*signature), ("x-id", "h")];
        envelope(callback(body, T, &headers), source)
    };
    let inside = judge(&with(r#"{ json = "/a" }, { json = "/b" }"#));
    assert_eq!(inside.identity.as_str(), "x:7");
    let half = judge(&with(r#"{ json = "/a" }, { header = "x-id" }"#));
    assert!(half.identity.as_str().starts_with("sha256:"), "{half:?}");
    assert_eq!(half.unsigned_id.as_deref(), Some("x:h"));
    let missing = judge(&with(r#"{ json = "/a" }, { json = "/c" }"#));
    assert_eq!(missing.event_id(), None);
}

#[test]
fn of_two_fields_of_one_name_none_is_taken_and_groups_may_only_say_the_same_again() {
    let scheme = own(
        "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
                      content = \"{form:a}{body}\"",
    );
    let form = Source { scheme: scheme.unwrap(), ..source("github", &["key"]) };
    let judge = |body: &str, signed: &str| {
        let signature = hmac_hex("key", signed);
        callback(body, T, &[("x-signature", &signature)]).verify(&form).map(drop)
    };
    assert_eq!(judge("a=1&b=2", "1a=1&b=2"), Ok(()));
    assert_eq!(judge("a=1&a=2", "1a=1&a=2"), Err(Refusal::SignatureMalformed));

    let persona = source("persona", &["secret"]);
    let good = hmac_hex("secret", &format!("{T}.{{}}"));
    let bad = "00".repeat(32);
    let judge = |header: &str| {
        callback("{}", T, &[("persona-signature", header)]).verify(&persona).map(drop)
    };
    assert_eq!(judge(&format!("t={T},v1={bad} t={T},v1={good}")), Ok(()));
    let two_times = format!("t={T},v1={bad} t={},v1={good}", T + 1);
    assert_eq!(judge(&two_times), Err(Refusal::SignatureMalformed));
}
