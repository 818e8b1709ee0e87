//! Conformance of queue and delivery store together, as pull destinations use them: messages are fetched on request
//! and held while a consumer has the claim.

use super::queue::until_fetched;
use super::*;

/// Until the claim is granted: its lease has just ended.
async fn reclaimed<J: Journal + DeliveryStore>(claimant: &Claimant<J>) -> u64 {
    let granted =
        eventually("the claim is granted again", BOUND, async || match claimant.claim(0).await {
            Answer::Claimed { fence, expired } => Some((fence, expired)),
            _ => None,
        });
    let (fence, expired) = granted.await;
    assert_eq!(expired, 1);
    fence
}

pub async fn an_event_of_a_lost_lease_comes_again_and_only_its_new_lease_is_current<B: Backend>() {
    let backend = B::new();
    let (queue, journal) = backend.open(ledger()).await;
    queue.publish(&sealed("acme.x", "leased")).await.unwrap();
    let claimant = Claimant::new(&journal, "leased");
    let mut fetcher = queue.fetcher("ledger");
    let held = until_fetched(&mut fetcher).await;
    let lost = claimant.claimed(0, Duration::ZERO).await;
    // Its server ends.
    drop((held, fetcher));
    let mut other = queue.fetcher("ledger");
    let mut again = until_fetched(&mut other).await;
    let (message, receipt) = again.pop().unwrap();
    assert_eq!((&*message.sealed.body, again.len()), (b"leased".as_slice(), 0));
    let current = reclaimed(&claimant).await;
    assert!(current > lost);
    assert_eq!(claimant.known().await.record.fence, current);
    assert_eq!(journal.renew(claimant.key(), lost, LEASE).await.unwrap(), Answer::Lost);
    assert_eq!(claimant.settle(current, 0, Outcome::Delivered).await, Answer::Settled);
    receipt.ack().await;
    assert!(other.fetch(10).await.unwrap().is_empty());
}

pub async fn an_event_that_a_consumer_failed_is_leased_again_after_its_delay<B: Backend>() {
    let (queue, journal) = B::new().open(ledger()).await;
    queue.publish(&sealed("acme.x", "failed")).await.unwrap();
    let claimant = Claimant::new(&journal, "failed");
    let mut fetcher = queue.fetcher("ledger");
    let (message, receipt) = until_fetched(&mut fetcher).await.pop().unwrap();
    let fence = claimant.claimed(0, LEASE).await;
    let delay = queue.delay(Delay::AtLeast(Duration::from_millis(500)));
    let started = Instant::now();
    queue.retry("ledger", &Message { attempt: 2, ..message }, delay).await.unwrap();
    let outcome = Outcome::Retry { next_at: clock::now().plus(delay) };
    assert_eq!(claimant.settle(fence, 0, outcome).await, Answer::Settled);
    receipt.ack().await;
    let (message, receipt) = until_fetched(&mut fetcher).await.pop().unwrap();
    assert!(started.elapsed() >= delay.saturating_sub(Duration::from_millis(50)));
    assert_eq!((&*message.sealed.body, message.attempt), (b"failed".as_slice(), 2));
    receipt.ack().await;
    assert!(fetcher.fetch(10).await.unwrap().is_empty());
}
