//! Conformance of the delivery store.

use crate::journal::list::Query;
use crate::journal::{Delivery, JournalError};
use zentra_core::clock::Timestamp;

use super::*;

pub(super) const LEASE: Duration = Duration::from_secs(30);
const FINGERPRINT: Fingerprint = Fingerprint { body: [7; 32], id: None };

/// One delivery in one store.
pub(super) struct Claimant<J> {
    journal: J,
    key: DeliveryKey,
    summary: Summary,
    retention: Duration,
}

impl<J: Journal + DeliveryStore> Claimant<J> {
    pub(super) fn new(journal: &J, id: &str) -> Self {
        let summary = Summary {
            source: "acme".into(),
            event_id: Some(format!("shown-{id}")),
            ..Summary::default()
        };
        let key = DeliveryKey::new("ledger", "acme", &Identity::from_id(id).unwrap());
        Self { journal: journal.clone(), key, summary, retention: RETENTION }
    }

    pub(super) fn key(&self) -> &DeliveryKey {
        &self.key
    }

    async fn claim_as(&self, generation: u32, lease: Duration, fingerprint: Fingerprint) -> Answer {
        let claim = Claim {
            key: &self.key,
            generation,
            attempt: 1,
            lease,
            worker: "w1",
            fingerprint: &fingerprint,
            summary: &self.summary,
            retention: self.retention,
        };
        self.journal.claim(&claim).await.unwrap()
    }

    pub(super) async fn claim(&self, generation: u32) -> Answer {
        self.claim_as(generation, LEASE, FINGERPRINT).await
    }

    pub(super) async fn claimed(&self, generation: u32, lease: Duration) -> u64 {
        match self.claim_as(generation, lease, FINGERPRINT).await {
            Answer::Claimed { fence, .. } => fence,
            other => panic!("not claimed: {other:?}"),
        }
    }

    pub(super) async fn settle(&self, fence: u64, generation: u32, outcome: Outcome) -> Answer {
        let result = AttemptResult { status: Some(500), ..AttemptResult::default() };
        let settle = Settle {
            key: &self.key,
            fence,
            generation,
            attempt: 1,
            outcome,
            worker: "w1",
            result: &result,
            fingerprint: &FINGERPRINT,
            summary: &self.summary,
            retention: self.retention,
        };
        self.journal.settle(&settle).await.unwrap()
    }

    pub(super) async fn known(&self) -> Delivery {
        self.journal.history(&self.key).await.unwrap().unwrap()
    }

    async fn state(&self) -> State {
        self.known().await.record.state
    }

    /// The kinds of the history's lines.
    async fn kinds(&self) -> Vec<String> {
        let known = self.known().await;
        let word = |what: &HistoryEvent| {
            let json = serde_json::to_value(what).unwrap();
            json["what"].as_str().unwrap().to_owned()
        };
        known.history.iter().map(|entry| word(&entry.what)).collect()
    }
}

pub async fn of_claimers_at_once_one_is_granted_and_the_others_hear_how_long_it_takes<
    B: Backend,
>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = std::sync::Arc::new(Claimant::new(&journal, "race"));
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let claimant = claimant.clone();
        claims.spawn(async move { claimant.claim(0).await });
    }
    let answers = claims.join_all().await;
    let granted = answers.iter().filter(|answer| matches!(answer, Answer::Claimed { .. })).count();
    let busy = |answer: &&Answer| matches!(answer, Answer::Busy { remaining } if *remaining <= LEASE && !remaining.is_zero());
    assert_eq!((granted, answers.iter().filter(busy).count()), (1, 49), "{answers:?}");
}

