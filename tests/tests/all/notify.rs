//! Notifications: each receiver gets a message once, whatever the number of servers, and a receiver that does not answer delays
//! no delivery.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use webhook_verify::{NamedSecret, Secret};
use zentra_core::clock::Timestamp;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, Guarded, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::browser::{Browser, link};
use crate::standalone::Shop;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A message that a receiver got: path, headers, body.
type Got = (String, BTreeMap<String, String>, String);

/// Takes messages by HTTP, and answers with a status for each path.
struct Inbox {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Inbox {
    async fn open() -> Self {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let all = got.clone();
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let all = all.clone();
            async move {
                let path = request.uri().path().to_owned();
                if path == "/hangs" {
                    std::future::pending::<()>().await;
                }
                let headers = request.headers().iter();
                let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
                let headers =
                    headers.map(|(name, value)| (name.to_string(), text(value))).collect();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body = String::from_utf8(body.to_vec()).unwrap();
                all.lock().unwrap().push((path, headers, body));
                let answer = http::Response::builder().status(202);
                answer.body(Full::new(Bytes::new())).unwrap()
            }
        };
        let url = zentra_tests::http::serve(answer).await.unwrap();
        Self { url, got }
    }

    fn at(&self, path: &str) -> Vec<Got> {
        self.got.lock().unwrap().iter().filter(|(of, _, _)| of == path).cloned().collect()
    }

    fn json(&self, path: &str) -> Vec<Value> {
        self.at(path).iter().map(|(_, _, body)| serde_json::from_str(body).unwrap()).collect()
    }
}

/// A mail server that takes one message after another, and returns what was sent to it.
async fn mail_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let mails: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = mails.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 test ESMTP\r\n").await.unwrap();
            let (mut mail, mut in_data) = (String::new(), false);
            while let Ok(Some(line)) = lines.next_line().await {
                mail += &format!("{line}\n");
                let answer = match (in_data, line.as_str()) {
                    (true, ".") => {
                        in_data = false;
                        all.lock().unwrap().push(std::mem::take(&mut mail));
                        "250 ok\r\n"
                    }
                    (true, _) => continue,
                    (false, "DATA") => {
                        in_data = true;
                        "354 go on\r\n"
                    }
                    (false, "QUIT") => "221 bye\r\n",
                    _ => "250 ok\r\n",
                };
                if write.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (url, mails)
}

/// Receivers of each kind.
fn receivers(stack: &Stack, inbox: &Inbox, mail: &str) {
    stack.add(&format!(
        r#"[console]
url = "https://zentra.example/"
[notify.chat]
kind = "slack"
url = "file:{0}"
remind_after = "0s"
[notify.hook]
kind = "webhook"
url = "file:{1}"
secret = "file:{2}"
[notify.pager]
kind = "pagerduty"
url = "file:{3}"
secret = "file:{4}"
severity = "critical"
[notify.dead]
kind = "slack"
url = "file:{5}"
[notify.mail]
kind = "email"
url = "file:{6}"
from = "zentra@example.com"
to = ["ops@example.com", "Ada <ada@example.com>"]"#,
        secret(&format!("{}/chat", inbox.url)),
        secret(&format!("{}/hook", inbox.url)),
        secret(KEY),
        secret(&format!("{}/pager", inbox.url)),
        secret("integration-key"),
        secret(&format!("{}/hangs", inbox.url)),
        secret(mail),
    ));
}

