//! The delivery store on a real Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use zentra_config::ClientTls;
use zentra_core::clock::Timestamp;
use zentra_core::event::{DeliveryKey, Identity};
use zentra_core::lifecycle::{
    Answer, DeadReason, Fingerprint, Input, Outcome, Record, State, step,
};
use zentra_redis::RedisJournal;
use zentra_store::journal::{
    AttemptResult, Claim, DeliveryStore, HistoryEvent, Journal, Settle, Summary,
};
use zentra_tests::world::RETENTION;
use zentra_tests::{eventually, namespace, one_server, services, shared_redis};

const LEASE: Duration = Duration::from_secs(30);
const FINGERPRINT: Fingerprint = Fingerprint { body: [7; 32], id: Some([1; 8]) };
const PAIRS: [(&str, &str); 2] = [("mail", "acme"), ("ledger", "acme")];

fn journal() -> RedisJournal {
    RedisJournal::new(&one_server(shared_redis()), &ClientTls::default(), &namespace(), RETENTION)
        .unwrap()
}

fn summary() -> Summary {
    Summary {
        source: "acme".into(),
        provider: "standard-webhooks".into(),
        verified_with: "k1".into(),
        event_id: Some("evt_shown".into()),
        event_type: None,
        received_at: Some(Timestamp::from_secs(1)),
        provider_time: None,
        body_sha256: "07".repeat(32),
        ..Summary::default()
    }
}

fn key(id: &str) -> DeliveryKey {
    DeliveryKey::new("ledger", "acme", &Identity::from_id(id).unwrap())
}

/// One delivery, seen by one worker.
struct Claimant {
    journal: RedisJournal,
    key: DeliveryKey,
    summary: Summary,
}

impl Claimant {
    fn new(journal: &RedisJournal, id: &str) -> Self {
        Self { journal: journal.clone(), key: key(id), summary: summary() }
    }

    async fn apply(&self, event: &Input) -> (Answer, Timestamp) {
        let result = AttemptResult::default();
        match *event {
            Input::Claim { generation, attempt, lease, fingerprint } => {
                let claim = Claim {
                    key: &self.key,
                    generation,
                    attempt,
                    lease,
                    worker: "w1",
                    fingerprint: &fingerprint,
                    summary: &self.summary,
                    retention: RETENTION,
                };
                self.journal.claim_at(&claim).await.unwrap()
            }
            Input::Renew { fence, lease } => {
                self.journal.renew_at(&self.key, fence, lease).await.unwrap()
            }
            Input::Settle { fence, generation, attempt, outcome, fingerprint } => {
                let settle = Settle {
                    key: &self.key,
                    fence,
                    generation,
                    attempt,
                    outcome,
                    worker: "w1",
                    result: &result,
                    fingerprint: &fingerprint,
                    summary: &self.summary,
                    retention: RETENTION,
                };
                self.journal.settle_at(&settle).await.unwrap()
            }
            Input::Reopen => {
                let what = HistoryEvent::Replayed { reason: String::new(), job: "0a1b/1".into() };
                self.journal.reopen_at(&self.key, "ada", &what).await.unwrap()
            }
        }
    }

    async fn claim(&self, generation: u32, attempt: u32) -> Answer {
        let lease = LEASE;
        self.apply(&Input::Claim { generation, attempt, lease, fingerprint: FINGERPRINT }).await.0
    }

    async fn settle(&self, fence: u64, attempt: u32, outcome: Outcome) -> Answer {
        let generation = 0;
        self.apply(&Input::Settle { fence, generation, attempt, outcome, fingerprint: FINGERPRINT })
            .await
            .0
    }

    async fn record(&self) -> Option<Record> {
        self.journal.history(&self.key).await.unwrap().map(|known| known.record)
    }
}

fn fence(answer: Answer) -> u64 {
    match answer {
        Answer::Claimed { fence, .. } => fence,
        other => panic!("not claimed: {other:?}"),
    }
}

