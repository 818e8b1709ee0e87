//! One identity per event: what makes two callbacks the same, for every entry and kind.

use std::collections::HashSet;

use super::*;
use crate::event::Weakness;

const ADDRESS: &str = "https://hooks.example.com/in/endpoint";

/// A endpoint whose secret fits the provider's form.
fn any(provider: &str) -> Endpoint {
    let scheme = Scheme::named(provider).unwrap();
    let forms = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "00112233445566778899aabbccddeeff"];
    let secret = forms.into_iter().find(|text| scheme.accepts(&Secret::new(*text))).unwrap();
    Endpoint { public_url: Some(ADDRESS.into()), ..endpoint(provider, &[secret]) }
}

/// A callback as the provider would sign it.
fn signed(endpoint: &Endpoint, body: &str, id: &str, kind: &str, time: u64) -> Unverified {
    let time = Timestamp::from_secs(time);
    let made = Callback { id, kind, time, body: body.as_bytes(), url: ADDRESS };
    let Signed { headers, query, body } =
        endpoint.scheme.sign(&endpoint.secrets[0].secret, &made).unwrap();
    Unverified {
        method: Method::POST,
        headers,
        query,
        peer: None,
        body,
        received_at: time,
        receipt: 0,
    }
}

fn all() -> impl Iterator<Item = (&'static str, Scheme)> {
    Scheme::names().map(|name| (name, Scheme::named(name).unwrap()))
}

#[test]
fn every_entry_says_what_its_id_names_or_what_tells_its_events_apart_and_where_that_is_shown() {
    for (name, scheme) in all() {
        let said = scheme.id_names.is_some() || scheme.told_apart_by.is_some() || scheme.repeats;
        assert!(said, "{name}: neither id_names nor told_apart_by nor repeats");
        let shown =
            scheme.identity_source.as_deref().is_some_and(|url| url.starts_with("https://"));
        assert!(shown, "{name}: no identity_source");
        // An id that is no identity leaves the bytes: something has to be known of them.
        let bytes = scheme.told_apart_by.is_some() || scheme.repeats || scheme.identity.is_some();
        let id = matches!(scheme.id_names, Some(IdNames::Event | IdNames::Delivery));
        assert!(id || bytes, "{name}: its resource id, and nothing that tells its events apart");
    }
}

/// The rule for all entries: another body under the same id is the same event only where the id is
/// shown to name one, and vouched for.
#[test]
fn another_body_under_the_same_id_is_the_same_event_only_where_the_id_names_one() {
    let (mut same, mut other) = (0, 0);
    for (name, scheme) in all() {
        if scheme.signature.algorithm.is_public() || scheme.identity.is_some() {
            continue;
        }
        let endpoint = any(name);
        let identity = |status: &str| {
            let body = match scheme.sends_forms() {
                true => format!(
                    "MessageSid=SM1&MessageUUID=u1&MessageStatus={status}&bt_payload={status}"
                ),
                false => {
                    let mut body = serde_json::json!({ "signature": { "token": "t" } });
                    body["detail"] = status.into();
                    scheme.write_into(&mut body, "id_1", "kind", Timestamp::from_secs(T));
                    body.to_string()
                }
            };
            let verified = signed(&endpoint, &body, "id_1", "kind", T).verify(&endpoint);
            let events =
                verified.unwrap_or_else(|refusal| panic!("{name}: {refusal}")).into_events();
            events.first().map(|event| event.identity.clone())
        };
        let (first, second) = (identity("submitted"), identity("delivered"));
        if first.is_none() {
            continue;
        }
        // What nothing signs of the body differs without a sign of it.
        let nonce = scheme.body_unsigned && scheme.claims.is_none() && !scheme.id_is_identity();
        match scheme.id_is_identity() || nonce {
            true => same += 1,
            false => {
                assert_ne!(first, second, "{name}: two states are taken for one event");
                other += 1;
            }
        }
        if scheme.id_is_identity() {
            assert_eq!(first, second, "{name}: its id names an event");
        }
    }
    assert!(same > 60 && other > 40, "{same} and {other}");
}

