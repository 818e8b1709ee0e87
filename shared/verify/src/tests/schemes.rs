use super::*;

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
        let endpoint = endpoint(provider, &[secret]);
        let mut body = serde_json::json!({ "amount": 5 });
        let time = Timestamp::from_secs(T);
        endpoint.scheme.write_into(&mut body, "evt_1", "transfer.settled", time);
        let body = body.to_string();
        let secret = &endpoint.secrets[0].secret;
        let made = Callback {
            id: "evt_1",
            kind: "transfer.settled",
            time,
            body: body.as_bytes(),
            url: "",
        };
        let headers = endpoint.scheme.sign(secret, &made).unwrap().headers;
        let received_at = Timestamp::from_secs(T + 1);
        let callback = Unverified {
            method: Method::POST,
            headers,
            query: None,
            peer: None,
            body: body.into(),
            received_at,
            receipt: 0,
        };
        let event = callback.verify(&endpoint).unwrap().into_events().remove(0);
        assert_eq!(event.event_id(), Some("evt_1"), "{provider}");
        assert_eq!(event.event_type.as_deref(), Some("transfer.settled"), "{provider}");
    }
}

pub(super) fn own(signature: &str) -> Result<Scheme, String> {
    Scheme::from_toml(
        format!("[signature]\nat = {{ header = \"x-signature\" }}\n{signature}").parse().unwrap(),
    )
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
        let endpoint = Endpoint { scheme: own(&scheme).unwrap(), ..endpoint("github", &[secret]) };
        let judge = |text: &str| {
            let callback = callback("{}", T, &[("x-signature", text)]);
            callback.verify(&endpoint).map(drop).map_err(Refusal::reason)
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
        let endpoint = Endpoint { scheme: scheme.unwrap(), ..endpoint("github", &["key"]) };
        let judge = |at: &str, now: u64| {
            let body = format!(r#"{{"at":"{at}"}}"#);
            let event = Callback {
                id: "",
                kind: "",
                time: Timestamp::default(),
                body: body.as_bytes(),
                url: "",
            };
            let headers =
                endpoint.scheme.sign(&endpoint.secrets[0].secret, &event).unwrap().headers;
            let received_at = Timestamp::from_secs(now);
            let callback = Unverified {
                method: Method::POST,
                headers,
                query: None,
                peer: None,
                body: body.into(),
                received_at,
                receipt: 0,
            };
            callback.verify(&endpoint).map(|of| of.into_events().remove(0).provider_time)
        };
        assert_eq!(judge(text, T + 60), Ok(Some(Timestamp::from_secs(T))), "{unit}");
        assert_eq!(judge(text, T + 61), Err(Refusal::TimestampStale));
        assert_eq!(judge(text, T - 61), Err(Refusal::TimestampFuture));
        assert_eq!(judge("soon", T), Err(Refusal::SignatureMalformed));
    }
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
        let scheme = Scheme { id_names: Some(IdNames::Event), ..scheme.unwrap() };
        Endpoint { scheme, ..endpoint("github", &["key"]) }
    };
    let judge = |endpoint: &Endpoint| {
        let body = r#"{"a":"x","b":7}"#;
        let signature = hmac_hex("key", body);
        let headers = [("x-signature", &*signature), ("x-id", "h")];
        event(callback(body, T, &headers), endpoint)
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
    let form = Endpoint { scheme: scheme.unwrap(), ..endpoint("github", &["key"]) };
    let judge = |body: &str, signed: &str| {
        let signature = hmac_hex("key", signed);
        callback(body, T, &[("x-signature", &signature)]).verify(&form).map(drop)
    };
    assert_eq!(judge("a=1&b=2", "1a=1&b=2"), Ok(()));
    assert_eq!(judge("a=1&a=2", "1a=1&a=2"), Err(Refusal::SignatureMalformed));

    // What is no text could be any.
    for bad in ["a=%ff", "a=%fe&b=1"] {
        assert_eq!(judge(bad, &format!("\u{fffd}{bad}")), Err(Refusal::SignatureMalformed));
    }

    let persona = endpoint("persona", &["secret"]);
    let good = hmac_hex("secret", &format!("{T}.{{}}"));
    let bad = "00".repeat(32);
    let judge = |header: &str| {
        callback("{}", T, &[("persona-signature", header)]).verify(&persona).map(drop)
    };
    assert_eq!(judge(&format!("t={T},v1={bad} t={T},v1={good}")), Ok(()));
    let two_times = format!("t={T},v1={bad} t={},v1={good}", T + 1);
    assert_eq!(judge(&two_times), Err(Refusal::SignatureMalformed));
}

#[test]
fn a_form_is_signed_by_what_its_fields_stand_for_in_the_order_of_their_names() {
    let form = "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
                content = \"{form}\"";
    let form = Endpoint { scheme: own(form).unwrap(), ..endpoint("github", &["key"]) };
    let judge = |body: &str, signed: &str| {
        let signature = hmac_hex("key", signed);
        callback(body, T, &[("x-signature", &signature)]).verify(&form).map(drop)
    };
    // Of one name, in the order that they were sent in.
    for body in ["c=%26&a=2&b=+&a=1", "%63=%26&b=%20&%61=2&a=%31"] {
        assert_eq!(judge(body, "a2a1b c&"), Ok(()), "{body}");
        assert_eq!(judge(body, "a1a2b c&"), Err(Refusal::SignatureMismatch), "{body}");
        assert_eq!(judge(body, "c&a2b a1"), Err(Refusal::SignatureMismatch), "{body}");
    }
}

/// A secret in the form that a scheme's are given out in.
fn secret_for(scheme: &Scheme) -> &'static str {
    let forms = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "00112233445566778899aabbccddeeff"];
    let fits = |text: &&str| scheme.accepts(&Secret::new(*text));
    forms.into_iter().find(fits).unwrap()
}

