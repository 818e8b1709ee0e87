//! What verifying takes of memory: nothing that grows with the body.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use zentra_shared::clock::Timestamp;
use zentra_shared::secret::Secret;
use zentra_shared::verify::{Callback, NamedSecret, Scheme, Signed, Source, Success, Unverified};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://hooks.example.com/in/s";
/// What a longer number of the body's length may take in a text.
const SLACK: i64 = 64;

/// A genuine callback with a body of this size, if it can be signed here.
fn signed(provider: &str, size: usize) -> Option<(Source, Unverified)> {
    let source = Source {
        name: "s".into(),
        provider: provider.into(),
        scheme: Scheme::named(provider).unwrap(),
        public_url: Some(URL.into()),
        handshake_token: None,
        secrets: vec![NamedSecret { name: "k".into(), secret: Secret::new(SECRET) }],
        max_body: 1 << 24,
        trusts_id: false,
        redact: zentra_shared::redact::Redact::default(),
        retention: std::time::Duration::from_secs(3600),
        environment: String::new(),
        archive: false,
        success: Success { status: StatusCode::OK, body: Bytes::new() },
    };
    let time = Timestamp::from_secs(1_700_000_000);
    let mut body = json!({ "padding": "x".repeat(size) });
    source.scheme.write_into(&mut body, "evt_1", "kind", time);
    let body = Bytes::from(body.to_string());
    let callback = Callback { id: "evt_1", kind: "kind", time, body: &body, url: URL };
    let Signed { headers, query, body } =
        source.scheme.sign(&source.secrets[0].secret, &callback).ok()?;
    let unverified = Unverified { headers, query, peer: None, body, received_at: time };
    Some((source, unverified))
}

fn taken(provider: &str, size: usize) -> Option<i64> {
    let (source, callback) = signed(provider, size)?;
    // What is made once, and stays. Some need more than this: a query, for one.
    callback.verify(&source).ok()?;
    let measured = allocation_counter::measure(|| drop(callback.verify(&source)));
    Some(i64::try_from(measured.bytes_max).unwrap())
}

#[test]
fn verifying_takes_no_memory_in_proportion_to_the_body() {
    let mut held = 0;
    for provider in Scheme::names() {
        let (Some(small), Some(large)) = (taken(provider, 1 << 10), taken(provider, 1 << 20))
        else {
            continue;
        };
        assert!(
            (large - small).abs() <= SLACK,
            "{provider}: {small} B for 1 KiB, {large} for 1 MiB"
        );
        held += 1;
    }
    assert!(held > 100, "only {held} providers' callbacks could be made");
}
