//! Keys that a provider publishes are fetched from its own addresses, once. Subscriptions are
//! confirmed there too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zentra_core::event::body_sha256;
use zentra_tests::http::Answer;
use zentra_tests::services::{folder, free_port};
use zentra_tests::stack::{Program, Stack};
use zentra_tests::{namespace, shared_rabbit};

/// The provider's server, with TLS: its documents, and how often each was requested.
struct Publisher {
    host: String,
    /// The documents.
    published: Arc<Mutex<String>>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    /// The certificate to trust, in PEM.
    roots: PathBuf,
}

impl Publisher {
    async fn start(certificate: String) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let roots = folder("published").join("roots.pem");
        std::fs::write(&roots, made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (tls, counts) = (TlsAcceptor::from(Arc::new(config)), asked.clone());
        let published = Arc::new(Mutex::new(certificate));
        let current = published.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, counts, current) = (tls.clone(), counts.clone(), current.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
                        let path = request.uri().path().to_owned();
                        *counts.lock().unwrap().entry(path.clone()).or_default() += 1;
                        let body = Bytes::from(current.lock().unwrap().clone());
                        let mut response = http::Response::new(Full::new(body));
                        if path.ends_with("/gone.pem") {
                            *response.status_mut() = http::StatusCode::NOT_FOUND;
                        }
                        std::future::ready(Ok::<_, std::convert::Infallible>(response))
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { host, published, asked, roots }
    }

    /// An ingress that takes this server for the provider's.
    async fn trusting(&self, stack: &Stack) -> Program {
        let mut command = stack.command("zentra-ingress");
        let listen = format!("127.0.0.1:{}", free_port());
        command.args(["--listen", &listen]).env("SSL_CERT_FILE", &self.roots);
        let mut ingress = stack.start(command).await;
        ingress.listen = format!("http://{listen}");
        ingress
    }

