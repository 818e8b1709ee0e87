//! The operators' API: authorization, and the same results as the command line.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zentra_core::lifecycle::State;
use zentra_store::journal::{Delivery, HistoryEvent};
use zentra_tests::http::Answer;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self, Guarded, free_port};
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead, delivered};
use zentra_tests::{eventually, flood, namespace, shared_rabbit, shared_redis, sign};

use crate::standalone::Shop;

/// A running API.
pub(crate) struct Api<'a> {
    stack: &'a Stack,
    pub(crate) at: String,
    /// The schema that judges every response.
    document: Value,
    program: Guarded,
}

impl<'a> Api<'a> {
    pub(crate) async fn start(stack: &'a Stack) -> Self {
        Self::with(stack, &[]).await
    }

    pub(crate) async fn with(stack: &'a Stack, more: &[&str]) -> Self {
        Self::on(stack, &format!("127.0.0.1:{}", free_port()), more).await
    }

    /// At this address.
    pub(crate) async fn on(stack: &'a Stack, listen: &str, more: &[&str]) -> Self {
        let mut command = stack.command("zentra");
        command.args(["serve", "--listen", listen]).args(more);
        let at = format!("http://{listen}");
        let program = services::start(command);
        let document = eventually("it serves", BOUND, async || {
            let answer = stack.http.get(&format!("{at}/v1/openapi.json")).await?;
            serde_json::from_str(&answer.body).ok()
        })
        .await;
        Self { stack, at, document, program }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.program.kill();
    }

    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let made = self.stack.zentra(&[&["token", "create"], arguments].concat());
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &str,
    ) -> (u16, Value) {
        let headers = vec![
            ("authorization", format!("Bearer {token}")),
            ("content-type", "application/json".into()),
        ];
        let url = format!("{}{path}", self.at);
        let answer = self.stack.http.send(method.clone(), &url, &headers, body.to_owned()).await;
        let (code, printed) = read(&answer.unwrap());
        self.judge(&method, path, code, &printed);
        (code, printed)
    }

    /// Whether a response has the documented form.
    fn judge(&self, method: &Method, path: &str, code: u16, printed: &Value) {
        let path: Vec<_> = path.split('?').next().unwrap().split('/').collect();
        let likeness = |template: &str| {
            let parts: Vec<_> = template.split('/').collect();
            let fits = |(part, is): (&&str, &&str)| part == is || part.starts_with('{');
            let same = parts.len() == path.len() && parts.iter().zip(&path).all(fits);
            same.then(|| parts.iter().filter(|part| !part.starts_with('{')).count())
        };
        let paths = self.document["paths"].as_object().unwrap();
        let named = paths.iter().filter_map(|(name, of)| Some((likeness(name)?, of)));
        let Some((_, operations)) = named.max_by_key(|(likeness, _)| *likeness) else { return };
        let responses = &operations[method.as_str().to_lowercase()]["responses"];
        let response = responses.get(code.to_string()).or_else(|| responses.get("default"));
        let Some(content) = response.map(|response| &response["content"]) else { return };
        let Some(schema) = content.as_object().and_then(|content| content.values().next()) else {
            panic!("{path:?} {code} is in no schema")
        };
        let schema = json!({
            "allOf": [schema["schema"]], "components": self.document["components"]
        });
        let judge = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<_> = judge.iter_errors(printed).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{path:?} {code}: {wrong:#?}: {printed}");
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.at)
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        self.ask(Method::GET, path, token, "").await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, because: &str) -> (u16, Value) {
        self.ask(Method::POST, path, token, &json!({ "because": because }).to_string()).await
    }
}

/// Whether a text names a command-line option, such as `--because`.
fn names_an_option(value: &Value) -> bool {
    match value {
        Value::String(text) => text.split(char::is_whitespace).any(|word| {
            word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))
        }),
        Value::Array(all) => all.iter().any(names_an_option),
        Value::Object(all) => all.values().any(names_an_option),
        _ => false,
    }
}

