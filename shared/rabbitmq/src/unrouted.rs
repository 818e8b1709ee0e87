//! Watches the queue of unrouted events.
//!
//! While that queue exists, every confirmed event is in it or in a work queue. If somebody deletes
//! it, and a work queue too, the broker confirms an event that only the archive holds. The event
//! is not lost, but nobody would deliver it. So after each confirm the queue is looked up
//! ([`answer`]), and an event that may be in the archive alone is not accepted.
//! [`Unrouted::watch`] finds what could not be looked up in time, and resends it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use zentra_core::clock::{self, Timestamp};
use zentra_core::event::Envelope;

use super::archive::AmqpArchived;
use super::declare::declare;
use super::session::Session;
use super::topology::short;
use super::{Archived, Names, QueueError, Routes, Settings, message};
use crate::error::{failed, is_missing};

/// How often the queue is looked up.
const LOOK: Duration = Duration::from_secs(1);
/// Time limit of one lookup.
const ANSWER: Duration = Duration::from_secs(10);
/// Time limit of resending.
const SENDING: Duration = Duration::from_secs(600);
/// A process that just started resends this much: other processes would have noticed earlier
/// deletions.
const START: Duration = Duration::from_secs(10);
/// Maximum difference between the broker's clock and ours.
const BROKERS_CLOCK: Duration = Duration::from_secs(60);
/// Maximum difference between the clocks of two ingresses, plus the time a callback may take to be
/// confirmed.
const SKEW: Duration = Duration::from_secs(5);
/// Reading ends after this number of consecutive events that came later.
const LATER: usize = 1000;
/// Number of resent events that may wait for their confirms.
const TOGETHER: usize = 256;
const REPLY_SUCCESS: u16 = 200;

/// How long a confirmed event waits for [`answer`]. The broker finds a missing queue in its own
/// tables at once. For an existing queue it asks the queue's leader, which may be unreachable.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// Senders that ask whether the queue exists. A lookup that starts later answers them.
pub(super) type Asking = oneshot::Sender<bool>;

