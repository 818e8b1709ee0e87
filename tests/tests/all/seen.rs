//! What operators and Prometheus see of a callback.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zentra_tests::http::{Headers, Http};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::stack::Program;
use zentra_tests::world::{World, dead, delivered};
use zentra_tests::{eventually, namespace, services, shared_rabbit, shared_redis, sign};

const BOUND: Duration = Duration::from_secs(20);

/// Slack's scheme, as a custom provider.
const SLACK: &str = r#"
[source.slack]
provider = "my-slack"
secrets = [{ name = "s1", secret = "env:GITHUB" }]
[provider.my-slack]
context = ["user-agent", "x-forwarded-proto"]
attempt = { number = { header = "x-slack-retry-num" }, reason = { header = "x-slack-retry-reason" } }
[provider.my-slack.signature]
at = { header = "x-slack-signature" }
grammar = { prefix = "v0=" }
algorithm = "hmac-sha256"
encoding = "hex"
key = "utf8"
content = "v0:{timestamp}:{body}"
[provider.my-slack.timestamp]
at = { header = "x-slack-request-timestamp" }
tolerance = "5m"
[provider.my-slack.id]
json = "/event_id"
[provider.my-slack.type]
json = "/type"
"#;

fn slack(body: &str) -> Headers {
    let now = sign::now();
    let mut mac = Hmac::<Sha256>::new_from_slice(sign::GITHUB_SECRET.as_bytes()).unwrap();
    mac.update(format!("v0:{now}:{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    vec![
        ("x-slack-request-timestamp", now.to_string()),
        ("x-slack-signature", format!("v0={signature}")),
        ("x-slack-retry-num", "2".into()),
        ("x-slack-retry-reason", "http_timeout".into()),
        ("user-agent", "Slackbot 1.0".into()),
        ("authorization", "Bearer sk_live".into()),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01".into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_callback_came_is_in_its_history_and_one_trace_goes_through() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let (name, retry) = (namespace(), "attempts = 3, initial = \"100ms\"");
    let mut world = World::start(&rabbit, &redis, &name, retry).await.unwrap();
    world.stack.replace("\"github.#\"]", "\"github.#\", \"slack.#\"]");
    world.stack.add(SLACK);
    world.ingress = world.stack.ingress().await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    let _worker = world.stack.worker().await;
    let body = r#"{"event_id":"Ev1","type":"event_callback","id":"Ev1","transfer":{"id":"t"}}"#;
    let url = format!("{}/in/slack", world.ingress.listen);
    let answer = world.stack.http.post(&url, &slack(body), body).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("it has come to its end", BOUND, async || {
        world.delivery("Ev1").await.filter(|known| delivered(known) || dead(known))
    })
    .await;
    let shown = world.stack.zentra(&["event", "show", "Ev1"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let lines = [
        "signature  verified (my-slack, secret s1), signed ",
        "request    POST from 127.0.0.1",
        "header     user-agent: Slackbot 1.0",
        "provider   retry: 2, http_timeout",
    ];
    for line in lines {
        assert!(shown.contains(line), "{line} isn't shown:\n{shown}");
    }
    for hidden in ["sk_live", "v0=", "x-forwarded-proto"] {
        assert!(!shown.contains(hidden), "{hidden} is shown:\n{shown}");
    }

    // Zentra's own trace is the same for each attempt, and each attempt is a span of its own.
    let seen = world.ledger.seen();
    let parents: Vec<Vec<&str>> =
        seen.iter().map(|seen| seen.header("traceparent").split('-').collect()).collect();
    assert!(parents.len() >= 2, "{parents:?}");
    assert_eq!(parents[0][1], parents[1][1]);
    assert_ne!(parents[0][2], parents[1][2]);
    assert_ne!(parents[0][1], "1".repeat(32), "a stranger's trace isn't believed");
    assert!(shown.contains(&format!("trace      {}", parents[0][1])), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_holds_a_body_a_signature_or_a_secret() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let (name, retry) = (namespace(), "attempts = 2, initial = \"100ms\"");
    let mut world = World::start(&rabbit, &redis, &name, retry).await.unwrap();
    world.stack.log = "trace";
    world.ingress = world.stack.ingress().await;
    let _worker = world.stack.worker().await;
    let marked = |what: &str| format!("{what}-of-{name}");
    let body = |id: &str| transfer(id, &marked("body"), 5);
    let (good, bad) = (body(&marked("evt")), body("evt_forged"));
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    let mut genuine = sign::acme(&marked("evt"), sign::now(), good.as_bytes());
    genuine.push(("authorization", marked("credential")));
    assert_eq!(world.post(&genuine, &good).await.unwrap().status, 200);
    world.until(&marked("evt"), delivered).await;
    let mut forged = sign::acme("evt_forged", sign::now(), b"another body");
    forged.push(("cookie", marked("session")));
    assert_eq!(world.post(&forged, &bad).await.unwrap().status, 401);
    eventually("the forgery is kept", BOUND, async || {
        let kept = world.ingress.metric(&world.stack.http, &["refused_kept_total"]).await;
        (kept > 0.0).then_some(())
    })
    .await;
    let _ = world.stack.zentra(&["refused", "list"]);

    let log = services::output();
    assert!(log.contains(&marked("evt")), "the log level isn't what this test needs");
    let signature = |headers: &Headers| {
        let found = headers.iter().find(|(name, _)| *name == "webhook-signature");
        found.unwrap().1.trim_start_matches("v1,").to_owned()
    };
    let hidden = [
        marked("body"),
        marked("credential"),
        marked("session"),
        signature(&genuine),
        signature(&forged),
        world.ledger.seen().last().unwrap().header("webhook-signature").replace("v1,", ""),
        sign::ACME_SECRET.to_owned(),
        sign::LEDGER_SECRET.to_owned(),
        "0123456789abcdef0123456789abcdef".to_owned(),
    ];
    for hidden in hidden {
        // As text, or as the bytes of a frame.
        let bytes = format!("{:?}", hidden.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        let line = log.lines().find(|line| line.contains(&hidden) || line.contains(bytes));
        assert!(line.is_none(), "{hidden} is logged: {}", line.unwrap_or_default());
    }
}

/// The documented metrics of the daemons: name → (type, labels).
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../../docs/metrics.md");
    let (page, _) = page.split_once("## zentra standalone").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `zentra_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty());
        let name = format!("zentra_{}", cells[0].trim_end_matches('`'));
        (name, (cells[1].to_owned(), labels.map(str::to_owned).collect()))
    })
    .collect()
}

/// The metrics that a program exports, in the same form.
async fn shown(http: &Http, program: &Program) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = http.get(&format!("{}/metrics", program.admin)).await.unwrap().body;
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            found.insert(name.into(), (kind.into(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| found.contains_key(*name)))
                .unwrap_or(name);
            let labels = rest.split("\",").filter_map(|pair| pair.split("=\"").next());
            let labels = labels.map(str::trim).filter(|label| !matches!(*label, "le" | "}"));
            let labels = labels.filter(|label| label.bytes().all(|b| b.is_ascii_lowercase()));
            found.get_mut(name).unwrap().1.extend(labels.map(str::to_owned));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_metrics_says_what_the_daemons_show() {
    let (rabbit, mut redis) = (shared_rabbit(), services::redis());
    let (url, name, retry) = (redis.url(), namespace(), "attempts = 2, initial = \"100ms\"");
    let world = World::start(&rabbit, &url, &name, retry).await.unwrap();
    let worker = world.stack.worker().await;
    // One of each kind: a success with a copy, a retry, a dead letter, a refusal.
    world.send("evt_1", &transfer("evt_1", "trf_1", 5)).await;
    world.until("evt_1", delivered).await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 5)).await;
    world.ledger.take_turns([500, 500].map(|status| Turn::Answer(status, Vec::new())));
    world.send("evt_2", &transfer("evt_2", "trf_2", 5)).await;
    world.until("evt_2", dead).await;
    for _ in 0..30 {
        world.post(&Headers::new(), "{}").await.unwrap();
    }
    redis.kill();
    world.send("evt_3", &transfer("evt_3", "trf_3", 5)).await;
    let http = &world.stack.http;
    eventually("Redis is missed", BOUND, async || {
        let failures = ["zentra_worker_step_failures_total"];
        (worker.metric(http, &failures).await > 0.0).then_some(())
    })
    .await;

    let documented = documented();
    let mut all = shown(http, &world.ingress).await;
    all.extend(shown(http, &worker).await);
    assert_eq!(all, documented);
}
