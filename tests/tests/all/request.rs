//! Everything that the provider sent reaches the application: headers, query, encoding, and
//! unchanged types.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use sha1::Sha1;
use sha2::Sha256;
use zentra_tests::eventually;
use zentra_tests::http::Headers;
use zentra_tests::ledger::{Seen, Turn};
use zentra_tests::sign::CASE_SECRET as SECRET;
use zentra_tests::world::BOUND;

use crate::identity::{Site, source};

fn sha256(body: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.chain_update(body).finalize().into_bytes().to_vec()
}

fn sha1(content: &str) -> String {
    let mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    STANDARD.encode(mac.chain_update(content).finalize().into_bytes())
}

fn headers(all: &[(&'static str, &str)]) -> Headers {
    all.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// One callback, and what the destination must see of it besides its body.
struct Request {
    provider: &'static str,
    more: &'static str,
    method: Method,
    query: &'static str,
    headers: Headers,
    body: &'static str,
    seen: &'static [(&'static str, &'static str)],
    unseen: &'static [&'static str],
}

fn shopify() -> Request {
    let body = r#"{"id":900}"#;
    let tag = STANDARD.encode(sha256(body.as_bytes()));
    Request {
        provider: "shopify",
        more: "",
        method: Method::POST,
        query: "?tenant=7",
        headers: headers(&[
            ("content-type", "application/json"),
            ("x-shopify-topic", "orders/create"),
            ("x-shopify-event-id", "e-900"),
            ("x-shopify-shop-domain", "ann.myshopify.com"),
            ("x-shopify-hmac-sha256", &tag),
            ("cookie", "session=1"),
        ]),
        body,
        seen: &[
            ("x-shopify-shop-domain", "ann.myshopify.com"),
            ("x-shopify-topic", "orders/create"),
            ("x-shopify-event-id", "e-900"),
            ("zentra-query", "tenant=7"),
            ("zentra-signed", "body"),
            ("ce-type", "orders/create"),
            ("content-type", "application/json"),
        ],
        unseen: &["x-shopify-hmac-sha256", "cookie", "zentra-method"],
    }
}

fn github() -> Request {
    let body = r#"{"ref":"refs/heads/main"}"#;
    let tag = format!("sha256={}", hex::encode(sha256(body.as_bytes())));
    Request {
        provider: "github",
        more: "",
        method: Method::POST,
        query: "",
        headers: headers(&[
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/1"),
            ("x-github-event", "push"),
            ("x-github-delivery", "d-1"),
            ("x-github-hook-id", "42"),
            ("x-hub-signature", "sha1=00"),
            ("x-hub-signature-256", &tag),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]),
        body,
        seen: &[
            ("x-github-event", "push"),
            ("x-github-delivery", "d-1"),
            ("x-github-hook-id", "42"),
            ("zentra-original-user-agent", "GitHub-Hookshot/1"),
            (
                "zentra-original-traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ],
        unseen: &["x-hub-signature", "x-hub-signature-256", "zentra-query"],
    }
}

/// Its callbacks have no body.
fn google() -> Request {
    Request {
        provider: "google-channels",
        more: "",
        method: Method::POST,
        query: "",
        headers: headers(&[
            ("x-goog-channel-token", SECRET),
            ("x-goog-channel-id", "calendar-of-ann"),
            ("x-goog-resource-id", "r-1"),
            ("x-goog-resource-state", "exists"),
            ("x-goog-message-number", "17"),
            ("x-goog-channel-expiration", "Tue, 19 Nov 2030 01:13:52 GMT"),
        ]),
        body: "",
        seen: &[
            ("x-goog-channel-id", "calendar-of-ann"),
            ("x-goog-resource-id", "r-1"),
            ("x-goog-resource-state", "exists"),
            ("x-goog-message-number", "17"),
            ("x-goog-channel-expiration", "Tue, 19 Nov 2030 01:13:52 GMT"),
            ("zentra-signed", "nothing"),
        ],
        unseen: &["x-goog-channel-token"],
    }
}

/// By GET, and signed without the port of the address.
fn twilio() -> Request {
    let url = "https://hooks.example.com/in/s?CallSid=CA2&CallStatus=ringing";
    let tag = sha1(url);
    Request {
        provider: "twilio",
        more: "public_url = \"https://hooks.example.com:8443/in/s\"",
        method: Method::GET,
        query: "?CallSid=CA2&CallStatus=ringing",
        headers: headers(&[("x-twilio-signature", &tag), ("i-twilio-idempotency-token", "t-1")]),
        body: "",
        seen: &[
            ("zentra-query", "CallSid=CA2&CallStatus=ringing"),
            ("zentra-method", "GET"),
            ("i-twilio-idempotency-token", "t-1"),
            ("ce-type", "ringing"),
        ],
        unseen: &["x-twilio-signature"],
    }
}

impl Request {
    fn is_in(&self, seen: &Seen, when: &str) {
        let provider = self.provider;
        for (name, value) in self.seen {
            assert_eq!(seen.header(name), *value, "{provider}, {when}: {name} of {seen:?}");
        }
        for name in self.unseen {
            assert!(!seen.headers.contains_key(*name), "{provider}, {when}: {name}");
        }
        assert_eq!(seen.body, self.body, "{provider}, {when}");
    }
}

/// First a failed attempt, then a final refusal; then requeued; then replayed from the archive.
/// Each time everything arrives.
async fn all_that_the_provider_said_comes_with_each_attempt(embedded: bool) {
    for request in [shopify(), github(), google(), twilio()] {
        let retry = "[destination.app.retry]\nattempts = 3\ninitial = \"100ms\"\n";
        let tables = format!("{retry}{}", source(request.provider, request.more));
        let site = Site::start(embedded, &tables).await;
        site.ledger.take_turns([500, 400].map(|status| Turn::Answer(status, Vec::new())));
        let answer =
            site.send(request.method.clone(), request.query, &request.headers, request.body).await;
        assert!(answer.status.is_success(), "{}: {answer:?}", request.provider);
        site.until("a retry, and a dead letter", 2, 0, 1).await;
        let requeue = ["dead", "requeue", "--all", "--yes"];
        assert!(site.stack.zentra(&requeue).status.success());
        site.until("requeued", 3, 0, 0).await;
        site.replay().await;
        site.until("replayed", 4, 0, 0).await;
        let when = ["first", "retried", "requeued", "replayed"];
        for (seen, when) in site.seen().iter().zip(when) {
            request.is_in(seen, when);
        }
        let listed = site.stack.zentra(&["event", "list", "--source", "s", "--json"]);
        let printed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for (name, value) in
            request.headers.iter().filter(|(name, _)| name.starts_with("x-goog-ch"))
        {
            assert_eq!(
                printed.contains(value),
                *name != "x-goog-channel-token",
                "{name}: {printed}"
            );
        }
        assert!(printed.contains(request.query.trim_start_matches('?')), "{printed}");
    }
}

/// Types with spaces, slashes and colons. Each has its own subscription.
async fn a_type_is_taken_as_it_is_and_can_be_subscribed_to(embedded: bool) {
    for (provider, kind, other) in [
        ("gitlab", "Push Hook", "Tag Push Hook"),
        ("shopify", "orders/create", "orders/updated"),
        ("bitbucket", "repo:push", "repo:fork"),
        ("gitlab", "100% *", "100"),
    ] {
        let pattern = kind.replace('%', "%25").replace('*', "%2A");
        let tables = source(provider, "");
        let site = Site::subscribed(embedded, &tables, &format!("s.{pattern}")).await;
        for (at, kind) in [other, kind].into_iter().enumerate() {
            let body = format!("{{\"n\":{at}}}");
            let (id, digest) = (format!("k{at}"), sha256(body.as_bytes()));
            let all = match provider {
                "gitlab" => headers(&[
                    ("x-gitlab-token", SECRET),
                    ("x-gitlab-event", kind),
                    ("idempotency-key", &id),
                ]),
                "shopify" => headers(&[
                    ("shopify-topic", kind),
                    ("shopify-event-id", &id),
                    ("shopify-hmac-sha256", &STANDARD.encode(digest)),
                ]),
                _ => headers(&[
                    ("x-event-key", kind),
                    ("x-request-uuid", &id),
                    ("x-hub-signature", &format!("sha256={}", hex::encode(digest))),
                ]),
            };
            site.post(&all, &body).await;
        }
        site.until(kind, 1, 0, 0).await;
        let seen = site.seen().remove(0);
        assert_eq!(seen.body, "{\"n\":1}", "{kind}");
        let encoded = kind.replace('%', "%25").replace(' ', "%20");
        assert_eq!(seen.header("ce-type"), encoded);
        let listed = site.stack.zentra(&["event", "list", "--type", kind]);
        assert!(String::from_utf8_lossy(&listed.stdout).contains(kind), "{listed:?}");
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(body).unwrap();
    to.finish().unwrap()
}

/// Signed as sent, or before compression. ID and type are read from the decompressed body.
async fn a_compressed_body_is_delivered_as_it_came_with_its_encoding(embedded: bool) {
    let body = br#"{"type":"message.new","id":"evt_1"}"#;
    let zipped = gzip(body);
    let site = Site::start(embedded, &source("getstream", "max_body = \"64KiB\"")).await;
    let send = async |bytes: &[u8], signed: &[u8], encoding: &str, id: &str| {
        let tag = hex::encode(sha256(signed));
        let all = headers(&[
            ("content-type", "application/json"),
            ("content-encoding", encoding),
            ("x-webhook-id", id),
            ("x-signature", &tag),
        ]);
        site.send(Method::POST, "", &all, bytes.to_vec()).await
    };
    assert!(send(&zipped, body, "gzip", "g1").await.status.is_success());
    assert_eq!(send(&zipped, &zipped, "gzip", "g2").await.status, 401);
    assert!(send(b"{}", b"{}", "identity", "g3").await.status.is_success());
    site.until("both", 2, 0, 0).await;
    let seen = site.seen();
    let first = seen.iter().find(|seen| seen.header("x-webhook-id") == "g1").unwrap();
    assert_eq!(first.body, zipped);
    assert_eq!(first.header("content-encoding"), "gzip");
    assert_eq!(first.header("ce-type"), "message.new");
    // Small when compressed, and large when decompressed.
    let bomb = gzip(&vec![b' '; 65 * 1024]);
    let refused = send(&bomb, &bomb, "gzip", "g4").await;
    assert_eq!((refused.status.as_u16(), refused.reason()), (413, "body_too_large".to_owned()));

    // GitHub signs the bytes as sent. Stripe's type is inside them.
    let site = Site::start(embedded, &source("xero", "")).await;
    let body = gzip(br#"{"events":[{"resourceId":"r","eventCategory":"INVOICE"}]}"#);
    let tag = STANDARD.encode(sha256(&body));
    let all = headers(&[("content-encoding", "gzip"), ("x-xero-signature", &tag)]);
    assert!(site.send(Method::POST, "", &all, body).await.status.is_success());
    site.until("an item of what was compressed", 1, 0, 0).await;
    let seen = site.seen().remove(0);
    assert_eq!(seen.header("ce-type"), "INVOICE");
    assert_eq!(seen.header("content-encoding"), "", "it is a piece of the plain body");
    assert_eq!(seen.body, r#"{"resourceId":"r","eventCategory":"INVOICE"}"#);
}

/// SharePoint sends a byte order mark, and RFC 8259 lets a parser ignore it.
async fn a_byte_order_mark_before_json_hides_nothing(embedded: bool) {
    let site = Site::start(embedded, &source("ms-graph", "")).await;
    let body = format!(
        "\u{feff}{{\"value\":[{{\"subscriptionId\":\"s\",\"clientState\":\"{SECRET}\",\
         \"changeType\":\"updated\",\"id\":\"n2\",\"resource\":\"r\"}}]}}"
    );
    site.post(&headers(&[("content-type", "application/json")]), &body).await;
    site.until("it", 1, 0, 0).await;
    assert_eq!(site.seen()[0].header("ce-type"), "updated");
}

/// More headers than can be forwarded are refused before acceptance, and nothing is cut.
async fn what_is_too_much_to_go_on_is_refused(embedded: bool) {
    let site = Site::start(embedded, &source("github", "")).await;
    let send = async |query: &str, long: &str| {
        let tag = format!("sha256={}", hex::encode(sha256(b"{}")));
        let all = headers(&[("x-hub-signature-256", &tag), ("x-long", long)]);
        let answer = site.send(Method::POST, query, &all, "{}").await;
        (answer.status.as_u16(), answer.reason())
    };
    let long = "x".repeat(25 * 1024);
    assert_eq!(send("", &long).await, (431, "headers_too_large".to_owned()));
    let query = format!("?{}", "x".repeat(9 * 1024));
    assert_eq!(send(&query, "").await, (414, "query_too_long".to_owned()));
    let kept = site.stack.zentra(&["refused", "list"]);
    let kept = String::from_utf8_lossy(&kept.stdout).into_owned();
    assert!(kept.contains("headers_too_large") && kept.contains("query_too_long"), "{kept}");
}

/// GitHub's maximum is 25 MB. `max_body` overrides it.
async fn a_body_is_taken_up_to_what_the_provider_sends(embedded: bool) {
    let body = format!("{{\"x\":\"{}\"}}", "a".repeat(2 << 20));
    let tag = format!("sha256={}", hex::encode(sha256(body.as_bytes())));
    let all = headers(&[("x-github-event", "push"), ("x-hub-signature-256", &tag)]);
    for (more, status) in [("", 200), ("max_body = \"1MiB\"", 413)] {
        let site = Site::start(embedded, &source("github", more)).await;
        let answer = site.send(Method::POST, "", &all, body.clone()).await;
        assert_eq!(answer.status, status, "{more}");
    }
}

/// Values that operators may not see are still delivered.
async fn a_redacted_header_and_query_are_delivered_and_never_shown(embedded: bool) {
    let more = "redact = [\"header:x-shopify-shop-domain\", \"query:tenant\"]";
    let site = Site::start(embedded, &source("shopify", more)).await;
    let request = shopify();
    site.ledger.take_turns([Turn::Answer(400, Vec::new())]);
    site.send(request.method.clone(), request.query, &request.headers, request.body).await;
    site.until("dead", 1, 0, 1).await;
    request.is_in(&site.seen()[0], "redacted");
    let file = zentra_tests::services::folder("drained").join("letters.jsonl");
    let file = file.to_str().unwrap();
    for shown in [
        &["event", "list", "--source", "s", "--json"][..],
        &["event", "show", "e-900"],
        &["dead", "drain", "--all", "--yes", "--because", "a test", "--export", file],
    ] {
        let shown = site.stack.zentra(shown);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(!text.contains("ann.myshopify") && !text.contains("tenant=7"), "{text}");
    }
    let drained = eventually("the letter is in the file", BOUND, async || {
        std::fs::read_to_string(file).ok().filter(|text| !text.is_empty())
    })
    .await;
    assert!(!drained.contains("ann.myshopify") && !drained.contains("tenant=7"), "{drained}");
}

crate::identity::on_both! {
    all_that_the_provider_said_comes_with_each_attempt
    a_type_is_taken_as_it_is_and_can_be_subscribed_to
    a_compressed_body_is_delivered_as_it_came_with_its_encoding
    a_byte_order_mark_before_json_hides_nothing
    what_is_too_much_to_go_on_is_refused
    a_body_is_taken_up_to_what_the_provider_sends
    a_redacted_header_and_query_are_delivered_and_never_shown
}
