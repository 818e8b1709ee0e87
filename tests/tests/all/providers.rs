//! Provider behaviour beyond one event with one signature.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zentra_store::journal::DeliveryStore;
use zentra_tests::http::Answer;
use zentra_tests::ledger::transfer;
use zentra_tests::world::{BOUND, World, is_copy};
use zentra_tests::{eventually, namespace, services, shared_rabbit, shared_redis, sign};

use crate::standalone::{Shop, words};

/// GoCardless signs a body with several events.
const SEVERAL: &str = r#"
[source.several]
provider = "gocardless"
secrets = [{ name = "k1", secret = "env:GITHUB" }]
"#;

/// With more sources, and a ledger that subscribes to them.
pub(crate) async fn world(source: &str, subscribe: &str) -> World {
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

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_verified_as_they_were_sent_and_headers_that_are_no_text_are_refused() {
    let world = world(SEVERAL, "several.#").await;
    let _worker = world.stack.worker().await;
    let url = format!("{}/in/github", world.ingress.listen);
    let post = async |body: Vec<u8>, more: &[(&'static str, &str)]| {
        let mut headers = sign::github("d-1", "push", &body);
        headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        world.stack.http.post(&url, &headers, body).await.unwrap()
    };
    // Compressed: the signed bytes also reach the destination.
    let zipped =
        hex::decode("1f8b08000000000000ffaa560a492d2e51b252502a2d4e2d5202000000ffff").unwrap();
    let answer = post(zipped.clone(), &[("content-encoding", "gzip")]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("it has come as it was", BOUND, async || {
        world.ledger.seen().iter().any(|seen| seen.body == zipped).then_some(())
    })
    .await;
    assert_eq!(post(Vec::new(), &[]).await.status, 200, "an empty body is signed, too");

    // In chunks, and with a signature that is not text.
    let body = "{\"n\":1}";
    let signature = sign::plain(sign::GITHUB_SECRET, body);
    let raw = async |head: &[u8], body: &str| {
        let address = world.ingress.listen.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let start =
            b"POST /in/github HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-hub-signature-256: ";
        stream.write_all(&[&start[..], head, b"\r\n", body.as_bytes()].concat()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let chunks = "transfer-encoding: chunked\r\n\r\n3\r\n{\"n\r\n4\r\n\":1}\r\n0\r\n\r\n";
    let signed = format!("sha256={signature}");
    let answer = raw(signed.as_bytes(), chunks).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let whole = format!("content-length: {}\r\n\r\n{body}", body.len());
    let spaced = format!("{signed} \t");
    assert!(
        raw(spaced.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"),
        "white space at the end"
    );
    let upper = format!("sha256={}", signature.to_uppercase());
    assert!(raw(upper.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"), "another case");
    for bad in
        [b"sha256=\xff\xfe".to_vec(), b"".to_vec(), format!("SHA256={signature}").into_bytes()]
    {
        let answer = raw(&bad, &whole).await;
        assert!(answer.contains("signature_malformed"), "{bad:?}: {answer}");
    }
    let twice = format!("{signed}\r\nx-hub-signature-256: sha256={}", "0".repeat(64));
    assert!(raw(twice.as_bytes(), &whole).await.starts_with("HTTP/1.1 200"), "one of them fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_fails_in_the_middle_of_a_batch_gets_it_again_and_each_is_run_once() {
    let (rabbit, redis) = (services::rabbit(), shared_redis());
    let mut world =
        World::start(&rabbit.url(), &redis, &namespace(), "attempts = 3").await.unwrap();
    world.stack.replace("\"github.#\"]", "\"github.#\", \"several.#\"]");
    world.stack.add(SEVERAL);
    world.ingress = world.stack.ingress().await;
    let _worker = world.stack.worker().await;
    let items: Vec<String> =
        (0..600).map(|n| transfer(&format!("EV{n}"), &format!("trf_{n}"), 1)).collect();
    let body = format!("{{\"events\":[{}]}}", items.join(","));
    // It accepts what was sent to it while it was stopped: the provider does not know that it was.
    rabbit.freeze();
    let answer = several(&world, &body).await;
    rabbit.thaw();
    assert_eq!(
        (answer.status.as_u16(), &*answer.reason()),
        (503, "queue_unavailable"),
        "{answer:?}"
    );
    eventually("a part of it has come through", BOUND, async || {
        (!world.ledger.rows().unwrap().is_empty()).then_some(())
    })
    .await;
    eventually("all of it is taken", BOUND, async || {
        several(&world, &body).await.status.is_success().then_some(())
    })
    .await;
    eventually("all are in the ledger", BOUND, async || {
        (world.ledger.rows().unwrap().len() == items.len()).then_some(())
    })
    .await;
    let first = world.journal.find("EV0", &[("ledger", "several")]).await.unwrap().remove(0);
    eventually("those that had come through were copies", BOUND, async || {
        let history = world.journal.history(&first).await.unwrap()?;
        history.history.iter().any(|entry| is_copy(&entry.what)).then_some(())
    })
    .await;
    assert_eq!(world.ledger.rows().unwrap().len(), items.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_file_a_batch_is_split_just_as_well() {
    let shop = Shop::with("", "", "shop", "").await;
    shop.stack.replace("\"github.#\"]", "\"github.#\", \"several.#\"]");
    shop.stack.add(SEVERAL);
    let program = shop.stack.standalone().await;
    let (one, two) = (transfer("EV1", "trf_1", 1), transfer("EV2", "trf_2", 2));
    let body = format!("{{\"events\": [{one} , {two}]}}");
    let headers = vec![("webhook-signature", sign::plain(sign::GITHUB_SECRET, &body))];
    let url = format!("{}/in/several", program.listen);
    for _ in 0..2 {
        let answer = shop.stack.http.post(&url, &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for id in ["EV1", "EV2"] {
        shop.until(id, "delivered").await;
    }
    eventually("both have come twice", BOUND, async || {
        let shown = shop.until("EV2", "delivered").await;
        words(&shown).contains(&"duplicate").then_some(())
    })
    .await;
    let shown = shop.stack.zentra(&["event", "show", "EV2"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("event 2 of 2 in the callback sha256:"), "{shown}");
    let mut bodies: Vec<_> = shop.ledger.seen().into_iter().map(|seen| seen.body).collect();
    bodies.sort();
    assert_eq!(bodies, [one, two]);
}