/// A step of a random walk: the operation, and which of the fences granted so far it uses.
fn steps() -> impl Strategy<Value = Vec<(Input, usize)>> {
    let outcome = prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::Retry { next_at: Timestamp::from_secs(2_000_000_000) }),
        Just(Outcome::Dead(DeadReason::Permanent)),
    ];
    let lease = prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(2)), Just(LEASE)];
    // Mostly copies of one callback, and sometimes another one.
    let fingerprint = || {
        prop_oneof![
            8 => Just(FINGERPRINT),
            1 => Just(Fingerprint { id: None, ..FINGERPRINT }),
            1 => Just(Fingerprint { id: Some([2; 8]), ..FINGERPRINT }),
            1 => Just(Fingerprint { body: [8; 32], ..FINGERPRINT }),
            1 => Just(Fingerprint { body: Fingerprint::UNKNOWN, ..FINGERPRINT }),
        ]
    };
    let step = prop_oneof![
        4 => (0..3u32, 1..4u32, lease.clone(), fingerprint()).prop_map(
            |(generation, attempt, lease, fingerprint)| Input::Claim { generation, attempt, lease, fingerprint }
        ),
        1 => lease.prop_map(|lease| Input::Renew { fence: 0, lease }),
        3 => (0..3u32, 1..4u32, outcome, fingerprint()).prop_map(
            |(generation, attempt, outcome, fingerprint)| {
                Input::Settle { fence: 0, generation, attempt, outcome, fingerprint }
            }
        ),
        1 => Just(Input::Reopen),
    ];
    prop::collection::vec((step, 0..3usize), 1..25)
}

/// The scripts on a real Redis and the pure function give the same answers and the same records
/// over random walks. `now` is the time at which Redis decided.
#[test]
fn the_scripts_agree_with_the_pure_lifecycle_over_random_walks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = runtime.block_on(async { journal() });
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let walks = std::cell::Cell::new(0);
    let seen = std::cell::RefCell::new(std::collections::HashSet::new());
    let result = runner.run(&steps(), |walk| {
        walks.set(walks.get() + 1);
        let claimant = Claimant::new(&journal, &format!("walk{}", walks.get()));
        runtime.block_on(async {
            let (mut record, mut fences) = (None, Vec::new());
            for (mut event, pick) in walk {
                if let Input::Settle { fence, .. } | Input::Renew { fence, .. } = &mut event {
                    *fence = fences.iter().rev().nth(pick).copied().unwrap_or(7);
                }
                let (answer, now) = claimant.apply(&event).await;
                let (next, expected) = step(record.as_ref(), &event, now);
                prop_assert_eq!(answer, expected, "{:?} on {:?}", event, record);
                prop_assert_eq!(&claimant.record().await, &next, "{:?} on {:?}", event, record);
                seen.borrow_mut().insert(std::mem::discriminant(&answer));
                if let Answer::Claimed { fence, .. } = answer {
                    fences.push(fence);
                }
                record = next;
            }
            Ok(())
        })
    });
    result.unwrap();
    assert_eq!(seen.borrow().len(), 14, "the walks meet every kind of answer");
}

/// One request of a claimer, Redis's answer, and the times of both.
type Heard = (Input, Answer, Timestamp);

/// Several concurrent claimers, each with its own connection. Some stop without a settle, as after
/// a crash, and some return after their leases have ended. There must be an order of their
/// requests in which the pure function gives the same answers as Redis.
#[test]
fn what_claimers_at_once_are_told_the_pure_lifecycle_says_in_some_order() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::default() });
    let namespace = namespace();
    let races = std::cell::Cell::new(0);
    let (superseded, late) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&prop::collection::vec(steps(), 2..5), |claimers| {
        races.set(races.get() + 1);
        let id = format!("race{}", races.get());
        let (heard, last) = runtime.block_on(race(&namespace, &id, claimers));
        for (_, answer, _) in heard.iter().flatten() {
            match answer {
                Answer::Superseded => superseded.set(superseded.get() + 1),
                Answer::SettledLate => late.set(late.get() + 1),
                _ => {}
            }
        }
        prop_assert!(some_order_explains(&heard, last.as_ref()), "{heard:#?} ended as {last:?}");
        Ok(())
    });
    result.unwrap();
    assert!(superseded.get() > 0 && late.get() > 0, "claims run out under their claimers");
}