pub async fn a_claim_that_ran_out_is_granted_anew_and_the_old_fence_changes_nothing<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "ran-out");
    let old = claimant.claimed(0, Duration::ZERO).await;
    let new = timeout(BOUND, async {
        loop {
            match claimant.claim(0).await {
                Answer::Claimed { fence, expired } => break (fence, expired),
                Answer::Busy { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let (new, expired) = new.await.unwrap();
    assert!(new > old && expired == 1, "{old}, then {new}, {expired}");
    assert_eq!(journal.renew(&claimant.key, old, LEASE).await.unwrap(), Answer::Lost);
    assert_eq!(journal.renew(&claimant.key, new, LEASE).await.unwrap(), Answer::Renewed);
    let dead = Outcome::Dead(DeadReason::Permanent);
    assert_eq!(claimant.settle(old, 0, dead).await, Answer::Superseded);
    assert_eq!(claimant.state().await, State::InFlight);
    assert_eq!(claimant.settle(new, 0, Outcome::Delivered).await, Answer::Settled);
    // The first answer was lost.
    assert_eq!(claimant.settle(new, 0, Outcome::Delivered).await, Answer::Settled);
    let kinds = claimant.kinds().await;
    let kinds: Vec<_> = kinds.iter().filter(|word| *word != "busy").collect();
    assert_eq!(kinds, ["claimed", "claimed", "superseded", "delivered"]);
}

pub async fn a_late_success_counts_and_nothing_undoes_it<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "late");
    let fence = claimant.claimed(0, LEASE).await;
    let dead = Outcome::Dead(DeadReason::Exhausted);
    assert_eq!(claimant.settle(fence, 0, dead).await, Answer::Settled);
    assert_eq!(claimant.settle(fence - 1, 0, Outcome::Delivered).await, Answer::SettledLate);
    assert_eq!(claimant.settle(fence, 0, dead).await, Answer::Superseded);
    assert_eq!((claimant.claim(0).await, claimant.claim(1).await), (Answer::Done, Answer::Done));
    assert_eq!(claimant.state().await, State::Delivered);
    assert!(journal.dead("ledger", 9, &|_| true).await.unwrap().is_empty());
    // Also for a delivery that is not remembered.
    let forgotten = Claimant::new(&journal, "forgotten");
    assert_eq!(forgotten.settle(5, 0, Outcome::Delivered).await, Answer::SettledLate);
    assert_eq!(forgotten.claim(0).await, Answer::Done);
    let unknown = Claimant::new(&journal, "unknown");
    assert_eq!(unknown.settle(5, 0, dead).await, Answer::Superseded);
    assert!(journal.history(&unknown.key).await.unwrap().is_none());
}

pub async fn another_body_is_a_conflict_and_a_copy_is_counted_without_effect<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "copies");
    let first = Fingerprint { body: [7; 32], id: Some([1; 8]) };
    assert!(matches!(claimant.claim_as(0, LEASE, first).await, Answer::Claimed { .. }));
    let other = Fingerprint { body: [8; 32], ..first };
    assert_eq!(claimant.claim_as(0, LEASE, other).await, Answer::Conflict);
    let suspected = Fingerprint { id: Some([2; 8]), ..first };
    assert_eq!(claimant.claim_as(0, LEASE, suspected).await, Answer::Suspected);
    assert!(matches!(claimant.claim_as(0, LEASE, first).await, Answer::Busy { .. }));
    assert_eq!(claimant.kinds().await, ["claimed", "conflict", "suspected", "busy"]);
    for _ in 0..1000 {
        claimant.claim_as(0, LEASE, other).await;
    }
    let kinds = claimant.kinds().await;
    assert!(kinds[0] == "claimed" && kinds.len() < 500, "{} lines", kinds.len());
}

pub async fn a_dead_delivery_is_listed_until_it_is_requeued_or_discarded<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimants = ["dead-1", "dead-2", "dead-3"].map(|id| Claimant::new(&journal, id));
    for claimant in &claimants {
        let fence = claimant.claimed(0, LEASE).await;
        claimant.settle(fence, 0, Outcome::Dead(DeadReason::Permanent)).await;
    }
    let listed = async || -> Vec<DeliveryKey> {
        let dead = journal.dead("ledger", 9, &|_| true).await.unwrap();
        assert!(dead.iter().all(|known| known.reason == Some(DeadReason::Permanent)));
        dead.into_iter().map(|known| known.key).collect()
    };
    let mut all = listed().await;
    all.sort();
    assert_eq!(all, claimants.each_ref().map(|claimant| claimant.key.clone()));
    assert_eq!(journal.dead("ledger", 2, &|_| true).await.unwrap().len(), 2);
    assert!(journal.dead("mail", 9, &|_| true).await.unwrap().is_empty());
    assert!(journal.oldest_dead("ledger").await.unwrap().is_some());
    assert_eq!(claimants[0].claim(0).await, Answer::Dead);

    let requeued = HistoryEvent::Requeued { reason: "mended".into(), job: None };
    assert!(journal.note(&claimants[0].key, 1, "ada", &requeued).await.unwrap());
    let again = claimants[0].claimed(1, LEASE).await;
    let discarded = HistoryEvent::Discarded { reason: "a test".into() };
    assert!(journal.note(&claimants[1].key, 0, "ada", &discarded).await.unwrap());
    assert_eq!(listed().await, [claimants[2].key.clone()]);
    assert_eq!(claimants[0].settle(again, 1, Outcome::Delivered).await, Answer::Settled);
    let kinds = claimants[0].kinds().await;
    assert_eq!(kinds, ["claimed", "dead", "duplicate_dead", "requeued", "claimed", "delivered"]);
    // A copy of a discarded event does not bring it back.
    assert_eq!(claimants[1].claim(0).await, Answer::Dead);
    assert_eq!(listed().await, [claimants[2].key.clone()]);
    assert_eq!(claimants[1].kinds().await, ["claimed", "dead", "discarded", "duplicate_dead"]);
    let unknown = Claimant::new(&journal, "unknown");
    assert!(!journal.note(&unknown.key, 1, "ada", &requeued).await.unwrap());
}

