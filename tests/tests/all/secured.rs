//! TLS with CAs and client certificates of one's own, users with the least permissions, and what is
//! logged when one of them is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zentra_config::ClientTls;
use zentra_redis::RedisJournal;
use zentra_store::journal::DeliveryStore;
use zentra_tests::ledger::transfer;
use zentra_tests::services::{self, Guarded, Rabbit, Redis, folder, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::{RETENTION, dead, delivered};
use zentra_tests::{
    eventually, namespace, one_server, permit, permitted, shared_rabbit, shared_redis, sign,
};

use crate::certificates::{Ca, Certified};

const BOUND: Duration = Duration::from_secs(60);

/// RabbitMQ that accepts TLS with a certificate of this CA only, which is the login then. It has a
/// user for the daemons and one for operators, with the permissions of docs/deploying.md.
fn rabbit(ca: &Ca, namespace: &str) -> (Rabbit, String) {
    let (port, own) = (free_port(), ca.certify("rabbitmq"));
    let settings = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         ssl_cert_login_from = common_name\n\
         auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\n",
        ca.file().display(),
        own.certificate.display(),
        own.key.display()
    );
    let rabbit = Rabbit::start_with(settings, "[rabbitmq_auth_mechanism_ssl]").unwrap();
    let all = format!("^{namespace}\\.");
    for (user, configure) in [("daemon", all.as_str()), ("operator", "^$")] {
        rabbit.control(&["add_user", user, "unused"]);
        rabbit.control(&["set_permissions", "-p", "/", user, configure, &all, &all]);
    }
    (rabbit, format!("amqps://localhost:{port}/%2f?auth_mechanism=external"))
}

/// Redis that accepts TLS with a certificate of this CA only, and a user with the permissions of
/// docs/deploying.md.
fn redis(ca: &Ca, namespace: &str) -> (Redis, String) {
    let (port, own) = (free_port(), ca.certify("redis"));
    let option = |name: &str, value: &Path| [name.to_owned(), value.display().to_string()];
    let options = [
        ["--tls-port".into(), port.to_string()],
        ["--tls-auth-clients".into(), "yes".into()],
        option("--tls-ca-cert-file", &ca.file()),
        option("--tls-cert-file", &own.certificate),
        option("--tls-key-file", &own.key),
    ];
    let redis = Redis::with(options.concat()).unwrap();
    permit(&redis, &format!("{namespace}:*"), "");
    (redis, permitted(&format!("rediss://localhost:{port}/")))
}

/// An application that answers only to a client with a certificate of this CA.
async fn application(ca: &Ca) -> String {
    let own = ca.certify("application");
    let chain = CertificateDer::pem_file_iter(&own.certificate).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = vec![0; 64 * 1024];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let refused = String::from_utf8_lossy(&request[..read]).contains("trf_refused");
                let status = if refused { "422 No" } else { "200 OK" };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    url
}

