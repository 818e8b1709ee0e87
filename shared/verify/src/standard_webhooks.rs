//! Signing what is delivered: Standard Webhooks, one scheme for the application,
//! whatever the provider.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};

use crate::timestamp::Timestamp;
use crate::{Algorithm, KeyFormat, NamedSecret};

/// The three headers of the Standard Webhooks specification, with one signature per key
/// so that keys can rotate. A header whose value can't be one is left out.
pub fn standard_webhooks(
    keys: &[NamedSecret],
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> Vec<(HeaderName, HeaderValue)> {
    let time = now.secs().to_string();
    let signature = |key: &NamedSecret| {
        let key = KeyFormat::Whsec.key(&key.secret)?;
        let pieces = [id.as_bytes(), b".", time.as_bytes(), b".", body];
        let signature = Algorithm::HmacSha256.sign(&key, &pieces)?;
        Some(format!("v1,{}", STANDARD.encode(signature)))
    };
    let signatures: Vec<String> = keys.iter().filter_map(signature).collect();
    let headers = [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", time.clone()),
        ("webhook-signature", signatures.join(" ")),
    ];
    headers
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// The vector of the Standard Webhooks reference libraries.
    #[test]
    fn the_published_vector_is_signed_as_published() {
        let key = NamedSecret {
            name: "k".into(),
            secret: Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        };
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let now = Timestamp::from_secs(1_614_265_330);
        let headers = standard_webhooks(&[key.clone(), key], id, now, br#"{"test": 2432232314}"#);
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers[2].1, format!("{one} {one}"));
    }
}