async fn race(
    namespace: &str,
    id: &str,
    claimers: Vec<Vec<(Input, usize)>>,
) -> (Vec<Vec<Heard>>, Option<Record>) {
    let claimant = || {
        let server = one_server(shared_redis());
        Claimant::new(
            &RedisJournal::new(&server, &ClientTls::default(), namespace, RETENTION).unwrap(),
            id,
        )
    };
    let mut racing = tokio::task::JoinSet::new();
    for claimer in claimers {
        let claimant = claimant();
        racing.spawn(async move {
            let (mut heard, mut fences) = (Vec::new(), Vec::new());
            for (mut event, pick) in claimer {
                if let Input::Settle { fence, .. } | Input::Renew { fence, .. } = &mut event {
                    *fence = fences.iter().rev().nth(pick).copied().unwrap_or(7);
                }
                let (answer, now) = claimant.apply(&event).await;
                if let Answer::Claimed { fence, .. } = answer {
                    fences.push(fence);
                }
                heard.push((event, answer, now));
            }
            heard
        });
    }
    (racing.join_all().await, claimant().record().await)
}

/// Whether the pure function, called in one of the orders that the times allow, gives each answer
/// and ends with `last`.
fn some_order_explains(heard: &[Vec<Heard>], last: Option<&Record>) -> bool {
    let mut tried = std::collections::HashSet::new();
    let mut open = vec![(vec![0; heard.len()], None::<Record>)];
    while let Some((at, record)) = open.pop() {
        if !tried.insert((at.clone(), format!("{record:?}"))) {
            continue;
        }
        let next = || heard.iter().zip(&at).map(|(heard, at)| heard.get(*at));
        let Some(first) = next().flatten().map(|(_, _, now)| *now).min() else {
            if record.as_ref() == last {
                return true;
            }
            continue;
        };
        for (claimer, next) in next().enumerate() {
            let Some((event, answer, now)) = next.filter(|(_, _, now)| *now == first) else {
                continue;
            };
            let (record, printed) = step(record.as_ref(), event, *now);
            if printed == *answer {
                let mut at = at.clone();
                at[claimer] += 1;
                open.push((at, record));
            }
        }
    }
    false
}

#[tokio::test]
async fn of_many_claims_at_once_exactly_one_is_granted() {
    let claimant = std::sync::Arc::new(Claimant::new(&journal(), "evt_race"));
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let claimant = claimant.clone();
        claims.spawn(async move { claimant.claim(0, 1).await });
    }
    let answers = claims.join_all().await;
    let granted = answers.iter().filter(|a| matches!(a, Answer::Claimed { .. }));
    assert_eq!(granted.count(), 1);
}

#[tokio::test]
async fn the_history_tells_claim_failure_copy_and_delivery_in_order() {
    let claimant = Claimant::new(&journal(), "evt_told");
    let first = fence(claimant.claim(0, 1).await);
    let next_at = Timestamp::from_secs(2_000_000_000);
    claimant.settle(first, 1, Outcome::Retry { next_at }).await;
    let second = fence(claimant.claim(0, 2).await);
    claimant.settle(second, 2, Outcome::Delivered).await;
    assert_eq!(claimant.claim(0, 1).await, Answer::Done);
    let delivery = claimant.journal.history(&claimant.key).await.unwrap().unwrap();
    assert_eq!(delivery.event, summary());
    let what: Vec<&HistoryEvent> = delivery.history.iter().map(|entry| &entry.what).collect();
    let [
        HistoryEvent::Claimed { reclaimed: false, .. },
        HistoryEvent::Failed { next_at: due, .. },
        HistoryEvent::Claimed { .. },
        HistoryEvent::Delivered { late: false, .. },
        HistoryEvent::Duplicate,
    ] = what[..]
    else {
        panic!("{what:#?}");
    };
    assert_eq!(*due, next_at);
}

