//! Redacted values are hidden from everybody who looks, and still delivered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::folder;
use zentra_tests::stack::Stack;
use zentra_tests::world::{BOUND, World, dead};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

use crate::api::Api;

fn done(stack: &Stack, arguments: &[&str]) -> String {
    let done = stack.zentra(arguments);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_seen_in_no_answer_and_no_export_unless_it_is_asked_for_and_then_that_is_audited() {
    let namespace = namespace();
    let world =
        World::start(&shared_rabbit(), &shared_redis(), &namespace, "attempts = 1").await.unwrap();
    let stack = &world.stack;
    stack.replace(
        "[source.acme]\n",
        "[source.acme]\nredact = [\"/amount_minor\", \"header:user-agent\"]\n",
    );
    // It has reloaded its configuration.
    let ingress = stack.ingress().await;
    let _worker = stack.worker().await;
    world.ledger.take_turns([Turn::Answer(400, Vec::new())]);
    let body = transfer("evt_1", "trf_1", 8172);
    let mut headers = sign::acme("evt_1", sign::now(), body.as_bytes());
    headers.push(("user-agent", "ada's phone".into()));
    let url = format!("{}/in/acme", ingress.listen);
    let taken = stack.http.post(&url, &headers, body.clone()).await.unwrap();
    assert!(taken.status.is_success());
    world.until("evt_1", dead).await;
    assert_eq!(world.ledger.seen()[0].body, body, "the destination gets all of it");
    headers.retain(|(name, _)| *name != "webhook-signature");
    headers.push(("webhook-signature", "v1,bm90IGl0".into()));
    assert_eq!(stack.http.post(&url, &headers, body.clone()).await.unwrap().status, 401);
    let refused = eventually("it is kept", BOUND, async || {
        let listed: Value =
            serde_json::from_str(&done(stack, &["refused", "list", "--json"])).ok()?;
        Some(listed["items"][0]["id"].as_str()?.to_owned())
    })
    .await;

    let shows = [["dead", "show", "evt_1"], ["archive", "show", "evt_1"]];
    for show in shows.into_iter().chain([["refused", "show", &refused]]) {
        let seen = done(stack, &[&show[..], &["--body"]].concat());
        assert!(seen.contains("trf_1") && seen.contains("[redacted]"), "{seen}");
        assert!(!seen.contains("8172"), "{seen}");
        let all = [&show[..], &["--body", "--unredacted", "--by", "ada"]].concat();
        assert_eq!(done(stack, &all), body);
    }
    let audit = done(stack, &["audit"]);
    assert_eq!(audit.matches("ada  ").count(), 3, "{audit}");
    assert!(audit.contains("ada  dead show body unredacted evt_1"), "{audit}");
    for printed in [
        done(stack, &["event", "show", "evt_1", "--json"]),
        done(stack, &["event", "show", "evt_1", "--case-file", "-"]),
        done(stack, &["refused", "show", &refused]),
        done(stack, &["refused", "show", &refused, "--json"]),
        done(stack, &["refused", "list", "--json"]),
    ] {
        assert!(!printed.contains("ada's phone"), "{printed}");
    }

    let api = Api::start(stack).await;
    let eve = api.token(&["eve", "--payloads"]);
    for path in ["dead/evt_1", "archive/evt_1", &format!("refused/{refused}")] {
        let headers = vec![("authorization", format!("Bearer {eve}"))];
        let url = api.url(&format!("/v1/{path}/body"));
        let answer = stack.http.send(Method::GET, &url, &headers, "").await.unwrap();
        assert!(answer.body.contains("[redacted]") && !answer.body.contains("8172"), "{answer:?}");
    }
    // A search would reveal a redacted value character by character.
    for (text, found) in [("817", 0), ("trf_1", 1)] {
        let (_, matches) = api.get(&format!("/v1/find?text={text}"), &eve).await;
        let counts = ["events", "refused"].map(|of| matches[of].as_array().unwrap().len());
        assert_eq!(counts, [found, found], "{text}: {matches}");
        let searched = stack.zentra(&["event", "find", text, "--by", "eve"]);
        assert_eq!(searched.status.code(), Some(1 - i32::try_from(found).unwrap()), "{searched:?}");
    }
    let all = done(stack, &["event", "find", "817", "--unredacted", "--by", "ada"]);
    assert!(all.contains("dead letters of ledger") && all.contains("refused show"), "{all}");
    let audit = done(stack, &["audit"]);
    for line in ["ada  event find unredacted 817", "eve  event find trf_1"] {
        assert!(audit.contains(line), "{line}: {audit}");
    }

    let exported = folder("export").join("dead.jsonl");
    let drain = ["dead", "drain", "evt_1", "--because", "x", "--export"];
    done(stack, &[&drain[..], &[exported.to_str().unwrap()]].concat());
    let line: Value = serde_json::from_str(&std::fs::read_to_string(exported).unwrap()).unwrap();
    let bytes = STANDARD.decode(line["body_base64"].as_str().unwrap()).unwrap();
    let bytes = String::from_utf8(bytes).unwrap();
    assert!(bytes.contains("[redacted]") && !bytes.contains("8172"), "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pointer_and_no_header_is_told_by_the_check() {
    let stack = Stack::new("amqp://a/", "redis://a", &namespace(), "http://127.0.0.1:9/", "");
    stack.replace("[source.acme]\n", "[source.acme]\nredact = [\"amount\"]\n");
    let printed = String::from_utf8(stack.zentra(&["check"]).stderr).unwrap();
    assert!(printed.contains("source.acme.redact: must be JSON pointers"), "{printed}");
    assert!(printed.contains("\"amount\" is none of them"), "{printed}");
}
