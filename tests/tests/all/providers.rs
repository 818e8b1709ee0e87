//! What providers do beside sending one event with one signature.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zentra_shared::journal::Histories;
use zentra_tests::http::{Answer, Headers};
use zentra_tests::ledger::transfer;
use zentra_tests::world::{BOUND, World, is_copy};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

/// GoCardless signs a body of several events.
const SEVERAL: &str = r#"
[source.several]
provider = "gocardless"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
"#;

async fn world(source: &str, subscribe: &str) -> World {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let mut world = World::start(&rabbit, &redis, &namespace(), "attempts = 3").await.unwrap();
    world.stack.replace("\"github.#\"]", &format!("\"github.#\", \"{subscribe}\"]"));
    world.stack.add(source);
    world.ingress = world.stack.ingress().await;
    world
}

async fn several(world: &World, body: &str) -> Answer {
    let signature = sign::plain(sign::GITHUB_SECRET, body);
    let url = format!("{}/in/several", world.ingress.listen);
    let headers = vec![("webhook-signature", signature)];
    world.stack.http.post(&url, &headers, body.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_callback_is_run_once_however_it_comes_together() {
    let world = world(SEVERAL, "several.#").await;
    let _worker = world.stack.worker().await;
    let items: Vec<String> =
        (1..=3).map(|n| transfer(&format!("EV{n}"), &format!("trf_{n}"), n)).collect();
    let [one, two, three] = &items[..] else { unreachable!() };
    let bodies = [
        format!("{{\"events\":[{one},{two}]}}"),
        format!("{{\"meta\":{{}},\"events\": [ {two}\n, {three} ] }}"),
        format!("{{ \"events\" :[{three},{one}] }}\r\n"),
        "{\"events\":[]}".to_owned(),
    ];
    for body in &bodies {
        let answer = several(&world, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let key = |n: usize| format!("ledger/several/EV{n}");
    let second = world.journal.find("EV2", &[("ledger", "several")]).await.unwrap().remove(0);
    eventually("each has come twice", BOUND, async || {
        let history = world.journal.history(&second).await.unwrap()?;
        history.history.iter().any(|entry| is_copy(&entry.what)).then_some(())
    })
    .await;
    eventually("all are in the ledger", Duration::from_secs(10), async || {
        let rows = world.ledger.rows().unwrap();
        (rows.len() == 3).then_some(())
    })
    .await;
    let rows: Vec<String> = world.ledger.rows().unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(rows, [key(1), key(2), key(3)]);
    for seen in world.ledger.seen() {
        let body = String::from_utf8(seen.body.to_vec()).unwrap();
        assert!(items.contains(&body), "{body} isn't as the provider wrote it");
    }
    let shown = world.stack.zentra(&["event", "show", "EV2"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("event 2 of 2 in the callback sha256:"), "{shown}");
    let accepted = ["zentra_ingress_accepted_total", "several"];
    assert_eq!(world.ingress.metric(&world.stack.http, &accepted).await, 6.0);
}

const HANDSHAKES: &str = r#"
[source.slack]
provider = "slack"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
[source.meta]
provider = "meta"
handshake_token = "env:STRIPE_EU"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
[source.x]
provider = "x-twitter"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
[source.notion]
provider = "notion"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
[source.graph]
provider = "ms-graph"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
[source.trello]
provider = "trello"
public_url = "https://hooks.example.com/in/trello"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_sure_of_the_endpoint_is_answered_as_its_provider_wants_and_is_no_event() {
    let world = world(HANDSHAKES, "*.#").await;
    let http = &world.stack.http;
    let ask = async |method: Method, path: &str, headers: &Headers, body: &str| {
        let url = format!("{}/in/{path}", world.ingress.listen);
        let answer = http.send(method, &url, headers, body.to_owned()).await.unwrap();
        (answer.status.as_u16(), answer.body)
    };
    let (none, yes) = (Headers::new(), |body: &str| (200, body.to_owned()));

    // Signed, and so only answered when the signature fits.
    let body = r#"{"type":"url_verification","challenge":"3eZb\u00e9"}"#;
    let now = sign::now().to_string();
    let signature = sign::plain(sign::GITHUB_SECRET, &format!("v0:{now}:{body}"));
    let slack = |signature: &str| {
        let signature = format!("v0={signature}");
        vec![("x-slack-request-timestamp", now.clone()), ("x-slack-signature", signature)]
    };
    assert_eq!(ask(Method::POST, "slack", &slack(&signature), body).await, yes("3eZbé"));
    let forged = ask(Method::POST, "slack", &slack(&"0".repeat(64)), body).await;
    assert_eq!(forged.0, 401);
    assert!(!forged.1.contains("3eZb"), "{}", forged.1);
    let unsigned = ask(Method::POST, "slack", &none, body).await;
    assert_eq!(unsigned.0, 401);
    assert!(!unsigned.1.contains("3eZb"), "{}", unsigned.1);

    // By GET, with what only the provider knows.
    let meta =
        |token: &str| format!("meta?hub.mode=subscribe&hub.challenge=115&hub.verify_token={token}");
    assert_eq!(ask(Method::GET, &meta(sign::STRIPE_SECRET), &none, "").await, yes("115"));
    for path in [meta("wrong"), meta(""), "meta?hub.mode=subscribe".into(), "meta".into()] {
        assert_eq!(ask(Method::GET, &path, &none, "").await.0, 405, "{path}");
    }

    let url = format!("{}/in/{}", world.ingress.listen, meta(sign::STRIPE_SECRET));
    let answer = http.get(&url).await.unwrap();
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");

    // By GET, from anyone, and signed: but never what could be an event.
    let (status, answer) = ask(Method::GET, "x?crc_token=abc-1", &none, "").await;
    let mac = Hmac::<Sha256>::new_from_slice(sign::GITHUB_SECRET.as_bytes()).unwrap();
    let tag = STANDARD.encode(mac.chain_update("abc-1").finalize().into_bytes());
    assert_eq!((status, answer), yes(&format!(r#"{{"response_token":"sha256={tag}"}}"#)));
    let oracle = "x?crc_token=%7B%22id%22%3A1%7D";
    assert_eq!(ask(Method::GET, oracle, &none, "").await.0, 405);
    let replayed = vec![("x-twitter-webhooks-signature", format!("sha256={tag}"))];
    assert_eq!(ask(Method::POST, "x", &replayed, "abc-1").await.0, 401);

    // Without any signature; what it tells is kept for the operator.
    let told = r#"{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#;
    assert_eq!(ask(Method::POST, "notion", &none, told).await, yes(""));
    eventually("it can be seen", BOUND, async || {
        let kept = world.stack.zentra(&["refused", "list", "--source", "notion"]);
        String::from_utf8_lossy(&kept.stdout).contains("signature_missing").then_some(())
    })
    .await;
    let graph = "graph?validationToken=Validation%3A+%3Cb%3E";
    assert_eq!(ask(Method::POST, graph, &none, "").await, yes("Validation: <b>"));
    let nothing = ask(Method::POST, "graph", &none, "{}").await;
    assert_eq!(nothing.0, 401);
    assert_eq!(ask(Method::HEAD, "trello", &none, "").await, yes(""));
    assert_eq!(ask(Method::GET, "trello", &none, "").await.0, 405);

    let count = async |name: &str, source: &str| world.ingress.metric(http, &[name, source]).await;
    for source in ["slack", "meta", "x", "notion", "graph", "trello"] {
        let handshakes = count("zentra_ingress_handshakes_total", source).await;
        assert_eq!(handshakes, if source == "meta" { 2.0 } else { 1.0 }, "{source}");
        assert_eq!(count("zentra_ingress_accepted_total", source).await, 0.0, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_verified_as_they_were_sent_and_headers_that_are_no_text_are_refused() {
    let world = world(SEVERAL, "several.#").await;
    let _worker = world.stack.worker().await;
    let url = format!("{}/in/github", world.ingress.listen);
    let post = async |body: Vec<u8>, more: &[(&'static str, &str)]| {
        let mut headers = sign::github("d-1", "push", &body);
        headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        world.stack.http.post(&url, &headers, body).await.unwrap()
    };
    // Zipped: the bytes that were signed, to the destination as well.
    let zipped =
        hex::decode("1f8b08000000000000ffaa560a492d2e51b252502a2d4e2d5202000000ffff").unwrap();
    let answer = post(zipped.clone(), &[("content-encoding", "gzip")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("it has come as it was", BOUND, async || {
        world.ledger.seen().iter().any(|seen| seen.body == zipped).then_some(())
    })
    .await;
    assert_eq!(post(Vec::new(), &[]).await.status, 200, "an empty body is signed, too");

    // In chunks, and with a signature that is no text.
    let body = "{\"n\":1}";
    let signature = sign::plain(sign::GITHUB_SECRET, body);
    let raw = async |head: &[u8], body: &str| {
        let address = world.ingress.listen.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let start =
            b"POST /in/github HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-hub-signature-256: ";
        stream.write_all(&[&start[..], head, b"\r\n", body.as_bytes()].concat()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let chunks = "transfer-encoding: chunked\r\n\r\n3\r\n{\"n\r\n4\r\n\":1}\r\n0\r\n\r\n";
    let signed = format!("sha256={signature}");
    let answer = raw(signed.as_bytes(), chunks).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let whole = format!("content-length: {}\r\n\r\n{body}", body.len());
    let spaced = format!("{signed} \t");
    assert!(
        raw(spaced.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"),
        "white space at the end"
    );
    let upper = format!("sha256={}", signature.to_uppercase());
    assert!(raw(upper.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"), "another case");
    for bad in
        [b"sha256=\xff\xfe".to_vec(), b"".to_vec(), format!("SHA256={signature}").into_bytes()]
    {
        let answer = raw(&bad, &whole).await;
        assert!(answer.contains("signature_malformed"), "{bad:?}: {answer}");
    }
    let twice = format!("{signed}\r\nx-hub-signature-256: sha256={}", "0".repeat(64));
    assert!(raw(twice.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"), "one of them fits");
}