/// A file with a secret.
fn secret(text: &str) -> String {
    let file = services::folder("secret").join("value");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn serve(stack: &Stack) -> Guarded {
    let mut serve = stack.command("zentra");
    serve.args(["serve", "--listen", &format!("127.0.0.1:{}", free_port())]);
    services::start(serve)
}

fn printed(stack: &Stack, arguments: &[&str]) -> String {
    let output = stack.zentra(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_servers_one_tells_each_receiver_once_and_a_dead_one_delays_no_delivery() {
    let (inbox, (mail, mails)) = (Inbox::open().await, mail_server().await);
    let retry = "attempts = 1";
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let stack = &world.stack;
    receivers(stack, &inbox, &mail);
    let _worker = stack.worker().await;
    let mut servers = [serve(stack), serve(stack), serve(stack)];

    // A dead letter: what its payload and the answer say, is in no message.
    world.ledger.take_turns([Turn::Answer(422, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_secret", 8172)).await;
    eventually("the messages arrive", BOUND, async || {
        let has_arrived =
            |path: &str| inbox.at(path).iter().any(|(_, _, body)| body.contains("dead"));
        (has_arrived("/chat") && has_arrived("/hook") && !mails.lock().unwrap().is_empty())
            .then_some(())
    })
    .await;
    // Deliveries go on while a receiver hangs.
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;

    let incidents = || -> Value {
        serde_json::from_str(&printed(stack, &["incident", "list", "--json"])).unwrap()
    };
    let of = |finding: &str| {
        let all = incidents();
        let all = all["items"].as_array().unwrap();
        let found = all.iter().find(|one| one["finding"] == finding).cloned();
        found.unwrap_or_else(|| panic!("{finding}: {all:?}"))
    };
    let dead = of("dead_letters");
    assert_eq!(dead["name"], "ledger");
    eventually("the receiver that hangs is not noted", BOUND, async || {
        let sent = of("dead_letters")["sent"].clone();
        (sent["chat"]["notice"] == "opened" && sent.get("dead").is_none()).then_some(())
    })
    .await;

    // Whichever server tells, another goes on.
    let id = dead["id"].as_str().unwrap().to_owned();
    servers[0].kill();
    printed(stack, &["incident", "acknowledge", &id, "--because", "I look"]);
    assert_eq!(of("dead_letters")["acknowledged"]["because"], "I look");
    servers[1].kill();
    printed(stack, &["incident", "resolve", &id, "--because", "it was a test"]);
    eventually("the last message arrives", BOUND, async || {
        let chat = inbox.json("/chat");
        chat.iter()
            .any(|one| one["text"].as_str().unwrap().contains("[closed] ledger: dead letters"))
            .then_some(())
    })
    .await;
    let again = stack.zentra(&["incident", "resolve", &id]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("is closed"));

    // One message for each receiver and change, of three servers.
    let about = |path: &str, what: &str| {
        let all = inbox.at(path);
        all.iter().filter(|(_, _, body)| body.contains(what)).count()
    };
    assert_eq!(about("/chat", "[warning] ledger: dead letters"), 1, "{:?}", inbox.json("/chat"));
    assert_eq!(about("/chat", "[closed] ledger: dead letters"), 1);
    let hooks = inbox.json("/hook");
    let notices: Vec<&Value> =
        hooks.iter().flat_map(|one| one["data"]["incidents"].as_array().unwrap()).collect();
    let notices = notices.into_iter().filter(|one| one["finding"] == "dead_letters");
    let notices: Vec<&str> = notices.map(|one| one["notice"].as_str().unwrap()).collect();
    assert_eq!(notices, ["opened", "closed"]);
    assert_eq!(inbox.at("/pager"), [], "it is not critical");

    // Messages are signed, name the console and the runbook, and have no payload.
    let keys = [NamedSecret { name: "k".into(), secret: Secret::new(KEY) }];
    for (_, headers, body) in inbox.at("/hook") {
        let at = Timestamp::from_secs(headers["webhook-timestamp"].parse().unwrap());
        let id = &headers["webhook-id"];
        let expected =
            webhook_verify::standard_webhooks::standard_webhooks(&keys, id, at, body.as_bytes());
        assert_eq!(expected[2].1, headers["webhook-signature"]);
    }
    let mails = mails.lock().unwrap().join("\n");
    assert!(mails.contains("RCPT TO:<ada@example.com>"), "{mails}");
    assert!(mails.contains("https://zentra.example/#/dead"), "{mails}");
    assert!(mails.contains("docs/runbooks.md#zentradeadlettersgrowing"), "{mails}");
    let all = inbox.got.lock().unwrap().iter().map(|(_, _, body)| body.clone()).collect::<String>()
        + &mails;
    for payload in ["trf_secret", "not now", "evt_dead"] {
        assert!(!all.contains(payload), "{payload}");
    }
    let audit = printed(stack, &["audit"]);
    for action in ["incident acknowledge", "incident resolve"] {
        assert!(audit.contains(action), "{audit}");
    }
    assert!(services::output().contains("a receiver accepted no message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_says_whether_a_receiver_works() {
    let (inbox, (mail, mails)) = (Inbox::open().await, mail_server().await);
    let shop = Shop::with("", "", "shop", "").await;
    // It makes the file.
    drop(shop.stack.standalone().await);
    receivers(&shop.stack, &inbox, &mail);
    for name in ["chat", "hook", "pager", "mail"] {
        let accepted = printed(&shop.stack, &["notify", "test", name]);
        assert!(accepted.contains(&format!("{name} accepted a test message")), "{accepted}");
    }
    assert_eq!(mails.lock().unwrap().len(), 1);
    let pager = inbox.json("/pager").remove(0);
    assert_eq!(pager["routing_key"], "integration-key");
    assert_eq!(pager["event_action"], "trigger");
    assert_eq!(pager["dedup_key"], "zentra/shop/part/test/test");
    let refused = |name: &str| {
        let output = shop.stack.zentra(&["notify", "test", name]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("nobody").contains("The configuration has: chat, dead, hook, mail, pager."));
    assert!(refused("dead").contains("no answer within 10 s"), "{}", refused("dead"));
    shop.stack.replace("kind = \"pagerduty\"", "kind = \"telegram\"");
    let check = shop.stack.zentra(&["check"]);
    let check = String::from_utf8(check.stderr).unwrap();
    assert!(
        check.contains("notify.pager.kind: must be slack, webhook, pagerduty or email"),
        "{check}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_file_an_incident_is_acknowledged_and_resolved_in_the_console() {
    let (inbox, (mail, _)) = (Inbox::open().await, mail_server().await);
    let shop = Shop::with("", "", "shop", "retry = { attempts = 1 }").await;
    receivers(&shop.stack, &inbox, &mail);
    let program = shop.stack.standalone().await;
    shop.ledger.take_turns([Turn::Answer(422, Vec::new())]);
    shop.send(&program, "evt_dead").await;
    eventually("it is an incident", BOUND, async || {
        let listed = printed(&shop.stack, &["incident", "list"]);
        listed.contains("dead letters").then_some(())
    })
    .await;
    let browser = Browser::open().await;
    browser.go(&link(&shop.stack, &program.console, &["--role", "operator"])).await;
    browser.read("ledger: dead letters").await;
    let of_letters = "article[aria-label='Incident ledger: dead letters']";
    browser.press(&format!("{of_letters} button")).await;
    browser.reason("I look").await;
    browser.read("because I look").await;
    browser.press(&format!("{of_letters} button")).await;
    browser.reason("a test").await;
    browser.read("Resolved: ledger: dead letters.").await;
    let listed = printed(&shop.stack, &["incident", "list", "--all"]);
    assert!(listed.contains("resolved by ada-console-"), "{listed}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_the_store_and_the_broker_are_critical_messages() {
    let (mut rabbit, mut redis) = (services::rabbit(), services::redis());
    let (inbox, (mail, _)) = (Inbox::open().await, mail_server().await);
    let world =
        World::start(&rabbit.url(), &redis.url(), &namespace(), "attempts = 1").await.unwrap();
    receivers(&world.stack, &inbox, &mail);
    let _worker = world.stack.worker().await;
    let _server = serve(&world.stack);
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;
    let events = |of: &str, action: &str| {
        let all = inbox.json("/pager");
        let is = |one: &Value| {
            let key = one["dedup_key"].as_str().unwrap();
            key.ends_with(&format!("part/{of}/down")) && one["event_action"] == action
        };
        all.iter().filter(|one| is(one)).count()
    };
    rabbit.kill();
    eventually("RabbitMQ's outage is sent", BOUND, async || {
        (events("rabbitmq", "trigger") == 1).then_some(())
    })
    .await;
    redis.kill();
    eventually("Redis's outage is sent", BOUND, async || {
        (events("redis", "trigger") == 1).then_some(())
    })
    .await;
    redis.restart().unwrap();
    rabbit.restart().unwrap();
    let headers = sign::acme("evt_2", sign::now(), b"{}");
    eventually("callbacks are accepted again", BOUND, async || {
        let answer = world.post(&headers, "{}").await?;
        answer.status.is_success().then_some(())
    })
    .await;
    let all = inbox.json("/pager");
    assert_eq!((events("rabbitmq", "trigger"), events("redis", "trigger")), (1, 1), "{all:?}");
    assert_eq!(json!(inbox.json("/pager").len()), 2, "{:?}", inbox.json("/pager"));
}