#[test]
fn the_same_bytes_are_an_event_each_time_where_the_provider_repeats_them() {
    for (name, scheme) in all().filter(|(_, scheme)| scheme.repeats) {
        if scheme.signature.algorithm.is_public() {
            continue;
        }
        let endpoint = any(name);
        let body = match name {
            "ms-graph" => r#"{"value":[{"resource":"me/drive/root","changeType":"updated"}]}"#,
            _ => r#"{"list_folder":{"accounts":["dbid:AAH1"]}}"#,
        };
        let identity = |time: u64, receipt: u64| {
            let callback = Unverified { receipt, ..signed(&endpoint, body, "", "", time) };
            event(callback, &endpoint).identity
        };
        assert_eq!(identity(T, 1), identity(T, 1), "{name}: admitted again, it is the same");
        match scheme.timestamp {
            // Signed at the same time, it can't be a new one.
            Some(_) => {
                assert_eq!(identity(T, 1), identity(T, 2), "{name}");
                assert_ne!(identity(T, 1), identity(T + 60, 2), "{name}");
            }
            None => assert_ne!(identity(T, 1), identity(T, 2), "{name}"),
        }
    }
}

/// The rule for all entries whose events are told apart by a value: with it, the same bytes are a
/// copy; without it, nothing shows that they are.
#[test]
fn the_same_bytes_are_a_copy_only_if_they_have_what_tells_events_apart() {
    let mut asked = 0;
    for (name, scheme) in all() {
        let Some(place) = scheme.told_apart_by.as_ref().filter(|at| scheme.covers(at)) else {
            continue;
        };
        if !place.is_in_body() || scheme.signature.algorithm.is_public() || scheme.sends_forms() {
            continue;
        }
        let endpoint = any(name);
        let with = Scheme { id: Some(place.clone()), ..scheme.clone() };
        let identities = |scheme: &Scheme| {
            let mut body = serde_json::json!({ "event": "a" });
            scheme.write_into(&mut body, "1700000000", "kind", Timestamp::from_secs(T));
            [(T, 1), (T, 2), (T + 60, 3)].map(|(time, receipt)| {
                let sent = signed(&endpoint, &body.to_string(), "id_1", "kind", time);
                let received_at = Timestamp::from_secs(T + 60);
                event(Unverified { receipt, received_at, ..sent }, &endpoint).identity
            })
        };
        let [first, again, later] = identities(&with);
        assert_eq!(first, again, "{name}: a copy");
        assert_eq!(first, later, "{name}: a copy that is signed anew");

        let lacking = Scheme { id: None, ..scheme.clone() };
        let [first, again, later] = identities(&lacking);
        assert_ne!(first, later, "{name}: a new event is taken for a copy");
        // What is signed at the same time can't be a new one.
        assert_eq!(first == again, scheme.timestamp.is_some(), "{name}");
        asked += 1;
    }
    assert!(asked > 30, "{asked}");
}

/// Plain JSON that can be read as a deflated body hides nothing under a header that says so.
#[test]
fn a_made_up_content_encoding_makes_no_new_event() {
    use std::io::Read;
    let endpoint = any("airtable");
    let mut readable = 0;
    for n in 0..3000 {
        let body = format!(r#"{{"by":"u{n}@example.com  ","timestamp":"2026-01-01T00:00:00Z"}}"#);
        let mut plain = Vec::new();
        let deflated = flate2::read::DeflateDecoder::new(body.as_bytes()).read_to_end(&mut plain);
        readable += usize::from(deflated.is_ok());
        let identity = |receipt: u64, encoding: Option<&'static str>| {
            let mut sent = signed(&endpoint, &body, "", "", T);
            sent.receipt = receipt;
            if let Some(encoding) = encoding {
                sent.headers.insert("content-encoding", encoding.parse().unwrap());
            }
            event(sent, &endpoint).identity
        };
        let first = identity(1, None);
        assert_eq!(first, identity(2, Some("deflate")), "{body}");
    }
    assert!(readable > 0, "no body tries it");
}