/// Answers whether the queue exists. One lookup answers all senders that asked before it. Does not
/// answer while the broker does not.
pub(super) async fn answer(session: Arc<Session>, names: Names, mut asked: mpsc::Receiver<Asking>) {
    let (mut channel, mut asking) = (None, Vec::new());
    let looks = async {
        while asked.recv_many(&mut asking, usize::MAX).await > 0 {
            let exists = timeout(ANSWER, found(&session, &mut channel, &names.unrouted())).await;
            match exists.unwrap_or(Err(QueueError::Timeout(ANSWER))) {
                Ok(exists) => {
                    for asks in asking.drain(..) {
                        let _ = asks.send(exists);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot look up the queue of unrouted events");
                    (channel, asking) = (None, Vec::new());
                }
            }
        }
    };
    tokio::select! {
        () = session.gone.cancelled() => {}
        () = looks => {}
    }
}

/// Whether a queue exists. The channel stays open for the next lookup.
async fn found(
    session: &Session,
    kept: &mut Option<Channel>,
    queue: &str,
) -> Result<bool, QueueError> {
    let channel = match kept.take() {
        Some(channel) => channel,
        None => session.channel().await?,
    };
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    match channel.queue_declare(short(queue).map_err(failed)?, passive, FieldTable::default()).await
    {
        Ok(_) => {
            *kept = Some(channel);
            Ok(true)
        }
        // The broker closed the channel.
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// What is known about the queue, shared by all connections of a link.
#[derive(Default)]
pub(super) struct Unrouted(Mutex<Known>);

#[derive(Default)]
struct Known {
    seen_at: Option<Timestamp>,
    /// Events since this time must be resent.
    missed_since: Option<Timestamp>,
}

impl Unrouted {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up whether the queue exists. Call this before declaring the queue, because nobody
    /// notices the deletion afterwards.
    pub(super) async fn look(
        &self,
        session: &Session,
        names: &Names,
        routes: &Routes,
    ) -> Result<(), QueueError> {
        let now = clock::now();
        let deleted = was_deleted(session, names, routes).await?;
        let mut known = self.known();
        if !deleted {
            known.seen_at = Some(now);
        } else if known.missed_since.is_none() {
            let queue = names.unrouted();
            tracing::error!(
                queue,
                "the queue of unrouted events was deleted: resending the events since"
            );
            known.missed_since = Some(known.seen_at.unwrap_or_else(|| now.minus(START)));
        }
        Ok(())
    }

    /// Declares the queue again whenever it is missing, and resends the events of that time.
    /// Copies have no effect.
    pub(super) async fn watch(
        &self,
        session: &Session,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
    ) -> Infallible {
        let names = Names::new(&settings.namespace);
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let routes = routes.borrow().clone();
            let Some(routes) = routes else { continue };
            let looked = timeout(ANSWER, self.look(session, &names, &routes)).await;
            if let Err(error) = looked.unwrap_or(Err(QueueError::Timeout(ANSWER))) {
                tracing::debug!(%error, "cannot look up the queue of unrouted events");
                continue;
            }
            let Some(since) = self.known().missed_since else { continue };
            let mend = async {
                declare(&session.connection, &names, settings, &routes).await.map_err(failed)?;
                send_again(session, &names, &routes, since).await
            };
            match timeout(SENDING, mend).await.unwrap_or(Err(QueueError::Timeout(SENDING))) {
                Ok(sent) => {
                    tracing::warn!(sent, %since, "events were resent from the archive");
                    self.known().missed_since = None;
                }
                Err(error) => tracing::warn!(
                    %error, %since, "cannot resend events from the archive: retrying"
                ),
            }
        }
    }
}

/// Whether the queue is missing although an archive shows that it existed.
async fn was_deleted(
    session: &Session,
    names: &Names,
    routes: &Routes,
) -> Result<bool, QueueError> {
    let archived = !routes.archive.sources.is_empty();
    if !archived || exists(session, &names.unrouted()).await? {
        return Ok(false);
    }
    exists(session, &names.archive(&routes.archive)).await
}

pub(super) async fn exists(session: &Session, queue: &str) -> Result<bool, QueueError> {
    let mut channel = None;
    let exists = found(session, &mut channel, queue).await?;
    if let Some(channel) = channel {
        channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    }
    Ok(exists)
}

async fn confirmed(confirms: &mut Vec<PublisherConfirm>) -> Result<usize, QueueError> {
    let count = confirms.len();
    for confirm in confirms.drain(..) {
        match confirm.await.map_err(failed)? {
            Confirmation::Ack(None) => {}
            _ => return Err(QueueError::Refused),
        }
    }
    Ok(count)
}

/// Publishes what the archive holds from `since` until now to the destinations' queues. Returns
/// the number of events.
async fn send_again(
    session: &Session,
    names: &Names,
    routes: &Routes,
    since: Timestamp,
) -> Result<usize, QueueError> {
    let until = clock::now().plus(SKEW);
    let (from, archive) = (since.minus(SKEW), names.archive(&routes.archive));
    let mut archived = AmqpArchived::start(session, &archive, since.minus(BROKERS_CLOCK)).await?;
    let channel = session.channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
    let (mut sent, mut later, mut confirms) = (0, 0, Vec::new());
    while let Some(sealed) = archived.next().await? {
        // The worker checks the seal, so it is not checked here. What cannot be read stays
        // unrouted.
        let envelope = serde_json::from_slice::<Envelope>(&sealed.envelope).ok();
        let came_at = envelope.as_ref().map_or(since, |envelope| {
            envelope.admitted.as_ref().map_or(envelope.received_at, |admitted| admitted.at)
        });
        later = if came_at > until { later + 1 } else { 0 };
        if later == LATER {
            break;
        }
        if came_at < from || came_at > until {
            continue;
        }
        let route = envelope.map(|envelope| envelope.route()).unwrap_or_default();
        let (exchange, route) =
            (short(&names.events()).map_err(failed)?, short(&route).map_err(failed)?);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = message::new(&sealed).map_err(failed)?;
        let publish = channel.basic_publish(exchange, route, options, &sealed.body, properties);
        confirms.push(publish.await.map_err(failed)?);
        if confirms.len() == TOGETHER {
            sent += confirmed(&mut confirms).await?;
        }
    }
    sent += confirmed(&mut confirms).await?;
    channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)?;
    Ok(sent)
}
