//! What end-to-end tests cannot time: claims that take long, and a queue that fails between two
//! fetches. Leases are tested in `tests/tests/all/pull.rs`.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use zentra_config::{Config, Role};

use super::fakes::{FakeJournal, FakeQueue, Fetched, Log};
use super::{event, message};
use crate::pull::{MOST, Nack, Pull, PullError};

const CONFIG: &str = r#"
rabbitmq.urls = ["amqp://127.0.0.1"]
redis.url = "redis://127.0.0.1"
seal.keys = [{ name = "k", secret = "env:SEAL" }]
[destination.ledger]
pull = true
subscribe = ["acme.#"]
"#;

struct Bench {
    log: Log,
    queue: FakeQueue,
    journal: FakeJournal,
    stop: CancellationToken,
    pull: Arc<Pull<FakeQueue, FakeJournal>>,
}

impl Bench {
    fn new() -> Self {
        let secret = ("SEAL".to_owned(), "0123456789abcdef0123456789abcdef".to_owned());
        let environment = [secret].into();
        let config = Config::parse(CONFIG, Role::Operator, &environment, &[]).unwrap();
        let log = Log::default();
        let (queue, journal) = (FakeQueue::new(&log), FakeJournal::new(&log));
        let stop = CancellationToken::new();
        let (q, j) = (queue.clone(), journal.clone());
        let pull = Pull::new(&config, q, j, &Registry::new(), stop.clone()).unwrap();
        Self { log, queue, journal, stop, pull: pull.into() }
    }

    fn holds(&self, ids: impl Iterator<Item = usize>) {
        let messages = ids.map(|id| message(event(&format!("evt_{id}"), "{}")));
        self.then(Fetched::Messages(messages.collect()));
    }

    /// Until a request has fetched all.
    async fn is_fetched(&self) {
        let fetched = async {
            while !self.queue.fetches.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), fetched).await.unwrap();
    }

    fn then(&self, fetched: Fetched) {
        self.queue.fetches.lock().unwrap().push_back(fetched);
    }
}

#[tokio::test]
async fn what_is_claimed_after_its_request_is_gone_is_with_the_next_one() {
    let bench = Bench::new();
    bench.holds(0..2);
    // A second and a half.
    bench.journal.failing.next(6);
    let pull = bench.pull.clone();
    let gone =
        tokio::spawn(async move { pull.pull("ledger", MOST, Duration::from_secs(20)).await });
    bench.is_fetched().await;
    gone.abort();
    assert!(gone.await.is_err());
    let pulled = bench.pull.pull("ledger", MOST, Duration::from_secs(20)).await.unwrap();
    let events = pulled.events;
    assert_eq!((events.len(), pulled.paused), (2, false));
    bench.pull.ack("ledger", &events[0].receipt).await.unwrap();
    let nack = Nack { permanent: true, ..Nack::default() };
    bench.pull.nack("ledger", &events[1].receipt, nack).await.unwrap();
    let steps = bench.log.take();
    for step in ["settle delivered", "dead permanent", "settle dead"] {
        assert!(steps.iter().any(|other| other == step), "{step}: {steps:?}");
    }
    assert_eq!(steps.iter().filter(|step| *step == "ack").count(), 2, "{steps:?}");
    let late = bench.pull.ack("ledger", &events[1].receipt).await;
    assert!(matches!(late, Err(PullError::LeaseLost)), "{late:?}");
}

#[tokio::test]
async fn what_a_request_had_that_is_gone_is_with_the_next_one() {
    let bench = Bench::new();
    bench.holds(0..16);
    bench.holds(16..17);
    bench.then(Fetched::Hangs);
    let pull = bench.pull.clone();
    let gone = tokio::spawn(async move { pull.pull("ledger", MOST, Duration::ZERO).await });
    bench.is_fetched().await;
    gone.abort();
    assert!(gone.await.is_err());
    let pulled = bench.pull.pull("ledger", 17, Duration::ZERO).await.unwrap();
    let keys: Vec<_> = pulled.events.iter().map(|event| event.key.identity()).collect();
    let expected: Vec<_> = (0..17).map(|at| format!("evt_{at}")).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_queue_that_fails_meanwhile_does_not_take_away_what_is_leased() {
    let bench = Bench::new();
    bench.holds(0..16);
    bench.then(Fetched::Fails);
    let pulled = bench.pull.pull("ledger", MOST, Duration::from_secs(20)).await.unwrap();
    assert_eq!(pulled.events.len(), 16);
    // Without events, it is an error.
    bench.then(Fetched::Fails);
    let failed = bench.pull.pull("ledger", MOST, Duration::ZERO).await;
    assert!(matches!(failed, Err(PullError::Queue(_))), "{failed:?}");
}

#[tokio::test]
async fn a_full_answer_is_fetched_in_parts_also_without_waiting() {
    let bench = Bench::new();
    for part in 0..7 {
        bench.holds(part * 16..(part + 1) * 16);
    }
    let pulled = bench.pull.pull("ledger", MOST, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.events.len(), MOST);
    // What was fetched too much is with the next one.
    let pulled = bench.pull.pull("ledger", MOST, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.events.len(), 7 * 16 - MOST);
}

#[tokio::test]
async fn at_the_stop_requests_end_and_messages_go_back() {
    let bench = Bench::new();
    bench.holds(0..3);
    bench.pull.pull("ledger", MOST, Duration::ZERO).await.unwrap();
    let pull = bench.pull.clone();
    let waits =
        tokio::spawn(async move { pull.pull("ledger", MOST, Duration::from_secs(20)).await });
    tokio::task::yield_now().await;
    bench.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(2), waits).await.unwrap().unwrap();
    assert!(ended.unwrap().events.is_empty());
    bench.pull.finish().await;
    let steps = bench.log.take();
    assert_eq!(steps.iter().filter(|step| *step == "give back").count(), 3, "{steps:?}");
}