    /// A configuration with a provider whose callbacks name the certificate that signs them.
    fn certifies(&self) -> Stack {
        let unused = "redis://unused";
        let stack = Stack::new(&shared_rabbit(), unused, &namespace(), "http://127.0.0.1:9/", "");
        let host = &self.host;
        stack.add(&format!(
            r#"[source.own]
provider = "own"
secrets = [{{ name = "topic", secret = "env:GITHUB" }}]
[provider.own.keys]
at = {{ header = "x-key" }}
hosts = ["{host}"]
prefix = "/keys/"
suffix = ".pem"
[provider.own.signature]
at = {{ header = "x-signature" }}
grammar = "bare"
algorithm = "ecdsa-p256-sha256"
encoding = "base64"
key = "x509"
content = "{{secret}}.{{body}}"
[[provider.own.handshake]]
when = {{ json = "/confirm" }}
visit = {{ json = "/confirm" }}"#
        ));
        stack
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

/// The key of the published certificate.
struct Signer {
    key: rcgen::KeyPair,
    certificate: String,
}

impl Signer {
    fn new() -> Self {
        Self::until(2100)
    }

    /// Its certificate expires at the end of that year.
    fn until(year: i32) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["signer".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        Self { certificate: params.self_signed(&key).unwrap().pem(), key }
    }

    fn sign(&self, content: &str) -> String {
        let (random, pkcs8) = (SystemRandom::new(), self.key.serialize_der());
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).unwrap();
        STANDARD.encode(pair.sign(&random, content.as_bytes()).unwrap())
    }
}

async fn post(stack: &Stack, ingress: &Program, key: &str, tag: String, body: &str) -> Answer {
    let headers = vec![("x-key", key.to_owned()), ("x-signature", tag)];
    let url = format!("{}/in/own", ingress.listen);
    stack.http.post(&url, &headers, body.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_key_is_fetched_once_and_only_where_the_provider_publishes_its_keys() {
    let signer = Signer::new();
    let publisher = Publisher::start(signer.certificate.clone()).await;
    let stack = publisher.certifies();
    let host = &publisher.host;
    let ingress = publisher.trusting(&stack).await;
    let key = format!("https://{host}/keys/1.pem");
    let sign = |body: &str| signer.sign(&format!("{}.{body}", zentra_tests::sign::GITHUB_SECRET));

    for body in ["{\"n\":1}", "{\"n\":2}"] {
        let answer = post(&stack, &ingress, &key, sign(body), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(publisher.asked("/keys/1.pem"), 1, "it is kept");
    // Signed by the same key for another customer, and a forgery.
    let other = signer.sign("another.{}");
    assert_eq!(post(&stack, &ingress, &key, other, "{}").await.reason(), "signature_mismatch");
    let forged = Signer::new().sign("{}");
    assert_eq!(post(&stack, &ingress, &key, forged, "{}").await.reason(), "signature_mismatch");

    for elsewhere in [
        format!("https://{host}/other/1.pem"),
        format!("https://{host}/keys/1.txt"),
        format!("https://{host}/keys/../1.pem"),
        format!("http://{host}/keys/1.pem"),
        "https://localhost/keys/1.pem".into(),
        format!("https://evil.{host}/keys/1.pem"),
    ] {
        let answer = post(&stack, &ingress, &elsewhere, sign("{}"), "{}").await;
        assert_eq!((answer.status.as_u16(), answer.reason()), (401, "key_not_allowed".into()));
    }
    let gone = format!("https://{host}/keys/gone.pem");
    let answer = post(&stack, &ingress, &gone, sign("{}"), "{}").await;
    assert_eq!((answer.status.as_u16(), answer.reason()), (503, "key_unavailable".into()));

    // A confirmation URL is requested only if it belongs to the provider.
    let confirm = format!(r#"{{"confirm":"https://{host}/confirm?token=1"}}"#);
    let answer = post(&stack, &ingress, &key, sign(&confirm), &confirm).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(publisher.asked("/confirm"), 1);
    let elsewhere = format!(r#"{{"confirm":"https://localhost:1/confirm?of={host}"}}"#);
    let answer = post(&stack, &ingress, &key, sign(&elsewhere), &elsewhere).await;
    assert_eq!(answer.status, 200, "it is an event, as any other: {answer:?}");
    let handshakes = ["zentra_ingress_handshakes_total", "own"];
    assert_eq!(ingress.metric(&stack.http, &handshakes).await, 1.0);
    assert_eq!(publisher.asked("/keys/1.pem"), 1);
    assert_eq!(publisher.asked("/other/1.pem") + publisher.asked("/keys/1.txt"), 0);
}

/// The key that signs tokens in this test.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let (random, pkcs8) = (SystemRandom::new(), Signer::new().key.serialize_der());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random);
        Self(pair.unwrap())
    }

    /// The key set with this key, and one that is invalid.
    fn set(&self) -> String {
        let [_, point @ ..] = self.0.public_key().as_ref() else { panic!("no point") };
        let (x, y) = point.split_at(32);
        let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        serde_json::json!({ "keys": [
            { "kty": "oct", "k": "c2VjcmV0" },
            { "kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y },
        ] })
        .to_string()
    }

    fn token(&self, body: &str) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let claims = serde_json::json!({
            "iss": "us", "exp": zentra_tests::sign::now() + 60, "body": body_sha256(body.as_bytes()),
        });
        let header = encode(br#"{"alg":"ES256","kid":"1"}"#);
        let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));
        let tag = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", encode(tag.as_ref()))
    }
}

/// A configuration with a provider that publishes its key set.
fn with_a_set(publisher: &Publisher) -> Stack {
    let stack =
        Stack::new(&shared_rabbit(), "redis://unused", &namespace(), "http://127.0.0.1:9/", "");
    stack.add(&format!(
        r#"[source.own]
provider = "own"
[provider.own.keys]
url = "https://{}/keys/set.json"
[provider.own.signature]
at = {{ header = "x-signature" }}
grammar = "jws"
algorithm = "es256"
encoding = "base64url"
key = "jwk"
content = "{{item:header}}.{{item:payload}}"
[provider.own.claims]
issuer = "us"
body = {{ claim = "body", as = "sha256-hex" }}"#,
        publisher.host
    ));
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_verified_by_a_key_set_that_is_fetched_and_need_no_secret() {
    let issuer = Issuer::new();
    let publisher = Publisher::start(issuer.set()).await;
    let stack = with_a_set(&publisher);
    let ingress = publisher.trusting(&stack).await;
    for body in ["{\"n\":1}", "{\"n\":2}"] {
        let answer = post(&stack, &ingress, "", issuer.token(body), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(publisher.asked("/keys/set.json"), 1, "it is kept");
    for _ in 0..3 {
        let other = post(&stack, &ingress, "", issuer.token("{}"), "{ }").await;
        assert_eq!(other.reason(), "signature_mismatch");
    }
    assert_eq!(publisher.asked("/keys/set.json"), 2, "forged ones have it fetched once more only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_new_in_the_set_is_taken_at_once_and_a_set_that_is_gone_changes_nothing() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let publisher = Publisher::start(old.set()).await;
    let stack = with_a_set(&publisher);
    let ingress = publisher.trusting(&stack).await;
    let answer = async |issuer: &Issuer| {
        post(&stack, &ingress, "", issuer.token("{}"), "{}").await.status.as_u16()
    };
    assert_eq!(answer(&old).await, 200);
    *publisher.published.lock().unwrap() = new.set();
    assert_eq!(answer(&new).await, 200, "a key set is fetched again for it");
    assert_eq!(answer(&old).await, 401, "it was withdrawn");
    assert_eq!(publisher.asked("/keys/set.json"), 2);
    *publisher.published.lock().unwrap() = "no set".into();
    assert_eq!(answer(&new).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_certifies_nothing() {
    let signer = Signer::until(2020);
    let publisher = Publisher::start(signer.certificate.clone()).await;
    let stack = publisher.certifies();
    let ingress = publisher.trusting(&stack).await;
    let key = format!("https://{}/keys/1.pem", publisher.host);
    let signed = signer.sign(&format!("{}.{{}}", zentra_tests::sign::GITHUB_SECRET));
    let answer = post(&stack, &ingress, &key, signed, "{}").await;
    assert_eq!(answer.reason(), "signature_mismatch");
    assert_eq!(publisher.asked("/keys/1.pem"), 1);
}
