use super::vectors::Vectors;
use super::*;

#[test]
fn the_events_of_one_callback_have_identities_of_their_own_whatever_it_is_made_of() {
    let endpoint = endpoint("pusher", &["secret"]);
    let events = |body: &str| {
        let signature = hmac_hex("secret", body);
        let callback = callback(body, T, &[("x-pusher-signature", &signature)]);
        callback.verify(&endpoint).unwrap().into_events()
    };
    let first = events(r#"{"time_ms":1,"events":[{"name":"a"},{"name":"b"},{"name":"a"}]}"#);
    let ids: Vec<&str> = first.iter().map(|event| event.identity.as_str()).collect();
    assert_ne!(ids[0], ids[2], "two items with the same bytes are two events");
    assert_ne!(ids[0], ids[1]);
    let again = events(r#"{"time_ms":1,"events":[{"name":"a"},{"name":"b"},{"name":"a"}]}"#);
    let same = |(a, b): (&VerifiedEvent, &VerifiedEvent)| a.identity == b.identity;
    assert!(first.iter().zip(&again).all(same), "a retry holds the same events");
    let bodies: Vec<&[u8]> = first.iter().map(|event| &event.body[..]).collect();
    let (a, b) = (&br#"{"name":"a"}"#[..], &br#"{"name":"b"}"#[..]);
    assert_eq!(bodies, [a, b, a]);
    let regrouped = events(r#"{"time_ms":1,"events":[ {"name":"b"} ]}"#).remove(0);
    assert_eq!(regrouped.identity, first[1].identity);
    let second = events(r#"{"time_ms":2,"events":[ {"name":"b"} ]}"#).remove(0);
    assert_ne!(second.identity, first[1].identity, "it happened again");
    assert_eq!(second.event_type.as_deref(), Some("b"));
    let place = |event: &VerifiedEvent| event.context.batch.clone().map(|of| (of.item, of.of));
    assert_eq!(place(&first[2]), Some((3, 3)));
    assert_eq!(events(r#"{"events":[]}"#).len(), 0);
    // What has no list there is one event, as it is.
    for body in [r#"{"events":{}}"#, "{}", "no JSON"] {
        let [event] = &events(body)[..] else { panic!("{body} is no event") };
        assert_eq!((&event.body[..], place(event)), (body.as_bytes(), None));
    }
}

#[test]
fn with_items_ids_are_in_them_and_not_in_a_header_that_all_would_share() {
    let signature = "grammar = \"bare\"\nalgorithm = \"hmac-sha256\"\nencoding = \"hex\"\n\
                     key = \"utf8\"\ncontent = \"{body}\"\n";
    let with = |items: &str, id: &str| {
        let text = format!(
            "items = \"{items}\"\n[signature]\nat = {{ header = \"x-signature\" }}\n{signature}[id]\n{id}"
        );
        Scheme::from_toml(text.parse().unwrap()).is_ok()
    };
    assert!(with("/events", "json = \"/id\"") && with("", "json = \"/id\""));
    assert!(!with("/events", "header = \"x-id\"") && !with("events", "json = \"/id\""));
}

/// Adyen's SDK signed the one item of its vector; the other one is signed here by the same fields.
#[test]
fn where_each_item_is_signed_by_itself_all_of_them_must_be() {
    let vectors = Vectors::of("adyen");
    let endpoint = endpoint("adyen", &[&vectors.secret]);
    let valid = vectors.cases.iter().find(|case| case.expect == "ok").unwrap();
    let whole: Value = serde_json::from_str(&valid.body).unwrap();
    let first = whole["notificationItems"][0].clone();
    let item = |reference: &str, signature: Option<&str>| {
        let mut item = first.clone();
        let fields = &mut item["NotificationRequestItem"];
        fields["pspReference"] = reference.into();
        fields["additionalData"]["hmacSignature"] = signature.map_or(Value::Null, Value::from);
        item
    };
    let signature = {
        let content = "second::TestMerchant:TestPayment-1407325143704:1130:EUR:AUTHORISATION:true";
        let key = hex::decode(&vectors.secret).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        base64::engine::general_purpose::STANDARD
            .encode(mac.chain_update(content).finalize().into_bytes())
    };
    let judge = |items: &[Value]| {
        let body = serde_json::json!({ "live": "false", "notificationItems": items }).to_string();
        let callback = callback(&body, T, &[]);
        let explained = callback.explain(&endpoint, &[], None);
        let verified = callback.verify(&endpoint);
        assert_eq!(explained.refusal, verified.as_ref().err().copied());
        assert_eq!(explained.steps.iter().all(|step| step.good), verified.is_ok());
        verified.map(Verified::into_events)
    };
    let both = judge(&[first.clone(), item("second", Some(&signature))]).unwrap();
    let found = both.iter().map(|event| {
        let VerifiedEvent { identity, event_type, context, .. } = &event;
        let batch = context.batch.as_ref().map(|batch| (batch.item, batch.of));
        (identity.as_str(), event_type.as_deref(), batch)
    });
    let kind = Some("AUTHORISATION");
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            ("7914073381342284:AUTHORISATION:true", kind, Some((1, 2))),
            ("second:AUTHORISATION:true", kind, Some((2, 2))),
        ]
    );
    for (items, refusal) in [
        (vec![first.clone(), item("third", Some(&signature))], Refusal::SignatureMismatch),
        (vec![item("third", Some(&signature)), first.clone()], Refusal::SignatureMismatch),
        (vec![first.clone(), item("second", None)], Refusal::SignatureMissing),
        (vec![first.clone(), Value::Null], Refusal::SignatureMissing),
        (vec![], Refusal::SignatureMissing),
    ] {
        assert_eq!(judge(&items).unwrap_err(), refusal, "{items:?}");
    }
    for body in ["{}", "[]", "no JSON", r#"{"notificationItems":{}}"#] {
        assert_eq!(refusal(callback(body, T, &[]), &endpoint), Refusal::SignatureMissing, "{body}");
    }
}

#[test]
fn a_token_must_be_in_each_item_if_it_is_in_items() {
    let endpoint = endpoint("ms-graph", &["state"]);
    let judge =
        |body: &str| callback(body, T, &[]).verify(&endpoint).map(|of| of.into_events().len());
    let item =
        |state: &str| format!(r#"{{"id":"n","changeType":"created","clientState":"{state}"}}"#);
    let body = |one: &str, two: &str| format!(r#"{{"value":[{},{}]}}"#, item(one), item(two));
    assert_eq!(judge(&body("state", "state")), Ok(2));
    assert_eq!(judge(&body("state", "other")), Err(Refusal::SignatureMismatch));
    assert_eq!(judge(&body("other", "state")), Err(Refusal::SignatureMismatch));
    assert_eq!(judge(r#"{"value":[]}"#), Err(Refusal::SignatureMissing));
}