/// A table of the configuration.
fn tls(ca: &Ca, own: &Certified) -> String {
    let reference = |path: &PathBuf| format!("\"file:{}\"", path.display());
    format!(
        "tls = {{ ca = {}, certificate = {}, key = {} }}",
        reference(&ca.file()),
        reference(&own.certificate),
        reference(&own.key)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_and_the_least_permissions_are_enough_for_everything() {
    let (ca, namespace) = (Ca::new(), namespace());
    let ((rabbit, amqps), (redis, rediss)) = (rabbit(&ca, &namespace), redis(&ca, &namespace));
    let (daemon, operator) = (ca.certify("daemon"), ca.certify("operator"));
    let own = tls(&ca, &daemon);
    let more = format!("allow_private = true\nshards = 2\n{own}\nretry = {{ attempts = 2 }}");
    let stack = Stack::new(&amqps, &rediss, &namespace, &application(&ca).await, &more);
    stack.replace("[\"env:RABBITMQ_URL\"]\n", &format!("[\"env:RABBITMQ_URL\"]\n{own}\n"));
    stack.replace("\"env:REDIS_URL\"\n", &format!("\"env:REDIS_URL\"\n{own}\n"));
    let (ingress, _worker) = (stack.ingress().await, stack.worker().await);

    let journal =
        RedisJournal::new(&one_server(redis.url()), &ClientTls::default(), &namespace, RETENTION)
            .unwrap();
    let url = format!("{}/in/acme", ingress.listen);
    let until = async |id: &str, wanted: fn(&_) -> bool| {
        eventually(&format!("{id} comes to its end"), BOUND, async || {
            let keys = journal.find(id, &[("ledger", "acme")]).await.ok()?;
            journal.history(keys.first()?).await.ok()?.filter(wanted)
        })
        .await
    };
    for (id, transferred) in [("evt_1", "trf_1"), ("evt_2", "trf_refused")] {
        let body = transfer(id, transferred, 1);
        let headers = sign::acme(id, sign::now(), body.as_bytes());
        assert_eq!(stack.http.post(&url, &headers, body).await.unwrap().status, 200);
    }
    until("evt_1", delivered).await;
    until("evt_2", dead).await;
    let forged = stack.http.post(&url, &Default::default(), "{}".to_owned()).await.unwrap();
    assert_eq!(forged.status, 401);

    let run = |arguments: &[&str]| {
        let mut command = stack.command("zentra");
        let path = |path: &Path| format!("file:{}", path.display());
        command.env("ZENTRA__RABBITMQ__TLS__CERTIFICATE", path(&operator.certificate));
        command.env("ZENTRA__RABBITMQ__TLS__KEY", path(&operator.key));
        let output = command.args(arguments).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), text.into_owned())
    };
    eventually("the refused callback is stored", BOUND, async || {
        run(&["refused", "list"]).1.contains("signature").then_some(())
    })
    .await;
    let requeue = ["dead", "requeue", "--destination", "ledger", "--all", "--yes"];
    for (arguments, says) in [
        (&["check"][..], ""),
        (&["status"], "ledger"),
        (&["doctor"], "the certificate is valid for"),
        (&["event", "show", "ledger/acme/evt_1"], "delivered"),
        (&["dead", "list", "--destination", "ledger"], "evt_2"),
        (&requeue, "requeued"),
        (&["destination", "shards", "ledger"], "current"),
        (&["destination", "reshard", "ledger"], "0 messages"),
        (&["unrouted", "list"], "no unrouted"),
        (&["archive", "list"], "evt_1"),
        (&["destination", "pause", "ledger"], "ledger"),
        (&["destination", "resume", "ledger"], "ledger"),
        (&["job", "list"], ""),
        (&["audit"], "requeue"),
    ] {
        let (exit, text) = run(arguments);
        assert!(exit == 0 && text.contains(says), "{arguments:?} exited with {exit}: {text}");
    }
    drop(rabbit);
}

/// A program and what it writes.
struct Logged {
    _process: Guarded,
    log: PathBuf,
}

/// Runs a program with its output in a file.
fn logged(command: &Command) -> Logged {
    let log = folder("logged").join("log");
    let mut shell = Command::new("sh");
    shell.args(["-c", "log=\"$1\"; shift; exec \"$@\" > \"$log\" 2>&1", "sh"]).arg(&log);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["--admin", "127.0.0.1:0"]);
    Logged { _process: services::start(shell), log }
}

