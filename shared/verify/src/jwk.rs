//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pkcs1::RsaPublicKey;
use pkcs1::UintRef;
use serde_json::Value;
use spki::der::Encode;

/// Maximum number of keys of a set that are tried.
const MAX_KEYS: usize = 16;

/// Keys of a JWK or a set, each in the form of its algorithm. Unknown kinds are skipped.
pub(super) fn keys(text: &[u8]) -> Vec<Vec<u8>> {
    let Ok(read) = serde_json::from_slice::<Value>(text) else { return Vec::new() };
    match read["keys"].as_array() {
        Some(set) => set.iter().filter_map(key).take(MAX_KEYS).collect(),
        None => key(&read).into_iter().collect(),
    }
}

fn key(jwk: &Value) -> Option<Vec<u8>> {
    let bytes = |name: &str| {
        let text = jwk[name].as_str()?.trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
    };
    match jwk["kty"].as_str()? {
        "EC" => Some([&[4], &bytes("x")?[..], &bytes("y")?[..]].concat()),
        "OKP" => bytes("x"),
        "RSA" => {
            let (modulus, public_exponent) = (bytes("n")?, bytes("e")?);
            let modulus = UintRef::new(&modulus).ok()?;
            let public_exponent = UintRef::new(&public_exponent).ok()?;
            RsaPublicKey { modulus, public_exponent }.to_der().ok()
        }
        _ => None,
    }
}
