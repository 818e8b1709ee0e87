//! The ingress with TLS, with certificates made here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zentra_tests::stack::{Program, Stack};
use zentra_tests::{eventually, namespace, services, shared_rabbit, sign};

const BOUND: Duration = Duration::from_secs(20);
const BODY: &str = r#"{"type":"transfer.settled","id":"x"}"#;

/// Writes a new certificate for localhost, which ends with this year's first day.
fn certificate(folder: &Path, year: i32) -> CertificateDer<'static> {
    let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = wanted.self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), made.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    made.der().clone()
}

/// An ingress with TLS and these settings, its folder, and the certificate.
async fn ingress(settings: &str) -> (Stack, Program, PathBuf, CertificateDer<'static>) {
    let folder = services::folder("tls");
    let trusted = certificate(&folder, 2100);
    let unused = "redis://unused";
    let stack = Stack::new(&shared_rabbit(), unused, &namespace(), "http://127.0.0.1:9/", "");
    let path = folder.display();
    stack.add(&format!(
        "[ingress]\n{settings}\n[ingress.tls]\ncertificate = \"file:{path}/tls.crt\"\nkey = \"file:{path}/tls.key\""
    ));
    let program = stack.ingress().await;
    (stack, program, folder, trusted)
}

/// A connection that trusts only this certificate.
async fn connect(
    ingress: &Program,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let address = ingress.listen.split("://").last().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

/// Sends a callback on an open connection, and reads the first bytes of the response.
async fn post(stream: &mut TlsStream<TcpStream>, id: &str) -> String {
    let mut request = "POST /in/acme HTTP/1.1\r\nhost: localhost\r\n".to_owned();
    for (name, value) in sign::acme(id, sign::now(), BODY.as_bytes()) {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{BODY}", BODY.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = tokio::time::timeout(BOUND, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

/// A failed handshake.
async fn is_counted(stack: &Stack, ingress: &Program) {
    let metric = ["zentra_ingress_refused_total", "tls_handshake"];
    eventually("it is counted", BOUND, async || {
        (ingress.metric(&stack.http, &metric).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_come_by_tls_with_both_protocols_and_not_without_it() {
    let (stack, ingress, _, trusted) = ingress("").await;
    let mut http1 = connect(&ingress, &trusted, b"http/1.1").await.unwrap();
    assert!(post(&mut http1, "evt_1").await.starts_with("HTTP/1.1 200"));
    let http2 = connect(&ingress, &trusted, b"h2").await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // The server's first frame is its settings. RFC 9113, 3.4.
    let (mut http2, mut frame) = (http2, [0; 4]);
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    http2.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4);

    let plain = TcpStream::connect(ingress.listen.split("://").last().unwrap()).await;
    let (mut plain, mut answer) = (plain.unwrap(), String::new());
    plain.write_all(b"POST /in/acme HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _ = plain.read_to_string(&mut answer).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    is_counted(&stack, &ingress).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_never() {
    let (stack, ingress, folder, old) = ingress("").await;
    let mut open = connect(&ingress, &old, b"http/1.1").await.unwrap();
    let metric = ["zentra_ingress_certificate_expiry_timestamp_seconds"];
    let ends = async || ingress.metric(&stack.http, &metric).await;
    assert_eq!(ends().await, 4_102_444_800.0);
    let new = certificate(&folder, 2050);
    let new_is_served = async || connect(&ingress, &new, b"http/1.1").await.map(drop);
    eventually("the new certificate is served", BOUND, new_is_served).await;
    assert_eq!(ends().await, 2_524_608_000.0);
    assert!(connect(&ingress, &old, b"http/1.1").await.is_none());
    assert!(post(&mut open, "evt_1").await.starts_with("HTTP/1.1 200"), "the open one goes on");

    std::fs::write(folder.join("tls.crt"), "no certificate").unwrap();
    let printed = || services::output().contains("the new certificate is unusable");
    eventually("the problem is logged", BOUND, async || printed().then_some(())).await;
    assert!(connect(&ingress, &new, b"http/1.1").await.is_some());

    // The configuration names other files. They apply after the next SIGHUP.
    let elsewhere = services::folder("tls");
    let newest = certificate(&elsewhere, 2060);
    stack.replace(&folder.display().to_string(), &elsewhere.display().to_string());
    ingress.process.hang_up();
    let newest_is_served = async || connect(&ingress, &newest, b"http/1.1").await.map(drop);
    eventually("the certificate elsewhere is served", BOUND, newest_is_served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_end_is_closed_in_time_and_counted() {
    let (stack, ingress, _, trusted) = ingress("header_timeout = \"300ms\"").await;
    let mut silent = TcpStream::connect(ingress.listen.split("://").last().unwrap()).await.unwrap();
    // The first bytes of a ClientHello.
    silent.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let closed = tokio::time::timeout(BOUND, silent.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "held open");
    is_counted(&stack, &ingress).await;
    let mut honest = connect(&ingress, &trusted, b"http/1.1").await.unwrap();
    assert!(post(&mut honest, "evt_1").await.starts_with("HTTP/1.1 200"));
}

/// A client that connects and sends nothing delays nobody, however long a handshake may take.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_go_on_give_way_to_an_honest_callback() {
    let settings = "max_connections = 8\nheader_timeout = \"10m\"\nmax_peer_share = 100";
    let (stack, ingress, _folder, trusted) = ingress(settings).await;
    let address = ingress.listen.split("://").last().unwrap();
    let mut silent = Vec::new();
    for at in 0..30 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Some begin a TLS record, and send no more.
        stream.write_all(&[22, 3, 1][..at % 4]).await.unwrap();
        silent.push(stream);
    }
    for at in 0..20 {
        let connected = tokio::time::timeout(BOUND, connect(&ingress, &trusted, b"http/1.1"));
        let mut stream = connected.await.unwrap().unwrap();
        let answer = post(&mut stream, &format!("evt_{at}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    is_counted(&stack, &ingress).await;
}