/// Every way to be refused is an error in the log at once, with what to change.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_no_retry_can_mend_is_logged_at_once_as_an_error_with_a_remedy() {
    let (ca, namespace) = (Ca::new(), namespace());
    let ((rabbit, amqps), (redis, rediss)) = (rabbit(&ca, &namespace), redis(&ca, &namespace));
    let (daemon, stranger) = (ca.certify("daemon"), ca.certify("stranger"));
    let (amqp, plain_redis) = (rabbit.url(), redis.url());
    redis.tell("ACL SETUSER reader on >secret ~* -@all +@connection +@read").unwrap();
    rabbit.control(&["add_user", "reader", "secret"]);
    rabbit.control(&["set_permissions", "-p", "/", "reader", "^$", ".*", ".*"]);
    rabbit.control(&["add_user", "writer", "secret"]);
    rabbit.control(&["set_permissions", "-p", "/", "writer", ".*", "^$", ".*"]);
    let (ca_only, known) = (only_ca(&ca), tls(&ca, &daemon));
    let (unknown, other) = (tls(&ca, &stranger), only_ca(&Ca::new()));
    let (rabbitmq, store) = ("rabbitmq", "redis");
    let at = |user: &str| amqp.replace("guest:guest", user);
    let to = |user: &str| plain_redis.replace("redis://", &format!("redis://{user}@"));
    let ports_swapped = amqp.replace("amqp://", "amqps://");
    #[rustfmt::skip]
    let cases = [
        (rabbitmq, at("guest:wrong"), "", "check user and password in rabbitmq.urls"),
        (rabbitmq, amqp.replace("%2f", "nowhere"), "", "refuses the virtual host"),
        (rabbitmq, at("reader:secret"), "", "docs/deploying.md has the permissions"),
        (rabbitmq, at("writer:secret"), "", "docs/deploying.md has the permissions"),
        (rabbitmq, "amqp://guest:guest@nowhere.invalid".into(), "", "check the host in [rabbitmq]"),
        (rabbitmq, amqps.clone(), "", "set rabbitmq.tls.ca"),
        (rabbitmq, amqps.clone(), &other, "set rabbitmq.tls.ca"),
        (rabbitmq, amqps.clone(), &ca_only, "rabbitmq.tls.certificate"),
        (rabbitmq, amqps.clone(), &unknown, "check user and password in rabbitmq.urls"),
        (rabbitmq, amqps.replace("localhost", "127.0.0.1"), &known, "use a name of the certificate"),
        (rabbitmq, ports_swapped, "", "check the scheme and the port in [rabbitmq]"),
        (store, to("zentra:wrong"), "", "refuses the user or the password"),
        (store, to("reader:secret"), "", "the user lacks a permission"),
        (store, "redis://nowhere.invalid".into(), "", "check the host in [redis]"),
        (store, rediss.clone(), "", "set redis.tls.ca"),
        (store, rediss.clone(), &other, "set redis.tls.ca"),
        (store, rediss.clone(), &ca_only, "redis.tls.certificate"),
    ];
    let mut running = Vec::new();
    for (at, (which, url, tls, says)) in cases.into_iter().enumerate() {
        let of = format!("{namespace}-{at}");
        let (rabbit, redis, line) = match which {
            "rabbitmq" => (url, shared_redis(), "urls = [\"env:RABBITMQ_URL\"]\n"),
            _ => (shared_rabbit(), url, "url = \"env:REDIS_URL\"\n"),
        };
        let stack = Stack::new(&rabbit, &redis, &of, "http://127.0.0.1:9/", "");
        stack.replace(line, &format!("{line}{tls}\n"));
        let worker = logged(&stack.command("zentra-worker"));
        running.push((format!("{which} {says}"), stack, worker, says));
    }
    let silent = || {
        let log = |worker: &Logged| std::fs::read_to_string(&worker.log).unwrap_or_default();
        let says_so = |log: &str, says: &str| {
            log.lines().any(|line| line.contains("ERROR") && line.contains(says))
        };
        let unsaid = running.iter().filter(|(_, _, worker, says)| !says_so(&log(worker), says));
        unsaid.map(|(case, _, worker, _)| format!("{case}:\n{}", log(worker))).collect::<Vec<_>>()
    };
    let all = eventually("all are said", BOUND * 2, async || silent().is_empty().then_some(()));
    let in_time = tokio::time::timeout(BOUND, all).await;
    assert!(in_time.is_ok(), "not said: {}", silent().join("\n"));
    // `zentra doctor` declares nothing, so it does not see what RabbitMQ forbids to declare.
    let declares = |case: &str| case.starts_with(rabbitmq) && case.contains("permissions");
    for (case, stack, _, says) in running.iter().filter(|(case, ..)| !declares(case)) {
        let found = stack.zentra(&["doctor"]).stdout;
        let found = String::from_utf8_lossy(&found);
        let is_told = |line: &str| line.starts_with("PROBLEM") && line.contains(says);
        assert!(found.lines().any(is_told), "{case}: {found}");
    }
}

fn only_ca(ca: &Ca) -> String {
    format!("tls = {{ ca = \"file:{}\" }}", ca.file().display())
}
