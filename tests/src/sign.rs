//! Signs as the providers do. Written independently of the code that verifies.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::http::Headers;

/// The secret of the source `acme` (Standard Webhooks).
pub const ACME_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The secret of the source `stripe-eu`.
pub const STRIPE_SECRET: &str = "whsec_stripe_test";
/// The secret of the source `github`.
pub const GITHUB_SECRET: &str = "It's a Secret to Everybody";
/// The secret of a test's own sources.
pub const CASE_SECRET: &str = "test_secret_0123456789abcdef";
/// The ledger's key, which signs deliveries to it.
pub const LEDGER_SECRET: &str = "whsec_bGVkZ2VyLXNpZ25pbmcta2V5LTI0Ynl0ZXM=";

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn hmac(key: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    let mac = content.iter().fold(mac, |mac, piece| mac.chain_update(piece));
    mac.finalize().into_bytes().to_vec()
}

/// A Standard Webhooks signature: `v1,<base64>`.
pub fn standard(secret: &str, id: &str, time: u64, body: &[u8]) -> String {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(text).unwrap_or_default();
    let head = format!("{id}.{time}.");
    format!("v1,{}", STANDARD.encode(hmac(&key, &[head.as_bytes(), body])))
}

/// The headers of a callback of `acme`.
pub fn acme(id: &str, time: u64, body: &[u8]) -> Headers {
    vec![
        ("content-type", "application/json".into()),
        ("webhook-id", id.into()),
        ("webhook-timestamp", time.to_string()),
        ("webhook-signature", standard(ACME_SECRET, id, time, body)),
    ]
}

/// The headers of a callback of `stripe-eu`.
pub fn stripe(time: u64, body: &[u8]) -> Headers {
    let head = format!("{time}.");
    let v1 = hex::encode(hmac(STRIPE_SECRET.as_bytes(), &[head.as_bytes(), body]));
    vec![("stripe-signature", format!("t={time},v1={v1}"))]
}

/// The headers of a callback of `github`.
pub fn github(delivery: &str, event: &str, body: &[u8]) -> Headers {
    let signature = hex::encode(hmac(GITHUB_SECRET.as_bytes(), &[body]));
    vec![
        ("x-github-delivery", delivery.into()),
        ("x-github-event", event.into()),
        ("x-hub-signature-256", format!("sha256={signature}")),
    ]
}

/// HMAC-SHA256 in hex, for custom providers.
pub fn plain(key: &str, content: &str) -> String {
    hex::encode(hmac(key.as_bytes(), &[content.as_bytes()]))
}

/// HMAC-SHA256 in base64, for custom providers.
pub fn base64(key: &str, content: &str) -> String {
    STANDARD.encode(hmac(key.as_bytes(), &[content.as_bytes()]))
}
