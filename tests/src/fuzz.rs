//! The fuzz targets: everything that a stranger can send. Each target accepts any bytes, and
//! panics where a promise is broken. `fuzz/` runs them under libFuzzer. A test runs them over
//! their corpora, and over mutations of those.

use bytes::Bytes;
use http::{HeaderMap, Method};
use webhook_verify::Secret;
use webhook_verify::{
    Callback, Endpoint, NamedSecret, Refusal, Scheme, Signed, Unverified, VerifiedEvent, captured,
};
use zentra_core::clock::Timestamp;

/// A target accepts any bytes.
type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 2] = [("callback", callback), ("signed", signed)];

/// In Unix seconds.
const NOW: u64 = 1_700_000_000;
/// In a form that every scheme with a secret accepts.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The provider that the text names, or one that the text chooses, so that no input is wasted.
fn endpoint(named: &[u8]) -> Endpoint {
    let names: Vec<&str> = Scheme::names().collect();
    let sum: usize = named.iter().map(|byte| usize::from(*byte)).sum();
    let known = names.iter().find(|name| name.as_bytes() == named);
    let provider = known.unwrap_or(&names[sum % names.len()]);
    let scheme = Scheme::named(provider).unwrap_or_else(|| panic!("{provider} can't be read"));
    Endpoint {
        provider: (*provider).into(),
        scheme,
        public_url: Some("https://hooks.example.com/in/s".into()),
        handshake_token: Some(Secret::new("token")),
        secrets: vec![NamedSecret { name: "k".into(), secret: Secret::new(SECRET) }],
        max_body: 1 << 20,
        trusts_id: false,
    }
}

fn unverified(headers: HeaderMap, query: Option<String>, body: &[u8]) -> Unverified {
    let body = Bytes::copy_from_slice(body);
    Unverified {
        method: Method::POST,
        headers,
        query,
        peer: None,
        body,
        received_at: Timestamp::from_secs(NOW),
        receipt: 0,
    }
}

fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// A raw callback: a line with the provider, headers as lines, an empty line, a body.
pub fn callback(data: &[u8]) {
    let (provider, rest) = line(data);
    let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
    let (head, body) = rest.split_at(end);
    let Ok((headers, query)) = captured(&String::from_utf8_lossy(head)) else { return };
    let endpoint = endpoint(provider);
    let callback = unverified(headers, query, body.strip_prefix(b"\n\n").unwrap_or(body));
    // As in the ingress: an unknown key is refused before everything else.
    let verified = callback.key_address(&endpoint).and_then(|_| callback.verify(&endpoint));
    let _ = [Method::GET, Method::HEAD, Method::POST]
        .map(|method| callback.unsigned_handshake(&method, &endpoint));
    let explained = callback.explain(&endpoint, &[("s", &endpoint)], None);
    assert_eq!(explained.refusal, verified.as_ref().err().copied());
    let explanation = format!("{explained:?}");
    assert!(!explanation.contains(SECRET), "a secret is shown: {explanation}");
    assert_eq!(explained.steps.iter().all(|step| step.good), verified.is_ok(), "{explanation}");
    if let Ok(verified) = verified {
        within(&callback.body, &verified.into_events());
    }
}

/// A genuine callback is accepted. With any bit of its body flipped it is refused, unless the
/// scheme says that it does not cover that part of the body. The input is a line with the
/// provider, a byte for the place, one for the bit, and the body.
pub fn signed(data: &[u8]) {
    let (provider, rest) = line(data);
    let [at, bit, body @ ..] = rest else { return };
    let endpoint = endpoint(provider);
    let url = endpoint.public_url.clone().unwrap_or_default();
    let made =
        Callback { id: "evt_1", kind: "kind", time: Timestamp::from_secs(NOW), body, url: &url };
    let secret = &endpoint.secrets[0].secret;
    let Ok(Signed { headers, query, body }) = endpoint.scheme.sign(secret, &made) else { return };
    let genuine = unverified(headers.clone(), query.clone(), &body);
    let verified = match genuine.verify(&endpoint) {
        Ok(verified) => verified,
        // These bytes do not contain what the scheme looks for in the body, or contain another
        // time.
        Err(
            Refusal::SignatureMalformed
            | Refusal::BatchTooLarge
            | Refusal::TimestampStale
            | Refusal::TimestampFuture,
        ) => return,
        // X signs such a text for anybody: see `verify/handshake.rs`.
        Err(Refusal::SignatureMismatch)
            if endpoint.provider == "x-twitter" && !body.contains(&b'{') =>
        {
            return;
        }
        Err(refusal) => panic!("{}: {refusal} for what is signed", endpoint.provider),
    };
    within(&genuine.body, &verified.into_events());
    if endpoint.scheme.weakness().is_some() || body.is_empty() {
        return;
    }
    let mut flipped = body.to_vec();
    let at = usize::from(*at) % flipped.len();
    flipped[at] ^= 1 << (bit % 8);
    // A form can be encoded in other ways (`%2f` and `%2F`). Some providers sign names and values
    // joined, or each value once. The provider's entry says so.
    let signed = |body: &[u8]| {
        let mut fields: Vec<_> = form_urlencoded::parse(body).into_owned().collect();
        fields.sort();
        fields.dedup();
        fields.into_iter().flat_map(|(name, value)| [name, value]).collect::<String>()
    };
    if endpoint.scheme.sends_forms() && signed(&flipped) == signed(&body) {
        return;
    }
    // EasyPost's library, and so this scheme, ignores white space behind an integral weight.
    let white = [body[at], flipped[at]].iter().all(u8::is_ascii_whitespace);
    if endpoint.provider == "easypost" && white {
        return;
    }
    let judged = unverified(headers, query, &flipped).verify(&endpoint);
    let refused = judged.is_err();
    assert!(refused, "{}: a flipped bit is accepted", endpoint.provider);
}

/// Every event is a piece of the callback, byte for byte.
fn within(body: &Bytes, events: &[VerifiedEvent]) {
    for event in events {
        let inside = body.as_ptr_range();
        let piece = event.body.as_ptr_range();
        let fits =
            event.body.is_empty() || (inside.start <= piece.start && piece.end <= inside.end);
        assert!(fits, "an event is no piece of its callback");
    }
}