#[tokio::test]
async fn a_delivery_is_found_by_provider_id_by_identity_and_by_key() {
    let claimant = Claimant::new(&journal(), "evt_identity");
    claimant.claim(0, 1).await;
    for id in ["evt_shown", "evt_identity", "ledger/acme/evt_identity"] {
        let found = claimant.journal.find(id, &PAIRS).await.unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [&claimant.key], "{id}");
    }
    for id in ["evt_nobody", "ledger/acme/evt_nobody"] {
        assert!(claimant.journal.find(id, &PAIRS).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_dead_are_listed_until_a_newer_generation_is_claimed() {
    let journal = journal();
    let (kept, revived) =
        (Claimant::new(&journal, "evt_kept"), Claimant::new(&journal, "evt_revived"));
    for claimant in [&kept, &revived] {
        let fence = fence(claimant.claim(0, 1).await);
        claimant.settle(fence, 1, Outcome::Dead(DeadReason::Permanent)).await;
    }
    let dead = journal.dead("ledger", 10, &|_| true).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].reason, Some(DeadReason::Permanent));
    assert_eq!(journal.dead("ledger", 1, &|_| true).await.unwrap().len(), 1);

    let requeue = HistoryEvent::Requeued { reason: "mended".into(), job: None };
    journal.note(&revived.key, 1, "operator", &requeue).await.unwrap();
    assert_eq!(
        journal.dead("ledger", 10, &|_| true).await.unwrap().len(),
        2,
        "a note changes no state"
    );
    assert!(matches!(revived.claim(1, 1).await, Answer::Claimed { .. }));
    let left = journal.dead("ledger", 10, &|_| true).await.unwrap();
    assert_eq!(left.iter().map(|d| &d.key).collect::<Vec<_>>(), [&kept.key]);
    let printed = journal.history(&revived.key).await.unwrap().unwrap().history;
    let requeued = printed.iter().find(|entry| entry.what == requeue).unwrap();
    assert_eq!((requeued.generation, requeued.by.as_str()), (1, "operator"));
}

