//! From an empty folder to a delivered event, as a new user goes: `zentra init`, `zentra standalone`,
//! `zentra send`.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::Value;
use tokio::net::TcpListener;
use webhook_verify::standard_webhooks::standard_webhooks;
use webhook_verify::{NamedSecret, Scheme, Secret, Timestamp};
use zentra_tests::eventually;
use zentra_tests::http::Http;
use zentra_tests::services::folder;
use zentra_tests::stack::Stack;
use zentra_tests::world::BOUND;

/// A folder, and `zentra` in it.
pub(crate) fn in_folder(folder: &Path) -> Stack {
    Stack {
        config: folder.join("zentra.toml"),
        rabbit: String::new(),
        redis: String::new(),
        namespace: "init".into(),
        http: Http::default(),
        log: "info",
        variables: Vec::new(),
        programs: None,
    }
}

pub(crate) fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

pub(crate) fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The value of a variable in `.env`.
fn variable(folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(folder.join(".env")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Headers and body of a request.
type Received = (http::HeaderMap, Bytes);

/// An application that answers 200, and the requests that it received.
async fn application() -> (String, Arc<Mutex<Vec<Received>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Vec<Received>>>::default();
    let seen = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    seen.lock().unwrap().push((parts.headers, body));
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            let http = Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                http.serve_connection(TokioIo::new(stream), answer).await.is_ok()
            });
        }
    });
    (url, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_becomes_a_zentra_that_delivers_a_sample_of_each_provider_once() {
    let folder = folder("init");
    let stack = in_folder(&folder);
    let (url, received) = application().await;
    let with_samples: Vec<String> = text(&stack.zentra(&["send", "--list"]))
        .lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(with_samples.len(), 21);
    let providers = with_samples.iter().map(String::as_str);
    let init: Vec<&str> = ["init", "--forward", &url].into_iter().chain(providers).collect();
    let done = stack.zentra(&init);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(
        files(&folder),
        [".env", ".gitignore", ".zentra", "seal.key", "zentra.schema.json", "zentra.toml"]
    );
    assert_eq!((mode(folder.join(".env")), mode(folder.join("seal.key"))), (0o600, 0o600));
    let checked = stack.zentra(&["check"]);
    assert!(checked.status.success(), "{}", text(&checked));
    let checked: Value =
        serde_json::from_slice(&stack.zentra(&["check", "--json"]).stdout).unwrap();
    assert_eq!((&checked["valid"], &checked["sources"]), (&true.into(), &21.into()));

    let zentra = stack.standalone().await;
    for (at, provider) in with_samples.iter().enumerate() {
        let send = |more: &[&str]| {
            let begin = ["send", provider, "--url", &zentra.listen, "--times", "3"];
            stack.zentra(&[&begin[..], more].concat())
        };
        let types = text(&send(&[]));
        let kind = types.rsplit_once(" are ").unwrap().1.split(", ").next().unwrap();
        let kind = kind.split(". Other").next().unwrap();
        let sent = send(&[kind, "--json"]);
        assert!(sent.status.success(), "{provider} {kind}: {}", text(&sent));
        let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
        assert_eq!(sent["callback"]["type"], kind);
        assert_eq!(sent["answers"].as_array().unwrap().len(), 3);
        eventually("the application has it", BOUND, async || {
            (received.lock().unwrap().len() > at).then_some(())
        })
        .await;
    }
    // Three callbacks each were one event each.
    let delivered = stack.zentra(&["event", "list", "--state", "delivered", "--json"]);
    let delivered: Value = serde_json::from_slice(&delivered.stdout).unwrap();
    assert_eq!(delivered["items"].as_array().unwrap().len(), with_samples.len());
    let received = received.lock().unwrap();
    assert_eq!(received.len(), with_samples.len());
    // The key that signs requests to the application is in `.env`.
    let secret = Secret::new(variable(&folder, "APP_SIGNING"));
    let key = NamedSecret { name: "k1".into(), secret };
    for (headers, body) in &*received {
        let header = |name: &str| headers[name].to_str().unwrap();
        let time = Timestamp::from_secs(header("webhook-timestamp").parse().unwrap());
        let expected =
            standard_webhooks(std::slice::from_ref(&key), header("webhook-id"), time, body);
        assert!(expected.iter().all(|(name, value)| headers.get(name) == Some(value)));
    }
    for (arguments, says) in [
        (&["send", "github", "push", "--url", "http://a:b@c"][..], "without a user"),
        (&["send", "github", "push", "--url", "http://c/in/github"], "without a user"),
        (&["send", "github", "push", "--url", "http://127.0.0.1:1"], "Does the ingress run there"),
        (&["send", "stripe", "nothing"], "there is no sample nothing of stripe"),
        (&["send", "nobody", "nothing"], "no source or provider nobody"),
    ] {
        let refused = stack.zentra(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(says), "{}", text(&refused));
    }
    let body = folder.join("body.json");
    fs::write(&body, r#"{"id":"evt_2","type":"a.b"}"#).unwrap();
    let body = body.to_str().unwrap();
    let refused = text(&stack.zentra(&["send", "stripe", "other", "--body", body]));
    assert!(refused.contains("the type of the event in the body is a.b"), "{refused}");
    let refused = text(&stack.zentra(&["send", "stripe", "--id", "evt_3", "--body", body]));
    assert!(refused.contains("would not have this ID"), "{refused}");
    let shown = text(&stack.zentra(&["send", "github", "push", "--dry-run"]));
    assert!(shown.contains("x-hub-signature-256: sha256="), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_never_changed_and_nothing_is_half_written() {
    for name in ["zentra.toml", ".env", "seal.key", "zentra.schema.json"] {
        let folder = folder("init");
        fs::write(folder.join(name), "mine\n").unwrap();
        let refused = in_folder(&folder).zentra(&["init", "stripe"]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(&format!("{name} exists already")), "{}", text(&refused));
        assert_eq!(files(&folder), [name]);
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), "mine\n");
    }
    for (name, is_folder) in [(".zentra", false), ("nowhere", true)] {
        let folder = folder("init");
        let target = folder.join(if is_folder { ".env" } else { ".zentra" });
        std::os::unix::fs::symlink(folder.join(name), target).unwrap();
        let refused = in_folder(&folder).zentra(&["init", "stripe"]);
        assert!(!refused.status.success(), "{}", text(&refused));
        assert_eq!(files(&folder).len(), 1, "a link is followed, or a file is left");
    }
    let mut named = in_folder(&folder("init"));
    named.config.set_file_name(".env");
    assert!(text(&named.zentra(&["init"])).contains("cannot be the configuration"));

    let folder = folder("init");
    fs::write(folder.join(".gitignore"), "/target\n").unwrap();
    let done = in_folder(&folder).zentra(&["init", "stripe"]);
    assert!(
        done.status.success() && text(&done).contains("it should contain /.env"),
        "{}",
        text(&done)
    );
    assert_eq!(fs::read_to_string(folder.join(".gitignore")).unwrap(), "/target\n");

    let nowhere = in_folder(&folder.join("nowhere")).zentra(&["init", "stripe"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere).contains("The folder must exist"), "{}", text(&nowhere));
    for (asked, says) in [
        (&["init", "strip"][..], "Is it stripe"),
        (&["init", "stripe", "stripe"], "stripe is named twice"),
        (&["init", "stripe", "--forward", "not a url"], "destination.app.url"),
        (&["init", "stripe", "--forward", "http://user:pw@host/"], "destination.app.url"),
    ] {
        let empty = zentra_tests::services::folder("init");
        let refused = in_folder(&empty).zentra(asked);
        assert!(!refused.status.success() && text(&refused).contains(says), "{}", text(&refused));
        assert_eq!(files(&empty), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_gets_a_valid_configuration_or_is_told_which_key_is_missing() {
    let folder = folder("init");
    let stack = in_folder(&folder);
    let all: Vec<&str> = Scheme::names().collect();
    let done = stack.zentra(&[&["init"][..], &all].concat());
    let (shown, problems) = match text(&done).split_once("\nNot complete yet:\n") {
        Some((shown, problems)) => (shown.to_owned(), problems.to_owned()),
        None => panic!("{}", text(&done)),
    };
    assert!(done.status.success(), "{shown}");
    for name in all {
        let scheme = Scheme::named(name).unwrap();
        let is_missing =
            problems.contains(&format!("source.{name}.secrets[0].secret: the secret is empty"));
        let needs = scheme.new_secret(&[1; 32]).is_none() && !scheme.needs_no_secret();
        assert_eq!(is_missing, needs, "{name}: {problems}");
    }
    let others: Vec<&str> = problems.lines().filter(|line| !line.contains("the secret")).collect();
    assert_eq!(others, Vec::<&str>::new());
    let checked = stack.zentra(&["check", "--json"]);
    assert_eq!(checked.status.code(), Some(1));
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["problems"].as_array().unwrap().len(), problems.lines().count());
    let listed = stack.zentra(&["source", "list", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), Scheme::names().count());
    let stripe = listed.iter().find(|one| one["provider"] == "stripe").unwrap();
    assert_eq!(
        (&stripe["retries_seconds"], &stripe["has_samples"]),
        (&259_200.into(), &true.into())
    );
    let listed = stack.zentra(&["rehearse", "--list", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed.iter().any(|one| one["name"] == "transfer"));
    // On servers, their URLs are in `.env`.
    let folder = zentra_tests::services::folder("init");
    let stack = in_folder(&folder);
    stack.zentra(&["init", "stripe", "--servers"]);
    assert!(variable(&folder, "RABBITMQ_URL").starts_with("amqp://"));
    assert!(fs::read_to_string(&stack.config).unwrap().contains("[redis]"));
}
