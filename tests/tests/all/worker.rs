//! The whole way, from a provider's request to a row in the ledger: real binaries, real RabbitMQ
//! and Redis, real crashes.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use zentra_core::event::body_sha256;
use zentra_core::lifecycle::{DeadReason, State};
use zentra_store::journal::{Delivery, DeliveryStore, HistoryEvent};
use zentra_tests::ledger::{Turn, transfer};
use zentra_tests::services::{self};
use zentra_tests::world::{BOUND, World, count, dead, delivered, is_copy};
use zentra_tests::{eventually, namespace, shared_rabbit, shared_redis, sign};

const QUICK: &str = r#"attempts = 3, initial = "250ms", multiplier = 1.0, jitter = 0.0"#;

async fn world(redis: &str) -> World {
    World::start(&shared_rabbit(), redis, &namespace(), QUICK).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_give_one_row_with_the_exact_bytes_and_the_copies_are_recorded() {
    let world = world(&shared_redis()).await;
    let worker = world.stack.worker().await;
    let body = transfer("evt_1", "trf_8172", 125_000);
    for _ in 0..3 {
        world.send("evt_1", &body).await;
    }
    let copies = |d: &Delivery| count(d, is_copy);
    let done = world.until("evt_1", |d| delivered(d) && copies(d) == 2).await;
    assert_eq!(done.key.as_str(), "ledger/acme/evt_1");
    let rows = world.ledger.rows().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].key, "ledger/acme/evt_1");
    assert_eq!((rows[0].transfer.as_str(), rows[0].amount_minor), ("trf_8172", 125_000));
    assert_eq!(rows[0].body, body.as_bytes());

    let seen = world.ledger.seen();
    assert_eq!(seen.len(), 1, "a copy never reaches the destination");
    assert_eq!(seen[0].header("zentra-attempt"), "1");
    assert_eq!(seen[0].header("content-type"), "application/json");
    for (name, value) in
        [("specversion", "1.0"), ("id", "evt_1"), ("source", "acme"), ("type", "transfer.settled")]
    {
        assert_eq!(seen[0].header(&format!("ce-{name}")), value);
    }
    let (id, time) = (seen[0].header("webhook-id"), seen[0].header("webhook-timestamp"));
    let expected = sign::standard(sign::LEDGER_SECRET, id, time.parse().unwrap(), body.as_bytes());
    assert_eq!(seen[0].header("webhook-signature"), expected);
    let duplicates = ["zentra_worker_duplicates_total", "of=\"delivered\""];
    assert_eq!(worker.metric(&world.stack.http, &duplicates).await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_under_a_known_id_is_recorded_and_has_no_effect() {
    let world = world(&shared_redis()).await;
    let worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    world.until("evt_1", delivered).await;
    let other = transfer("evt_1", "trf_1", 2);
    world.send("evt_1", &other).await;
    let printed = HistoryEvent::Conflict { body_sha256: body_sha256(other.as_bytes()) };
    world.until("evt_1", |d| delivered(d) && count(d, |what| *what == printed) == 1).await;
    let rows = world.ledger.rows().unwrap();
    assert_eq!((rows.len(), rows[0].amount_minor), (1, 1));
    assert_eq!(worker.metric(&world.stack.http, &["zentra_worker_conflicts_total"]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_claim_of_a_running_attempt_is_renewed() {
    let mut world = world(&shared_redis()).await;
    world.ledger.take_turns([Turn::Hang]);
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    tokio::time::timeout(BOUND, world.ledger.hung.recv()).await.unwrap();
    let first = world.delivery("evt_1").await.unwrap().record;
    assert_eq!(first.state, State::InFlight);
    let later = |d: &Delivery| d.record.fence == first.fence && d.record.until > first.until;
    world.until("evt_1", later).await;
    world.until("evt_1", delivered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_tried_again_under_the_same_key_and_the_history_tells_both() {
    let world = world(&shared_redis()).await;
    world.ledger.take_turns([Turn::Answer(500, Vec::new())]);
    let worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let done = world.until("evt_1", delivered).await;
    let what: Vec<&HistoryEvent> = done.history.iter().map(|entry| &entry.what).collect();
    let [
        HistoryEvent::Claimed { .. },
        HistoryEvent::Failed { result: failed, .. },
        HistoryEvent::Claimed { reclaimed: false, .. },
        HistoryEvent::Delivered { result: succeeded, .. },
    ] = what[..]
    else {
        panic!("{what:#?}");
    };
    assert_eq!((failed.status, failed.response.as_deref()), (Some(500), Some("not now")));
    assert_eq!(succeeded.status, Some(200));
    let keys: Vec<_> =
        world.ledger.seen().iter().map(|s| s.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, ["ledger/acme/evt_1"; 2]);
    assert_eq!(world.ledger.seen()[1].header("zentra-attempt"), "2");
    assert_eq!(worker.metric(&world.stack.http, &["zentra_worker_retries_total"]).await, 1.0);
    let failed = ["zentra_worker_attempts_total", "outcome=\"failed\""];
    assert_eq!(worker.metric(&world.stack.http, &failed).await, 1.0);
    for (metric, value) in [
        ("zentra_worker_delivered_attempts_sum", 2.0),
        ("zentra_worker_delivery_seconds_count", 1.0),
        ("zentra_worker_retry_delay_seconds_count", 1.0),
        ("zentra_worker_in_flight", 0.0),
        ("zentra_worker_store_up", 1.0),
    ] {
        assert_eq!(worker.metric(&world.stack.http, &[metric]).await, value, "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_and_after_a_permanent_answer_a_delivery_is_dead() {
    let world = world(&shared_redis()).await;
    world.ledger.take_turns((0..3).map(|_| Turn::Answer(502, Vec::new())));
    let worker = world.stack.worker().await;
    world.send("evt_exhausted", &transfer("evt_exhausted", "trf_1", 1)).await;
    let exhausted = world.until("evt_exhausted", dead).await;
    assert_eq!(exhausted.reason, Some(DeadReason::Exhausted));
    assert_eq!(exhausted.record.attempt, 3);
    assert_eq!(count(&exhausted, |what| matches!(what, HistoryEvent::Failed { .. })), 2);

    world.send("evt_permanent", r#"{"not": "a transfer"}"#).await;
    let permanent = world.until("evt_permanent", dead).await;
    assert_eq!(permanent.reason, Some(DeadReason::Permanent));
    assert_eq!(permanent.record.attempt, 1);
    let listed = world.journal.dead("ledger", 10, &|_| true).await.unwrap();
    assert_eq!(listed.len(), 2);
    for reason in ["exhausted", "permanent"] {
        let parts = ["zentra_worker_dead_letters_total", reason];
        assert_eq!(worker.metric(&world.stack.http, &parts).await, 1.0, "{reason}");
    }
    let metric = async |parts: &[&str]| worker.metric(&world.stack.http, parts).await;
    eventually("both are seen", BOUND, async || {
        let seen = metric(&["zentra_queue_messages", "\"dead\""]).await == 2.0
            && metric(&["zentra_worker_oldest_dead_timestamp_seconds"]).await > 1e9;
        seen.then_some(())
    })
    .await;
    // A copy of a dead letter has no effect.
    world.send("evt_permanent", r#"{"not": "a transfer"}"#).await;
    world
        .until("evt_permanent", |d| count(d, |w| matches!(w, HistoryEvent::DuplicateDead)) == 1)
        .await;
    assert!(world.ledger.rows().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_right_after_the_write_leaves_one_row_and_another_worker_finishes() {
    let mut world = world(&shared_redis()).await;
    world.ledger.take_turns([Turn::WriteAndHang]);
    let mut doomed = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    tokio::time::timeout(BOUND, world.ledger.hung.recv()).await.unwrap();
    doomed.process.kill();
    let _heir = world.stack.worker().await;
    let done = world.until("evt_1", delivered).await;
    assert_eq!(
        count(&done, |what| matches!(what, HistoryEvent::Claimed { reclaimed: true, .. })),
        1
    );
    assert_eq!(world.ledger.seen().len(), 2);
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_worker_after_worker_is_given_up_and_goes_on_when_an_operator_says_so() {
    let world = world(&shared_redis()).await;
    world.stack.replace("lease = \"2s\"", "lease = \"1s\"");
    world.stack.replace("timeout = \"1s\"", "timeout = \"500ms\"");
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    for _ in 0..10 {
        let mut command = world.stack.command("zentra-test-dying-worker");
        command.env("DOOM_AT", "claimed");
        let mut doomed = services::start(command);
        let died = || std::future::ready(doomed.has_ended().then_some(()));
        eventually("a worker dies of it", BOUND, died).await;
    }
    let worker = world.stack.worker().await;
    let given_up = world.until("evt_1", dead).await;
    assert_eq!(given_up.reason, Some(DeadReason::Crashed));
    assert_eq!(given_up.record.attempt, 1, "no attempt is burnt");
    assert_eq!(
        count(&given_up, |what| matches!(what, HistoryEvent::Claimed { reclaimed: true, .. })),
        10
    );
    assert!(world.ledger.seen().is_empty());
    let parts = ["zentra_worker_dead_letters_total", "crashed"];
    assert_eq!(worker.metric(&world.stack.http, &parts).await, 1.0);

    let requeued = world.stack.zentra(&["dead", "requeue", "--reason", "crashed", "--yes"]);
    assert!(requeued.status.success(), "{requeued:?}");
    assert_eq!(world.until("evt_1", delivered).await.record.generation, 1);
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_meets_a_running_attempt_waits_and_has_no_effect() {
    let mut world = world(&shared_redis()).await;
    // The hang ends with the destination's timeout of one second, as a failed attempt.
    world.ledger.take_turns([Turn::WriteAndHang]);
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    tokio::time::timeout(BOUND, world.ledger.hung.recv()).await.unwrap();
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let copies = |d: &Delivery| count(d, is_copy);
    let done = world.until("evt_1", |d| delivered(d) && copies(d) == 1).await;
    assert_eq!(count(&done, |what| matches!(what, HistoryEvent::Busy)), 1);
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_or_has_a_broken_seal_is_dead_lettered_and_never_attempted() {
    let world = world(&shared_redis()).await;
    let _worker = world.stack.worker().await;
    let connection = Connection::connect(&world.stack.rabbit, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut forged = FieldTable::default();
    let text = |value: &str| AMQPValue::LongString(LongString::from(value.as_bytes()));
    forged.insert("zentra-envelope".into(), text(r#"{"v":1,"source":"acme"}"#));
    forged.insert("zentra-seal".into(), text("v1,test,AAAA"));
    let forged = BasicProperties::default().with_headers(forged);
    let work = format!("{}.work.ledger", world.stack.namespace);
    for (body, properties) in [("stranger", BasicProperties::default()), ("forged", forged)] {
        let options = BasicPublishOptions::default();
        let (exchange, key) = ("".into(), work.as_str().into());
        let sent = channel.basic_publish(exchange, key, options, body.as_bytes(), properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
    let listed = eventually("both are dead", BOUND, async || {
        let dead = world.journal.dead("ledger", 10, &|_| true).await.unwrap();
        (dead.len() == 2).then_some(dead)
    })
    .await;
    let mut reasons: Vec<_> =
        listed.iter().filter_map(|d| d.reason).map(DeadReason::as_str).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["not_ours", "seal_broken"]);
    assert!(world.ledger.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_nothing_is_attempted_and_nothing_is_lost() {
    let mut redis = services::redis();
    let world = world(&redis.url()).await;
    let worker = world.stack.worker().await;
    redis.kill();
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    eventually("the worker isn't ready", BOUND, async || {
        let ready = world.stack.http.get(&format!("{}/readyz", worker.admin)).await?;
        (!ready.status.is_success()).then_some(())
    })
    .await;
    eventually("the worker has tried to claim", BOUND, async || {
        let failures = ["zentra_worker_step_failures_total", "claim"];
        (worker.metric(&world.stack.http, &failures).await > 0.0).then_some(())
    })
    .await;
    assert!(world.ledger.seen().is_empty());
    redis.restart().unwrap();
    world.until("evt_1", delivered).await;
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

pub(crate) async fn redis_is_told(url: &str, command: &[&str]) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut printed = redis::cmd(command[0]);
    printed.arg(&command[1..]).exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_read_only_or_full_events_wait_and_go_on_by_themselves() {
    let redis = services::redis();
    let url = redis.url();
    redis_is_told(&url, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let world = world(&url).await;
    let worker = world.stack.worker().await;
    let printed = || services::output().contains("set maxmemory-policy noeviction");
    eventually("the wrong setting is logged", BOUND, async || printed().then_some(())).await;
    redis_is_told(&url, &["CONFIG", "SET", "maxmemory", "8mb"]).await;
    let other = "x".repeat(1 << 20);
    for at in 0..12 {
        redis_is_told(&url, &["SET", &format!("other:{at}"), &other]).await;
    }
    eventually("the eviction is in the metrics", BOUND, async || {
        let metric = async |name| worker.metric(&world.stack.http, &[name]).await;
        let [evicted, used, max] = [
            metric("zentra_worker_store_evicted_keys").await,
            metric("zentra_worker_store_used_bytes").await,
            metric("zentra_worker_store_max_bytes").await,
        ];
        (evicted > 0.0 && used > max / 2.0 && max == f64::from(8 << 20)).then_some(())
    })
    .await;
    redis_is_told(&url, &["CONFIG", "SET", "maxmemory", "0"]).await;
    redis_is_told(&url, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;

    let states: [(&str, &[&str], &[&str]); 2] = [
        ("evt_read_only", &["REPLICAOF", "127.0.0.1", "9"], &["REPLICAOF", "NO", "ONE"]),
        ("evt_full", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
    ];
    let failures = ["zentra_worker_step_failures_total", "claim"];
    for (id, wrong, right) in states {
        redis_is_told(&url, wrong).await;
        let before = worker.metric(&world.stack.http, &failures).await;
        world.send(id, &transfer(id, "trf_1", 1)).await;
        eventually("the worker has tried to claim", BOUND, async || {
            (worker.metric(&world.stack.http, &failures).await > before).then_some(())
        })
        .await;
        assert!(
            world.ledger.seen().iter().all(|seen| !seen.header("idempotency-key").contains(id))
        );
        eventually("it is told as what it is", BOUND, async || {
            let up = worker.metric(&world.stack.http, &["zentra_worker_store_up"]).await;
            let writable =
                worker.metric(&world.stack.http, &["zentra_worker_store_writable"]).await;
            ((up, writable) == (1.0, 0.0)).then_some(())
        })
        .await;
        let ready = world.stack.http.get(&format!("{}/readyz", worker.admin)).await.unwrap();
        assert_eq!(ready.status, 503, "{id}");
        let status = world.stack.zentra(&["status"]);
        let printed = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(!status.status.success() && printed.contains("claims are refused"), "{printed}");
        assert!(!printed.contains("no_worker") && !printed.contains("no heartbeat"), "{printed}");
        redis_is_told(&url, right).await;
        world.until(id, delivered).await;
    }
    assert_eq!(world.ledger.rows().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_granted_so_late_that_an_attempt_might_outlast_it_is_not_acted_on() {
    let redis = services::redis();
    let url = redis.url();
    let world = world(&url).await;
    let worker = world.stack.worker().await;
    world.send("evt_before", &transfer("evt_before", "trf_0", 1)).await;
    world.until("evt_before", delivered).await;
    // Less is left of a lease of 2 s than the second that an attempt may take.
    redis_is_told(&url, &["CLIENT", "PAUSE", "1500"]).await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let done = world.until("evt_1", delivered).await;
    let claims = |what: &HistoryEvent| matches!(what, HistoryEvent::Claimed { .. });
    assert_eq!(count(&done, claims), 2, "{:#?}", done.history);
    assert_eq!(world.ledger.seen().len(), 2);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_has_forgotten_between_two_attempts_is_claimed_anew_and_delivered_once() {
    let redis = services::redis();
    let world = world(&redis.url()).await;
    world.ledger.take_turns([Turn::Answer(500, vec![("retry-after", "2".into())])]);
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let waiting = world.until("evt_1", |d| d.record.state == State::Waiting).await;
    redis_is_told(&redis.url(), &["FLUSHALL"]).await;
    let done = world.until("evt_1", delivered).await;
    assert!(done.record.fence > waiting.record.fence, "the fence has grown all the same");
    assert_eq!(done.record.attempt, 2);
    assert_eq!(world.ledger.rows().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destinations_retry_after_is_honoured_beyond_the_longest_pause() {
    let quick = r#"attempts = 3, initial = "250ms", max = "500ms", jitter = 0.0"#;
    let world = World::start(&shared_rabbit(), &shared_redis(), &namespace(), quick).await.unwrap();
    world.ledger.take_turns([Turn::Answer(429, vec![("retry-after", "2".into())])]);
    let _worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    let done = world.until("evt_1", delivered).await;
    let at = |wanted: fn(&HistoryEvent) -> bool| {
        done.history.iter().find(|e| wanted(&e.what)).unwrap().at
    };
    let failed = at(|what| matches!(what, HistoryEvent::Failed { .. }));
    let delivered = at(|what| matches!(what, HistoryEvent::Delivered { .. }));
    assert!(delivered.since(failed) >= Duration::from_millis(1900), "{:#?}", done.history);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_attempt_end_settles_it_and_acknowledges_it() {
    let mut world = world(&shared_redis()).await;
    world.ledger.take_turns([Turn::WriteAndHang]);
    let mut worker = world.stack.worker().await;
    world.send("evt_1", &transfer("evt_1", "trf_1", 1)).await;
    tokio::time::timeout(BOUND, world.ledger.hung.recv()).await.unwrap();
    let status = tokio::task::spawn_blocking(move || worker.process.terminate(BOUND));
    assert!(status.await.unwrap().unwrap().success());
    // The attempt timed out while the worker was stopping, and was settled as failed.
    let waiting = world.delivery("evt_1").await.unwrap();
    assert_eq!(waiting.record.state, State::Waiting, "{:#?}", waiting.history);
    assert_eq!(waiting.record.attempt, 2);
    // Its message was acknowledged before the exit, so it is not delivered again as a copy.
    let mut worker = world.stack.worker().await;
    world.until("evt_1", delivered).await;
    let status = tokio::task::spawn_blocking(move || worker.process.terminate(BOUND));
    assert!(status.await.unwrap().unwrap().success());
    let done = world.delivery("evt_1").await.unwrap();
    assert_eq!(count(&done, is_copy), 0, "{:#?}", done.history);
}
