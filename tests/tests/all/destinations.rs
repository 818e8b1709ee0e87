//! Realistic destinations: behind TLS, with HTTP/1.1 or HTTP/2, with responses of any length.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::State;
use zentra_store::journal::{AttemptResult, Delivery, DeliveryStore, ErrorClass, HistoryEvent};
use zentra_tests::ledger::transfer;
use zentra_tests::services::{self, folder};
use zentra_tests::world::{BOUND, World, count, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

/// An application behind TLS. It answers with the HTTP version of the request, and with a long
/// body for `evt_0`.
struct Application {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl Application {
    /// Writes its certificate into `folder`.
    async fn start(folder: &Path, protocols: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let http = Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        Self { url, connections }
    }
}

async fn answer(request: http::Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = match request.version() {
        Version::HTTP_2 => "h2",
        _ => "http/1.1",
    };
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    let more = if key.is_some_and(|key| key.ends_with("/evt_0")) { 100_000 } else { 1 };
    let text = format!("{version} {}\u{7}{}", request.uri().path(), "and more".repeat(more));
    Ok(Response::new(Full::new(text.into())))
}

/// The response in the history.
fn excerpt(known: &Delivery) -> &str {
    let result = known.history.iter().find_map(|entry| match &entry.what {
        HistoryEvent::Delivered { result, .. } => Some(result),
        _ => None,
    });
    result.and_then(|result| result.response.as_deref()).unwrap_or_default()
}

fn distrusts(result: &AttemptResult) -> bool {
    let error = result.error.as_deref().unwrap_or_default();
    error.contains("certificate") && result.class == Some(ErrorClass::Tls)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_destination_is_reached_by_either_http_and_only_with_a_certificate_that_is_trusted()
 {
    let retry = r#"attempts = 20, initial = "250ms", multiplier = 1.0, jitter = 0.0"#;
    for protocol in ["h2", "http/1.1"] {
        let folder = folder("application");
        let application = Application::start(&folder, &[protocol]).await;
        let namespace = namespace();
        let world =
            World::start(&shared_rabbit(), &shared_redis(), &namespace, retry).await.unwrap();
        let url = format!("url = \"{}\"", world.ledger.url);
        let https = format!("url = \"{}\"\nallow_private = true\nconcurrency = 1", application.url);
        world.stack.replace(&url, &https);

        let strict = world.stack.worker().await;
        world.send("evt_0", &transfer("evt_0", "trf_0", 1)).await;
        let failed = |what: &HistoryEvent| matches!(what, HistoryEvent::Failed { result, .. } if distrusts(result));
        world.until("evt_0", |known| count(known, failed) == 1).await;
        drop(strict);

        let mut command = world.stack.command("zentra-worker");
        command.env("SSL_CERT_FILE", folder.join("tls.crt"));
        let _worker = world.stack.start(command).await;
        for at in 1..10 {
            let id = format!("evt_{at}");
            world.send(&id, &transfer(&id, "trf_1", 1)).await;
        }
        for at in 0..10 {
            let known = world.until(&format!("evt_{at}"), delivered).await;
            let printed = excerpt(&known);
            // The beginning of the response, without control characters.
            assert!(printed.starts_with(&format!("{protocol} / and more")), "{printed}");
            assert_eq!(
                printed.len(),
                if at == 0 { 1024 } else { printed.len().min(20) },
                "{printed}"
            );
        }
        // The connection is kept, unless a response was longer than what is read of it.
        let connections = application.connections.load(Ordering::SeqCst);
        assert!(connections <= 2, "{connections} connections by {protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_was_no_answer_is_told_by_a_class_that_is_always_the_same() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let cases = [
        ("timeout", format!("http://127.0.0.1:{}/", port(&silent)), ErrorClass::Timeout),
        ("connect", format!("http://127.0.0.1:{}/", services::free_port()), ErrorClass::Connect),
        ("dns", "http://nowhere.invalid/".to_owned(), ErrorClass::Dns),
        ("private", "http://localhost:1/".to_owned(), ErrorClass::PrivateAddress),
        ("protocol", format!("http://127.0.0.1:{}/", port(&rude)), ErrorClass::Protocol),
        ("tls", format!("https://127.0.0.1:{}/", port(&rude)), ErrorClass::Tls),
    ];
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = rude.accept().await {
            let _ = stream.write_all(b"220 no HTTP, and no TLS\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    for (name, url, _) in &cases {
        world.stack.add(&format!(
            "[destination.{name}]\nurl = \"{url}\"\nsubscribe = [\"acme.#\"]\ntimeout = \"3s\"\n\
             retry = {{ attempts = 1 }}"
        ));
    }
    world.stack.replace("lease = \"2s\"", "lease = \"10s\"");
    let ingress = world.stack.ingress().await;
    let _worker = world.stack.worker().await;
    let body = transfer("evt_1", "trf_1", 1);
    let headers = sign::acme("evt_1", sign::now(), body.as_bytes());
    let answer =
        world.stack.http.post(&format!("{}/in/acme", ingress.listen), &headers, body).await;
    assert_eq!(answer.unwrap().status, 200);
    for (name, _, class) in cases {
        let key = DeliveryKey::parse(&format!("{name}/acme/evt_1")).unwrap();
        let found = eventually(&format!("{name} has failed"), BOUND, async || {
            let known = world.journal.history(&key).await.ok()??;
            known.history.into_iter().find_map(|entry| match entry.what {
                HistoryEvent::Dead { result, .. } => Some(result),
                _ => None,
            })
        })
        .await;
        assert_eq!(found.class, Some(class), "{name}: {:?}", found.error);
    }
}

/// Node closes an idle connection after five seconds, and a request may be on its way at that
/// moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_just_closed_costs_no_attempt() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = closed.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
                while !heard.ends_with(b"}") {
                    let read = stream.read(&mut piece).await.unwrap();
                    heard.extend_from_slice(&piece[..read]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                if stream.read(&mut piece).await.is_ok_and(|read| read > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    world.stack.add(&format!(
        "[destination.shop]\nurl = \"{url}\"\nsubscribe = [\"acme.#\"]\ntimeout = \"1s\"\n\
         allow_private = true\nretry = {{ attempts = 1 }}"
    ));
    let ingress = world.stack.ingress().await;
    let _worker = world.stack.worker().await;
    for at in 0..4 {
        let id = format!("evt_{at}");
        let body = transfer(&id, "trf_1", 1);
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        let url = format!("{}/in/acme", ingress.listen);
        assert_eq!(world.stack.http.post(&url, &headers, body).await.unwrap().status, 200);
        let key = DeliveryKey::parse(&format!("shop/acme/{id}")).unwrap();
        eventually(&format!("{id} is delivered"), BOUND, async || {
            let known = world.journal.history(&key).await.ok()??;
            assert_ne!(known.record.state, State::Dead, "{:#?}", known.history);
            (known.record.state == State::Delivered).then_some(())
        })
        .await;
    }
    assert_eq!(closed.load(Ordering::SeqCst), 3);
}

/// An application that repeats the method and the headers of the request, and judges by its `authorization`.
async fn echo() -> String {
    zentra_tests::http::serve(|request| async move {
        let authorization = request.headers().get("authorization").cloned();
        let text = format!("{} {:?}", request.method(), request.headers());
        let mut response = Response::new(Full::new(text.into()));
        if authorization.is_none_or(|value| value != "Bearer open-sesame-0123456789") {
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        }
        response
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_has_a_method_and_headers_of_its_own_whose_values_are_seen_nowhere() {
    const SECRET: &str = "open-sesame-0123456789";
    let retry = "attempts = 2, initial = \"100ms\"";
    let mut world =
        World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let lines = format!(
        "url = \"{}/\"\nmethod = \"PUT\"\nheaders = {{ authorization = \"env:TOKEN\", X-Tenant = \"env:TENANT\" }}",
        echo().await
    );
    world.stack.replace(&format!("url = \"{}\"", world.ledger.url), &lines);
    world.stack.variables.push(("TOKEN", format!("Bearer {SECRET}")));
    world.stack.variables.push(("TENANT", "tenant-of-zentra".into()));
    let _worker = world.stack.worker().await;
    let body = transfer("evt_1", "trf_1", 1);
    let mut headers = sign::acme("evt_1", sign::now(), body.as_bytes());
    headers.push(("x_tenant", "of-the-provider".into()));
    let answer = world.post(&headers, &body).await.unwrap();
    assert_eq!(answer.status, 200);
    let known = world.until("evt_1", delivered).await;
    let text = excerpt(&known);
    assert!(text.starts_with("PUT ") && !text.contains(SECRET), "{text}");
    let shown = world.stack.shown("evt_1").unwrap().to_string();
    assert!(!shown.contains(SECRET) && !shown.contains("tenant-of-zentra"), "{shown}");
    assert!(!services::output().contains(SECRET));
    assert!(!services::output().contains("tenant-of-zentra"));
}
