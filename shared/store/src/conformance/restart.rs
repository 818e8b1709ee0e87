//! What survives a restart.

use super::*;

pub async fn all_is_there_after_a_restart<B: Backend>() {
    let backend = B::new();
    let (queue, journal) = backend.open(ledger()).await;
    queue.publish(&sealed("acme.x", "work")).await.unwrap();
    queue.publish(&sealed("github.x", "unrouted")).await.unwrap();
    kept(&queue, "refused").await;
    queue.dead("ledger", &message("dead"), DeadReason::TooOld, None).await.unwrap();
    let delay = queue.delay(Delay::AtLeast(Duration::from_millis(500)));
    let waits = Message { attempt: 3, generation: 2, ..message("waits") };
    queue.retry("ledger", &waits, delay).await.unwrap();
    let delivered = Claimant::new(&journal, "delivered");
    let fence = delivered.claimed(0, LEASE).await;
    delivered.settle(fence, 0, Outcome::Delivered).await;
    let waiting = Claimant::new(&journal, "waiting");
    let fence = waiting.claimed(0, LEASE).await;
    let next_at = clock::now().plus(LEASE);
    waiting.settle(fence, 0, Outcome::Retry { next_at }).await;
    let dead = Claimant::new(&journal, "dead");
    let fence = dead.claimed(0, LEASE).await;
    dead.settle(fence, 0, Outcome::Dead(DeadReason::TooOld)).await;
    let running = Claimant::new(&journal, "running");
    let fence = running.claimed(0, LEASE).await;
    drop((queue, journal, delivered, waiting, dead, running));

    let (queue, journal) = backend.open(ledger()).await;
    let mut consumer = queue.consume("ledger", 4);
    let mut found = Vec::new();
    for _ in 0..2 {
        let (message, receipt) = next(&mut consumer).await;
        found.push((message.sealed.body, message.attempt, message.generation));
        receipt.ack().await;
    }
    assert_eq!(found, [("work".into(), 1, 0), ("waits".into(), 3, 2)]);
    assert_eq!(walked(&queue, Place::Dead("ledger"), &[]).await, ["dead"]);
    assert_eq!(walked(&queue, Place::Unrouted, &[]).await, ["unrouted"]);
    assert_eq!(walked(&queue, Place::Refused, &[]).await, ["refused"]);
    assert_eq!(Claimant::new(&journal, "delivered").claim(0).await, Answer::Done);
    let waiting = Claimant::new(&journal, "waiting").known().await;
    assert_eq!((waiting.record.state, waiting.record.until), (State::Waiting, next_at));
    assert_eq!(Claimant::new(&journal, "dead").claim(0).await, Answer::Dead);
    let dead = journal.dead("ledger", 9, &|_| true).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason), (1, Some(DeadReason::TooOld)));
    let running = Claimant::new(&journal, "running");
    assert!(matches!(running.claim(0).await, Answer::Busy { .. }));
    assert_eq!(running.settle(fence, 0, Outcome::Delivered).await, Answer::Settled);
}