pub async fn what_is_delivered_runs_once_more_only_when_an_operator_forces_it<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "evt_1");
    let what = HistoryEvent::Replayed { reason: "lost there".into(), job: "0a1b/1".into() };
    let reopen = async || journal.reopen(&claimant.key, "ada", &what).await.unwrap();
    assert_eq!(reopen().await, None, "nobody has heard of it");
    let fence = claimant.claimed(0, LEASE).await;
    assert_eq!(reopen().await, None, "it runs");
    claimant.settle(fence, 0, Outcome::Delivered).await;
    assert_eq!(claimant.claim(1).await, Answer::Done, "a newer message alone is no reason");
    assert_eq!(reopen().await, Some(1));
    assert_eq!(reopen().await, None, "once");
    let known = claimant.known().await;
    assert_eq!((known.record.state, known.record.attempt), (State::Waiting, 1));
    let line = known.history.last().unwrap();
    assert_eq!((line.by.as_str(), line.generation, &line.what), ("ada", 1, &what));
    assert_eq!(claimant.claim(0).await, Answer::Stale, "a copy from the provider");
    let fence = claimant.claimed(1, LEASE).await;
    claimant.settle(fence, 1, Outcome::Delivered).await;
    assert_eq!(claimant.claim(1).await, Answer::Done);
}

pub async fn a_delivery_is_found_by_event_id_by_identity_and_by_key<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "found");
    claimant.claim(0).await;
    let pairs = [("mail", "acme"), ("ledger", "acme")];
    for id in ["shown-found", "found", "ledger/acme/found"] {
        let found = journal.find(id, &pairs).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&claimant.key), "{id}");
    }
    assert!(journal.find("nobody", &pairs).await.unwrap().is_empty());
    // The same bytes under another ID are stored as a delivery of their own, and found as one.
    let first = Claimant::new(&journal, "bytes");
    let fingerprint = |id| Fingerprint { id: Some([id; 8]), ..FINGERPRINT };
    first.claim_as(0, LEASE, fingerprint(1)).await;
    let summary = Summary { event_id: Some("another".into()), ..first.summary.clone() };
    let again = Claimant { summary, ..first };
    assert_eq!(again.claim_as(0, LEASE, fingerprint(2)).await, Answer::Suspected);
    assert!(journal.find("another", &pairs).await.unwrap().is_empty());
}

pub async fn what_has_had_its_time_is_forgotten_and_begins_anew<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant { retention: Duration::from_secs(2), ..Claimant::new(&journal, "old") };
    let fence = claimant.claimed(0, LEASE).await;
    assert_eq!(claimant.settle(fence, 0, Outcome::Delivered).await, Answer::Settled);
    assert_eq!(claimant.claim(0).await, Answer::Done);
    eventually("it is forgotten", BOUND, async || {
        journal.history(&claimant.key).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(journal.find("old", &[("ledger", "acme")]).await.unwrap().is_empty());
    assert!(matches!(claimant.claim(0).await, Answer::Claimed { .. }));
    // Dead letters are kept until an operator acts.
    let dead = Claimant::new(&journal, "dead");
    let fence = dead.claimed(0, LEASE).await;
    let dead = Claimant { retention: Duration::from_millis(1), ..dead };
    dead.settle(fence, 0, Outcome::Dead(DeadReason::Permanent)).await;
    assert!(stays_known(Duration::from_millis(300), &journal, &dead.key).await);
}

/// Whether it is remembered during all this time.
async fn stays_known(time: Duration, journal: &impl DeliveryStore, key: &DeliveryKey) -> bool {
    let gone = async {
        while journal.history(key).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(time, gone).await.is_err()
}

pub async fn of_a_long_history_the_newest_lines_are_kept<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "long");
    claimant.claim(0).await;
    for at in 0..60 {
        let what = HistoryEvent::Requeued { reason: format!("{at:900}"), job: None };
        assert!(journal.note(&claimant.key, 1, "ada", &what).await.unwrap());
    }
    let history = claimant.known().await.history;
    let newest = HistoryEvent::Requeued { reason: format!("{:900}", 59), job: None };
    assert!((30..40).contains(&history.len()), "{} lines", history.len());
    assert_eq!(history.last().unwrap().what, newest);
}

pub async fn what_is_remembered_is_listed_newest_first_page_by_page_and_only_what_is_wanted<
    B: Backend,
