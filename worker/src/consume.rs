//! One destination's loop: as many messages at a time as concurrency and circuit allow. While the
//! circuit is open, or the destination is paused, nothing is held: other workers may be able to
//! deliver it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zentra_store::journal::Journal;
use zentra_store::queue::{Consumer, Process, Receipt};

use crate::circuit::{Admission, Allowed};
use crate::deliver::Deliver;
use crate::gate::KnownState;
use crate::process::Processor;

/// Additional time for running attempts when a worker stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long fetched messages are collected after the stop.
const LEFT_OVER: Duration = Duration::from_secs(1);

/// Consumes until `stop`, except while the destination is paused.
pub(crate) async fn consume<Q: Process, J: Journal>(
    processor: Arc<Processor<Q, J>>,
    deliver: Arc<Deliver>,
    stop: CancellationToken,
) {
    let mut gate = processor.gate.watch();
    let mut goes_on = true;
    while goes_on {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            open = gate.wait_for(KnownState::is_open) => if open.is_err() {
                return;
            },
        }
        goes_on = run(&processor, &deliver, &stop, &mut gate).await;
    }
}

/// Consumes until `stop` or a pause, then lets running attempts finish and returns fetched
/// messages. A message that is held for long would be redelivered again and again. `false` if the
/// queue is closed.
async fn run<Q: Process, J: Journal>(
    processor: &Arc<Processor<Q, J>>,
    deliver: &Arc<Deliver>,
    stop: &CancellationToken,
    gate: &mut watch::Receiver<KnownState>,
) -> bool {
    let name = &processor.destination.name;
    // Only a few more are fetched than run, because a crash counts against each fetched message.
    let mut consumer = processor.queue.consume(name, processor.destination.concurrency);
    let mut running = JoinSet::new();
    let mut changes = processor.unpublished.changes();
    let mut closed = false;
    while gate.borrow_and_update().is_open() {
        let (room, pause) = match processor.gate.circuit.allowed(Instant::now()) {
            Allowed::UpTo(room) => (room, None),
            Allowed::NoneUntil(until) => (0, Some(until)),
        };
        let unpublished = processor.unpublished.count();
        consumer.set_room(room, unpublished).await;
        let over = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now).into());
        tokio::select! {
            () = stop.cancelled() => break,
            _ = gate.changed() => {}
            Some(ended) = running.join_next() => report(ended),
            () = over, if pause.is_some() => {}
            () = changes.next() => {}
            next = consumer.next(), if running.len() < room + unpublished => {
                let Some((message, receipt)) = next else {
                    closed = true;
                    break;
                };
                let (processor, deliver) = (processor.clone(), deliver.clone());
                let admission = processor.gate.circuit.admits(message.attempt, Instant::now());
                // Boxed at once, because it is large and would be moved several times.
                running.spawn(Box::pin(async move {
                    match admission {
                        Admission::Take => processor.handle(message, receipt, &deliver).await,
                        Admission::PutAside(pause) => {
                            processor.put_aside(message, receipt, pause).await;
                        }
                    }
                }));
            }
        }
    }
    consumer.stop().await;
    while let Ok(Some((_, receipt))) = tokio::time::timeout(LEFT_OVER, consumer.next()).await {
        receipt.give_back().await;
    }
    let drain = async {
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(processor.destination.timeout + GRACE, drain).await.is_err() {
        tracing::warn!(
            destination = name,
            "attempts were aborted: the broker redelivers their messages"
        );
    }
    // Drops their receipts too.
    drop(running);
    consumer.finish().await;
    !closed
}

/// A message whose processing panicked stays unacknowledged, and is redelivered when this worker's
/// connection ends.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "handling a message failed");
    }
}