/// Number of keys in a namespace that have no expiry.
async fn kept_for_good(namespace: &str) -> usize {
    let client = redis::Client::open(shared_redis()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys = redis::cmd("KEYS");
    keys.arg(format!("{namespace}:*"));
    let keys: Vec<String> = keys.query_async(&mut connection).await.unwrap();
    let mut kept = 0;
    for key in keys.iter().filter(|key| !key.starts_with(&format!("{namespace}:dead:"))) {
        let ttl: i64 = redis::cmd("TTL").arg(key).query_async(&mut connection).await.unwrap();
        kept += usize::from(ttl == -1);
    }
    kept
}

#[tokio::test]
async fn only_what_is_dead_is_kept_for_good_and_a_copy_does_not_change_that() {
    let namespace = namespace();
    let journal = RedisJournal::new(
        &one_server(shared_redis()),
        &ClientTls::default(),
        &namespace,
        RETENTION,
    )
    .unwrap();
    let claimant = Claimant::new(&journal, "evt_kept");
    let fence = fence(claimant.claim(0, 1).await);
    // As a worker does regularly: the list of deliveries expires too.
    journal.tidy(RETENTION).await.unwrap();
    assert_eq!(kept_for_good(&namespace).await, 0);
    claimant.settle(fence, 1, Outcome::Dead(DeadReason::Permanent)).await;
    // The delivery, and the index of the provider's ID.
    assert_eq!(kept_for_good(&namespace).await, 2);
    assert_eq!(claimant.claim(0, 1).await, Answer::Dead);
    assert_eq!(kept_for_good(&namespace).await, 2);
    assert!(matches!(claimant.claim(1, 1).await, Answer::Claimed { .. }));
    assert_eq!(kept_for_good(&namespace).await, 0);
}

#[tokio::test]
async fn a_flood_of_copies_hides_nothing_and_a_long_history_keeps_its_newest_lines() {
    let claimant = Claimant::new(&journal(), "evt_flood");
    let first = fence(claimant.claim(0, 1).await);
    claimant.settle(first, 1, Outcome::Dead(DeadReason::Permanent)).await;
    for _ in 0..1500 {
        assert_eq!(claimant.claim(0, 1).await, Answer::Dead);
    }
    let printed = async || claimant.journal.history(&claimant.key).await.unwrap().unwrap().history;
    let copies = printed().await;
    assert!((100..1500).contains(&copies.len()), "{}", copies.len());
    assert!(matches!(copies[0].what, HistoryEvent::Claimed { .. }));
    for generation in 1..600 {
        let what = HistoryEvent::Released { reason: "again".repeat(10) };
        claimant.journal.note(&claimant.key, generation, "operator", &what).await.unwrap();
    }
    let newest = printed().await;
    assert!((100..600).contains(&newest.len()), "{}", newest.len());
    assert_eq!(newest.last().map(|entry| entry.generation), Some(599));
    assert_eq!(claimant.record().await.map(|record| record.state), Some(State::Dead));
}

#[tokio::test]
async fn a_delivery_forgotten_in_flight_is_still_settled_as_delivered() {
    let claimant = Claimant::new(&journal(), "evt_forgotten");
    assert_eq!(claimant.settle(5, 2, Outcome::Delivered).await, Answer::SettledLate);
    let known = claimant.journal.history(&claimant.key).await.unwrap().unwrap();
    assert_eq!(known.record.state, State::Delivered);
    assert_eq!(claimant.claim(0, 2).await, Answer::Done);
}

#[tokio::test]
async fn what_was_claimed_survives_kill_9_of_redis() {
    let mut redis = services::redis();
    let journal =
        RedisJournal::new(&one_server(redis.url()), &ClientTls::default(), "killed", RETENTION)
            .unwrap();
    let claimant = Claimant::new(&journal, "evt_1");
    fence(claimant.claim(0, 1).await);
    redis.kill();
    assert!(journal.ready().await.is_err());
    redis.restart().unwrap();
    eventually("redis answers again", LEASE, async || journal.ready().await.ok()).await;
    assert!(matches!(claimant.claim(0, 1).await, Answer::Busy { .. }));
}

/// A listener that leads new connections to another port: what a DNS name or a load balancer does
/// at a failover. Connections that stand are not cut.
async fn leading_to(port: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let port = port.load(Ordering::Acquire);
            tokio::spawn(async move {
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    address.port()
}

#[tokio::test]
async fn a_demoted_primary_is_left_although_the_connection_to_it_stands() {
    let [old, new] = [services::redis(), services::redis()];
    let port = Arc::new(AtomicU16::new(old.port()));
    let url = format!("redis://127.0.0.1:{}/", leading_to(port.clone()).await);
    let journal =
        RedisJournal::new(&one_server(url), &ClientTls::default(), "demoted", RETENTION).unwrap();
    fence(Claimant::new(&journal, "evt_1").claim(0, 1).await);
    port.store(new.port(), Ordering::Release);
    old.tell(&format!("REPLICAOF 127.0.0.1 {}", new.port())).unwrap();
    eventually("writes go to the new one", LEASE, async || journal.ready().await.ok()).await;
    fence(Claimant::new(&journal, "evt_2").claim(0, 1).await);
}