/// Every response is JSON, and an error says what is wrong.
fn read(answer: &Answer) -> (u16, Value) {
    let value: Value = serde_json::from_str(&answer.body)
        .unwrap_or_else(|error| panic!("{}: {error}: {}", answer.status, answer.body));
    let problem = answer.headers["content-type"] == "application/problem+json";
    assert_eq!(problem, !answer.status.is_success(), "{answer:?}");
    if problem {
        assert_eq!(value["status"], answer.status.as_u16());
        assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{value}");
        let code = value["code"].as_str().unwrap();
        assert_eq!(value["type"], format!("urn:zentra:error:{code}"));
        let table = include_str!("../../../docs/errors.md");
        let row = table.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
        let status = format!("| {} |", answer.status.as_u16());
        assert!(row.is_some_and(|row| row.contains(&status)), "docs/errors.md: {value}");
    }
    assert!(!names_an_option(&value), "an option of the command line: {value}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    (answer.status.as_u16(), value)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_requests_share_the_connections_of_their_program() {
    let (rabbit, redis) = (services::rabbit(), services::redis());
    let world =
        World::start(&rabbit.url(), &redis.url(), &namespace(), "attempts = 1").await.unwrap();
    let api = Api::start(&world.stack).await;
    let tokens: Vec<_> =
        (0..20).map(|at| api.token(&[&format!("t{at}"), "--role", "operator"])).collect();
    // Each request uses RabbitMQ, and Redis for its token.
    let paths = ["/v1/unrouted", "/v1/refused", "/v1/archive", "/v1/metrics", "/v1/events/none"];
    let ask = async |path: &str, token: &str| {
        let headers = vec![("authorization", format!("Bearer {token}"))];
        let answer = world.stack.http.send(Method::GET, &api.url(path), &headers, "").await;
        answer.unwrap().status.as_u16()
    };
    for path in paths {
        ask(path, &tokens[0]).await;
    }
    let mut client = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut taken = || -> (usize, String) {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut client).unwrap();
        let line = info.lines().find(|line| line.starts_with("total_connections_received"));
        (rabbit.accepted_connections().unwrap(), line.unwrap().to_owned())
    };
    let before = taken();
    for round in 0..10 {
        let asked = tokens.iter().enumerate();
        let asked = asked.map(|(at, token)| ask(paths[(at + round) % paths.len()], token));
        for (at, code) in join_all(asked).await.into_iter().enumerate() {
            let expected = if (at + round) % paths.len() == 4 { 404 } else { 200 };
            assert_eq!(code, expected, "{}", paths[(at + round) % paths.len()]);
        }
    }
    assert_eq!(taken(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_scrapes_the_metrics_holds_no_refused_callback_back() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    for at in 0..5 {
        let body = transfer(&format!("evt_{at}"), "trf_1", 1);
        let forged = sign::acme("evt", sign::now(), b"another body");
        assert_eq!(world.post(&forged, &body).await.unwrap().status, StatusCode::UNAUTHORIZED);
    }
    let api = Api::start(stack).await;
    let token = api.token(&["ada"]);
    let headers = vec![("authorization", format!("Bearer {token}"))];
    let page = async || {
        let url = api.url("/v1/metrics");
        stack.http.send(Method::GET, &url, &headers, "").await.unwrap().body
    };
    eventually("they are kept", BOUND, async || {
        page().await.contains("zentra_status_refused_callbacks 5").then_some(())
    })
    .await;
    let scraped = AtomicBool::new(false);
    let scrapes = async {
        for _ in 0..15 {
            assert!(page().await.contains("zentra_status_part_up"));
        }
        scraped.store(true, Ordering::Relaxed);
    };
    let listed = async {
        while !scraped.load(Ordering::Relaxed) {
            let listed = tokio::process::Command::from(stack.command("zentra"))
                .args(["refused", "list", "--json"])
                .output();
            let listed: Value = serde_json::from_slice(&listed.await.unwrap().stdout).unwrap();
            assert_eq!(listed["items"].as_array().unwrap().len(), 5);
        }
    };
    tokio::join!(scrapes, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_the_command_line_tells_to_those_who_may_know() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_1", 1)).await;
    world.until("evt_dead", dead).await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;

    let api = Api::start(stack).await;
    let viewer = api.token(&["grafana"]);
    let admin = api.token(&["root", "--role", "admin"]);
    let (code, status) = api.get("/v1/status", &viewer).await;
    assert_eq!((code, &status["parts"][0]["up"]), (200, &true.into()));
    let (_, page) = api.get("/v1/events?limit=1", &viewer).await;
    let next = page["next"].as_str().unwrap();
    let (_, second) = api.get(&format!("/v1/events?limit=1&cursor={next}"), &viewer).await;
    let keys = [&page, &second].map(|page| page["items"][0]["key"].clone());
    assert_eq!(keys, ["ledger/acme/evt_1", "ledger/acme/evt_dead"]);
    let (_, found) =
        api.get("/v1/events?state=dead&reason=exhausted&type=transfer.settled", &viewer).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    for id in ["evt_1", "ledger%2Facme%2Fevt_1"] {
        let (code, printed) = api.get(&format!("/v1/events/{id}"), &viewer).await;
        let shown = stack.zentra(&["event", "show", "evt_1", "--json"]);
        assert_eq!((code, printed), (200, serde_json::from_slice(&shown.stdout).unwrap()));
    }
    let (_, listed) = api.get("/v1/dead?destination=ledger", &viewer).await;
    let shown = stack.zentra(&["dead", "list", "--json"]);
    assert_eq!(listed, serde_json::from_slice::<Value>(&shown.stdout).unwrap());
    let (path, again) = ("/v1/dead/requeue", json!({ "ids": ["evt_dead"], "because": "mended" }));
    let again = again.to_string();
    assert_eq!(api.ask(Method::POST, path, &viewer, &again).await.0, 403);
    for (ids, code) in [
        (json!([]), "invalid_request"),
        (json!(["evt_1"]), "not_dead"),
        (json!(["x"]), "event_not_found"),
    ] {
        let wrong = json!({ "ids": ids }).to_string();
        let (_, printed) = api.ask(Method::POST, path, &admin, &wrong).await;
        assert_eq!(printed["code"], code, "{wrong}");
    }
    let (_, workers) = api.get("/v1/workers", &viewer).await;
    assert_eq!(workers["items"].as_array().unwrap().len(), 1);
    // Only those who may see them get the bytes, and the audit log says who did.
    let body = "/v1/dead/evt_dead/body";
    assert_eq!(api.get(body, &admin).await.0, 403);
    let eve = api.token(&["eve", "--payloads"]);
    let headers = vec![("authorization", format!("Bearer {eve}"))];
    let url = format!("{}{body}", api.at);
    let bytes = stack.http.send(Method::GET, &url, &headers, "").await.unwrap();
    assert_eq!(bytes.body, transfer("evt_dead", "trf_1", 1));
    assert_eq!(bytes.headers["content-disposition"], "attachment");
    assert_eq!(api.get("/v1/dead/evt_1/body", &eve).await.1["code"], "not_dead");
    let (_, audit) = api.get("/v1/audit?limit=1", &admin).await;
    let seen = ["by", "action", "on"].map(|name| audit["items"][0][name].as_str().unwrap());
    assert_eq!(seen, ["eve", "dead show body", "ledger/acme/evt_dead"]);
    let (code, done) = api.ask(Method::POST, path, &admin, &again).await;
    assert_eq!((code, &done["done"]), (200, &1.into()), "{done}");
    let mended = world.until("evt_dead", delivered).await;
    let by =
        mended.history.iter().find(|entry| matches!(entry.what, HistoryEvent::Requeued { .. }));
    assert_eq!(by.unwrap().by, "root");
    for (path, code) in [
        ("/v1/events/evt_2", 404),
        ("/v1/events?colour=1", 400),
        ("/v1/events?limit=0", 400),
        ("/v1/events?limit=1001", 400),
        ("/v1/events?cursor=x", 400),
        ("/v1/dead?destination=ledgr", 404),
        ("/v1/nothing", 404),
        ("/nothing", 404),
    ] {
        assert_eq!(api.get(path, &admin).await.0, code, "{path}");
    }
    assert_eq!(api.post("/v1/status", &admin, "").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_the_archive_are_seen_and_dealt_with_by_those_who_may() {
    let retry = "attempts = 2, initial = \"1h\", jitter = 0.0";
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), retry).await.unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    let answers = [400, 500, 500].map(|status| Turn::Answer(status, Vec::new()));
    world.ledger.take_turns(answers);
    let waits = |known: &Delivery| known.record.state == State::Waiting;
    for (id, end) in [("evt_dead", dead as fn(&_) -> bool), ("evt_1", waits), ("evt_2", waits)] {
        world.send(id, &transfer(id, id, 1)).await;
        world.until(id, end).await;
    }
    let forged = zentra_tests::sign::acme("evt_x", zentra_tests::sign::now(), b"another");
    world.post(&forged, "{}").await.unwrap();
    let api = Api::start(stack).await;
    let viewer = api.token(&["grafana"]);
    let ada = api.token(&["ada", "--role", "operator", "--payloads"]);
    let because = json!({ "because": "it is up" }).to_string();

    let (_, archived) = api.get("/v1/archive?source=acme&newer_than=3600", &viewer).await;
    assert_eq!(archived["items"].as_array().unwrap().len(), 3, "{archived}");
    assert_eq!(api.get("/v1/archive?newer_than=-1", &viewer).await.0, 400);
    assert_eq!(api.get("/v1/archive/evt_1/body", &viewer).await.0, 403);
    let refused = eventually("it is kept", BOUND, async || {
        let (_, refused) = api.get("/v1/refused?reason=signature_mismatch", &ada).await;
        refused["items"][0]["id"].as_str().map(|id| (id.to_owned(), refused.to_string()))
    });
    let (id, printed) = refused.await;
    assert!(!printed.contains(&forged[3].1), "its signature isn't told");
    assert_eq!(api.get(&format!("/v1/refused/{id}/body"), &viewer).await.0, 403);
    let admit = json!({ "ids": [id] }).to_string();
    let explain = format!("/v1/refused/{id}/explain");
    assert_eq!(api.get(&explain, &viewer).await.1["code"], "admission_disabled");
    assert_eq!(api.ask(Method::POST, "/v1/refused/admit", &viewer, &admit).await.0, 403);
    let (code, printed) = api.ask(Method::POST, "/v1/refused/admit", &ada, &admit).await;
    assert_eq!((code, &printed["code"]), (403, &json!("admission_disabled")));
    let (code, unrouted) = api.get("/v1/unrouted?source=acme", &viewer).await;
    assert_eq!((code, unrouted), (200, json!({ "items": [], "next": null })));

    for path in ["/v1/events/evt_1/release", "/v1/events/evt_2/end", "/v1/unrouted/requeue"] {
        assert_eq!(api.ask(Method::POST, path, &viewer, &because).await.0, 403, "{path}");
    }
    let (_, released) = api.ask(Method::POST, "/v1/events/evt_1/release", &ada, &because).await;
    assert_eq!(released["items"][0]["key"], "ledger/acme/evt_1", "{released}");
    world.until("evt_1", delivered).await;
    let (_, ended) = api.ask(Method::POST, "/v1/events/evt_2/end", &ada, &because).await;
    let ended = &ended["items"][0];
    assert_eq!((&ended["record"]["state"], &ended["reason"]), (&"dead".into(), &"ended".into()));
    let (_, printed) = api.ask(Method::POST, "/v1/events/evt_2/end", &ada, &because).await;
    assert_eq!(printed["code"], "not_waiting");
    let drain = |because: &str| json!({ "ids": ["evt_dead"], "because": because }).to_string();
    assert_eq!(api.ask(Method::POST, "/v1/dead/drain", &ada, &drain("")).await.0, 400);
    let (_, drained) = api.ask(Method::POST, "/v1/dead/drain", &ada, &drain("a test")).await;
    assert_eq!(drained["done"], 1, "{drained}");
    let routed = json!({ "source": "acme" }).to_string();
    assert_eq!(
        api.ask(Method::POST, "/v1/unrouted/requeue", &ada, &routed).await,
        (200, json!({ "items": [], "next": null }))
    );
    let list = |ingest: bool| {
        let all = ["evt_1", "evt_lost"].map(|id| transfer(id, id, 1).parse::<Value>().unwrap());
        json!({ "source": "acme", "events": all, "ingest": ingest }).to_string()
    };
    let (_, compared) = api.ask(Method::POST, "/v1/reconcile", &ada, &list(false)).await;
    assert_eq!(compared["counts"], json!({ "received": 1, "missing": 1 }), "{compared}");
    assert_eq!(api.ask(Method::POST, "/v1/reconcile", &ada, &list(true)).await.0, 403);
    assert_eq!(api.ask(Method::POST, "/v1/reconcile", &viewer, &list(false)).await.0, 403);
    let padded = json!({ "source": "acme", "events": [{ "id": "x".repeat(1 << 20) }] });
    let (code, _) = api.ask(Method::POST, "/v1/reconcile", &ada, &padded.to_string()).await;
    assert_eq!(code, 200, "a list may be long");
    drop(api);

    let api = Api::with(stack, &["--admit"]).await;
    let (code, explained) = api.get(&explain, &viewer).await;
    assert_eq!((code, &explained["reason"]), (200, &json!("signature_mismatch")), "{explained}");
    let last = explained["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(last["good"], false, "{explained}");
    assert!(!explained.to_string().contains(&forged[3].1), "its signature isn't told");
    assert_eq!(api.get("/v1/refused/17/explain", &viewer).await.0, 404);
    assert_eq!(api.ask(Method::POST, "/v1/reconcile", &ada, &list(true)).await.0, 403);
    let root = api.token(&["root", "--role", "admin"]);
    let (_, ingested) = api.ask(Method::POST, "/v1/reconcile", &root, &list(true)).await;
    assert_eq!(ingested["counts"], json!({ "received": 1, "ingested": 1 }), "{ingested}");
    world.until("evt_lost", delivered).await;
    let (_, outcomes) = api.ask(Method::POST, "/v1/refused/admit", &ada, &admit).await;
    let expected = (&false.into(), &"signature_mismatch".into());
    assert_eq!((&outcomes["items"][0]["admitted"], &outcomes["items"][0]["reason"]), expected);
    let audit = String::from_utf8(stack.zentra(&["audit"]).stdout).unwrap();
    for line in
        ["event release ledger/acme/evt_1: it is up", "event end ledger/acme/evt_2: it is up"]
    {
        assert!(audit.contains(&format!("ada  {line}")), "{audit}");
    }
    assert!(audit.contains("ada  dead drain evt_dead (1 of "), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_shut_nobody_out_and_a_viewers_body_is_not_read() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["vera", "--role", "viewer"]);
    let asked = async || api.ask(Method::GET, "/v1/status", &viewer, "").await.0;
    assert_eq!(asked().await, 200);
    let mut slow = Vec::new();
    // More than either has places for.
    for (address, count) in [(&api.at, 1100), (&world.ingress.admin, 40)] {
        for _ in 0..count {
            let mut stream = flood::connect(address, None).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            slow.push(stream);
        }
    }
    assert_eq!(asked().await, 200);
    let alive = world.stack.http.get(&format!("{}/livez", world.ingress.admin)).await.unwrap();
    assert_eq!(alive.status, 200);

    let mut stream = flood::connect(&api.at, None).await.unwrap();
    let head = format!(
        "POST /v1/reconcile HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {viewer}\r\n\
         content-type: application/json\r\ncontent-length: 8000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(BOUND, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");

    // A token's tails are limited to its own share.
    let mut tails = Vec::new();
    for _ in 0..16 {
        let mut stream = flood::connect(&api.at, None).await.unwrap();
        let head =
            format!("GET /v1/tail HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {viewer}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        tails.push(stream);
    }
    assert_eq!(api.ask(Method::GET, "/v1/tail", &viewer, "").await.0, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_found_by_who_may_see_payloads_and_what_happens_is_told_as_it_happens() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let stack = &world.stack;
    let _worker = stack.worker().await;
    let mut api = Api::start(stack).await;
    let viewer = api.token(&["grafana"]);
    let ada = api.token(&["ada", "--payloads"]);
    let address = api.url("/v1/tail?source=acme").replace("http://", "");
    let (host, path) = address.split_once('/').unwrap();
    let mut listening = tokio::net::TcpStream::connect(host).await.unwrap();
    let asked =
        format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {viewer}\r\n\r\n");
    listening.write_all(asked.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("\r\n\r\n") {
        assert!(listening.read_buf(&mut heard).await.unwrap() > 0);
    }
    assert!(String::from_utf8_lossy(&heard).contains("application/x-ndjson"));
    let mut sent = 0;
    while !String::from_utf8_lossy(&heard).contains("\"what\":\"delivered\"") {
        // Events before the tail began are not sent, so another event may be needed.
        sent += 1;
        let id = format!("evt_{sent}");
        world.send(&id, &transfer(&id, "trf_8172", 1)).await;
        world.until(&id, delivered).await;
        let more = tokio::time::timeout(BOUND / 100, listening.read_buf(&mut heard)).await;
        assert!(more.is_err() || more.unwrap().unwrap() > 0);
    }
    let path = "/v1/find?text=trf_8172";
    assert_eq!(api.get(path, &viewer).await.0, 403);
    let (code, found) = api.get(path, &ada).await;
    assert_eq!((code, found["events"].as_array().unwrap().len()), (200, sent), "{found}");
    assert_eq!(api.get("/v1/find?text=", &ada).await.0, 400);
    let audit = String::from_utf8(stack.zentra(&["audit"]).stdout).unwrap();
    assert!(audit.contains("ada  event find trf_8172"), "{audit}");
    // The server stops although somebody follows the tail.
    assert!(api.program.terminate(BOUND).is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_what_the_status_tells_as_the_page_says() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let _worker = world.stack.worker().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    world.send("evt_dead", &transfer("evt_dead", "trf_1", 1)).await;
    world.until("evt_dead", dead).await;
    let forged = zentra_tests::sign::acme("evt_x", zentra_tests::sign::now(), b"another");
    world.post(&forged, "{}").await.unwrap();
    let api = Api::start(&world.stack).await;
    let token = api.token(&["prometheus"]);
    let headers = vec![("authorization", format!("Bearer {token}"))];
    let url = format!("{}/v1/metrics", api.at);
    let http = &world.stack.http;
    let text = eventually("all of it is told", BOUND, async || {
        let text = http.send(Method::GET, &url, &headers, "").await.unwrap().body;
        (text.contains("zentra_status_refused_callbacks 1")
            && text.contains("workers{destination=\"ledger\"} 1"))
        .then_some(text)
    })
    .await;
    for line in [
        "zentra_status_part_up{part=\"redis\"} 1",
        "zentra_status_destination_dead{destination=\"ledger\",reason=\"exhausted\"} 1",
        "zentra_status_source_finding{finding=\"nothing_seen\",source=\"github\"} 1",
        "zentra_status_source_events{source=\"acme\"} 1",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    let page = include_str!("../../../docs/metrics.md");
    let (_, page) = page.split_once("## zentra serve").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let (mut rows, mut shown): (Vec<_>, Vec<_>) = (rows.collect(), shown.collect());
    rows.sort_unstable();
    shown.sort_unstable();
    assert_eq!(rows, shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_without_a_token_and_each_role_may_what_it_may() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["grafana"]);
    let operator = api.token(&["ada", "--role", "operator"]);
    let admin = api.token(&["root", "--role", "admin", "--because", "the audit"]);
    let (last, other) = (viewer.pop_last(), viewer.replace("zentra_", "zentra_0"));
    for wrong in ["", "x", "zentra__", &last, &other, &viewer.to_uppercase()] {
        let (code, printed) = api.get("/v1/status", wrong).await;
        assert_eq!(code, 401, "{wrong}: {printed}");
    }
    let bare = api.stack.http.get(&format!("{}/v1/status", api.at)).await.unwrap();
    assert_eq!(
        (bare.status, &bare.headers["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
    );

    let pause = "/v1/destinations/ledger/pause";
    assert_eq!(api.post(pause, &viewer, "").await.0, 403);
    let (code, paused) = api.post(pause, &operator, "it is migrated").await;
    assert_eq!((code, &paused["pause"]["by"]), (200, &"ada".into()));
    assert_eq!(api.post("/v1/destinations/ledgr/pause", &operator, "").await.0, 404);
    assert_eq!(api.post(pause, &operator, &"x".repeat(1001)).await.0, 400);
    assert_eq!(api.ask(Method::POST, pause, &operator, "{").await.0, 400);
    assert_eq!(api.ask(Method::POST, pause, &operator, &"x".repeat(70_000)).await.0, 413);
    assert_eq!(api.post("/v1/destinations/ledger/close-circuit", &operator, "").await.0, 200);
    let (_, resumed) = api.post("/v1/destinations/ledger/resume", &operator, "").await;
    assert_eq!(resumed["pause"], Value::Null);
    assert_eq!(api.get("/v1/audit", &operator).await.0, 403);
    let (_, audit) = api.get("/v1/audit?limit=3", &admin).await;
    let line = |at: usize| ["by", "action"].map(|name| audit["items"][at][name].as_str().unwrap());
    assert_eq!(line(0), ["ada", "destination resume"]);
    assert_eq!(
        (line(2), &audit["items"][2]["because"]),
        (["ada", "destination pause"], &"it is migrated".into())
    );

    // Revoked: access ends.
    let listed = api.stack.zentra(&["token", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let of = listed.lines().find(|line| line.contains("grafana")).unwrap();
    let id = of.split(' ').next().unwrap();
    // The secret may have the separator too.
    let secret = viewer.splitn(3, '_').nth(2).unwrap();
    assert!(viewer.contains(id) && secret.len() > 20 && !listed.contains(secret));
    assert!(api.stack.zentra(&["token", "revoke", id]).status.success());
    assert_eq!(api.stack.zentra(&["token", "revoke", id]).status.code(), Some(1));
    assert_eq!(api.get("/v1/status", &viewer).await.0, 401);
    let brief = api.token(&["brief", "--expires-in", "1s"]);
    eventually("it is over", BOUND, async || {
        (api.get("/v1/workers", &brief).await.0 == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_much_is_told_so_and_others_are_not_kept_waiting() {
    let shop = Shop::with("", "", "shop", "").await;
    let _program = shop.stack.standalone().await;
    let api = Api::start(&shop.stack).await;
    let (greedy, other) = (api.token(&["greedy"]), api.token(&["other"]));
    let all = futures_util::future::join_all((0..300).map(|_| api.get("/v1/workers", &greedy)));
    let codes: Vec<u16> = all.await.into_iter().map(|(code, _)| code).collect();
    assert!(codes.iter().all(|code| matches!(code, 200 | 429)), "{codes:?}");
    assert!(codes.contains(&200) && codes.contains(&429), "{codes:?}");
    assert_eq!(api.get("/v1/workers", &other).await.0, 200);
}

trait PopLast {
    fn pop_last(&self) -> String;
}

impl PopLast for String {
    /// Without its last letter.
    fn pop_last(&self) -> String {
        self[..self.len() - 1].to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_on_this_machine_alone_unless_tls_is_ended_before_it() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "attempts = 1")
        .await
        .unwrap();
    let refused = world.stack.zentra(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--behind-tls"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_it_is_the_same_too() {
    let shop = Shop::with("", "", "shop", "").await;
    let program = shop.stack.standalone().await;
    shop.send(&program, "evt_1").await;
    shop.until("evt_1", "delivered").await;
    let api = Api::start(&shop.stack).await;
    let operator = api.token(&["ada", "--role", "operator"]);
    let (_, status) = api.get("/v1/status", &operator).await;
    assert_eq!(status["parts"][0]["name"], "file");
    let (_, events) = api.get("/v1/events?destination=ledger", &operator).await;
    assert_eq!(events["items"][0]["key"], "ledger/acme/evt_1");
    assert_eq!(
        api.get("/v1/events/evt_1", &operator).await.1["deliveries"][0]["record"]["state"],
        "delivered"
    );
    api.post("/v1/destinations/ledger/pause", &operator, "").await;
    eventually("it is paused", BOUND, async || {
        let (_, all) = api.get("/v1/destinations", &operator).await;
        (all["items"][0]["heard"] == 1).then_some(())
    })
    .await;
}

/// A value of this schema. Texts are random.
fn example(document: &Value, schema: &Value, text: &mut impl FnMut() -> String) -> Value {
    if let Some(at) = schema["$ref"].as_str() {
        return example(document, document.pointer(&at[1..]).unwrap(), text);
    }
    let number = text().bytes().fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 1009);
    if let Some(choices) = schema["oneOf"].as_array().or(schema["enum"].as_array()) {
        let choice = &choices[usize::try_from(number).unwrap() % choices.len()];
        let is_schema = schema["oneOf"].is_array();
        return if is_schema { example(document, choice, text) } else { choice.clone() };
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[usize::try_from(number).unwrap() % kinds.len()].clone(),
        kind => kind.clone(),
    };
    match kind.as_str() {
        Some("string") => text().into(),
        Some("boolean") => (number % 2 == 0).into(),
        Some("integer") => {
            let (least, most) = (schema["minimum"].as_u64(), schema["maximum"].as_u64());
            let least = least.unwrap_or(0);
            (least + number % (most.unwrap_or(least + 500) - least + 1)).into()
        }
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(0).max(number % 3);
            (0..count).map(|_| example(document, &schema["items"], text)).collect()
        }
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut made = serde_json::Map::new();
            for (name, of) in schema["properties"].as_object().into_iter().flatten() {
                if required.contains(&name.as_str().into()) || text().len().is_multiple_of(2) {
                    made.insert(name.clone(), example(document, of, text));
                }
            }
            made.into()
        }
        Some("null") => Value::Null,
        other => panic!("{other:?}: {schema}"),
    }
}

/// Requests are built from the document, with values of all kinds. Each operation exists, none
/// fails with an internal error, and every response has the documented form.
#[tokio::test(flavor = "multi_thread")]
async fn by_its_own_document_it_answers_whatever_it_is_asked() {
    let shop = Shop::with("", "", "shop", "").await;
    let _program = shop.stack.standalone().await;
    let api = Api::start(&shop.stack).await;
    let admin = api.token(&["root", "--role", "admin", "--payloads"]);
    let document = &api.document;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut runner = TestRunner::deterministic();
    let mut text = || {
        let any = prop_oneof![
            Just("ledger".to_owned()),
            Just("0".to_owned()),
            Just("-1".to_owned()),
            Just("dead".to_owned()),
            "\\PC{0,40}",
        ];
        any.new_tree(&mut runner).unwrap().current()
    };
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    // Bodies that are not JSON have their own tests.
    let other = ["/v1/metrics", "/v1/dead/{id}/body"];
    let other = [&other[..], &["/v1/archive/{id}/body", "/v1/refused/{id}/body"]].concat();
    let other = [&other[..], &["/v1/tail"]].concat();
    let paths = document["paths"].as_object().unwrap();
    assert!(other.iter().all(|path| paths.contains_key(*path)));
    for (path, operations) in paths.iter().filter(|(path, _)| !other.contains(&path.as_str())) {
        for (method, operation) in operations.as_object().unwrap() {
            assert_eq!(operation["security"], json!([{ "token": [] }]), "{path}");
            for _ in 0..12 {
                let (mut at, mut query) = (path.clone(), Vec::new());
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let (name, value) = (parameter["name"].as_str().unwrap(), text());
                    let value = escaped(if value.is_empty() { "x" } else { &value });
                    match parameter["in"].as_str().unwrap() {
                        "path" => at = at.replace(&format!("{{{name}}}"), &value),
                        _ if value.len() % 2 == 0 => query.push(format!("{name}={value}")),
                        _ => {}
                    }
                }
                let at = format!("{at}?{}", query.join("&"));
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let body = match schema.is_null() {
                    true => String::new(),
                    false => example(document, schema, &mut text).to_string(),
                };
                let method = method.to_uppercase().parse().unwrap();
                let (code, printed) = eventually("it isn't too much", BOUND, async || {
                    let answer = api.ask(Method::clone(&method), &at, &admin, &body).await;
                    (answer.0 != 429).then_some(answer)
                })
                .await;
                // 403: this server runs without `--admit`. 409: nothing matches.
                assert!(
                    matches!(code, 200 | 400 | 403 | 404 | 409),
                    "{at} {body}: {code}: {printed}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_sign_ins_and_refused_roles_are_logged_without_the_token_and_a_name_is_one_tokens() {
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), "").await.unwrap();
    let api = Api::start(&world.stack).await;
    let viewer = api.token(&["the-one-who-looks"]);
    let again = world.stack.zentra(&["token", "create", "the-one-who-looks"]);
    let printed = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && printed.contains("already"), "{printed}");

    let wrong = format!("{viewer}x");
    assert_eq!(api.get("/v1/status?of=a-stranger", &wrong).await.0, 401);
    let requeue = json!({ "ids": ["evt_1"], "because": "x" }).to_string();
    assert_eq!(api.ask(Method::POST, "/v1/dead/requeue", &viewer, &requeue).await.0, 403);
    let logged = || {
        let all = services::output();
        let refused = all.lines().filter(|line| line.contains("an operator's request was refused"));
        let lines: Vec<String> = refused.map(str::to_owned).collect();
        lines.iter().any(|line| line.contains("the-one-who-looks")).then_some(lines)
    };
    let lines = eventually("it is logged", BOUND, async || logged()).await;
    assert!(lines.iter().any(|line| line.contains("status=401")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(&wrong) || line.contains(&viewer)), "{lines:?}");
}
