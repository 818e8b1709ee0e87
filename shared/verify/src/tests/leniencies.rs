//! What real callbacks and secrets have and the first reading of a document doesn't say.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;

/// The SDK of Standard Webhooks takes it without `v1,` (standard-webhooks#235).
#[test]
fn supabases_secret_is_taken_in_the_form_that_it_gives_out() {
    let secret = "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(Scheme::named("supabase-auth").unwrap().accepts(&Secret::new(secret)));
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let endpoint = endpoint("supabase-auth", &[secret]);
    let callback = callback(r#"{"test": 2432232314}"#, 1_614_265_330, &headers);
    assert!(callback.verify(&endpoint).is_ok());
}

/// <https://documentation.mailgun.com/docs/mailgun/user-manual/receive-forward-store/>: a route
/// forwards a message as a form, with time, token and signature as fields of it.
#[test]
fn mailguns_routes_and_legacy_events_are_signed_in_fields_of_a_form() {
    let endpoint = endpoint("mailgun", &["key"]);
    let (token, time) = ("t".repeat(50), T.to_string());
    let tag = hmac_hex("key", &format!("{time}{token}"));
    let form = |token: &str, tag: &str| {
        format!(
            "timestamp={time}&token={token}&signature={tag}&recipient=a%40example.com&event=opened"
        )
    };
    let judge =
        |body: &str, kind: &str| callback(body, T, &[("content-type", kind)]).verify(&endpoint);
    let kind = "application/x-www-form-urlencoded";
    let event = judge(&form(&token, &tag), kind).unwrap().into_events().remove(0);
    assert_eq!(event.event_type.as_deref(), Some("opened"));
    let other = judge(&form(&"u".repeat(50), &tag), kind).unwrap_err();
    assert_eq!(other, Refusal::SignatureMismatch);
    assert_eq!(judge("recipient=a", kind).unwrap_err(), Refusal::SignatureMissing);

    let field = |(name, value): (&str, &str)| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let all = [("timestamp", &*time), ("token", &token), ("signature", &tag), ("body-plain", "hi")];
    let body = all.map(field).concat() + "--b--\r\n";
    let kind = "multipart/form-data; boundary=b";
    assert!(judge(&body, kind).is_ok());
    let changed = body.replace(&token, &"u".repeat(50));
    assert_eq!(judge(&changed, kind).unwrap_err(), Refusal::SignatureMismatch);
}

/// Plaid says that something has changed by the same bytes each time, signed anew.
#[test]
fn the_same_bytes_of_plaid_signed_at_another_time_are_another_event() {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
    let key = serde_json::json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }).to_string();
    let endpoint = endpoint("plaid", &[&key]);
    let body = r#"{"item_id":"it1","webhook_code":"SYNC_UPDATES_AVAILABLE"}"#;
    let identity = |iat: u64, receipt: u64| {
        let digest = hex::encode(Sha256::digest(body));
        let claims = serde_json::json!({ "iat": iat, "request_body_sha256": digest });
        let header = serde_json::json!({ "alg": "ES256", "kid": "k", "typ": "JWT" });
        let signed =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let tag = pair.sign(&random, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        let sent = callback(body, T, &[("plaid-verification", &token)]);
        event(Unverified { receipt, ..sent }, &endpoint).identity
    };
    assert_ne!(identity(T, 1), identity(T + 60, 2), "two changes");
    assert_eq!(identity(T, 1), identity(T, 2), "the same, sent twice");
}

#[test]
fn a_claim_is_looked_for_only_where_there_is_a_token() {
    let pin = |claims: &str| {
        let text = format!(
            "body_unsigned = true\n[keys]\nurl = \"https://example.com/keys\"\n\
             pin = {{ claim = \"email\" }}\n[signature]\nat = {{ header = \"authorization\" }}\n\
             grammar = \"{claims}\"\nalgorithm = \"rsa-sha256\"\nencoding = \"base64url\"\n\
             key = \"jwk\"\ncontent = \"{}\"\n{}",
            if claims == "jws" { "{item:header}.{item:payload}" } else { "{header:x-a}" },
            if claims == "jws" { "[claims]\nissuer = \"i\"" } else { "" },
        );
        Scheme::from_toml(text.parse().unwrap()).map(drop)
    };
    assert_eq!(pin("jws"), Ok(()));
    assert!(pin("bare").unwrap_err().contains("JSON Web Token"));
}

/// SNS signs names and values as lines: only a message may have several.
#[test]
fn a_line_of_an_sns_message_is_no_field_of_its_own() {
    let field = |name: &str, value: &str| (name.to_owned(), Value::from(value));
    let content = |fields: serde_json::Map<String, Value>| {
        let body = Value::from(fields).to_string();
        let headers = HeaderMap::new();
        let found = Lookup::new(&headers, None, body.as_bytes());
        let read = Read::default();
        let canonical = crate::canonical::Canonical::named("sns").unwrap();
        canonical.content(&found, &read, None, body.as_bytes()).map(|pieces| {
            let mut all = Vec::new();
            Piece::Many(pieces).each(b"", &mut |bytes| all.extend_from_slice(bytes));
            all
        })
    };
    let message = |message: &str, id: &str, subject: Option<&str>| {
        let all = [
            field("SignatureVersion", "2"),
            field("Type", "Notification"),
            field("Message", message),
            field("MessageId", id),
            field("Timestamp", "2023-11-14T22:13:20Z"),
            field("TopicArn", "arn:t"),
        ];
        let subject = subject.map(|subject| field("Subject", subject));
        all.into_iter().chain(subject).collect()
    };
    let genuine = message("hi\nMessageId\nx\nSubject\ns", "real", None);
    assert!(content(genuine).is_some());
    // The same bytes, cut in another way.
    assert_eq!(content(message("hi", "x", Some("s\nMessageId\nreal"))), None);
    assert_eq!(content(message("hi", "x\nSubject\ns\nMessageId\nreal", None)), None);
}
