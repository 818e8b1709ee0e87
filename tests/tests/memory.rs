//! Verification uses no memory that grows with the body.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

use bytes::Bytes;
use serde_json::json;
use webhook_verify::Secret;
use webhook_verify::{Callback, Endpoint, NamedSecret, Scheme, Signed, Unverified};
use zentra_core::clock::Timestamp;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://hooks.example.com/in/s";
/// The additional bytes that a longer number for the body's length may use in a text.
const SLACK: i64 = 64;

/// A body whose size is filled up where the provider puts data.
type Written = fn(&Scheme, usize, Timestamp) -> Bytes;

fn json(scheme: &Scheme, size: usize, time: Timestamp) -> Bytes {
    let mut body = json!({ "padding": "x".repeat(size) });
    scheme.write_into(&mut body, "evt_1", "kind", time);
    body.to_string().into()
}

fn form(_: &Scheme, size: usize, _: Timestamp) -> Bytes {
    format!("a%5Bb%5D=c&text={}&%5Bd=%5D{}", "%C3%A4+".repeat(size / 7), "e".repeat(size)).into()
}

/// A genuine callback with such a body, if it can be signed here.
fn signed(provider: &str, written: Written, size: usize) -> Option<(Endpoint, Unverified)> {
    let endpoint = Endpoint {
        provider: provider.into(),
        scheme: Scheme::named(provider).unwrap(),
        public_url: Some(URL.into()),
        handshake_token: None,
        secrets: vec![NamedSecret { name: "k".into(), secret: Secret::new(SECRET) }],
        max_body: 1 << 24,
        trusts_id: false,
    };
    let time = Timestamp::from_secs(1_700_000_000);
    let body = written(&endpoint.scheme, size, time);
    let callback = Callback { id: "evt_1", kind: "kind", time, body: &body, url: URL };
    let Signed { headers, query, body } =
        endpoint.scheme.sign(&endpoint.secrets[0].secret, &callback).ok()?;
    let unverified = Unverified {
        method: http::Method::POST,
        headers,
        query,
        peer: None,
        body,
        received_at: time,
        receipt: 0,
    };
    Some((endpoint, unverified))
}

fn taken(provider: &str, written: Written, size: usize) -> Option<i64> {
    let (endpoint, callback) = signed(provider, written, size)?;
    // Allocations that are made once and stay. Some schemes need more than this, such as those
    // that sign a query.
    callback.verify(&endpoint).ok()?;
    let measured = allocation_counter::measure(|| drop(callback.verify(&endpoint)));
    Some(i64::try_from(measured.bytes_max).unwrap())
}

/// The providers whose callbacks can be created with such a body, and which use no more memory the
/// longer it is.
fn held(written: Written) -> Vec<&'static str> {
    let takes_no_more = |provider: &&str| {
        let taken = |size| taken(provider, written, size);
        let (Some(small), Some(large)) = (taken(1 << 10), taken(1 << 20)) else { return false };
        assert!(
            (large - small).abs() <= SLACK,
            "{provider}: {small} B for 1 KiB, {large} for 1 MiB"
        );
        true
    };
    Scheme::names().filter(takes_no_more).collect()
}

#[test]
fn verifying_takes_no_memory_in_proportion_to_the_body() {
    let held = held(json);
    assert!(held.len() > 100, "only {} providers' callbacks could be made", held.len());
}

#[test]
fn nor_in_proportion_to_a_form_and_what_it_encodes() {
    let held = held(form);
    for provider in ["mandrill", "plivo", "twilio"] {
        assert!(held.contains(&provider), "{provider}'s callback couldn't be made");
    }
}
