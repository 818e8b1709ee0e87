//! What somebody can do who can write to the broker and read it, but has no seal key.

use std::time::Duration;

use webhook_verify::Secret;
use zentra_config::ClientTls;
use zentra_core::event::{DeliveryKey, Envelope, Event, Identity};
use zentra_core::lifecycle::DeadReason;
use zentra_core::seal::{Key, Sealer};
use zentra_rabbitmq::Amqp;
use zentra_redis::RedisJournal;
use zentra_store::journal::{DeliveryStore, HistoryEvent};
use zentra_store::queue::{Message, Operate, Place, Process, Walk};
use zentra_tests::world::{BOUND, RETENTION};
use zentra_tests::{eventually, one_server, queue_settings};

use crate::identity::{Site, source};

/// A source whose callbacks go to `app`, and a destination that subscribes to none of them.
async fn site() -> (Site, Amqp) {
    let other =
        "[destination.other]\ntimeout = \"1s\"\nurl = \"ANY\"\nsubscribe = [\"s.deployment\"]\n";
    let site = Site::start(false, &format!("{}{other}", source("github", ""))).await;
    let settings = queue_settings(&site.stack.rabbit, &site.stack.namespace);
    let queue = Amqp::publisher(settings, "test");
    tokio::time::timeout(BOUND, queue.connected()).await.unwrap().unwrap();
    (site, queue)
}

async fn letter(queue: &Amqp, destination: &str) -> Message {
    eventually("a dead letter", BOUND, async || {
        let mut walk = queue.walk(Place::Dead(destination)).await.ok()?;
        let found = walk.next().await.ok()?.map(|(message, _)| message);
        walk.finish().await.ok()?;
        found
    })
    .await
}

/// The seal keys of the stack.
fn sealer() -> Sealer {
    let key = Key { name: "test".into(), secret: Secret::new("0123456789abcdef0123456789abcdef") };
    Sealer::new(vec![key]).unwrap()
}

/// A delivered event, as it looks beside a suspected replay of it.
async fn delivered_event(site: &Site, queue: &Amqp) -> Event {
    let body = r#"{"ref":"main"}"#;
    site.github("push", "d0", body).await;
    site.until("the push", 1, 0, 0).await;
    site.github("push", "d1", body).await;
    site.until("a suspected replay", 1, 0, 1).await;
    let mut event = sealer().open(&letter(queue, "app").await.sealed).unwrap();
    event.envelope.set_apart = None;
    event.envelope.unsigned_id = Some("d0".into());
    event
}

