//! Watches the queue of unrouted events. While it exists, whatever the broker confirms is in it or in
//! a work queue. If somebody deletes it, and a work queue too, the broker confirms what only the
//! archive has got: it isn't lost, but it wouldn't be delivered.

use std::convert::Infallible;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Confirmation, ErrorKind, PublisherConfirm};
use tokio::sync::watch;
use tokio::time::timeout;

use super::applied::declare_only;
use super::archive::AmqpArchived;
use super::link::Session;
use super::topology::short;
use super::{Archived, Names, QueueError, Routes, Settings, message};
use crate::clock::{self, Timestamp};
use crate::event::Envelope;

/// How often it is looked whether the queue exists.
const LOOK: Duration = Duration::from_secs(1);
/// How long one look, or what follows, may take.
const BOUND: Duration = Duration::from_secs(60);
/// The broker's clock may be so far from ours.
const BROKERS_CLOCK: Duration = Duration::from_secs(60);
/// The clocks of two ingresses may be so far apart, and a callback may take so long to be confirmed.
const SKEW: Duration = Duration::from_secs(5);
/// How many events wait for their confirms.
const TOGETHER: usize = 256;
const REPLY_SUCCESS: u16 = 200;

/// Declares the queue again whenever it is gone, and sends what came meanwhile once more. Copies have no
/// effect.
pub(super) async fn watch(
    session: &Session,
    settings: &Settings,
    routes: &watch::Receiver<Option<Routes>>,
) -> Infallible {
    let names = Names::new(&settings.namespace);
    let mut seen_at = clock::now();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let routes = routes.borrow().clone();
        let Some(routes) = routes.filter(|routes| !routes.archive.sources.is_empty()) else {
            seen_at = clock::now();
            continue;
        };
        let looked_at = clock::now();
        let mended = async {
            if was_deleted(session, &names, &routes).await? {
                declare_only(&session.connection, &names, settings, &routes).await?;
                send_again(session, &names, &routes, seen_at).await?;
            }
            Ok::<_, QueueError>(())
        };
        match timeout(BOUND, mended).await {
            Ok(Ok(())) => seen_at = looked_at,
            Ok(Err(error)) => tracing::debug!(%error, "the queue of unrouted events can't be seen"),
            Err(_) => tracing::debug!("the broker doesn't say whether there is a queue"),
        }
    }
}

/// Whether the queue is gone, though an archive shows that it was there. To be asked by whoever is about
/// to declare it: nobody else will notice any more.
pub(super) async fn was_deleted(
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
    let channel = session.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    match channel.queue_declare(short(queue)?, passive, FieldTable::default()).await {
        Ok(_) => channel.close(REPLY_SUCCESS, short("")?).await.map(|()| true).map_err(Into::into),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(told)
                if *told.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) =>
            {
                Ok(false)
            }
            _ => Err(error.into()),
        },
    }
}

async fn confirmed(confirms: &mut Vec<PublisherConfirm>) -> Result<usize, QueueError> {
    let count = confirms.len();
    for confirm in confirms.drain(..) {
        match confirm.await? {
            Confirmation::Ack(None) => {}
            _ => return Err(QueueError::Refused),
        }
    }
    Ok(count)
}

/// Sends what came while a program that starts now found the queue deleted. An ingress that runs would
/// have noticed before.
pub(super) async fn send_recent(
    session: &Session,
    names: &Names,
    routes: &Routes,
) -> Result<(), QueueError> {
    send_again(session, names, routes, clock::now().minus(2 * LOOK)).await
}

/// Sends what the archive has of the time from `since` to now to the subscribers' queues.
async fn send_again(
    session: &Session,
    names: &Names,
    routes: &Routes,
    since: Timestamp,
) -> Result<(), QueueError> {
    let queue = names.unrouted();
    tracing::error!(queue, "the queue was deleted; events of the last seconds are sent once more");
    let until = clock::now();
    let (from, archive) = (since.minus(SKEW), names.archive(&routes.archive));
    let mut archived = AmqpArchived::start(session, &archive, since.minus(BROKERS_CLOCK)).await?;
    let channel = session.channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (mut sent, mut confirms) = (0, Vec::new());
    while let Some(sealed) = archived.next().await? {
        // The seal isn't checked here: a worker does that. What can't be read stays unrouted.
        let envelope = serde_json::from_slice::<Envelope>(&sealed.envelope).ok();
        let received_at = envelope.as_ref().map_or(since, |envelope| envelope.received_at);
        if received_at < from {
            continue;
        }
        if received_at > until {
            break;
        }
        let route = envelope.map(|envelope| envelope.route()).unwrap_or_default();
        let (exchange, route) = (short(&names.events())?, short(&route)?);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = message::new(&sealed)?;
        let publish = channel.basic_publish(exchange, route, options, &sealed.body, properties);
        confirms.push(publish.await?);
        if confirms.len() == TOGETHER {
            sent += confirmed(&mut confirms).await?;
        }
    }
    sent += confirmed(&mut confirms).await?;
    channel.close(REPLY_SUCCESS, short("")?).await?;
    tracing::warn!(sent, "events were sent once more from the archive");
    Ok(())
}
