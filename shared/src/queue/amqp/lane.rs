//! Publishing in batches: a lane is a channel with up to 64 publishes under way.
//!
//! On one channel the client library hands a returned (unroutable) message to whichever
//! confirm comes next, so a confirm alone says nothing of its own message. The broker
//! sends a return before that message's confirm, though: when all confirms of a batch are
//! there, so are all its returns. Only then is anybody told, each by its message id.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::QueueError;
use super::link::Session;
use super::metrics::Busy;

/// Publishes under way on one channel.
pub(super) const BATCH: usize = 64;
/// Bytes of bodies in one batch; one larger body goes alone.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A connection that confirms nothing for this long, and isn't blocked, is dead.
const DEAD: Duration = Duration::from_secs(10);

/// One publish.
pub(super) struct Job {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    /// With a message id.
    pub(super) properties: BasicProperties,
    pub(super) done: oneshot::Sender<Result<(), QueueError>>,
}

/// Where all lanes of a connection take their jobs.
pub(super) type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

/// A channel in confirm mode.
pub(super) async fn open(session: &Session) -> lapin::Result<Channel> {
    let channel = session.connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Works off jobs until the connection is given up. Jobs that are dropped unanswered are
/// in doubt, and their senders are told so.
pub(super) async fn run(session: Arc<Session>, channel: Channel, jobs: Jobs, patience: Duration) {
    let work = async {
        loop {
            let batch = next_batch(&jobs).await;
            if batch.is_empty() {
                return;
            }
            publish(&session, &channel, batch, patience).await;
        }
    };
    tokio::select! {
        () = session.gone.cancelled() => {}
        () = work => {}
    }
}

/// What waits now; empty at the end.
async fn next_batch(jobs: &Jobs) -> Vec<Job> {
    let mut jobs = jobs.lock().await;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut next = jobs.recv().await;
    while let Some(job) = next {
        // Whoever has given up meanwhile needn't be published for.
        if !job.done.is_closed() {
            bytes += job.body.len();
            batch.push(job);
        }
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            break;
        }
        next = match batch.is_empty() {
            true => jobs.recv().await,
            false => jobs.try_recv().ok(),
        };
    }
    batch
}

async fn publish(session: &Session, channel: &Channel, batch: Vec<Job>, patience: Duration) {
    let _busy = Busy::new(&session.metrics.lanes_busy);
    let confirmations = confirmations(channel, &batch);
    match overseen(session, confirmations, patience).await {
        Ok(confirmations) => {
            session.confirmed();
            settle(batch, confirmations);
        }
        // In doubt, all of them; and nothing on this connection is trusted any more.
        Err(error) => {
            session.discard();
            let error = error.to_string();
            for job in batch {
                let _ = job.done.send(Err(QueueError::Broker(error.clone())));
            }
        }
    }
}

async fn confirmations(channel: &Channel, batch: &[Job]) -> lapin::Result<Vec<Confirmation>> {
    let mut pending = Vec::with_capacity(batch.len());
    for job in batch {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (job.exchange.clone(), job.key.clone());
        let properties = job.properties.clone();
        pending.push(channel.basic_publish(exchange, key, options, &job.body, properties).await?);
    }
    try_join_all(pending).await
}

/// Waits for a batch's confirms, and says on the session when they are overdue.
async fn overseen(
    session: &Session,
    confirmations: impl Future<Output = lapin::Result<Vec<Confirmation>>>,
    patience: Duration,
) -> lapin::Result<Vec<Confirmation>> {
    let mut confirmations = std::pin::pin!(confirmations);
    let mut since = Instant::now();
    loop {
        match timeout(patience, confirmations.as_mut()).await {
            Ok(result) => return result,
            // A blocked broker is alive, and confirms later what it has.
            Err(_) if session.blocked() => since = Instant::now(),
            Err(_) if since.elapsed() >= DEAD => {
                return Err(std::io::Error::other("no confirm came any more").into());
            }
            Err(_) => session.stall(),
        }
    }
}

/// Tells each sender what became of its message.
fn settle(batch: Vec<Job>, confirmations: Vec<Confirmation>) {
    let mut returned = HashSet::new();
    let mut acks = Vec::with_capacity(confirmations.len());
    for confirmation in confirmations {
        acks.push(confirmation.is_ack());
        if let Some(message) = confirmation.take_message() {
            returned.insert(message.delivery.properties.message_id().clone());
        }
    }
    // A return without an id is nobody's, so it could be anybody's.
    let doubt = returned.contains(&None);
    for (job, ack) in batch.into_iter().zip(acks) {
        let lost = doubt || returned.contains(job.properties.message_id());
        let result = if ack && !lost { Ok(()) } else { Err(QueueError::Refused) };
        let _ = job.done.send(result);
    }
}
