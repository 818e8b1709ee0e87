//! The bounds of the ingress, tested with raw sockets. Beyond each bound there is a response, and
//! an honest callback at the same time is accepted.

use std::time::Duration;

use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use zentra_tests::http::{Answer, Headers, Http};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::{eventually, flood, namespace, services, shared_rabbit, sign};

const BOUND: Duration = Duration::from_secs(20);
const BODY: &str = r#"{"type":"transfer.settled","id":"x"}"#;

/// An ingress with these settings in its `[ingress]` table.
async fn ingress(rabbit: &str, settings: &str) -> (Stack, Program) {
    let stack = Stack::new(rabbit, "redis://unused", &namespace(), "http://127.0.0.1:9/", "");
    stack.add(&format!("[ingress]\n{settings}"));
    let program = stack.ingress().await;
    (stack, program)
}

async fn connect(ingress: &Program) -> TcpStream {
    let address = ingress.listen.split("://").last().unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// A complete callback of `acme` in HTTP/1.1, with additional headers.
fn callback(id: &str, more: &str, body: &str) -> String {
    let mut head = "POST /in/acme HTTP/1.1\r\nhost: x\r\n".to_owned();
    for (name, value) in sign::acme(id, sign::now(), body.as_bytes()) {
        head += &format!("{name}: {value}\r\n");
    }
    format!("{head}{more}\r\n{body}")
}

fn length(body: &str) -> String {
    format!("content-length: {}\r\n", body.len())
}

/// Everything that arrives until the server closes.
async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the response also ends it.
    let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes and nothing more, and reads the response.
async fn say(ingress: &Program, bytes: &[u8]) -> String {
    let mut stream = connect(ingress).await;
    // The server may have closed before everything is written.
    let _ = stream.write_all(bytes).await;
    to_the_end(&mut stream).await
}

async fn honest(stack: &Stack, ingress: &Program, id: &str) -> Answer {
    let url = format!("{}/in/acme", ingress.listen);
    let headers = sign::acme(id, sign::now(), BODY.as_bytes());
    stack.http.post(&url, &headers, BODY).await.unwrap()
}

async fn refused(stack: &Stack, ingress: &Program, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    ingress.metric(&stack.http, &["zentra_ingress_refused_total", &reason]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_and_slow_bodies_get_408_and_hold_nobody_up() {
    let settings = "header_timeout = \"500ms\"\nbody_timeout = \"500ms\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let whole = callback("evt_1", &length(BODY), BODY);
    let slow_headers = say(&ingress, &whole.as_bytes()[..30]);
    let slow_body = say(&ingress, &whole.as_bytes()[..whole.len() - 5]);
    let (headers, body, beside) =
        tokio::join!(slow_headers, slow_body, honest(&stack, &ingress, "evt_2"));
    assert!(headers.starts_with("HTTP/1.1 408") && headers.contains("header_timeout"), "{headers}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("body_timeout"), "{body}");
    assert_eq!(beside.status, 200);
    assert_eq!(refused(&stack, &ingress, "header_timeout").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_never_ends_on_a_kept_connection_gets_408_too_and_a_silent_one_is_closed() {
    let settings = "header_timeout = \"300ms\"\nidle_timeout = \"1s\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let whole = callback("evt_1", &length(BODY), BODY);
    let mut stream = connect(&ingress).await;
    stream.write_all(whole.as_bytes()).await.unwrap();
    let mut first = vec![0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first, b"HTTP/1.1 200");
    stream.write_all(&whole.as_bytes()[..30]).await.unwrap();
    let rest = to_the_end(&mut stream).await;
    assert!(rest.contains("HTTP/1.1 408"), "{rest}");
    assert_eq!(to_the_end(&mut connect(&ingress).await).await, "", "closed without a word");
    assert_eq!(refused(&stack, &ingress, "header_timeout").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_long_headers_get_431_and_are_counted() {
    let settings = "max_header_bytes = \"16KiB\"\nmax_headers = 20";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let many: String = (0..20).map(|at| format!("x-{at}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(20_000));
    for more in [many, long] {
        let sent = callback("evt_1", &(length(BODY) + &more), BODY);
        let answer = say(&ingress, sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(refused(&stack, &ingress, "headers_too_large").await, 2.0);
    let nonsense = say(&ingress, b"\x16\x03\x01 hello\r\n\r\n").await;
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    assert_eq!(refused(&stack, &ingress, "bad_request").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_length_or_two_framings_let_nothing_else_in() {
    let (stack, ingress) = ingress(&shared_rabbit(), "body_timeout = \"500ms\"").await;
    let close = "connection: close\r\n";

    // More is announced than sent: the body never ends, or the connection closes.
    let long = format!("content-length: {}\r\n", BODY.len() + 10);
    let answer = say(&ingress, callback("evt_1", &long, BODY).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut stream = connect(&ingress).await;
    stream.write_all(callback("evt_1", &long, BODY).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = to_the_end(&mut stream).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");

    // Less is announced than sent: the signature does not match the announced part.
    let short = format!("content-length: {}\r\n{close}", BODY.len() - 10);
    let answer = say(&ingress, callback("evt_1", &short, BODY).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");

    // Chunked encoding is equivalent to a length. A request with both is refused, and what follows
    // is not a second request.
    let chunked = |inner: &str| format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let head = callback("evt_2", &format!("transfer-encoding: chunked\r\n{close}"), BODY);
    let sent = head.strip_suffix(BODY).unwrap().to_owned() + &chunked(BODY);
    let answer = say(&ingress, sent.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", BODY.len());
    let head = callback("evt_3", &both, BODY);
    let smuggled = callback("evt_4", &length(BODY), BODY);
    let sent = head.strip_suffix(BODY).unwrap().to_owned() + &chunked(BODY) + &smuggled;
    let answer = say(&ingress, sent.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad_request"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");

    let accepted = ["zentra_ingress_accepted_total", "acme"];
    assert_eq!(ingress.metric(&stack.http, &accepted).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_hosts_is_refused() {
    let (_stack, ingress) = ingress(&shared_rabbit(), "").await;
    for second in ["host: x\r\n", "Host: elsewhere\r\n"] {
        let more = length(BODY) + second + "connection: close\r\n";
        let answer = say(&ingress, callback("evt_1", &more, BODY).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("\"reason\":\"bad_request\""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_callbacks_are_answered_one_by_one_in_order() {
    let (_stack, ingress) = ingress(&shared_rabbit(), "").await;
    let forged = callback("evt_2", &length(BODY), BODY).replace("v1,", "v1,AAAA");
    let last = callback("evt_3", &(length(BODY) + "connection: close\r\n"), BODY);
    let sent = callback("evt_1", &length(BODY), BODY) + &forged + &last;
    let answers = say(&ingress, sent.as_bytes()).await;
    let statuses: Vec<&str> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "401", "200"], "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_with_the_path_reaches_a_source() {
    let (stack, ingress) = ingress(&shared_rabbit(), "").await;
    let paths = [
        "/in/",
        "/in/acme/",
        "/in//acme",
        "//in/acme",
        "/in/./acme",
        "/in/../in/acme",
        "/in/ACME",
        "/IN/acme",
        "/in/%61cme",
        "/in/acme%00",
        "/in/acme%2f",
        "/in/acme;x",
        "/in/acme%3fx",
        "/in/..%2fin%2facme",
        "/in/acme/../stripe-eu",
        "/in",
        "*",
        "/",
    ];
    for path in paths {
        let close = length(BODY) + "connection: close\r\n";
        let sent = callback("evt_1", &close, BODY).replacen("/in/acme", path, 1);
        let answer = say(&ingress, sent.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let metrics = stack.http.get(&format!("{}/metrics", ingress.admin)).await.unwrap().body;
    assert!(!metrics.contains("ACME") && metrics.contains("source=\"unknown\""), "{metrics}");
    // The query belongs to the sender. The path alone selects the source.
    let url = format!("{}/in/acme?x=/in/nobody", ingress.listen);
    let headers = sign::acme("evt_1", sign::now(), BODY.as_bytes());
    assert_eq!(stack.http.post(&url, &headers, BODY).await.unwrap().status, 200);
}

/// Resident memory of a process, in KiB.
fn memory(ingress: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", ingress.process.id()));
    let status = status.unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_2000_idle_connections_an_honest_callback_is_taken_and_memory_stays_flat() {
    let (stack, ingress) = ingress(&shared_rabbit(), "max_connections = 1000").await;
    assert_eq!(honest(&stack, &ingress, "evt_0").await.status, 200);
    let before = memory(&ingress);
    let mut idle = Vec::new();
    for at in 0..2000 {
        let mut stream = connect(&ingress).await;
        // Some connections have begun to send.
        if at % 2 == 0 {
            stream.write_all(b"POST /in/acme HTTP/1.1\r\nx-").await.unwrap();
        }
        idle.push(stream);
        if at % 500 == 499 {
            let fresh = Http::default();
            let url = format!("{}/in/acme", ingress.listen);
            let headers = sign::acme(&format!("evt_{at}"), sign::now(), BODY.as_bytes());
            let answer = fresh.post(&url, &headers, BODY).await.unwrap();
            assert_eq!(answer.status, 200, "beside {at}");
        }
    }
    let grown = memory(&ingress).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
}

/// Sends a body of 1 MiB in small pieces until it is dropped.
async fn keeps_sending(ingress: &Program, id: &str) -> JoinSet<()> {
    let mut stream = connect(ingress).await;
    let head = callback(id, "content-length: 1048576\r\n", "{");
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        let mut piece = head.into_bytes();
        while stream.write_all(&piece).await.is_ok() {
            piece = vec![b'x'; 2000];
            pace.tick().await;
        }
    });
    sending
}

async fn waiting_bodies(stack: &Stack, ingress: &Program, count: f64) {
    eventually("the bodies are waited for", BOUND, async || {
        let waiting = ingress.metric(&stack.http, &["zentra_ingress_bodies"]).await;
        (waiting >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_connections_that_are_all_at_work_a_new_one_gets_503() {
    let settings = "max_connections = 2\nmax_peer_share = 100";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let one = keeps_sending(&ingress, "evt_1").await;
    let _other = keeps_sending(&ingress, "evt_2").await;
    waiting_bodies(&stack, &ingress, 2.0).await;
    let answer = say(&ingress, b"").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 5"), "{answer}");
    drop(one);
    eventually("a place is free", BOUND, async || {
        let answer = honest(&stack, &ingress, "evt_2").await;
        answer.status.is_success().then_some(())
    })
    .await;
    assert!(refused(&stack, &ingress, "too_many_connections").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_body_does_not_come_gives_way_to_a_new_one() {
    let settings = "max_connections = 2\nmax_peer_share = 100\nmin_body_rate = 0\n\
                    body_timeout = \"10m\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let mut silent = Vec::new();
    for at in 0..2 {
        let mut stream = connect(&ingress).await;
        let head = callback(&format!("evt_{at}"), &length(BODY), "");
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    waiting_bodies(&stack, &ingress, 2.0).await;
    assert_eq!(honest(&stack, &ingress, "evt_3").await.status, 200);
    assert_eq!(refused(&stack, &ingress, "overloaded").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_a_byte_keep_no_honest_callback_out() {
    // Only the honest callbacks can end them, and one client may hold all places.
    let settings = "max_connections = 64\nmax_peer_share = 100\nmin_body_rate = 0\n\
                    body_timeout = \"10m\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let _flood =
        flood::unfinished_bodies(&ingress.listen, None, 3, 32, None, Duration::ZERO).await.unwrap();
    waiting_bodies(&stack, &ingress, 64.0).await;
    for at in 0..50 {
        let mut stream = connect(&ingress).await;
        // Its body arrives a moment after its headers, as with many clients.
        let whole = callback(&format!("evt_{at}"), &length(BODY), BODY);
        let (head, body) = whole.split_at(whole.len() - BODY.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_holds_no_more_than_its_share_of_places() {
    let settings = "max_connections = 40\nmin_body_rate = 0\nbody_timeout = \"10m\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let from = Some("127.0.0.2".parse().unwrap());
    let first = Some(bytes::Bytes::from_static(b"{"));
    let _flood = flood::unfinished_bodies(&ingress.listen, from, 1, 32, first, Duration::ZERO)
        .await
        .unwrap();
    waiting_bodies(&stack, &ingress, 20.0).await;
    let _others = keeps_sending(&ingress, "evt_1").await;
    waiting_bodies(&stack, &ingress, 21.0).await;
    let waiting = ingress.metric(&stack.http, &["zentra_ingress_bodies"]).await;
    assert_eq!(waiting, 21.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_too_slowly_gets_408_before_its_time_is_over() {
    let settings = "min_body_rate = \"1KiB\"\nbody_timeout = \"10m\"";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let mut stream = connect(&ingress).await;
    let head = callback("evt_1", "content-length: 1048576\r\n", &"x".repeat(5000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut hears, mut says) = stream.into_split();
    let mut dribbling = JoinSet::new();
    dribbling.spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while says.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    });
    let mut answer = [0; 12];
    tokio::time::timeout(BOUND, hears.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(refused(&stack, &ingress, "body_timeout").await, 1.0);
    assert_eq!(honest(&stack, &ingress, "evt_2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_callbacks_in_flight_and_the_bytes_in_memory_there_is_503_and_small_ones_pass() {
    let settings = "max_in_flight = 3\nmax_buffered = \"64KiB\"\nmax_peer_share = 100\n\
                    min_body_rate = 0\nbody_timeout = \"2m\"";
    let mut rabbit = services::rabbit();
    let (stack, ingress) = ingress(&rabbit.url(), settings).await;
    let large = format!(r#"{{"type":"a","fill":"{}"}}"#, "x".repeat(60_000));
    let mut slow = connect(&ingress).await;
    let whole = callback("evt_1", &length(&large), &large);
    slow.write_all(&whole.as_bytes()[..whole.len() - 1]).await.unwrap();
    waiting_bodies(&stack, &ingress, 1.0).await;
    let url = format!("{}/in/acme", ingress.listen);
    let body = large[..20_000].to_owned();
    assert_eq!(honest(&stack, &ingress, "evt_3").await.status, 200);
    // It has stalled, so it gives way to one that needs its memory.
    eventually("the slow one gives way", BOUND, async || {
        let headers = sign::acme("evt_2", sign::now(), body.as_bytes());
        let answer = stack.http.post(&url, &headers, body.clone()).await?;
        let overloaded = answer.reason() == "overloaded";
        assert!(!overloaded || answer.headers.contains_key("retry-after"));
        (!overloaded).then_some(())
    })
    .await;
    let answer = to_the_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");

    // A silent broker delays three callbacks. The others get 503 at once.
    rabbit.freeze();
    let mut knocking = JoinSet::new();
    for at in 0..10 {
        let (http, url) = (stack.http.clone(), url.clone());
        knocking.spawn(async move {
            let headers = sign::acme(&format!("evt_f{at}"), sign::now(), BODY.as_bytes());
            http.post(&url, &headers, BODY).await.unwrap().reason()
        });
    }
    let reasons = knocking.join_all().await;
    let overloaded = reasons.iter().filter(|reason| *reason == "overloaded").count();
    assert_eq!(overloaded, 7, "{reasons:?}");
    rabbit.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_has_its_own_body_bound_and_its_own_yes() {
    let own = "[source.small]\nprovider = \"github\"\n\
               secrets = [{ name = \"k1\", secret = \"env:GITHUB\" }]\n\
               max_body = 10\nsuccess_status = 202\nsuccess_body = \"[accepted]\"";
    let (stack, ingress) = ingress(&shared_rabbit(), &format!("\n{own}")).await;
    let url = format!("{}/in/small", ingress.listen);
    let post = async |body: &'static [u8]| {
        let headers = sign::github("d-1", "push", body);
        stack.http.send(Method::POST, &url, &headers, body).await.unwrap()
    };
    let taken = post(b"{\"a\":1}").await;
    assert_eq!((taken.status.as_u16(), &*taken.body), (202, "[accepted]"));
    // A body that is announced as too large is refused before it is sent.
    let unsent = "POST /in/small HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\n";
    let refused = say(&ingress, unsent.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let large = post(b"{\"a\":12345}").await;
    assert_eq!((large.status.as_u16(), &*large.reason()), (413, "body_too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_without_tls_too() {
    let (_stack, ingress) = ingress(&shared_rabbit(), "").await;
    let http2 = Http::http2();
    let url = format!("{}/in/acme", ingress.listen);
    let headers = sign::acme("evt_1", sign::now(), BODY.as_bytes());
    let answer = http2.post(&url, &headers, BODY).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.version), (200, Version::HTTP_2));
    let answer = http2.post(&url, &Vec::new(), BODY).await.unwrap();
    assert_eq!(answer.reason(), "signature_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_has_bounds_of_its_headers_and_of_its_streams() {
    let settings = "max_header_bytes = \"16KiB\"\nmax_headers = 20";
    let (stack, ingress) = ingress(&shared_rabbit(), settings).await;
    let http2 = Http::http2();
    let url = format!("{}/in/acme", ingress.listen);
    let many = vec![("x-many", "y".to_owned()); 21];
    // The library refuses the last one unread.
    for headers in [many, long(17_000), long(40_000)] {
        let answer = http2.post(&url, &headers, BODY).await.unwrap();
        assert_eq!(answer.status, 431);
    }
    assert_eq!(refused(&stack, &ingress, "headers_too_large").await, 2.0);

    let mut raw = connect(&ingress).await;
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    raw.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; head[2].into()];
    raw.read_exact(&mut settings).await.unwrap();
    // RFC 9113, 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS is 3.
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 32]), "{settings:?}");
}

fn long(length: usize) -> Headers {
    vec![("x-long", "y".repeat(length))]
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_that_wait_to_be_verified_keep_no_small_one_out() {
    let (stack, ingress) =
        ingress(&shared_rabbit(), "max_in_flight = 12\nmax_peer_share = 100").await;
    let form = (0..60_000).map(|at| format!("{at}=%41&")).collect::<String>();
    let url = format!("{}/in/github", ingress.listen);
    let mut flood = JoinSet::new();
    for _ in 0..24 {
        let (http, url, form) = (stack.http.clone(), url.clone(), form.clone());
        flood.spawn(async move {
            let headers = sign::github("d-1", "push", b"another body");
            loop {
                drop(http.post(&url, &headers, form.clone()).await);
            }
        });
    }
    eventually("some are turned away", BOUND, async || {
        (refused(&stack, &ingress, "overloaded").await > 0.0).then_some(())
    })
    .await;
    for at in 0..50 {
        assert_eq!(honest(&stack, &ingress, &format!("evt_{at}")).await.status, 200, "{at}");
    }
}
