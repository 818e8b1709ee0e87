//! The ingress as a process, over real HTTP, with a real RabbitMQ.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zentra_rabbitmq::Amqp;
use zentra_store::queue::{Consumer, Message, Process, Receipt};
use zentra_tests::http::Headers;
use zentra_tests::stack::Stack;
use zentra_tests::{eventually, namespace, queue_settings, services, shared_rabbit, sign};

const BOUND: Duration = Duration::from_secs(20);
const BODY: &[u8] = br#"{"type":"transfer.settled","id":"x"}"#;

fn stack(rabbit: &str) -> Stack {
    Stack::new(rabbit, "redis://unused", &namespace(), "http://127.0.0.1:9/", "")
}

/// All messages in the ledger's work queue.
async fn queued(stack: &Stack, count: usize) -> Vec<Message> {
    let queue = Amqp::processor(queue_settings(&stack.rabbit, &stack.namespace));
    let mut consumer = queue.consume("ledger", 100);
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(BOUND, consumer.next()).await;
        let (message, receipt) = next.unwrap().unwrap();
        found.push(message);
        receipt.ack().await;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn genuine_callbacks_get_a_2xx_and_are_queued_byte_for_byte() {
    let stack = stack(&shared_rabbit());
    let ingress = stack.ingress().await;
    let now = sign::now();
    let callbacks = [
        ("acme", sign::acme("evt_1", now, BODY)),
        ("stripe-eu", sign::stripe(now, BODY)),
        ("github", sign::github("d-1", "push", BODY)),
    ];
    for (source, headers) in &callbacks {
        let url = format!("{}/in/{source}", ingress.listen);
        let answer = stack.http.post(&url, headers, BODY).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{source}: {answer:?}");
        let accepted = ["zentra_ingress_accepted_total", source];
        assert_eq!(ingress.metric(&stack.http, &accepted).await, 1.0);
    }
    for message in queued(&stack, 3).await {
        assert_eq!(message.sealed.body, BODY);
        assert!(message.sealed.seal.starts_with("v1,test,"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_the_configs_own_that_signs_its_url_is_verified_behind_a_proxy() {
    let stack = stack(&shared_rabbit());
    stack.replace("subscribe = [", "subscribe = [\"own.#\", ");
    stack.add(
        r#"[source.own]
provider = "own"
public_url = "https://hooks.example.com/callbacks/own"
secrets = [{ name = "k1", secret = "env:STRIPE_EU" }]
[provider.own.signature]
at = { header = "x-own-signature" }
grammar = { prefix = "sig=" }
algorithm = "hmac-sha256"
encoding = "hex"
key = "utf8"
content = "{method} {url}\n{body}""#,
    );
    let ingress = stack.ingress().await;
    let body = String::from_utf8(BODY.to_vec()).unwrap();
    let post = async |query: &str, signed: &str| {
        let content = format!("POST https://hooks.example.com/callbacks/own{signed}\n{body}");
        let signature = format!("sig={}", sign::plain(sign::STRIPE_SECRET, &content));
        let url = format!("{}/in/own{query}", ingress.listen);
        let headers = vec![("x-own-signature", signature)];
        stack.http.post(&url, &headers, body.clone()).await.unwrap()
    };
    assert_eq!(post("", "").await.status, StatusCode::OK);
    assert_eq!(post("?shop=1&a=%20", "?shop=1&a=%20").await.status, StatusCode::OK);
    for (query, signed) in [("?shop=2", "?shop=1"), ("", "?shop=1"), ("?shop=1", "")] {
        assert_eq!(post(query, signed).await.reason(), "signature_mismatch", "{query} {signed}");
    }
    assert_eq!(queued(&stack, 1).await[0].sealed.body, BODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_status_its_reason_and_its_count() {
    let stack = stack(&shared_rabbit());
    let ingress = stack.ingress().await;
    let now = sign::now();
    let good = sign::acme("evt_1", now, BODY);
    let with = |name: &str, value: &str| -> Headers {
        let changed = good.iter().map(|(key, old)| match *key == name {
            true => (*key, value.to_owned()),
            false => (*key, old.clone()),
        });
        changed.collect()
    };
    let forged = sign::standard("whsec_Zm9yZ2Vk", "evt_1", now, BODY);
    let large = vec![b' '; zentra_ingress_max_body() + 1];
    type Case<'a> = (&'a str, Method, &'a str, Headers, &'a [u8], u16);
    let cases: [Case<'_>; 9] = [
        ("unknown_source", Method::POST, "/in/nobody", good.clone(), BODY, 404),
        ("unknown_source", Method::POST, "/elsewhere", good.clone(), BODY, 404),
        ("method_not_allowed", Method::GET, "/in/acme", good.clone(), b"", 405),
        ("body_too_large", Method::POST, "/in/acme", good.clone(), &large, 413),
        ("signature_missing", Method::POST, "/in/acme", Headers::new(), BODY, 401),
        (
            "signature_malformed",
            Method::POST,
            "/in/acme",
            with("webhook-signature", "x"),
            BODY,
            400,
        ),
        (
            "signature_mismatch",
            Method::POST,
            "/in/acme",
            with("webhook-signature", &forged),
            BODY,
            401,
        ),
        ("timestamp_stale", Method::POST, "/in/acme", sign::acme("e", now - 400, BODY), BODY, 401),
        ("timestamp_future", Method::POST, "/in/acme", sign::acme("e", now + 400, BODY), BODY, 401),
    ];
    for (reason, method, path, headers, body, status) in cases {
        let url = format!("{}{path}", ingress.listen);
        let source = if status == 404 { "unknown" } else { "acme" };
        let metric = ["zentra_ingress_refused_total", reason, source];
        let before = ingress.metric(&stack.http, &metric).await;
        let answer = stack.http.send(method, &url, &headers, body.to_vec()).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer: {reason}"));
        assert_eq!((answer.reason().as_str(), answer.status.as_u16()), (reason, status), "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let after = ingress.metric(&stack.http, &metric).await;
        assert_eq!(after - before, 1.0, "{reason}");
    }
}

/// The documented bound. It is written out, so that a change is noticed here.
fn zentra_ingress_max_body() -> usize {
    1024 * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_over_the_bound_is_refused_and_one_that_never_ends_times_out() {
    let stack = stack(&shared_rabbit());
    let ingress = stack.ingress().await;
    let address = ingress.listen.strip_prefix("http://").unwrap().to_owned();
    let start = "POST /in/acme HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = async |chunks: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        // The server may stop reading and close during this write.
        let _ = stream.write_all(chunks).await;
        let mut text = String::new();
        let _ = tokio::time::timeout(BOUND, stream.read_to_string(&mut text)).await;
        text
    };
    let mut large = Vec::new();
    for _ in 0..17 {
        large.extend_from_slice(b"10000\r\n");
        large.extend_from_slice(&[b' '; 0x10000]);
        large.extend_from_slice(b"\r\n");
    }
    let (too_large, never) = tokio::join!(answer(&large), answer(b"1\r\nx\r\n"));
    assert!(too_large.starts_with("HTTP/1.1 413"), "{too_large}");
    assert!(never.starts_with("HTTP/1.1 408") && never.contains("body_timeout"), "{never}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_a_genuine_callback_gets_503_with_retry_after_and_a_forged_one_401() {
    let mut rabbit = services::rabbit();
    let stack = stack(&rabbit.url());
    let ingress = stack.ingress().await;
    let url = format!("{}/in/acme", ingress.listen);
    let post = async |headers: Headers| stack.http.post(&url, &headers, BODY).await.unwrap();
    rabbit.kill();
    let answer = eventually("a 503", BOUND, async || {
        let answer = post(sign::acme("evt_1", sign::now(), BODY)).await;
        (answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(answer.reason(), "queue_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    let unsigned = post(Headers::new()).await;
    assert_eq!(unsigned.reason(), "signature_missing");
    let ready = stack.http.get(&format!("{}/readyz", ingress.admin)).await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let alive = stack.http.get(&format!("{}/livez", ingress.admin)).await.unwrap();
    assert_eq!(alive.status, StatusCode::OK);
    rabbit.restart().unwrap();
    eventually("a 200 again", BOUND * 2, async || {
        let answer = post(sign::acme("evt_1", sign::now(), BODY)).await;
        answer.status.is_success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_a_callback_under_way_and_ends_with_status_0() {
    let stack = stack(&shared_rabbit());
    let mut ingress = stack.ingress().await;
    let address = ingress.listen.strip_prefix("http://").unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut head =
        format!("POST /in/acme HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", BODY.len());
    for (name, value) in sign::acme("evt_slow", sign::now(), BODY) {
        head += &format!("{name}: {value}\r\n");
    }
    // `Expect` makes the server say when it has begun to read this callback.
    head += "expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    let stopping = std::thread::spawn(move || ingress.process.terminate(BOUND));
    eventually("no new connections", BOUND, async || {
        tokio::net::TcpStream::connect(&address).await.err()
    })
    .await;
    stream.write_all(BODY).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = stopping.join().unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_config_that_can_not_be_used_ends_the_program_with_all_its_problems() {
    let stack = Stack::new("amqp://unused", "redis://unused", "BAD", "nowhere", "colour = 1");
    let output = stack.command("zentra-ingress").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr);
    for key in ["namespace:", "destination.ledger.url:", "destination.ledger.colour:"] {
        assert!(printed.contains(key), "{key} is not told:\n{printed}");
    }
}
