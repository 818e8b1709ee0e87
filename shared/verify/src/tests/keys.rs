use super::vectors::{Vectors, judged};
use super::*;

#[test]
fn a_key_of_nuls_is_the_empty_key_and_none() {
    for (format, text) in [
        (KeyFormat::Utf8, "\0\0"),
        (KeyFormat::Hex, "0000"),
        (KeyFormat::Base64, "AAAA"),
        (KeyFormat::Whsec, "whsec_AAAA"),
    ] {
        assert!(!format.accepts(&Secret::new(text)), "{format:?}");
    }
    assert!(KeyFormat::Hex.accepts(&Secret::new("0001")));
}

/// Tokens by HS256, signed here by the rules of RFC 7515.
#[test]
fn a_token_is_held_to_its_algorithm_its_times_its_issuer_and_the_body() {
    let endpoint = endpoint("qstash", &["sig_1"]);
    let endpoint = Endpoint { public_url: Some("https://h.example.com/in/q".into()), ..endpoint };
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
        callback.verify(&endpoint).map(drop).map_err(Refusal::reason)
    };
    let (hs256, without) = (r#"{"alg":"HS256"}"#, |claim: &str| good.replace(claim, "\"x"));
    assert_eq!(judge(hs256, &good, "sig_1"), Ok(()));
    assert_eq!(judge(hs256, &good, "sig_2"), Err("signature_mismatch"));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"RS256"}"#, "{}", "x"] {
        assert_eq!(judge(header, &good, "sig_1"), Err("signature_malformed"), "{header}");
    }
    // Extensions that have to be understood, and a payload that isn't encoded (RFC 7797).
    for crit in [r#""crit":["exp"],"exp":1"#, r#""crit":["b64"],"b64":false"#, r#""crit":[]"#] {
        let header = format!(r#"{{"alg":"HS256",{crit}}}"#);
        assert_eq!(judge(&header, &good, "sig_1"), Err("signature_malformed"), "{header}");
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
        assert_eq!(refusal(callback, &endpoint), Refusal::SignatureMalformed, "{token}");
    }
}

/// The key is public: signing with it by an HMAC is what a confused verifier would take.
#[test]
fn a_public_key_is_no_secret_of_an_hmac() {
    let jwk = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let endpoint = endpoint("plaid", &[jwk]);
    assert!(endpoint.scheme.accepts(&endpoint.secrets[0].secret));
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#] {
        let claims = format!(r#"{{"iat":{T},"request_body_sha256":"{}"}}"#, body_sha256(b"{}"));
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mac = Hmac::<Sha256>::new_from_slice(jwk.as_bytes()).unwrap();
        let tag = mac.chain_update(&signed).finalize().into_bytes();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        let callback = callback("{}", T, &[("plaid-verification", &token)]);
        assert!(callback.verify(&endpoint).is_err(), "{header}");
    }
}

#[test]
fn a_published_key_says_nothing_of_whose_callback_it_is_and_what_confirms_is_visited_at_its_host() {
    let genuine = |vectors: &Vectors| {
        let valid = vectors.cases.iter().find(|case| case.expect == "ok").unwrap();
        callback(&valid.body, vectors.now, &[])
    };
    let vectors = Vectors::of("aws-sns");
    let key = Secret::new(vectors.key.clone().unwrap());
    let own = endpoint("aws-sns", &["arn:aws:sns:eu-west-1:123456789012:other", &vectors.secret]);
    let event = judged(&genuine(&vectors), &own, Some(&key)).unwrap().into_events().remove(0);
    assert_eq!(event.verified_with, "k1");
    assert_eq!(event.event_id(), Some("22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"));
    // Another topic's is as genuine, and not for us.
    let another = endpoint("aws-sns", &["arn:aws:sns:eu-west-1:123456789012:other"]);
    let refusal = |endpoint: &Endpoint, key| judged(&genuine(&vectors), endpoint, key).unwrap_err();
    assert_eq!(refusal(&another, Some(&key)), Refusal::SignatureMismatch);
    assert_eq!(refusal(&own, None), Refusal::KeyUnavailable);
    assert_eq!(refusal(&own, Some(&Secret::new("no certificate"))), Refusal::SignatureMismatch);

    let vectors = Vectors::of("aws-sns-subscription");
    let key = Secret::new(vectors.key.clone().unwrap());
    let verified = judged(&genuine(&vectors), &own, Some(&key)).unwrap();
    let visit = verified.handshake().unwrap().visit.clone().unwrap();
    assert_eq!(visit.host(), Some("sns.eu-west-1.amazonaws.com"));
    assert!(verified.into_events().is_empty());
}
