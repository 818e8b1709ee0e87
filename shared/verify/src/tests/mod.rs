mod handshakes;
mod identity;
mod items;
mod keys;
mod leniencies;
mod schemes;
mod vectors;

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

const T: u64 = 1_700_000_000;
const STRIPE_BODY: &str =
    r#"{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"charge.succeeded"}"#;
/// Made by Stripe's Python SDK 16.1.0, over `T`, `STRIPE_BODY` and `whsec_test_secret`.
const STRIPE_V1: &str = "ea0a8c6df020a098fd57a17f7b76d3bb047829a08e9b0b1bfe25c016a3f34c61";

fn endpoint(provider: &str, secrets: &[&str]) -> Endpoint {
    Endpoint {
        provider: provider.into(),
        scheme: Scheme::named(provider).unwrap(),
        secrets: secrets
            .iter()
            .enumerate()
            .map(|(i, secret)| NamedSecret { name: format!("k{i}"), secret: Secret::new(*secret) })
            .collect(),
        max_body: 1024,
        trusts_id: false,
        public_url: None,
        handshake_token: None,
    }
}

fn callback(body: &str, now: u64, headers: &[(&'static str, &str)]) -> Unverified {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    Unverified {
        method: Method::POST,
        headers: map,
        query: None,
        peer: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        received_at: Timestamp::from_secs(now),
        receipt: 0,
    }
}

fn event(callback: Unverified, endpoint: &Endpoint) -> VerifiedEvent {
    callback.verify(endpoint).unwrap().into_events().remove(0)
}

fn refusal(callback: Unverified, endpoint: &Endpoint) -> Refusal {
    callback.verify(endpoint).unwrap_err()
}

fn stripe_at(now: u64, header: &str) -> Result<Verified, Refusal> {
    let endpoint = endpoint("stripe", &["whsec_test_secret"]);
    callback(STRIPE_BODY, now, &[("stripe-signature", header)]).verify(&endpoint)
}

/// A signature for `secret` over `content`, for cases that no vector is published for.
fn hmac_hex(secret: &str, content: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hex::encode(mac.chain_update(content).finalize().into_bytes())
}

#[test]
fn stripes_own_signature_is_accepted_and_its_signed_id_is_the_identity() {
    let event = stripe_at(T + 10, &format!("t={T},v1={STRIPE_V1},v0=00")).unwrap();
    let event = event.into_events().remove(0);
    assert_eq!(event.body, STRIPE_BODY);
    assert_eq!(event.identity.as_str(), "evt_1NG8Du2eZvKYlo2CUI79vXWy");
    assert_eq!(event.unsigned_id, None);
    assert_eq!(event.event_type.as_deref(), Some("charge.succeeded"));
    assert_eq!(event.provider_time, Some(Timestamp::from_secs(T)));
    assert_eq!(event.verified_with, "k0");
}

/// A machine's clock that was an hour off is corrected, or one that was right is set wrong.
#[test]
fn while_the_clock_is_stepped_a_callback_is_fresh_by_either_time() {
    let endpoint = endpoint("stripe", &["whsec_test_secret"]);
    let header = format!("t={T},v1={STRIPE_V1}");
    let by = |received_at: u64, other: Option<u64>| {
        let callback = callback(STRIPE_BODY, received_at, &[("stripe-signature", &header)]);
        let verified =
            callback.verify_by_either(&endpoint, None, || other.map(Timestamp::from_secs));
        verified.map(|verified| verified.into_events().remove(0).received_at.secs())
    };
    let hour = 3600;
    assert_eq!(by(T + 1, Some(T + hour)), Ok(T + 1));
    assert_eq!(by(T + hour, Some(T + 2)), Ok(T + 2));
    assert_eq!(by(T - hour, Some(T + 2)), Ok(T + 2));
    assert_eq!(by(T + hour, None), Err(Refusal::TimestampStale));
    assert_eq!(by(T + hour, Some(T - hour)), Err(Refusal::TimestampStale));
}

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>,
/// "Testing the webhook payload validation".
#[test]
fn githubs_published_vector_is_accepted_and_its_unsigned_id_is_not_the_identity() {
    let endpoint = endpoint("github", &["It's a Secret to Everybody"]);
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let with_id = |id: &str| {
        let headers = [
            ("x-hub-signature-256", signature),
            ("x-github-delivery", id),
            ("x-github-event", "push"),
        ];
        event(callback("Hello, World!", T, &headers), &endpoint)
    };
    let first = with_id("72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert!(first.identity.as_str().starts_with("sha256:"));
    assert_eq!(first.event_id(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    assert_eq!(first.event_type.as_deref(), Some("push"));
    let replayed = with_id("00000000-0000-0000-0000-000000000000");
    assert_eq!(first.identity, replayed.identity);
    assert_ne!(first.event_id(), replayed.event_id());
    let trusting = Endpoint { trusts_id: true, ..endpoint.clone() };
    let headers = [("x-hub-signature-256", signature), ("x-github-delivery", "d-1")];
    let named = event(callback("Hello, World!", T, &headers), &trusting);
    assert_eq!((named.identity.as_str(), named.unsigned_id), ("d-1", None));
}

/// The vector of the Standard Webhooks reference libraries.
#[test]
fn standard_webhooks_published_vector_is_accepted() {
    let endpoint = endpoint("standard-webhooks", &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let headers = |signature| {
        [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ]
    };
    let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let body = r#"{"test": 2432232314}"#;
    let verify = |signature| callback(body, 1_614_265_330, &headers(signature)).verify(&endpoint);
    let event = verify(good).unwrap().into_events().remove(0);
    assert_eq!(event.identity.as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
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
    let endpoint = endpoint("stripe", &["whsec_test_secret"]);
    assert_eq!(refusal(callback(STRIPE_BODY, T, &[]), &endpoint), Refusal::SignatureMissing);
}

#[test]
fn a_time_that_is_no_number_is_malformed_even_when_it_is_signed() {
    let endpoint = endpoint("stripe", &["s"]);
    for time in ["soon", "-1", "", "99999999999999999999999"] {
        let v1 = hmac_hex("s", &format!("{time}.{{}}"));
        let header = format!("t={time},v1={v1}");
        let callback = callback("{}", T, &[("stripe-signature", &header)]);
        assert_eq!(refusal(callback, &endpoint), Refusal::SignatureMalformed, "{time}");
    }
}

#[test]
fn any_active_secret_may_fit_and_the_history_learns_which() {
    let rotated = endpoint("stripe", &["whsec_new", "whsec_test_secret"]);
    let header = format!("t={T},v1={STRIPE_V1}");
    let fits = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
    assert_eq!(event(fits, &rotated).verified_with, "k1");
    let retired = endpoint("stripe", &["whsec_new"]);
    let late = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
    assert_eq!(refusal(late, &retired), Refusal::SignatureMismatch);
}

#[test]
fn of_two_id_headers_none_is_taken() {
    let endpoint = endpoint("standard-webhooks", &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-id", "msg_other"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let twice = callback(r#"{"test": 2432232314}"#, 1_614_265_330, &headers);
    assert_eq!(refusal(twice, &endpoint), Refusal::SignatureMalformed);
}

#[test]
fn without_a_usable_id_the_digest_is_the_identity_and_ignores_the_time() {
    let endpoint = endpoint("stripe", &["s"]);
    let at = |time: u64, body: &str| {
        let header = format!("t={time},v1={}", hmac_hex("s", &format!("{time}.{body}")));
        event(callback(body, T, &[("stripe-signature", &header)]), &endpoint)
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
        let endpoint = endpoint("stripe", &["whsec_test_secret"]);
        let header = format!("t={T},v1={STRIPE_V1}");
        let mut flipped = callback(STRIPE_BODY, T, &[("stripe-signature", &header)]);
        let mut bytes = flipped.body.to_vec();
        bytes[at] ^= 1 << bit;
        flipped.body = bytes.into();
        prop_assert_eq!(refusal(flipped, &endpoint), Refusal::SignatureMismatch);
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
        let endpoint = endpoint(provider, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let headers = [
            ("stripe-signature", text.as_str()),
            ("x-hub-signature-256", text.as_str()),
            ("webhook-signature", text.as_str()),
            ("webhook-timestamp", text.as_str()),
            ("webhook-id", "x"),
        ];
        let result = callback("{}", T, &headers).verify(&endpoint);
        prop_assert!(result.is_err());
    }
}