/// What the signature leaves open can be left out by whoever has seen a callback.
#[test]
fn what_nothing_signs_makes_no_new_event_by_its_absence() {
    for (name, scheme) in all() {
        let open = scheme.told_apart_by.as_ref().filter(|at| !scheme.covers(at));
        if open.is_none() || scheme.signature.algorithm.is_public() || scheme.identity.is_some() {
            continue;
        }
        let endpoint = any(name);
        let body = if scheme.sends_forms() { "a=1" } else { r#"{"a":1}"# };
        let identity = |receipt: u64| {
            let mut sent = signed(&endpoint, body, "", "", T);
            sent.receipt = receipt;
            event(sent, &endpoint).identity
        };
        assert_eq!(identity(1), identity(2), "{name}");
    }
}

#[test]
fn of_one_type_or_of_several_the_same_bytes_are_one_event_or_several() {
    for (provider, header, signature, shares) in [
        ("woocommerce", "x-wc-webhook-topic", "x-wc-webhook-signature", true),
        ("shopify", "x-shopify-topic", "x-shopify-hmac-sha256", true),
        ("github", "x-github-event", "x-hub-signature-256", false),
        ("snyk", "x-snyk-event", "x-hub-signature", false),
    ] {
        let endpoint = any(provider);
        assert!(endpoint.scheme.type_unsigned(), "{provider}");
        let with = |kind: &str| {
            let callback = signed(&endpoint, r#"{"id":77}"#, "d1", kind, T);
            assert!(callback.headers.contains_key(signature), "{provider}");
            assert_eq!(callback.headers[header], kind, "{provider}");
            event(callback, &endpoint)
        };
        let (created, updated) = (with("order.created"), with("order.updated"));
        assert!(created.context.type_unsigned);
        assert_eq!(created.identity != updated.identity, shares, "{provider}");
        assert_eq!(created.identity, with("order.created").identity, "{provider}");
    }
}

/// Each way to take a signed text apart in another way must be refused, or be known as the same.
#[test]
fn what_can_be_taken_apart_in_several_ways_is_one_event() {
    // Twilio and Plivo: names and values run together.
    let forms = [
        "MessageSid=SM2&MessageStatus=delivered",
        "MessageSid=SM2MessageStatusdelivered",
        "MessageSi=dSM2&MessageStatus=delivered",
        "MessageSid=SM2&MessageStatu=sdelivered",
        "MessageSid=SM&2MessageStatus=delivered",
        "MessageSidSM2MessageStatusdelivered=",
        "M=essageSidSM2MessageStatusdelivered",
    ];
    for (provider, forms) in [("twilio", &forms[..]), ("mandrill", &forms[..])] {
        let endpoint = any(provider);
        let genuine = signed(&endpoint, forms[0], "", "", T);
        let mut names = HashSet::new();
        for form in forms {
            let body = Bytes::copy_from_slice(form.as_bytes());
            let headers = genuine.headers.clone();
            let cut = Unverified {
                method: Method::POST,
                headers,
                query: None,
                peer: None,
                body,
                ..genuine
            };
            if let Ok(verified) = cut.verify(&endpoint) {
                names.insert(verified.into_events().remove(0).identity);
            }
        }
        assert_eq!(names.len(), 1, "{provider}: {names:?}");
    }
}

#[test]
fn a_text_that_has_swallowed_the_signed_time_is_refused_and_a_dotted_id_counts_as_unsigned() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let endpoint = endpoint("standard-webhooks", &[secret]);
    let send = |id: &str, time: &str, body: &str, tag: &str| {
        let headers = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", tag)];
        callback(body, T + 5, &headers).verify(&endpoint)
    };
    let tag = |content: String| {
        let key = base64::engine::general_purpose::STANDARD.decode(&secret[6..]).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let tag = mac.chain_update(content).finalize().into_bytes();
        format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(tag))
    };
    // A body in which somebody has put a time: cut there, the genuine signature fits as well.
    let body = format!(r#"{{"text":"a.{}.b","n":1}}"#, T + 2);
    let genuine = tag(format!("msg_1.{T}.{body}"));
    assert!(send("msg_1", &T.to_string(), &body, &genuine).is_ok());
    let swallowed = format!(r#"msg_1.{T}.{{"text":"a"#);
    let cut = send(&swallowed, &(T + 2).to_string(), r#"b","n":1}"#, &genuine);
    assert_eq!(cut.unwrap_err(), Refusal::SignatureMalformed);
    // The other way round: the provider's own id has a time in it.
    let genuine = tag(format!("msg.{}.{T}.{{}}", T + 1));
    let cut = send("msg", &(T + 1).to_string(), &format!("{T}.{{}}"), &genuine);
    assert_eq!(cut.unwrap_err(), Refusal::SignatureMalformed);

    let dotted = |time: u64| {
        let tag = tag(format!("order.7.{time}.{{}}"));
        let verified = send("order.7", &time.to_string(), "{}", &tag).unwrap();
        verified.into_events().remove(0)
    };
    let first = dotted(T);
    assert!(first.identity.as_str().starts_with("sha256:"), "{first:?}");
    assert_eq!(first.unsigned_id.as_deref(), Some("order.7"));
    assert_eq!(first.identity, dotted(T + 3).identity, "a retry that is signed anew is a copy");
}

#[test]
fn a_time_that_runs_into_the_body_must_be_whole() {
    let endpoint = endpoint("zendesk", &["secret"]);
    let (time, body) = ("2023-11-14T22:13:20Z", r#"{"type":"a"}"#);
    let content = format!("{time}{body}");
    let mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    let tag = mac.chain_update(&content).finalize().into_bytes();
    let tag = base64::engine::general_purpose::STANDARD.encode(tag);
    let mut taken = Vec::new();
    for cut in 1..content.len() {
        let (time, body) = content.split_at(cut);
        let headers = [
            ("x-zendesk-webhook-signature", tag.as_str()),
            ("x-zendesk-webhook-signature-timestamp", time),
        ];
        if callback(body, T, &headers).verify(&endpoint).is_ok() {
            taken.push(cut);
        }
    }
    assert_eq!(taken, [time.len()]);
}

#[test]
fn a_query_that_has_swallowed_the_start_of_a_body_is_refused() {
    for provider in ["square", "hubspot-v2"] {
        let endpoint =
            Endpoint { public_url: Some(ADDRESS.into()), ..endpoint(provider, &["secret"]) };
        let genuine = signed(&endpoint, r#"{"event_id":"e1","type":"t"}"#, "", "", T);
        assert!(genuine.verify(&endpoint).is_ok(), "{provider}");
        let mut with_query = Unverified { query: Some("a=1".into()), ..genuine };
        let content = format!("{ADDRESS}?a=1{{\"event_id\":\"e1\"}}");
        let header = endpoint.scheme.signature.at[0].clone();
        let Location::Header(header) = header else { unreachable!() };
        let tag = match provider {
            "square" => {
                let mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
                let tag = mac.chain_update(&content).finalize().into_bytes();
                base64::engine::general_purpose::STANDARD.encode(tag)
            }
            _ => hex::encode(Sha256::digest(format!("secretPOST{content}"))),
        };
        with_query.headers.insert(header, HeaderValue::from_str(&tag).unwrap());
        with_query.body = r#"{"event_id":"e1"}"#.into();
        assert!(with_query.verify(&endpoint).is_ok(), "{provider}");
        for cut in 1..10 {
            let (start, rest) = r#"{"event_id":"e1"}"#.split_at(cut);
            with_query.query = Some(format!("a=1{start}"));
            with_query.body = Bytes::copy_from_slice(rest.as_bytes());
            let refused = with_query.verify(&endpoint).unwrap_err();
            assert_eq!(refused, Refusal::SignatureMalformed, "{provider}: {start}");
        }
    }
}

#[test]
fn where_fields_run_together_by_a_mark_that_one_of_them_holds_no_id_is_taken_from_them() {
    let endpoint = any("adyen");
    let item = |reference: &str| {
        serde_json::json!({ "NotificationRequestItem": {
            "pspReference": "psp", "eventCode": "AUTHORISATION", "success": "true",
            "merchantAccountCode": "shop", "merchantReference": reference,
            "amount": { "value": 5, "currency": "EUR" }, "additionalData": {},
        }})
    };
    let judge = |reference: &str| {
        let body = serde_json::json!({ "notificationItems": [item(reference)] }).to_string();
        event(signed(&endpoint, &body, "", "", T), &endpoint).identity
    };
    assert_eq!(judge("order 7").as_str(), "psp:AUTHORISATION:true");
    assert!(judge("a:b").as_str().starts_with("sha256:"));
    assert_ne!(judge("a:b"), judge("a:c"));
}

#[test]
fn what_a_signature_leaves_open_is_called_weak() {
    for (provider, weakness) in [
        ("hubspot-v1", Some(Weakness::LengthExtension)),
        ("hubspot-v2", Some(Weakness::LengthExtension)),
        ("sellsy", Some(Weakness::LengthExtension)),
        ("cloudinary", None),
        ("hubspot", None),
        // One key set for all customers: with a pin, or with none.
        ("truelayer", Some(Weakness::AnyCustomer)),
        ("aws-sns", None),
        ("paypal", Some(Weakness::Checksum)),
        ("google-pubsub", Some(Weakness::BodyUnsigned)),
    ] {
        assert_eq!(Scheme::named(provider).unwrap().weakness(), weakness, "{provider}");
    }
}

proptest! {
    /// However a genuine callback of Standard Webhooks is cut, there is one event.
    #[test]
    fn no_cut_of_what_standard_webhooks_signs_makes_a_second_event(
        body in "[ab{}\".]{0,6}(\\.17000000[0-9]{2}\\.[ab.]{0,4}){0,3}",
        id in "msg_[a-z.]{1,6}",
    ) {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let endpoint = endpoint("standard-webhooks", &[secret]);
        let genuine = signed(&endpoint, &body, &id, "", T);
        let Ok(verified) = genuine.verify(&endpoint) else { return Ok(()) };
        let mut names = HashSet::from([verified.into_events().remove(0).identity]);
        let content = format!("{id}.{T}.{body}");
        for (at, _) in content.match_indices('.') {
            let Some(end) = content[at + 1..].find('.').map(|end| at + 1 + end) else { continue };
            let mut cut = signed(&endpoint, "", "x", "", T);
            cut.headers = genuine.headers.clone();
            cut.headers.insert("webhook-id", HeaderValue::from_str(&content[..at]).unwrap());
            let time = HeaderValue::from_str(&content[at + 1..end]).unwrap();
            cut.headers.insert("webhook-timestamp", time);
            cut.body = Bytes::copy_from_slice(&content.as_bytes()[end + 1..]);
            if let Ok(verified) = cut.verify(&endpoint) {
                names.extend(verified.into_events().into_iter().map(|of| of.identity));
            }
        }
        prop_assert_eq!(names.len(), 1, "{:?}", names);
    }
}

#[test]
fn a_nonce_that_has_swallowed_a_part_of_the_form_is_refused() {
    let endpoint = any("plivo");
    let genuine = signed(&endpoint, "MessageUUID=u1&Price=3.50&Status=sent", "nonce", "", T);
    assert!(genuine.verify(&endpoint).is_ok());
    let nonce = genuine.headers["x-plivo-signature-v3-nonce"].to_str().unwrap().to_owned();
    let mut cut = Unverified { body: "MessageUUID=u1&Price=3".into(), ..genuine };
    let swallowed = format!("50Statussent.{nonce}");
    let swallowed = HeaderValue::from_str(&swallowed).unwrap();
    cut.headers.insert("x-plivo-signature-v3-nonce", swallowed);
    assert_eq!(cut.verify(&endpoint).unwrap_err(), Refusal::SignatureMalformed);
}

#[test]
fn a_body_that_has_swallowed_the_end_of_the_query_is_refused() {
    let endpoint = Endpoint { public_url: Some(ADDRESS.into()), ..endpoint("square", &["secret"]) };
    let body = r#"{"event_id":"e1"}"#;
    let mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    let tag = mac.chain_update(format!("{ADDRESS}?t=7{body}")).finalize().into_bytes();
    let tag = base64::engine::general_purpose::STANDARD.encode(tag);
    let judge = |query: Option<&str>, body: &str| {
        let sent = callback(body, T, &[("x-square-hmacsha256-signature", &tag)]);
        Unverified { query: query.map(str::to_owned), ..sent }.verify(&endpoint).map(drop)
    };
    assert_eq!(judge(Some("t=7"), body), Ok(()));
    for (query, start) in [(None, "?t=7"), (Some(""), "t=7"), (Some("t"), "=7"), (Some("t="), "7")]
    {
        let refused = judge(query, &format!("{start}{body}"));
        let refused = refused.unwrap_err();
        let reasons = [Refusal::SignatureMalformed, Refusal::SignatureMismatch];
        assert!(reasons.contains(&refused), "{query:?}: {refused}");
    }
}

#[test]
fn what_is_signed_in_another_form_is_the_same_event() {
    let lost = super::vectors::Vectors::of("braintree-lf");
    let endpoint = endpoint("braintree", &[&lost.secret]);
    let mut bodies = HashSet::new();
    for vectors in [lost, super::vectors::Vectors::of("braintree")] {
        let valid = vectors.cases.iter().find(|case| case.expect == "ok").unwrap();
        let fields: Vec<(String, String)> =
            form_urlencoded::parse(valid.body.as_bytes()).into_owned().collect();
        for end in ["\n", ""] {
            let mut form = form_urlencoded::Serializer::new(String::new());
            for (name, value) in &fields {
                let end = if name == "bt_payload" { end } else { "" };
                form.append_pair(name, &format!("{}{end}", value.trim_end()));
            }
            bodies.insert(form.finish());
        }
    }
    // Two callbacks, each with and without its line feed.
    let names = bodies.iter().filter_map(|body| {
        let verified = callback(body, T, &[]).verify(&endpoint).ok()?;
        Some(verified.into_events().remove(0).identity)
    });
    let (sent, names) = (bodies.len(), names.collect::<Vec<_>>());
    assert_eq!(names.len(), sent, "each is accepted");
    assert_eq!(names.iter().collect::<HashSet<_>>().len() * 2, sent, "{names:?}");
}

#[test]
fn of_items_that_are_signed_each_two_with_the_same_bytes_are_two_events() {
    let endpoint = any("adyen");
    let item = serde_json::json!({ "NotificationRequestItem": {
        "pspReference": "psp", "eventCode": "AUTHORISATION", "success": "true",
        "merchantReference": "a:b", "additionalData": {},
    }});
    let body = serde_json::json!({ "notificationItems": [item, item] }).to_string();
    let events = signed(&endpoint, &body, "", "", T).verify(&endpoint).unwrap().into_events();
    assert_ne!(events[0].identity, events[1].identity);
}

#[test]
fn what_an_entry_names_counts_wherever_it_is() {
    let with = |identity: &str| {
        let text = format!(
            "identity = \"{identity}\"\n[signature]\nat = {{ header = \"x-signature\" }}\n\
             grammar = {{ list = {{ separator = \",\", assign = \"=\", item = \"v1\" }} }}\n\
             algorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
             content = \"{{timestamp}}.{{body}}\"\n[timestamp]\nat = {{ item = \"t\" }}\n\
             tolerance = \"5m\""
        );
        let scheme = Scheme::from_toml(text.parse().unwrap()).unwrap();
        Endpoint { scheme, ..endpoint("github", &["key"]) }
    };
    let judge = |endpoint: &Endpoint, id: &str, time: u64| {
        let tag = hmac_hex("key", &format!("{time}.{{}}"));
        let header = format!("t={time},id={id},v1={tag}");
        event(callback("{}", T, &[("x-signature", &header)]), endpoint).identity
    };
    let item = with("{item:id}");
    assert_ne!(judge(&item, "a", T), judge(&item, "b", T));
    let time = with("{body}{timestamp}");
    assert_ne!(judge(&time, "a", T), judge(&time, "a", T + 1));
}

#[test]
fn who_leaves_the_content_encoding_out_hides_no_id() {
    use std::io::Write;
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(br#"{"_id":"evt_1","kind":"t"}"#).unwrap();
    let body = to.finish().unwrap();
    let endpoint = endpoint("launchdarkly", &["key"]);
    let mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
    let tag = hex::encode(mac.chain_update(&body).finalize().into_bytes());
    for headers in [
        &[("x-ld-signature", &*tag), ("content-encoding", "gzip")][..],
        &[("x-ld-signature", &tag)],
        &[("x-ld-signature", &tag), ("content-encoding", "gzip"), ("content-encoding", "gzip")],
        &[("x-ld-signature", &tag), ("content-encoding", "identity")],
    ] {
        let sent = Unverified { body: body.clone().into(), ..callback("", T, headers) };
        let event = event(sent, &endpoint);
        assert_eq!(event.identity.as_str(), "evt_1", "{headers:?}");
    }
}