async fn until_line(site: &Site, what: &str, count: usize) {
    eventually(&format!("{count} lines {what}"), BOUND, async || {
        let all = site.deliveries();
        let lines = all.iter().filter_map(|one| one["history"].as_array()).flatten();
        (lines.filter(|line| line["what"] == what).count() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_generation_nor_attempt_nor_reason_of_a_suspected_replay_can_be_raised() {
    let (site, queue) = site().await;
    let body = r#"{"ref":"main"}"#;
    site.github("push", "d0", body).await;
    site.until("the push", 1, 0, 0).await;
    site.github("push", "d1", body).await;
    site.until("a suspected replay", 1, 0, 1).await;
    let kept = letter(&queue, "app").await;
    let raised = [(1, 1), (7, 1), (0, 5), (u32::MAX, u32::MAX)];
    for (generation, attempt) in raised {
        let forged = Message { generation, attempt, dead: None, ..kept.clone() };
        queue.requeue("app", &forged).await.unwrap();
    }
    until_line(&site, "duplicate_dead", raised.len()).await;
    site.until("still one request", 1, 0, 1).await;
    // Under another reason it is still what its seal says.
    let dead = DeadReason::Exhausted;
    queue.dead("app", &Message { generation: 3, ..kept }, dead, None).await.unwrap();
    let requeued = site.stack.zentra(&["dead", "requeue", "--all", "--yes", "--json"]);
    assert!(requeued.status.success(), "{requeued:?}");
    let printed: serde_json::Value = serde_json::from_slice(&requeued.stdout).unwrap();
    assert_eq!((&printed["done"], &printed["unsuited"]), (&0.into(), &2.into()), "{printed}");
    site.until("still one request", 1, 0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_signature_is_lost_goes_on_where_the_journal_has_it() {
    let (site, queue) = site().await;
    let mut event = delivered_event(&site, &queue).await;
    let (_, sealed) = sealer().seal(event.clone()).unwrap();
    // As an older version forwards them, and anybody else could. What is delivered stays
    // delivered.
    for (generation, attempt) in [(0, 2), (1, 1)] {
        let unsigned = Message { generation, attempt, ..Message::new(sealed.clone()) };
        queue.requeue("app", &unsigned).await.unwrap();
    }
    site.until("one request", 1, 2, 1).await;
    // An event that the delivery store does not know begins with its first attempt.
    event.envelope.identity = Identity::from_text("unknown");
    let (_, sealed) = sealer().seal(event).unwrap();
    let (generation, attempt) = (u32::MAX, u32::MAX);
    let unsigned = Message { generation, attempt, ..Message::new(sealed) };
    queue.requeue("app", &unsigned).await.unwrap();
    site.until("another request", 2, 2, 1).await;
    let all = site.deliveries();
    let begun = all.iter().find(|one| one["key"] == "app/s/unknown").unwrap();
    let record = &begun["record"];
    assert_eq!((&record["generation"], &record["attempt"]), (&0.into(), &1.into()), "{begun}");
    // What an operator released is processed, whether or not it is countersigned.
    let dead = all.iter().find(|one| one["record"]["state"] == "dead").unwrap();
    let key = DeliveryKey::parse(dead["key"].as_str().unwrap()).unwrap();
    let server = one_server(site.stack.redis.as_str());
    let journal =
        RedisJournal::new(&server, &ClientTls::default(), &site.stack.namespace, RETENTION)
            .unwrap();
    let released = HistoryEvent::Released { reason: "by an older version".into() };
    journal.note(&key, 1, "ada", &released).await.unwrap();
    let kept = letter(&queue, "app").await;
    for generation in [2, 1] {
        let unsigned = Message { generation, dead: None, ..kept.clone() };
        queue.requeue("app", &unsigned).await.unwrap();
    }
    site.until("released", 3, 2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_no_destination_that_does_not_subscribe_to_it() {
    let (site, queue) = site().await;
    let sealer = sealer();
    let mut event = delivered_event(&site, &queue).await;
    let Envelope { received_at, .. } = event.envelope;
    let (_, new) = sealer.seal(event.clone()).unwrap();
    event.envelope.received_at = received_at.minus(Duration::from_secs(3600));
    let (_, old) = sealer.seal(event).unwrap();
    // A new event waits, because its worker may still learn of a subscription. An old one does
    // not.
    queue.requeue("other", &Message::new(new.clone())).await.unwrap();
    queue.requeue("other", &Message::new(old)).await.unwrap();
    site.until("the old one is dead", 1, 0, 2).await;
    let dead = letter(&queue, "other").await;
    assert_eq!(dead.dead, Some(DeadReason::NotSubscribed));
    // Nor by an operator who requeues all dead letters, unless the delivery store knows them.
    let requeue = ["dead", "requeue", "--all", "--destination", "other", "--yes", "--json"];
    let requeued = site.stack.zentra(&requeue);
    assert!(requeued.status.success(), "{requeued:?}");
    site.until("sent by an operator", 2, 0, 1).await;
    site.github("push", "d2", r#"{"ref":"next"}"#).await;
    site.until("another push", 3, 0, 1).await;
    let strange = sealer.open(&new).map(|mut event| {
        event.envelope.identity = Identity::from_text("unknown");
        sealer.seal(event).unwrap().1
    });
    let strange = Message::new(strange.unwrap());
    queue.dead("other", &strange, DeadReason::Exhausted, None).await.unwrap();
    let requeued = site.stack.zentra(&requeue);
    let printed: serde_json::Value = serde_json::from_slice(&requeued.stdout).unwrap();
    assert_eq!((&printed["done"], &printed["unsuited"]), (&0.into(), &1.into()), "{printed}");
    site.until("nothing more", 3, 0, 1).await;
}
