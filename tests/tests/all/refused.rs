//! Refused callbacks are stored, can be read, are admitted once the cause is fixed, and block
//! nothing.

use std::time::Duration;

use serde_json::Value;
use zentra_tests::stack::{Program, Stack};
use zentra_tests::world::World;
use zentra_tests::{eventually, namespace, services, shared_rabbit, shared_redis, sign};

const BOUND: Duration = Duration::from_secs(20);
const BODY: &str = r#"{"type":"transfer.settled","id":"x"}"#;
const OLD_SECRET: &str = "whsec_b2xkLXNlY3JldC1vZi1hY21l";

fn json(stack: &Stack, arguments: &[&str]) -> Value {
    let output = stack.zentra(&[arguments, &["--json"]].concat());
    let printed = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {printed}"))
}

async fn kept(stack: &Stack, ingress: &Program, count: f64) {
    eventually("refused callbacks are kept", BOUND, async || {
        let kept = ["zentra_ingress_refused_kept_total", "acme"];
        (ingress.metric(&stack.http, &kept).await >= count).then_some(())
    })
    .await;
}

/// A callback of `acme` signed with an unknown secret.
fn signed_otherwise(id: &str, time: u64, body: &str) -> zentra_tests::http::Headers {
    let signature = sign::standard(OLD_SECRET, id, time, body.as_bytes());
    let mut headers = sign::acme(id, time, body.as_bytes());
    headers.retain(|(name, _)| *name != "webhook-signature");
    headers.push(("webhook-signature", signature));
    headers.push(("authorization", "Bearer sk_live".into()));
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_a_wrong_secret_is_let_in_once_it_is_mended_and_a_forgery_never() {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let world = World::start(&rabbit, &redis, &namespace(), "attempts = 2").await.unwrap();
    let (stack, _worker) = (&world.stack, world.stack.worker().await);
    let body = zentra_tests::ledger::transfer("evt_1", "trf_1", 5);
    let now = sign::now();
    let answer = world.post(&signed_otherwise("evt_1", now, &body), &body).await.unwrap();
    assert_eq!(answer.reason(), "signature_mismatch");
    let mut forged = sign::acme("evt_2", now, BODY.as_bytes());
    forged.retain(|(name, _)| *name != "webhook-signature");
    // A query that nothing reads may contain a credential.
    let url = format!("{}/in/acme?token=s3cret", world.ingress.listen);
    stack.http.post(&url, &forged, BODY).await.unwrap();
    let stale = sign::acme("evt_3", now - 4000, BODY.as_bytes());
    world.post(&stale, BODY).await.unwrap();
    kept(stack, &world.ingress, 3.0).await;

    let listed = json(stack, &["refused", "list"]);
    let all = listed["items"].as_array().unwrap();
    let reasons: Vec<&str> = all.iter().filter_map(|one| one["reason"].as_str()).collect();
    assert_eq!(reasons, ["signature_mismatch", "signature_missing", "timestamp_stale"]);
    assert!(!listed.to_string().contains("sk_live"), "{listed}");
    assert!(!listed.to_string().contains("s3cret"), "{listed}");
    let id = |at: usize| all[at]["id"].as_str().unwrap();
    let shown = stack.zentra(&["refused", "show", id(0)]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("signature_mismatch") && shown.contains("webhook-id: evt_1"), "{shown}");
    assert!(!shown.contains("v1,") && !shown.contains("sk_live"), "{shown}");
    assert_eq!(stack.zentra(&["refused", "show", id(0), "--body"]).stdout, body.as_bytes());

    // Nothing is fixed yet.
    let output = stack.zentra(&["refused", "explain", id(0)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("signature_mismatch"));
    let output = stack.zentra(&["refused", "admit", id(0)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("still refused: signature_mismatch"));

    stack.replace(
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [",
        "[source.acme]\nprovider = \"standard-webhooks\"\nsecrets = [{ name = \"old\", secret = \"env:OLD\" }, ",
    );
    let run = |arguments: &[&str]| {
        let mut command = stack.command("zentra");
        command.env("OLD", OLD_SECRET).args(arguments).output().unwrap()
    };
    // The reason, before and after the secret was added. It shows no secret and no signature.
    let explained = |output: std::process::Output| {
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains("v1,") && !text.contains(OLD_SECRET), "{text}");
        (output.status.code(), text)
    };
    let (code, text) = explained(run(&["refused", "explain", id(0)]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("It fits the secret old"), "{text}");
    let (code, text) = explained(run(&["refused", "explain", id(2)]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("timestamp_stale"), "{text}");
    let tried = run(&["refused", "admit", "--source", "acme", "--dry-run"]);
    let tried = String::from_utf8_lossy(&tried.stdout).into_owned();
    assert!(tried.contains("1 of 3 would be admitted"), "{tried}");
    assert_eq!(
        json(stack, &["refused", "list", "--source", "acme"])["items"].as_array().unwrap().len(),
        3
    );
    let done = run(&["refused", "admit", "--source", "acme", "--by", "ada"]);
    let done = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.contains("1 of 3 admitted"), "{done}");
    let delivery = world.until("evt_1", zentra_tests::world::delivered).await;
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
    assert_eq!(delivery.event.source, "acme");

    let left = json(stack, &["refused", "list"]);
    let reasons: Vec<&str> =
        left["items"].as_array().unwrap().iter().filter_map(|one| one["reason"].as_str()).collect();
    assert_eq!(reasons.len(), 2, "{left}");
    assert!(!reasons.contains(&"signature_mismatch"));
    let gone = run(&["refused", "admit", id(0)]);
    assert_eq!(gone.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_forgeries_keeps_to_its_allowance_and_to_the_bounds_and_leaves_the_honest_alone()
{
    let stack =
        Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), "http://127.0.0.1:9/", "");
    stack.add("[refused]\nper_second = 5\nmax_count = 60");
    stack.replace("[source.github]", "[source.flooded]");
    stack.replace("github.#", "flooded.#");
    let ingress = stack.ingress().await;
    let post = async |source: &str, headers| {
        let url = format!("{}/in/{source}", ingress.listen);
        stack.http.post(&url, &headers, BODY).await.unwrap()
    };
    let started = std::time::Instant::now();
    for _ in 0..400 {
        assert_eq!(post("flooded", sign::github("d", "push", b"forged")).await.status, 401);
    }
    // Another source's share is its own, and honest callbacks are not delayed.
    post("acme", sign::acme("evt_1", sign::now() - 4000, BODY.as_bytes())).await;
    assert_eq!(post("acme", sign::acme("evt_2", sign::now(), BODY.as_bytes())).await.status, 200);
    kept(&stack, &ingress, 1.0).await;
    let most = 5.0 + 5.0 * started.elapsed().as_secs_f64().ceil();
    let metric = async |name: &str| ingress.metric(&stack.http, &[name, "flooded"]).await;
    let counted = eventually("all are counted", BOUND, async || {
        let dropped = metric("zentra_ingress_refused_dropped_total").await;
        let kept = metric("zentra_ingress_refused_kept_total").await;
        (kept + dropped == 400.0).then_some(kept)
    })
    .await;
    assert!((5.0..=most).contains(&counted), "{counted} of at most {most}");
    // The log is not flooded either, and says how many lines it left out.
    let most = 10.0 + 10.0 * started.elapsed().as_secs_f64().ceil();
    let log = services::output();
    let refusals = log.lines().filter(|line| line.contains("refused source=\"flooded\""));
    let lines = refusals.count() as f64;
    assert!((10.0..=most).contains(&lines), "{lines} lines, of at most {most}");
    let listed = json(&stack, &["refused", "list"]);
    let listed = listed["items"].as_array().unwrap();
    assert!(listed.len() <= 60, "{} are kept", listed.len());
    assert!(listed.iter().any(|one| one["source"] == "acme"), "the newest is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sources_flood_pushes_out_nothing_that_was_refused_of_another() {
    // By their number, and by their size.
    for (bounds, body) in [("max_count = 40", 10), ("max_bytes = \"2MiB\"", 100_000)] {
        let stack =
            Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), "http://127.0.0.1:9/", "");
        stack.add(&format!("[refused]\nper_second = 10000\n{bounds}"));
        let ingress = stack.ingress().await;
        let post = async |source: &str, headers, body: String| {
            let url = format!("{}/in/{source}", ingress.listen);
            stack.http.post(&url, &headers, body).await.unwrap()
        };
        post("acme", sign::acme("evt_1", sign::now() - 4000, BODY.as_bytes()), BODY.into()).await;
        kept(&stack, &ingress, 1.0).await;
        for _ in 0..60 {
            let forged = sign::github("d", "push", b"another body");
            assert_eq!(post("github", forged, "x".repeat(body)).await.status, 401);
        }
        eventually("all are counted", BOUND, async || {
            let (kept, dropped) =
                ("zentra_ingress_refused_kept_total", "zentra_ingress_refused_dropped_total");
            let kept = ingress.metric(&stack.http, &[kept, "github"]).await;
            let dropped = ingress.metric(&stack.http, &[dropped, "github"]).await;
            (kept >= 2.0 && kept + dropped == 60.0).then_some(())
        })
        .await;
        let listed = json(&stack, &["refused", "list"]);
        let of = |source: &str| {
            let listed = listed["items"].as_array().unwrap().iter();
            listed.filter(|one| one["source"] == source).count()
        };
        assert_eq!(of("acme"), 1, "{bounds}");
        assert!(of("github") >= 2, "{bounds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_a_refusal_is_as_fast_and_only_counted_as_not_kept() {
    let mut rabbit = services::rabbit();
    let stack = Stack::new(&rabbit.url(), &shared_redis(), "dark", "http://127.0.0.1:9/", "");
    let ingress = stack.ingress().await;
    rabbit.kill();
    let url = format!("{}/in/acme", ingress.listen);
    let started = std::time::Instant::now();
    let answer = stack.http.post(&url, &Vec::new(), BODY).await.unwrap();
    assert_eq!(answer.reason(), "signature_missing");
    assert!(started.elapsed() < Duration::from_secs(1));
    eventually("it is counted", BOUND, async || {
        let dropped = ["zentra_ingress_refused_dropped_total", "acme", "queue"];
        (ingress.metric(&stack.http, &dropped).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admitted_callback_is_as_fresh_as_it_was_when_it_was_received() {
    let stack =
        Stack::new(&shared_rabbit(), &shared_redis(), &namespace(), "http://127.0.0.1:9/", "");
    stack.add(
        "[source.brief]\nprovider = \"brief\"\n\
         secrets = [{ name = \"k1\", secret = \"env:GITHUB\" }]\n\
         [provider.brief.signature]\nat = { header = \"stripe-signature\" }\n\
         grammar = { list = { separator = \",\", assign = \"=\", item = \"v1\" } }\n\
         algorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\n\
         content = \"{timestamp}.{body}\"\n\
         [provider.brief.timestamp]\nat = { item = \"t\" }\ntolerance = \"1s\"",
    );
    let ingress = stack.ingress().await;
    let url = format!("{}/in/brief", ingress.listen);
    let headers = sign::stripe(sign::now(), BODY.as_bytes());
    let post = async || stack.http.post(&url, &headers, BODY).await.unwrap().reason();
    assert_eq!(post().await, "signature_mismatch");
    stack.replace(
        "[source.brief]\nprovider = \"brief\"\nsecrets = [{ name = \"k1\", secret = \"env:GITHUB\"",
        "[source.brief]\nprovider = \"brief\"\nsecrets = [{ name = \"k1\", secret = \"env:STRIPE_EU\"",
    );
    ingress.process.hang_up();
    eventually("by now it is stale", BOUND, async || {
        (post().await == "timestamp_stale").then_some(())
    })
    .await;
    let kept = async || {
        let listed = json(&stack, &["refused", "list", "--reason", "timestamp_stale"]);
        (!listed["items"].as_array().unwrap().is_empty()).then_some(())
    };
    eventually("both are kept", BOUND, kept).await;
    let admitted = json(&stack, &["refused", "admit", "--source", "brief"]);
    for one in admitted["items"].as_array().unwrap() {
        // A callback that was fresh at its receipt is admitted now. One that arrived too late
        // never is.
        let reason = one["reason"].as_str().unwrap_or_default();
        assert!(one["admitted"] == true || reason == "timestamp_stale", "{admitted}");
    }
    assert_eq!(admitted["items"][0]["admitted"], true, "{admitted}");
    assert!(
        admitted["items"].as_array().unwrap().iter().any(|one| one["admitted"] == false),
        "{admitted}"
    );
}
