use super::*;

#[test]
fn a_genuine_handshake_is_answered_with_what_it_asks_for_and_holds_no_event() {
    let endpoint = endpoint("zoom", &["token"]);
    let asked = |body: &str| {
        let signature = format!("v0={}", hmac_hex("token", &format!("v0:{T}:{body}")));
        let time = T.to_string();
        let headers = [("x-zm-signature", signature.as_str()), ("x-zm-request-timestamp", &time)];
        callback(body, T, &headers).verify(&endpoint).unwrap()
    };
    let url = asked(
        r#"{"payload":{"plainToken":"q9ibPhGeRZ6ayx5WTrXjRw"},"event":"endpoint.url_validation"}"#,
    );
    let answer = url.handshake().unwrap();
    let encrypted = hmac_hex("token", "q9ibPhGeRZ6ayx5WTrXjRw");
    let wanted =
        format!(r#"{{"encryptedToken":"{encrypted}","plainToken":"q9ibPhGeRZ6ayx5WTrXjRw"}}"#);
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, wanted.as_bytes()));
    assert!(url.into_events().is_empty());
    // What it asks for isn't there, or is no challenge: then it is an event as any other.
    for token in ["", r#""plainToken":null"#, r#""plainToken":"{}""#, r#""plainToken":{}"#] {
        let other =
            asked(&format!(r#"{{"payload":{{{token}}},"event":"endpoint.url_validation"}}"#));
        assert_eq!((other.handshake().is_none(), other.into_events().len()), (true, 1), "{token}");
    }
    let event = asked(r#"{"payload":{"plainToken":"a"},"event":"meeting.started"}"#);
    assert_eq!((event.handshake().is_none(), event.into_events().len()), (true, 1));
}
