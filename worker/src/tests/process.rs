use std::time::Duration;

use bytes::Bytes;
use zentra_core::clock;
use zentra_core::event::{Identity, SetApart};
use zentra_core::seal::{Domain, Sealed};
use zentra_store::queue::Message;

use super::{Bench, LEASE, countersigned, event, message, sealer};
use crate::deliver::handler::Failed;

#[tokio::test(start_paused = true)]
async fn what_is_delivered_is_settled_before_it_is_acknowledged() {
    let bench = Bench::new(|_| Ok(()));
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    assert_eq!(steps, ["claim 0/1: granted", "attempt 1", "settle delivered", "ack"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_acknowledged_and_has_no_effect() {
    let bench = Bench::new(|_| Ok(()));
    bench.handle(message(event("evt_1", "{}"))).await;
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    assert_eq!(steps, ["claim 0/1: done", "ack"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_confirmed_for_later_before_it_is_settled() {
    let bench = Bench::new(|attempt| match attempt {
        1 => Err(Failed::again("no")),
        _ => Ok(()),
    });
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    let expected =
        ["claim 0/1: granted", "attempt 1", "retry attempt 2 in 5s", "settle retry", "ack"];
    assert_eq!(steps, expected);
    let steps = bench.handle(bench.published()).await;
    assert_eq!(steps, ["claim 0/2: granted", "attempt 2", "settle delivered", "ack"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_that_fails_and_a_permanent_one_are_dead_letters() {
    let bench = Bench::new(|_| Err(Failed::again("no")));
    let mut next = message(event("evt_1", "{}"));
    for _ in 0..2 {
        bench.handle(next).await;
        next = bench.published();
    }
    let expected = ["claim 0/3: granted", "attempt 3", "dead exhausted", "settle dead", "ack"];
    assert_eq!(bench.handle(next).await, expected);

    let bench = Bench::new(|_| Err(Failed::permanent("never")));
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    let expected = ["claim 0/1: granted", "attempt 1", "dead permanent", "settle dead", "ack"];
    assert_eq!(steps, expected);
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    assert_eq!(steps, ["claim 0/1: dead", "ack"], "a copy of a dead letter");
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_a_handler_asks_for_is_kept() {
    let bench = Bench::new(|_| Err(Failed::after(Duration::from_secs(600), "later")));
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    assert_eq!(steps[2], "retry attempt 2 in 600s");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_meets_a_running_claim_is_deferred_past_the_lease() {
    let bench = Bench::new(|_| Ok(()));
    let one = message(event("evt_1", "{}"));
    let opened = zentra_store::delivery::open(&sealer(), "ledger", &one.sealed);
    claim(&bench, &opened).await;
    let steps = bench.handle(one).await;
    assert_eq!(steps[0], "claim 0/1: busy");
    assert!(steps[1].starts_with("retry attempt 1 in "), "{steps:?}");
    assert_eq!(steps[2..], ["ack"]);
}

/// Another worker's claim.
async fn claim(bench: &Bench, opened: &zentra_store::delivery::OpenedMessage) {
    use zentra_store::journal::{Claim, Journal};
    let claim = Claim {
        key: &opened.key,
        generation: 0,
        attempt: 1,
        lease: LEASE,
        worker: "worker-2",
        fingerprint: &opened.fingerprint,
        summary: &opened.summary,
        retention: LEASE,
    };
    bench.journal.claim(&claim).await.unwrap();
    bench.log.take();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_while_rabbitmq_or_the_store_is_away() {
    let bench = Bench::new(|_| Err(Failed::again("no")));
    bench.journal.failing.next(2);
    bench.queue.failing.next(2);
    let steps = bench.handle(message(event("evt_1", "{}"))).await;
    let expected = [
        "claim: away",
        "claim: away",
        "claim 0/1: granted",
        "attempt 1",
        "retry attempt 2 in 5s: blocked",
        "retry attempt 2 in 5s: blocked",
        "retry attempt 2 in 5s",
        "settle retry",
        "ack",
    ];
    assert_eq!(steps, expected);
    // One that stops meanwhile gives the message back.
    bench.queue.failing.next(u32::MAX);
    let stop = bench.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.cancel();
    });
    let steps = bench.handle(message(event("evt_2", "{}"))).await;
    assert_eq!(steps.last().unwrap(), "give back");
    assert!(!steps.iter().any(|step| step == "ack" || step.starts_with("settle")), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_seal_fits_is_a_dead_letter_and_never_attempted() {
    let bench = Bench::new(|_| Ok(()));
    let mut altered = message(event("evt_1", "{}"));
    altered.sealed.body = Bytes::from_static(b"[]");
    let expected = ["claim 0/1: granted", "dead seal_broken", "settle dead", "ack"];
    assert_eq!(bench.handle(altered).await, expected);
    let foreign = Message::new(Sealed {
        envelope: Bytes::new(),
        seal: String::new(),
        body: Bytes::from_static(b"hello"),
        route: String::new(),
        id: String::new(),
        trace: None,
    });
    let expected = ["claim 0/1: granted", "dead not_ours", "settle dead", "ack"];
    assert_eq!(bench.handle(foreign).await, expected);
}

#[tokio::test(start_paused = true)]
async fn another_body_under_a_known_id_is_set_apart_unless_its_provider_renders_retries() {
    let bench = Bench::new(|_| Ok(()));
    bench.handle(message(event("evt_1", "{}"))).await;
    let steps = bench.handle(message(event("evt_1", "[]"))).await;
    let expected =
        ["claim 0/1: conflict", "claim 0/1: granted", "dead conflict", "settle dead", "ack"];
    assert_eq!(steps, expected);
    let kept = sealer().open(&bench.published().sealed).unwrap();
    assert!(matches!(kept.envelope.set_apart, Some(SetApart::Body { .. })));
    assert_eq!(kept.body, "[]");

    let mut rendered = event("evt_1", "[1]");
    rendered.envelope.renders_retries = true;
    assert_eq!(bench.handle(message(rendered)).await, ["claim 0/1: conflict", "ack"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_under_another_unsigned_id_are_kept_five_times() {
    let bench = Bench::new(|_| Ok(()));
    let under = |id: String| {
        let mut event = event("evt_1", "{}");
        event.envelope.identity = Identity::from_digest(b"signed bytes");
        event.envelope.unsigned_id = Some(id);
        message(event)
    };
    bench.handle(under("first".into())).await;
    for number in 0..5 {
        let steps = bench.handle(under(format!("replay-{number}"))).await;
        assert_eq!(steps[0], "claim 0/1: suspected");
        assert_eq!(steps[2..], ["dead suspected_replay", "settle dead", "ack"], "{number}");
    }
    let steps = bench.handle(under("replay-5".into())).await;
    assert_eq!(steps, ["claim 0/1: suspected", "ack"], "the sixth is only counted");
}

#[tokio::test(start_paused = true)]
async fn of_the_same_bytes_in_an_hour_five_are_delivered() {
    let bench = Bench::new(|_| Ok(()));
    for number in 0..6 {
        let mut event = event(&format!("evt_{number}"), "{}");
        event.envelope.same_bytes = Some(Identity::from_digest(b"same"));
        // Within one hour of the clock.
        event.envelope.received_at = zentra_core::clock::Timestamp::from_secs(1_700_000_000);
        let steps = bench.handle(message(event)).await;
        let delivered = steps.contains(&"settle delivered".to_owned());
        assert_eq!(delivered, number < 5, "{number}: {steps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_unsigned_type_is_a_suspected_replay() {
    let bench = Bench::new(|_| Ok(()));
    let of_type = |kind: &str| {
        let mut event = event("evt_1", "{}");
        event.envelope.event_type = Some(kind.into());
        event.envelope.context.type_unsigned = true;
        message(event)
    };
    bench.handle(of_type("paid")).await;
    let steps = bench.handle(of_type("refunded")).await;
    assert_eq!(steps, ["claim 0/1: granted", "dead suspected_replay", "settle dead", "ack"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_destination_does_not_subscribe_to_waits_and_is_dead_after_ten_minutes() {
    let bench = Bench::new(|_| Ok(()));
    let received = |ago: u64| {
        let mut event = event("evt_1", "{}");
        event.envelope.source = "other".into();
        event.envelope.received_at = clock::now().minus(Duration::from_secs(ago));
        message(event)
    };
    assert_eq!(bench.handle(received(10)).await, ["retry attempt 1 in 5s", "ack"]);
    let expected = ["claim 0/1: granted", "dead not_subscribed", "settle dead", "ack"];
    assert_eq!(bench.handle(received(700)).await, expected);
    // Whoever holds a seal key may send it there.
    let sent = countersigned(received(700), 0, 1);
    let other = Bench::new(|_| Ok(()));
    let expected = ["claim 0/1: granted", "attempt 1", "settle delivered", "ack"];
    assert_eq!(other.handle(sent).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_newer_version_waits_for_a_worker_of_that_version() {
    let bench = Bench::new(|_| Ok(()));
    let of_version = |version: u8, ago: u64| {
        let received_at = clock::now().minus(Duration::from_secs(ago)).millis();
        let envelope = format!(r#"{{"v":{version},"received_at":{received_at},"new":[]}}"#);
        let body = Bytes::from_static(b"{}");
        let seal = sealer().sign(Domain::Event, envelope.as_bytes(), &body).unwrap();
        Message::new(Sealed {
            envelope: envelope.into(),
            seal,
            ..message(event("evt_1", "{}")).sealed
        })
    };
    assert_eq!(bench.handle(of_version(2, 10)).await, ["retry attempt 1 in 5s", "ack"]);
    assert_eq!(bench.handle(of_version(2, 3700)).await, ["retry attempt 1 in 60s", "ack"]);
    assert_eq!(bench.handle(of_version(2, 40_000_000)).await, ["retry attempt 1 in 60s", "ack"]);
    let refused = ["claim 0/1: granted", "dead seal_broken", "settle dead", "ack"];
    // Not newer, so no worker will ever be able to read it.
    assert_eq!(Bench::new(|_| Ok(())).handle(of_version(1, 10)).await, refused);
    let mut forged = of_version(2, 10);
    forged.sealed.body = Bytes::from_static(b"[]");
    assert_eq!(Bench::new(|_| Ok(())).handle(forged).await, refused);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_number_counts_only_if_it_is_countersigned() {
    let bench = Bench::new(|_| Ok(()));
    let raised = Message { attempt: 3, generation: 7, ..message(event("evt_1", "{}")) };
    let steps = bench.handle(raised).await;
    assert_eq!(steps[0], "claim 0/1: granted", "an unknown event begins with its first attempt");
    let sent = countersigned(message(event("evt_2", "{}")), 1, 2);
    assert_eq!(bench.handle(sent).await[0], "claim 1/2: granted");
}

#[tokio::test(start_paused = true)]
async fn after_ten_claims_that_ran_out_it_is_given_up_as_crashed() {
    let bench = Bench::new(|_| Ok(()));
    let one = message(event("evt_1", "{}"));
    let opened = zentra_store::delivery::open(&sealer(), "ledger", &one.sealed);
    for _ in 0..11 {
        claim(&bench, &opened).await;
        // Its worker dies, and the lease ends.
        let mut records = bench.journal.records.lock().unwrap();
        records.get_mut(&opened.key).unwrap().until = clock::now().minus(Duration::from_secs(1));
    }
    let steps = bench.handle(one).await;
    assert_eq!(steps, ["claim 0/1: granted", "dead crashed", "settle dead", "ack"]);
}