>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimants: Vec<_> = (0..7)
        .map(|at| {
            let mut claimant = Claimant::new(&journal, &format!("evt_{at}"));
            claimant.summary.event_type = Some(format!("kind.{}", at % 2));
            if at == 6 {
                claimant.key = DeliveryKey::new("mail", "github", &Identity::from_id("g").unwrap());
            }
            claimant
        })
        .collect();
    for (at, claimant) in claimants.iter().enumerate() {
        let fence = claimant.claimed(0, LEASE).await;
        let next_at = Timestamp::from_secs(4_000_000_000);
        let outcome = match at {
            0 | 1 => Outcome::Delivered,
            2 => Outcome::Retry { next_at },
            3 => Outcome::Dead(DeadReason::Permanent),
            4 => Outcome::Dead(DeadReason::TooOld),
            _ => continue,
        };
        claimant.settle(fence, 0, outcome).await;
        // A copy is not listed a second time.
        claimant.claim(0).await;
    }
    let requeued =
        |job: &str| HistoryEvent::Requeued { reason: String::new(), job: Some(job.into()) };
    for (at, job) in [(0, "0a1b2c3d/1"), (1, "0a1b2c3d0/1"), (2, "0a1b2c3d/12")] {
        assert!(journal.note(&claimants[at].key, 0, "ada", &requeued(job)).await.unwrap());
    }
    let list = async |query: &Query, after: Option<&str>, limit: usize| {
        let page = journal.list(query, after, limit).await.unwrap();
        let known: Vec<_> = claimants.iter().map(|claimant| &claimant.key).collect();
        let at = |key: &DeliveryKey| known.iter().position(|known| *known == key).unwrap();
        let keys = page.items.iter().map(|listed| at(&listed.delivery.key));
        (keys.collect::<Vec<_>>(), page)
    };
    let any = Query::default();
    let (all, page) = list(&any, None, 100).await;
    assert_eq!((all, page.next), (vec![6, 5, 4, 3, 2, 1, 0], None));
    let times: Vec<_> = page.items.iter().map(|listed| listed.first_claimed_at).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");

    // The same, page by page.
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (some, page) = list(&any, cursor.as_deref(), 2).await;
        seen.extend(some);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);

    let some = |text: &str| Some(text.to_owned());
    let state = |state| Query { state: Some(state), ..Query::default() };
    for (query, wanted) in [
        (state(State::InFlight), vec![6, 5]),
        (state(State::Waiting), vec![2]),
        (state(State::Delivered), vec![1, 0]),
        (state(State::Dead), vec![4, 3]),
        (Query { reason: Some(DeadReason::TooOld), ..Query::default() }, vec![4]),
        (Query { kind: some("kind.1"), ..Query::default() }, vec![5, 3, 1]),
        (Query { kind: some("kind"), ..Query::default() }, vec![]),
        (Query { destination: some("mail"), ..Query::default() }, vec![6]),
        (Query { source: some("acme"), ..state(State::InFlight) }, vec![5]),
        (Query { job: some("0a1b2c3d"), ..Query::default() }, vec![2, 0]),
        (Query { since: Some(times[0].plus(LEASE)), ..Query::default() }, vec![]),
        (Query { since: Some(times[6]), ..Query::default() }, vec![6, 5, 4, 3, 2, 1, 0]),
        (Query { until: Some(times[6]), ..Query::default() }, vec![]),
        (
            Query { until: Some(times[0].plus(LEASE)), ..Query::default() },
            vec![6, 5, 4, 3, 2, 1, 0],
        ),
    ] {
        assert_eq!(list(&query, None, 100).await.0, wanted, "{query:?}");
    }
    for bad in ["", "x", "1-2-3", "+", "* 1"] {
        let page = journal.list(&any, Some(bad), 1).await;
        assert!(matches!(page, Err(JournalError::NoSuchPage(_))), "{bad}");
    }
    // A younger delivery stays, and trimming the list forgets no delivery.
    journal.tidy(RETENTION).await.unwrap();
    assert_eq!(list(&any, None, 100).await.0.len(), 7);
}

pub async fn of_many_each_is_listed_once_however_large_the_pages_are<B: Backend>() {
    const COUNT: usize = 1300;
    let (_, journal) = B::new().open(ledger()).await;
    for at in 0..COUNT {
        let mut claimant = Claimant::new(&journal, &format!("evt_{at}"));
        claimant.summary.event_type = Some(if at % 400 == 0 { "rare" } else { "usual" }.into());
        claimant.claim(0).await;
    }
    let rare = Query { kind: Some("rare".into()), ..Query::default() };
    for (query, wanted) in [(Query::default(), COUNT), (rare, 4)] {
        for limit in [1, 3, 499, 500, 501, 1000, 5000] {
            if limit < 100 && wanted == COUNT {
                continue;
            }
            let (mut seen, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = journal.list(&query, cursor.as_deref(), limit).await.unwrap();
                seen.extend(page.items.into_iter().map(|listed| listed.delivery.key));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let times = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!((seen.len(), times), (wanted, wanted), "{limit} a page");
        }
    }
}