#[test]
fn a_callback_of_every_provider_that_signs_with_a_secret_can_be_made_and_verifies() {
    let mut left = Vec::new();
    for provider in Scheme::names() {
        let scheme = Scheme::named(provider).unwrap();
        if scheme.signature.algorithm.is_public() {
            left.push(provider);
            continue;
        }
        let address = "https://hooks.example.com/in/endpoint";
        let endpoint = Endpoint {
            public_url: Some(address.into()),
            ..endpoint(provider, &[secret_for(&scheme)])
        };
        let time = Timestamp::from_secs(T);
        let body = match scheme.sends_forms() {
            true => "bt_payload=e30%3D&MessageSid=SM1&MessageUUID=u1&MessageStatus=sent".to_owned(),
            false => {
                let mut body = serde_json::json!({ "signature": { "token": "t" }, "amount": 5 });
                scheme.write_into(&mut body, "evt_1", "transfer.settled", time);
                body.to_string()
            }
        };
        let made = Callback {
            id: "evt_1",
            kind: "transfer.settled",
            time,
            body: body.as_bytes(),
            url: address,
        };
        let secret = &endpoint.secrets[0].secret;
        let Signed { headers, query, body } = scheme.sign(secret, &made).unwrap();
        let sent = |headers: HeaderMap, query: Option<String>, body: Bytes| {
            Unverified {
                method: Method::POST,
                headers,
                query,
                peer: None,
                body,
                received_at: time,
                receipt: 0,
            }
            .verify(&endpoint)
        };
        let verified = sent(headers.clone(), query.clone(), body.clone());
        let events = verified.unwrap_or_else(|refusal| panic!("{provider}: {refusal}"));
        assert!(events.handshake().is_some() || events.into_events().len() == 1, "{provider}");
        let other = Secret::new("00ffeeddccbbaa998877665544332211");
        if scheme.accepts(&other)
            && let Ok(Signed { headers, query, body }) = scheme.sign(&other, &made)
        {
            assert!(sent(headers, query, body).is_err(), "{provider}: with another secret");
        }
    }
    assert!(left.len() < 15, "{left:?}");
}

