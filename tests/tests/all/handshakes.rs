//! Requests by which providers validate an endpoint. Each gets the response that its provider
//! wants, and none is an event.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;
use zentra_tests::http::{Answer, Headers};
use zentra_tests::services::folder;
use zentra_tests::world::{BOUND, World};
use zentra_tests::{eventually, sign};

use crate::providers::world;

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

/// A source that uses the secret of `github`.
fn source(name: &str, more: &str) -> String {
    format!(
        "[source.{name}]\nprovider = \"{name}\"\n{more}\n\
         secrets = [{{ name = \"k1\", secret = \"env:GITHUB\" }}]\n"
    )
}

struct Asked<'w>(&'w World);

impl Asked<'_> {
    async fn whole(&self, method: Method, path: &str, headers: &Headers, body: &str) -> Answer {
        let url = format!("{}/in/{path}", self.0.ingress.listen);
        self.0.stack.http.send(method, &url, headers, body.to_owned()).await.unwrap()
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &Headers,
        body: &str,
    ) -> (u16, String) {
        let answer = self.whole(method, path, headers, body).await;
        (answer.status.as_u16(), answer.body)
    }

    async fn post(&self, path: &str, headers: &Headers, body: &str) -> (u16, String) {
        self.ask(Method::POST, path, headers, body).await
    }

    async fn counted(&self, name: &str, source: &str) -> f64 {
        self.0.ingress.metric(&self.0.stack.http, &[name, source]).await
    }
}

