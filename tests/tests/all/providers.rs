//! What providers do beside sending one event with one signature.

use std::time::Duration;

use zentra_shared::journal::Histories;
use zentra_tests::http::Answer;
use zentra_tests::ledger::transfer;
use zentra_tests::world::{BOUND, World, is_copy};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

/// GoCardless signs a body of several events.
const SEVERAL: &str = r#"
[source.several]
provider = "gocardless"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
"#;

async fn world(source: &str, subscribe: &str) -> World {
    let (rabbit, redis) = (shared_rabbit(), shared_redis());
    let mut world = World::start(&rabbit, &redis, &namespace(), "attempts = 3").await.unwrap();
    world.stack.replace("\"github.#\"]", &format!("\"github.#\", \"{subscribe}\"]"));
    world.stack.add(source);
    world.ingress = world.stack.ingress().await;
    world
}

async fn several(world: &World, body: &str) -> Answer {
    let signature = sign::plain(sign::GITHUB_SECRET, body);
    let url = format!("{}/in/several", world.ingress.listen);
    let headers = vec![("webhook-signature", signature)];
    world.stack.http.post(&url, &headers, body.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_callback_is_run_once_however_it_comes_together() {
    let world = world(SEVERAL, "several.#").await;
    let _worker = world.stack.worker().await;
    let items: Vec<String> =
        (1..=3).map(|n| transfer(&format!("EV{n}"), &format!("trf_{n}"), n)).collect();
    let [one, two, three] = &items[..] else { unreachable!() };
    let bodies = [
        format!("{{\"events\":[{one},{two}]}}"),
        format!("{{\"meta\":{{}},\"events\": [ {two}\n, {three} ] }}"),
        format!("{{ \"events\" :[{three},{one}] }}\r\n"),
        "{\"events\":[]}".to_owned(),
    ];
    for body in &bodies {
        let answer = several(&world, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let key = |n: usize| format!("ledger/several/EV{n}");
    let second = world.journal.find("EV2", &[("ledger", "several")]).await.unwrap().remove(0);
    eventually("each has come twice", BOUND, async || {
        let history = world.journal.history(&second).await.unwrap()?;
        history.history.iter().any(|entry| is_copy(&entry.what)).then_some(())
    })
    .await;
    eventually("all are in the ledger", Duration::from_secs(10), async || {
        let rows = world.ledger.rows().unwrap();
        (rows.len() == 3).then_some(())
    })
    .await;
    let rows: Vec<String> = world.ledger.rows().unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(rows, [key(1), key(2), key(3)]);
    for seen in world.ledger.seen() {
        let body = String::from_utf8(seen.body.to_vec()).unwrap();
        assert!(items.contains(&body), "{body} isn't as the provider wrote it");
    }
    let shown = world.stack.zentra(&["event", "show", "EV2"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("event 2 of 2 in the callback sha256:"), "{shown}");
    let accepted = ["zentra_ingress_accepted_total", "several"];
    assert_eq!(world.ingress.metric(&world.stack.http, &accepted).await, 6.0);
}