#[test]
fn what_can_not_be_signed_says_why() {
    let made = |scheme: &str, secret: &str, body: &str| {
        let callback = Callback {
            id: "e",
            kind: "k",
            time: Timestamp::from_secs(T),
            body: body.as_bytes(),
            url: "https://h.example.com/in/s",
        };
        let scheme = Scheme::named(scheme).unwrap();
        scheme.sign(&Secret::new(secret), &callback).map(drop).unwrap_err().to_string()
    };
    assert!(made("discord", "00", "{}").contains("private key"));
    assert!(made("adyen", "no hex", r#"{"notificationItems":[{}]}"#).contains("secret"));
    for body in ["", "[]", "{}", r#"{"notificationItems":[]}"#] {
        assert!(made("adyen", "00ff", body).contains("items at `/notificationItems`"), "{body}");
    }
    assert!(made("braintree", "s", "a=b").contains("field `bt_payload` of the form"));
    assert!(made("mailgun", "s", "{}").contains("`/signature/token` of the JSON body"));
}

#[test]
fn what_is_signed_alike_is_told_apart_by_what_the_entry_names() {
    let endpoint = endpoint("dropbox-sign", &["key"]);
    let time = Timestamp::from_secs(T);
    let judge = |title: &str, boundary: Option<&str>| {
        let mut body = serde_json::json!({ "signature_request": { "title": title } });
        endpoint.scheme.write_into(&mut body, "e", "signature_request_sent", time);
        let body = body.to_string();
        let made = Callback {
            id: "e",
            kind: "signature_request_sent",
            time,
            body: body.as_bytes(),
            url: "",
        };
        let secret = &endpoint.secrets[0].secret;
        let Signed { mut headers, body, .. } = endpoint.scheme.sign(secret, &made).unwrap();
        let mut body = String::from_utf8(body.to_vec()).unwrap();
        if let Some(boundary) = boundary {
            let kind = headers["content-type"].to_str().unwrap().to_owned();
            let (_, before) = kind.split_once("boundary=").unwrap();
            body = body.replace(before, boundary);
            headers.insert("content-type", kind.replace(before, boundary).try_into().unwrap());
        }
        let body = body.into();
        event(
            Unverified {
                method: Method::POST,
                headers,
                query: None,
                peer: None,
                body,
                received_at: time,
                receipt: 0,
            },
            &endpoint,
        )
    };
    let first = judge("Lease", None);
    assert_eq!(first.event_type.as_deref(), Some("signature_request_sent"));
    assert_ne!(first.identity, judge("Sale", None).identity, "two events of one second");
    assert_eq!(first.identity, judge("Lease", Some("again")).identity, "the same, sent again");
}

#[test]
fn what_an_identity_names_and_isnt_there_makes_no_two_events_one() {
    let scheme = Scheme::from_toml(
        "identity = \"{json:/a}{query:b}\"\nbody_unsigned = true\n[signature]\n\
         at = { header = \"x-signature\" }\ngrammar = \"bare\"\nalgorithm = \"hmac-sha256\"\n\
         encoding = \"hex\"\nkey = \"utf8\"\ncontent = \"{header:x-nonce}\""
            .parse()
            .unwrap(),
    );
    let endpoint = Endpoint { scheme: scheme.unwrap(), ..endpoint("github", &["key"]) };
    assert!(endpoint.scheme.needs_query(), "the identity is in it");
    let judge = |body: &str, query: Option<&str>| {
        let headers = [("x-nonce", "n"), ("x-signature", &*hmac_hex("key", "n"))];
        let callback =
            Unverified { query: query.map(str::to_owned), ..callback(body, T, &headers) };
        event(callback, &endpoint).identity
    };
    let first = judge(r#"{"a":1,"c":1}"#, Some("b=1"));
    assert_eq!(first, judge(r#"{"a":1,"c":2}"#, Some("b=1")));
    assert_ne!(first, judge(r#"{"a":1,"c":1}"#, Some("b=2")));
    assert_ne!(judge(r#"{"c":1}"#, Some("b=1")), judge(r#"{"c":2}"#, Some("b=1")));
}

#[test]
fn a_multipart_form_that_its_content_type_does_not_fit_is_explained() {
    let endpoint = endpoint("dropbox-sign", &["key"]);
    let kind = "multipart/form-data; boundary=b";
    let explained = callback("--c--", T, &[("content-type", kind)]).explain(&endpoint, &[], None);
    assert_eq!(explained.refusal, Some(Refusal::SignatureMissing));
    assert!(
        explained.hints.iter().any(|hint| hint.contains("multipart form")),
        "{:?}",
        explained.hints
    );
}

#[test]
fn a_signed_time_that_is_not_there_is_malformed_and_told_with_how_it_is_written() {
    let endpoint = endpoint("klaviyo", &["key"]);
    let date = "Tue, 14 Nov 2023 17:13:20 GMT";
    let sent = |meta: &str| {
        let body = format!(r#"{{"meta":{{{meta}}},"data":[{{"external_id":"1","topic":"t"}}]}}"#);
        let tag = hmac_hex("key", &format!("{body}{date}"));
        callback(&body, T, &[("klaviyo-signature", &tag), ("klaviyo-timestamp", date)])
    };
    let good = sent(r#""timestamp":"2023-11-14T22:13:19.101159+00:00""#);
    assert!(good.verify(&endpoint).is_ok());
    let explained = sent("").explain(&endpoint, &[], None);
    assert_eq!(explained.refusal, Some(Refusal::SignatureMalformed));
    let expected = "The signed time (`/meta/timestamp` of the JSON body) isn't there, or isn't a UTC time by RFC 3339.";
    assert_eq!(explained.steps.last().unwrap().found, expected);
}