fn yes(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_sure_of_the_endpoint_is_answered_as_its_provider_wants_and_is_no_event() {
    let world = world(HANDSHAKES, "*.#").await;
    let http = &world.stack.http;
    let ask = Asked(&world);
    let none = Headers::new();

    // Signed, and therefore answered only if the signature is valid.
    let body = r#"{"type":"url_verification","challenge":"3eZb\u00e9"}"#;
    let now = sign::now().to_string();
    let signature = sign::plain(sign::GITHUB_SECRET, &format!("v0:{now}:{body}"));
    let slack = |signature: &str| {
        let signature = format!("v0={signature}");
        vec![("x-slack-request-timestamp", now.clone()), ("x-slack-signature", signature)]
    };
    assert_eq!(ask.post("slack", &slack(&signature), body).await, yes("3eZbé"));
    let forged = ask.post("slack", &slack(&"0".repeat(64)), body).await;
    assert_eq!(forged.0, 401);
    assert!(!forged.1.contains("3eZb"), "{}", forged.1);
    let unsigned = ask.post("slack", &none, body).await;
    assert_eq!(unsigned.0, 401);
    assert!(!unsigned.1.contains("3eZb"), "{}", unsigned.1);

    // By GET, with a token that only the provider knows.
    let meta =
        |token: &str| format!("meta?hub.mode=subscribe&hub.challenge=115&hub.verify_token={token}");
    assert_eq!(ask.ask(Method::GET, &meta(sign::STRIPE_SECRET), &none, "").await, yes("115"));
    for path in [meta("wrong"), meta(""), "meta?hub.mode=subscribe".into(), "meta".into()] {
        assert_eq!(ask.ask(Method::GET, &path, &none, "").await.0, 405, "{path}");
    }

    let url = format!("{}/in/{}", world.ingress.listen, meta(sign::STRIPE_SECRET));
    let answer = http.get(&url).await.unwrap();
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");

    // By GET, from anybody, also signed, but never a request that could be an event.
    let (status, answer) = ask.ask(Method::GET, "x?crc_token=abc-1", &none, "").await;
    let mac = Hmac::<Sha256>::new_from_slice(sign::GITHUB_SECRET.as_bytes()).unwrap();
    let tag = STANDARD.encode(mac.chain_update("abc-1").finalize().into_bytes());
    assert_eq!((status, answer), yes(&format!(r#"{{"response_token":"sha256={tag}"}}"#)));
    let oracle = "x?crc_token=%7B%22id%22%3A1%7D";
    assert_eq!(ask.ask(Method::GET, oracle, &none, "").await.0, 405);
    let replayed = vec![("x-twitter-webhooks-signature", format!("sha256={tag}"))];
    assert_eq!(ask.post("x", &replayed, "abc-1").await.0, 401);

    // Without any signature. Its token is stored for the operator.
    let printed = r#"{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}"#;
    assert_eq!(ask.post("notion", &none, printed).await, yes(""));
    eventually("it can be seen", BOUND, async || {
        let kept = world.stack.zentra(&["refused", "list", "--source", "notion"]);
        String::from_utf8_lossy(&kept.stdout).contains("signature_missing").then_some(())
    })
    .await;
    let graph = "graph?validationToken=Validation%3A+%3Cb%3E";
    assert_eq!(ask.post(graph, &none, "").await, yes("Validation: <b>"));
    let nothing = ask.post("graph", &none, "{}").await;
    assert_eq!(nothing.0, 401);
    assert_eq!(ask.ask(Method::HEAD, "trello", &none, "").await, yes(""));
    assert_eq!(ask.ask(Method::GET, "trello", &none, "").await.0, 405);

    for source in ["slack", "meta", "x", "notion", "graph", "trello"] {
        let handshakes = ask.counted("zentra_ingress_handshakes_total", source).await;
        assert_eq!(handshakes, if source == "meta" { 2.0 } else { 1.0 }, "{source}");
        assert_eq!(ask.counted("zentra_ingress_accepted_total", source).await, 0.0, "{source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_anyone_may_ask_are_answered_and_tell_nothing() {
    let address = |name: &str| format!("public_url = \"https://hooks.example.com/in/{name}\"");
    let config: String = ["okta", "dropbox", "asana", "monday", "intercom", "woocommerce"]
        .map(|name| source(name, ""))
        .into_iter()
        .chain([source("mandrill", &address("mandrill"))])
        .collect();
    let world = world(&config, "*.#").await;
    let (ask, none) = (Asked(&world), Headers::new());

    let challenge = vec![("x-okta-verification-challenge", "Xk-9_z".to_owned())];
    let answer = ask.ask(Method::GET, "okta", &challenge, "").await;
    assert_eq!(answer, yes(r#"{"verification":"Xk-9_z"}"#));
    assert_eq!(ask.post("okta", &challenge, "{}").await.0, 401, "events need their token");

    let dropbox = ask.whole(Method::GET, "dropbox?challenge=a%3Cb%3E", &none, "").await;
    assert_eq!((dropbox.status.as_u16(), &*dropbox.body), (200, "a<b>"));
    assert_eq!(dropbox.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(dropbox.headers["x-content-type-options"], "nosniff");
    assert_eq!(ask.ask(Method::GET, "dropbox", &none, "").await.0, 405);

    // Asana sends its secret once, here. The response repeats it, and the operator finds it.
    let hook = vec![("x-hook-secret", "b537207f20cb".to_owned())];
    let asana = ask.whole(Method::POST, "asana", &hook, "").await;
    assert_eq!((asana.status.as_u16(), &*asana.body), (200, ""));
    assert_eq!(asana.headers["x-hook-secret"], "b537207f20cb");
    let id = eventually("it is kept", BOUND, async || {
        let list = world.stack.zentra(&["refused", "list", "--source", "asana", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&list.stdout).ok()?;
        Some(listed["items"][0]["id"].as_str()?.to_owned())
    })
    .await;
    let shown = world.stack.zentra(&["refused", "show", &id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("b537207f20cb"), "{shown}");
    let empty = [("x-hook-signature", sign::plain(sign::GITHUB_SECRET, r#"{"events":[]}"#))];
    let heartbeat = ask.post("asana", &empty.to_vec(), r#"{"events":[]}"#).await;
    assert_eq!(heartbeat.0, 200, "{}", heartbeat.1);

    let monday = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    assert_eq!(ask.post("monday", &none, monday).await, yes(monday));
    let event = r#"{"event":{"type":"create_pulse","challenge":"x"}}"#;
    assert_eq!(ask.post("monday", &none, event).await.0, 401);

    assert_eq!(ask.post("woocommerce", &none, "webhook_id=7").await, yes(""));
    assert_eq!(ask.post("woocommerce", &none, r#"{"webhook_id":7}"#).await.0, 401);

    for name in ["intercom", "mandrill"] {
        assert_eq!(ask.ask(Method::HEAD, name, &none, "").await, yes(""), "{name}");
        assert_eq!(ask.ask(Method::GET, name, &none, "").await.0, 405, "{name}");
        assert_eq!(ask.post(name, &none, "").await.0, 401, "{name}");
    }
    for name in ["okta", "dropbox", "asana", "monday", "woocommerce", "intercom", "mandrill"] {
        assert_eq!(ask.counted("zentra_ingress_handshakes_total", name).await, 1.0, "{name}");
        assert_eq!(ask.counted("zentra_ingress_accepted_total", name).await, 0.0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_are_signed_are_answered_only_if_the_signature_fits() {
    let key = Ed25519KeyPair::from_pkcs8(
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref(),
    )
    .unwrap();
    let file = folder("discord").join("key");
    std::fs::write(&file, hex::encode(key.public_key().as_ref())).unwrap();
    let discord = format!(
        "[source.discord]\nprovider = \"discord\"\n\
         secrets = [{{ name = \"k1\", secret = \"file:{}\" }}]\n",
        file.display()
    );
    let config = ["twitch", "front", "xero", "google-channels"].map(|name| source(name, ""));
    let world = world(&(config.concat() + &discord), "*.#").await;
    let ask = Asked(&world);
    let secret = sign::GITHUB_SECRET;
    let now = sign::now();

    // A PING is not an event. Discord only tests the signature check, and sends wrong signatures
    // too.
    let ping = r#"{"version":1,"application_id":"1","type":0}"#;
    let signed = |signed: &str| {
        let tag = hex::encode(key.sign(format!("{now}{signed}").as_bytes()));
        vec![("x-signature-ed25519", tag), ("x-signature-timestamp", now.to_string())]
    };
    assert_eq!(ask.post("discord", &signed(ping), ping).await, (204, String::new()));
    assert_eq!(ask.post("discord", &signed("another"), ping).await.0, 401);
    let event = r#"{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}"#;
    assert_eq!(ask.post("discord", &signed(event), event).await, (204, String::new()));

    let body = r#"{"challenge":"pogchamp-kappa-360noscope","subscription":{"id":"f1c2"}}"#;
    let time = zentra_core::clock::now().to_string();
    let twitch = |kind: &str, signed: &str| {
        let tag = sign::plain(secret, &format!("m-1{time}{signed}"));
        vec![
            ("twitch-eventsub-message-id", "m-1".to_owned()),
            ("twitch-eventsub-message-timestamp", time.clone()),
            ("twitch-eventsub-message-signature", format!("sha256={tag}")),
            ("twitch-eventsub-message-type", kind.to_owned()),
            ("twitch-eventsub-subscription-type", "channel.follow".to_owned()),
        ]
    };
    let verification = "webhook_callback_verification";
    let answer = ask.whole(Method::POST, "twitch", &twitch(verification, body), body).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, "pogchamp-kappa-360noscope"));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(ask.post("twitch", &twitch(verification, "another"), body).await.0, 401);
    let notified = ask.post("twitch", &twitch("notification", body), body).await;
    assert_eq!(notified, (204, String::new()));

    let front = |signed: &str| {
        let time = format!("{now}000");
        let tag = sign::base64(secret, &format!("{time}:{signed}"));
        vec![
            ("x-front-request-timestamp", time),
            ("x-front-signature", tag),
            ("x-front-challenge", "c-1".to_owned()),
        ]
    };
    assert_eq!(
        ask.post("front", &front(r#"{"type":"sync"}"#), r#"{"type":"sync"}"#).await,
        yes("c-1")
    );
    assert_eq!(ask.post("front", &front("{}"), r#"{"type":"sync"}"#).await.0, 401);

    // Its "intent to receive": no events, and some signatures that are wrong on purpose.
    let intent =
        r#"{"events":[],"lastEventSequence":0,"firstEventSequence":0,"entropy":"S0m3r4N"}"#;
    let xero = |signed: &str| vec![("x-xero-signature", sign::base64(secret, signed))];
    assert_eq!(ask.post("xero", &xero(intent), intent).await, yes(""));
    assert_eq!(ask.post("xero", &xero("another"), intent).await.0, 401);

    let google = |token: &str, state: &str| {
        vec![
            ("x-goog-channel-token", token.to_owned()),
            ("x-goog-resource-state", state.to_owned()),
            ("x-goog-message-number", "1".to_owned()),
        ]
    };
    assert_eq!(ask.post("google-channels", &google(secret, "sync"), "").await, yes(""));
    assert_eq!(ask.post("google-channels", &google("another", "sync"), "").await.0, 401);

    for (name, handshakes, events) in [
        ("discord", 1.0, 1.0),
        ("twitch", 1.0, 1.0),
        ("front", 1.0, 0.0),
        ("xero", 0.0, 0.0),
        ("google-channels", 1.0, 0.0),
    ] {
        assert_eq!(
            ask.counted("zentra_ingress_handshakes_total", name).await,
            handshakes,
            "{name}"
        );
        assert_eq!(ask.counted("zentra_ingress_accepted_total", name).await, events, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_admitted_later_is_told_as_one_and_stays() {
    let world = world(HANDSHAKES, "*.#").await;
    let (stack, ask) = (&world.stack, Asked(&world));
    let (body, now) = (r#"{"type":"url_verification","challenge":"c"}"#, sign::now().to_string());
    let signature = sign::plain(sign::STRIPE_SECRET, &format!("v0:{now}:{body}"));
    let headers =
        vec![("x-slack-request-timestamp", now), ("x-slack-signature", format!("v0={signature}"))];
    assert_eq!(ask.post("slack", &headers, body).await.0, 401);
    let listed = async || {
        let kept = stack.zentra(&["refused", "list", "--source", "slack", "--json"]);
        let kept: serde_json::Value = serde_json::from_slice(&kept.stdout).ok()?;
        (kept["items"].as_array()?.len() == 1).then_some(())
    };
    eventually("it is kept", BOUND, listed).await;
    // Now with the secret that signed it.
    let admit = |more: &[&str]| {
        let mut command = stack.command("zentra");
        command.env("GITHUB", sign::STRIPE_SECRET);
        command.args(["refused", "admit", "--source", "slack"]).args(more).output().unwrap()
    };
    let printed = admit(&["--json"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let one = &printed["items"][0];
    assert_eq!(one["admitted"], false, "{printed}");
    assert_eq!((&one["events"], &one["handshake"]), (&0.into(), &true.into()), "{printed}");
    assert_eq!(printed["items"][0]["reason"], "handshake");
    let printed = String::from_utf8(admit(&[]).stdout).unwrap();
    assert!(
        printed.contains("a handshake, not an event") && printed.contains("0 of 1"),
        "{printed}"
    );
    listed().await.unwrap();
}
