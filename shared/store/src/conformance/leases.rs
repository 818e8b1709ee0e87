//! Conformance of the delivery store for consumers' leases: claims that are extended and answered.

use super::*;
use crate::journal::First;

pub async fn a_lease_that_is_extended_is_granted_to_nobody_else<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    let claimant = Claimant::new(&journal, "extended");
    let short = Duration::from_millis(500);
    let fence = claimant.claimed(0, short).await;
    assert_eq!(journal.renew(claimant.key(), fence, LEASE).await.unwrap(), Answer::Renewed);
    let started = Instant::now();
    while started.elapsed() < short * 2 {
        let answer = claimant.claim(0).await;
        assert!(matches!(answer, Answer::Busy { .. }), "{answer:?} after {:?}", started.elapsed());
    }
    assert_eq!(claimant.settle(fence, 0, Outcome::Delivered).await, Answer::Settled);
}

pub async fn of_answers_to_one_lease_at_once_the_first_counts<B: Backend>() {
    let backend = B::new();
    let (queue, journal) = backend.open(ledger()).await;
    let claimant = std::sync::Arc::new(Claimant::new(&journal, "answered"));
    let mut answers = tokio::task::JoinSet::new();
    for at in 0..20 {
        let (claimant, journal) = (claimant.clone(), journal.clone());
        answers.spawn(async move {
            let of = First::Lease { key: claimant.key(), fence: 7 };
            journal.first(of, &at.to_string(), RETENTION).await.unwrap()
        });
    }
    let heard: HashSet<String> = answers.join_all().await.into_iter().collect();
    assert_eq!(heard.len(), 1, "{heard:?}");
    drop((queue, journal));
    // Also for a server that starts later; another lease of the event has an answer of its own.
    let (_, journal) = backend.open(ledger()).await;
    for (fence, expected) in [(7, heard.iter().next().unwrap().as_str()), (8, "late")] {
        let of = First::Lease { key: claimant.key(), fence };
        assert_eq!(journal.first(of, "late", RETENTION).await.unwrap(), expected);
    }
}
