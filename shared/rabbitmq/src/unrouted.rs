//! Watches the queue of unrouted events. While it exists, whatever the broker confirms is in it or in
//! a work queue. If somebody deletes it, and a work queue too, the broker confirms what only the
//! archive has got: it isn't lost, but it wouldn't be delivered. So after each confirm the queue is
//! looked for ([`answer`]), and an event that may have reached the archive alone is not accepted. What
//! could not be looked for in time is found by [`Unrouted::watch`] and sent again.

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

use super::applied::declare_only;
use super::archive::AmqpArchived;
use super::link::Session;
use super::topology::short;
use super::{Archived, Names, QueueError, Routes, Settings, message};
use crate::error::{failed, is_missing};

/// How often it is looked whether the queue exists.
const LOOK: Duration = Duration::from_secs(1);
/// How long one look may take,
const ANSWER: Duration = Duration::from_secs(10);
/// and sending again.
const SENDING: Duration = Duration::from_secs(600);
/// What a program that has just started sends again: other programs would have noticed before.
const START: Duration = Duration::from_secs(10);
/// The broker's clock may be so far from ours.
const BROKERS_CLOCK: Duration = Duration::from_secs(60);
/// The clocks of two ingresses may be so far apart, and a callback may take so long to be confirmed.
const SKEW: Duration = Duration::from_secs(5);
/// Reading ends after this number of consecutive events that came later.
const LATER: usize = 1000;
/// How many events wait for their confirms.
const TOGETHER: usize = 256;
const REPLY_SUCCESS: u16 = 200;

/// How long a confirmed event waits for [`answer`]. The broker finds a missing queue in its own tables, at
/// once; only for one that exists does it ask the queue's leader, which may be away.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// Whoever wants to know whether the queue exists, by a look that begins later.
pub(super) type Asking = oneshot::Sender<bool>;

/// Answers whether the queue exists: one look for all who have asked by then. Says nothing where the
/// broker doesn't.
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
                    tracing::debug!(%error, "the queue of unrouted events can't be seen");
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

/// Whether a queue exists. The channel stays open for the next look.
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
        // The broker has closed the channel.
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// What is known of the queue, over all connections of a link.
#[derive(Default)]
pub(super) struct Unrouted(Mutex<Known>);

#[derive(Default)]
struct Known {
    seen_at: Option<Timestamp>,
    /// From when on events have to be sent again.
    missed_since: Option<Timestamp>,
}

impl Unrouted {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the queue is there. To be asked by whoever is about to declare it: nobody else will
    /// notice any more.
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
            tracing::error!(queue, "the queue was deleted: what came since is sent once more");
            known.missed_since = Some(known.seen_at.unwrap_or_else(|| now.minus(START)));
        }
        Ok(())
    }

    /// Declares the queue again whenever it is gone, and sends what came meanwhile once more. Copies have
    /// no effect.
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
                tracing::debug!(%error, "the queue of unrouted events can't be seen");
                continue;
            }
            let Some(since) = self.known().missed_since else { continue };
            let mend = async {
                declare_only(&session.connection, &names, settings, &routes)
                    .await
                    .map_err(failed)?;
                send_again(session, &names, &routes, since).await
            };
            match timeout(SENDING, mend).await.unwrap_or(Err(QueueError::Timeout(SENDING))) {
                Ok(sent) => {
                    tracing::warn!(sent, %since, "events were sent once more from the archive");
                    self.known().missed_since = None;
                }
                Err(error) => tracing::warn!(
                    %error, %since, "events can't be sent once more from the archive: trying again"
                ),
            }
        }
    }
}

/// Whether the queue is gone, though an archive shows that it was there.
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

async fn exists(session: &Session, queue: &str) -> Result<bool, QueueError> {
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

/// Sends what the archive has of the time from `since` to now to the subscribers' queues; how many
/// events that were.
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
        // The seal isn't checked here: a worker does that. What can't be read stays unrouted.
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
