//! What the console needs of the API: live changes for many listeners, the last hour, the
//! configuration, and whose token it is.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;

/// Live changes, as `curl` reads them.
struct Tail {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn open(api: &Api<'_>, token: &str, query: &str) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--max-time", "120"]);
        curl.args(["--header", &format!("authorization: Bearer {token}")]);
        curl.arg(api.url(&format!("/v1/tail?{query}")));
        let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        Self { curl, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"))
    }

    /// Reads on until such a line.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next();
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Reads on until this event is delivered. Returns all lines.
    fn until_delivered(&mut self, id: &str) -> Vec<Value> {
        let key = format!("ledger/acme/{id}");
        let mut all = Vec::new();
        loop {
            let line = self.next();
            let is_last = line["delivery"] == key && line["what"] == "delivered";
            all.push(line);
            if is_last {
                return all;
            }
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

async fn deliver(world: &World, id: &str) {
    world.send(id, &transfer(id, id, 1)).await;
    world.until(id, delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_goes_on_where_it_stopped_and_is_told_what_it_missed() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["grafana"]);
    // A first line comes when the store was read: from then on, nothing is missed.
    let mut tail = Tail::open(&api, &viewer, "source=acme");
    let mut other = Tail::open(&api, &viewer, "source=github");
    for tail in [&mut tail, &mut other] {
        let first = tail.next();
        assert_eq!((&first["delivery"], &first["missed"]), (&Value::Null, &Value::Null), "{first}");
    }
    deliver(&world, "evt_1").await;
    let seen = tail.until_delivered("evt_1");
    let position = seen.last().unwrap()["position"].as_str().unwrap().to_owned();
    drop(tail);

    deliver(&world, "evt_2").await;
    deliver(&world, "evt_3").await;
    let mut tail = Tail::open(&api, &viewer, &format!("source=acme&after={position}"));
    let missed = tail.until_delivered("evt_3");
    let of = |id: &str| {
        let key = format!("ledger/acme/{id}");
        missed.iter().filter(|line| line["delivery"] == key).count()
    };
    assert_eq!((of("evt_1"), of("evt_2"), of("evt_3")), (0, 2, 2), "{missed:?}");
    assert!(missed.iter().all(|line| line["missed"].is_null()), "{missed:?}");
    let only =
        Tail::open(&api, &viewer, &format!("id=evt_2&after={position}")).until_delivered("evt_2");
    // Its claim and its delivery.
    assert!(only.len() == 2 && only.iter().all(|line| line["missed"].is_null()), "{only:?}");
    // Nothing of another source.
    let quiet = other.next();
    assert_eq!((&quiet["delivery"], &quiet["missed"]), (&Value::Null, &Value::Null));

    // Positions of another server, and from too long ago.
    for after in ["0123456789ab-7", "x", ""] {
        let line = Tail::open(&api, &viewer, &format!("after={after}")).next();
        assert_eq!(line["missed"], true, "{after}: {line}");
    }
    let (_, refused) = api.get("/v1/tail?before=1", &viewer).await;
    assert_eq!(refused["code"], "invalid_request", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_hour_counts_each_delivery_once_by_destination_and_source() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let (_one, _other) = (world.stack.worker().await, world.stack.worker().await);
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["grafana"]);
    for at in 0..5 {
        deliver(&world, &format!("evt_{at}")).await;
    }
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_1", 1)).await;
    world.until("evt_dead", dead).await;
    let sums = |line: &Value| {
        ["taken", "delivered", "failed", "dead"].map(|name| {
            let values = line[name].as_array().unwrap();
            assert_eq!(values.len(), 360);
            values.iter().map(|value| value.as_u64().unwrap()).sum::<u64>()
        })
    };
    // Workers report a step when it is over.
    eventually("all is counted", BOUND, async || {
        // Some are too many for a second.
        let (code, series) = api.get("/v1/series", &viewer).await;
        if code == 429 {
            return None;
        }
        assert_eq!((code, &series["step_seconds"]), (200, &json!(10)));
        let ledger = &series["destinations"][0];
        assert_eq!(ledger["name"], "ledger");
        let counted = sums(ledger);
        assert!(counted[0] <= 6, "{counted:?}");
        let acme = series["sources"].as_array().unwrap().iter().find(|one| one["name"] == "acme");
        (counted == [6, 5, 1, 1] && acme.is_some_and(|acme| sums(acme) == counted)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_the_configuration_are_shown_without_any_secret() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 3")
        .await
        .unwrap();
    let url = &world.ledger.url;
    world.stack.replace(&format!("\"{url}\""), &format!("\"{url}?token=hunter2\""));
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["vera"]);
    let root = api.token(&["root", "--role", "admin", "--payloads"]);
    let (code, me) = api.get("/v1/me", &viewer).await;
    assert_eq!(code, 200);
    assert_eq!(
        json!([me["name"], me["role"], me["payloads"], me["admits"]]),
        json!(["vera", "viewer", false, false])
    );
    let (_, me) = api.get("/v1/me", &root).await;
    assert_eq!(json!([me["role"], me["payloads"]]), json!(["admin", true]));

    let (code, config) = api.get("/v1/config", &viewer).await;
    assert_eq!(code, 200, "{config}");
    let ledger = &config["destinations"][0];
    assert_eq!(json!([ledger["name"], ledger["retry"]["attempts"]]), json!(["ledger", 3]));
    let acme = config["sources"].as_array().unwrap().iter().find(|one| one["name"] == "acme");
    assert_eq!(acme.unwrap()["path"], "/in/acme");
    let text = config.to_string();
    let secrets = [sign::ACME_SECRET, sign::STRIPE_SECRET, sign::LEDGER_SECRET, "hunter2", "amqp"];
    assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_list_and_revoke_tokens_and_a_session_ends_itself() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let api = Api::start(&world.stack).await;
    let root = api.token(&["root", "--role", "admin"]);
    let ada = api.token(&["ada", "--role", "operator"]);
    let vera = api.token(&["vera"]);
    for token in [&ada, &vera] {
        assert_eq!(api.get("/v1/tokens", token).await.0, 403);
        assert_eq!(api.post("/v1/tokens/x/revoke", token, "").await.0, 403);
    }
    let (code, listed) = api.get("/v1/tokens", &root).await;
    assert_eq!(code, 200, "{listed}");
    let items = listed["items"].as_array().unwrap();
    let one = items.iter().find(|one| one["name"] == "ada").unwrap();
    assert_eq!(
        json!([one["role"], one["payloads"], one["once"]]),
        json!(["operator", false, false])
    );
    let text = listed.to_string();
    for token in [&root, &ada, &vera] {
        assert!(!text.contains(token.splitn(3, '_').nth(2).unwrap()), "{text}");
    }
    assert!(!text.contains("digest"), "{text}");
    let path = format!("/v1/tokens/{}/revoke", one["id"].as_str().unwrap());
    assert_eq!(api.post(&path, &root, "she left").await.0, 200);
    assert_eq!(api.get("/v1/status", &ada).await.0, 401);
    assert_eq!(api.post(&path, &root, "she left").await.0, 404);

    // A viewer's session ends with its sign-out. A token of its own stays valid.
    let opened = world.stack.zentra(&["console", "open", "--role", "viewer", "--at", &api.at]);
    let opened = String::from_utf8(opened.stdout).unwrap();
    let code = opened.trim().split_once("#code=").unwrap().1;
    let json = vec![("content-type", "application/json".to_owned())];
    let (at, body) = (api.url("/console/sign-in"), json!({ "code": code }).to_string());
    let answer = world.stack.http.send(http::Method::POST, &at, &json, body).await.unwrap();
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let session = answer["token"].as_str().unwrap();
    let alike = api.token(&["ci-console-deploy"]);
    let all = [(session, true, 401), (&*vera, false, 200), (&*alike, false, 200)];
    for (token, revoked, after) in all {
        assert_eq!(api.get("/v1/status", token).await.0, 200);
        let (code, answer) = api.ask(http::Method::POST, "/v1/me/sign-out", token, "").await;
        assert_eq!((code, &answer["revoked"]), (200, &json!(revoked)), "{answer}");
        assert_eq!(api.get("/v1/status", token).await.0, after);
    }
    let audit = String::from_utf8(world.stack.zentra(&["audit"]).stdout).unwrap();
    assert!(audit.contains("she left") && audit.contains("sign-out of the console"), "{audit}");
}

async fn a_test_callback(api: &Api<'_>, token: &str, source: &str, kind: &str) -> (u16, Value) {
    let path = format!("/v1/sources/{source}/test");
    let body = json!({ "type": kind, "because": "a look" }).to_string();
    api.ask(http::Method::POST, &path, token, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_send_signed_test_callbacks_but_not_to_production() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    let more = ["--admit", "--ingress", &world.ingress.listen];
    let api = Api::with(&world.stack, &more).await;
    let (vera, ada) = (api.token(&["vera"]), api.token(&["ada", "--role", "operator"]));
    let (_, config) = api.get("/v1/config", &vera).await;
    let stripe =
        config["sources"].as_array().unwrap().iter().find(|one| one["name"] == "stripe-eu");
    let samples = stripe.unwrap()["samples"].as_array().unwrap();
    assert!(samples.contains(&json!("charge.succeeded")), "{samples:?}");

    assert_eq!(a_test_callback(&api, &vera, "stripe-eu", "charge.succeeded").await.0, 403);
    let (code, sent) = a_test_callback(&api, &ada, "stripe-eu", "charge.succeeded").await;
    assert_eq!((code, &sent["answer"]), (200, &json!("200")), "{sent}");
    let id = sent["event_id"].as_str().unwrap();
    eventually("it is with the destination", BOUND, async || {
        let (_, event) = api.get(&format!("/v1/events/{id}"), &ada).await;
        let ends = ["delivered", "dead"];
        ends.iter().any(|end| event["deliveries"][0]["record"]["state"] == *end).then_some(())
    })
    .await;
    assert_eq!(a_test_callback(&api, &ada, "stripe-eu", "no.such").await.0, 400);
    // A provider's name is no source.
    for name in ["nobody", "stripe"] {
        assert_eq!(a_test_callback(&api, &ada, name, "charge.succeeded").await.0, 404);
    }
    let audit = String::from_utf8(world.stack.zentra(&["audit"]).stdout).unwrap();
    assert!(
        audit.contains("source test stripe-eu charge.succeeded") && audit.contains(id),
        "{audit}"
    );

    let without = Api::start(&world.stack).await;
    let (code, answer) = a_test_callback(&without, &ada, "stripe-eu", "charge.succeeded").await;
    assert_eq!((code, &answer["code"]), (403, &json!("admission_disabled")));

    world
        .stack
        .replace("provider = \"stripe\"", "provider = \"stripe\"\nenvironment = \"production\"");
    let strict = Api::with(&world.stack, &more).await;
    let (code, answer) = a_test_callback(&strict, &ada, "stripe-eu", "charge.succeeded").await;
    assert_eq!(code, 400, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("production"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_told_of_an_outage_and_what_they_missed_in_it() {
    let mut redis = services::redis();
    let world =
        World::start(&shared_rabbit(), &redis.url(), &namespace(), "attempts = 1").await.unwrap();
    let _worker = world.stack.worker().await;
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["grafana"]);
    let mut before = Tail::open(&api, &viewer, "source=acme");
    before.next();
    redis.kill();
    let line = before.until(|line| !line["error"].is_null());
    assert_eq!(line["error"], "store_unavailable", "{line}");
    redis.restart().unwrap();
    deliver(&world, "evt_1").await;
    // It was there before the outage, and misses nothing.
    let lines = before.until_delivered("evt_1");
    assert!(lines.iter().all(|line| line["missed"].is_null()), "{lines:?}");
    let after = lines.last().unwrap();
    assert_eq!(after["error"], Value::Null, "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_events_with_one_id_the_source_and_the_body_name_one() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    let api = Api::start(&world.stack).await;
    let ada = api.token(&["ada", "--payloads"]);
    // Two bodies under one id at one source, and the same id at another one.
    for amount in [1, 2] {
        world.send("evt_same", &transfer("evt_same", "trf_1", amount)).await;
    }
    let url = &world.ingress.listen;
    let sent = ["send", "stripe-eu", "charge.succeeded", "--id", "evt_same", "--url", url];
    assert!(world.stack.zentra(&sent).status.success());
    let headers = vec![("authorization", format!("Bearer {ada}"))];
    let body = async |query: &str| {
        let url = api.url(&format!("/v1/archive/evt_same/body?{query}"));
        let answer = world.stack.http.send(http::Method::GET, &url, &headers, "").await.unwrap();
        (answer.status.as_u16(), answer.body)
    };
    for amount in [1, 2] {
        let wanted = transfer("evt_same", "trf_1", amount);
        let digest = hex::encode(Sha256::digest(wanted.as_bytes()));
        let (code, found) = body(&format!("source=acme&body_sha256={digest}")).await;
        assert_eq!((code, found), (200, wanted));
    }
    let (code, found) = body("source=stripe-eu").await;
    assert!(code == 200 && found.contains("charge.succeeded"), "{code}: {found}");
    assert_eq!(body("source=github").await.0, 404);
}
