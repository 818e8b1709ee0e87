//! Publishing to the archive, and without it while it holds confirms or takes connections down. See
//! [`held`](super::held).

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use tokio::time::timeout;
use zentra_core::seal::Sealed;
use zentra_store::queue::Operate;

use super::session::{close_aside, connect, publish_alone};
use super::{Amqp, QueueError, message};
use crate::error::failed;

/// Time limit for a trial of the archive.
pub(super) const TRIAL: Duration = Duration::from_secs(15);

impl Amqp {
    /// Whether the archive takes this event. Always true in an operator's program, which does not
    /// know.
    pub(super) fn archives(&self, sealed: &Sealed) -> bool {
        let source = sealed.route.split('.').next().unwrap_or_default();
        let routes = self.routes.borrow();
        routes.as_ref().is_none_or(|routes| routes.archive.sources.iter().any(|one| one == source))
    }

    /// Publishes an event to the archive and to its subscribers. The archive may hold the confirm
    /// for half of the time limit, and may take the connection down: see [`held`]. Returns whether
    /// the confirm covers the archive.
    pub(super) async fn publish_archived(&self, sealed: &Sealed) -> Result<bool, QueueError> {
        let (started, limit) = (Instant::now(), self.settings.publish_timeout);
        let breakdowns = self.publishing.breakdowns();
        let properties = message::new(sealed).map_err(failed)?;
        let (exchange, body) = (self.names.ingress_exchange(), sealed.body.clone());
        let mut sent =
            pin!(self.send(&self.publishing, &exchange, &sealed.route, body, properties));
        let sent = match timeout(limit / 2, &mut sent).await {
            Ok(sent) => sent,
            // It is slow, but it works.
            Err(_) if self.held.has_worked_since(started) => sent.await,
            Err(_) => {
                let confirmed = self.is_confirmed_without_archive(sealed).await?;
                match poll!(&mut sent) {
                    Poll::Ready(sent) => sent,
                    // Only the broker as a whole was slow.
                    Poll::Pending if !confirmed || self.held.has_worked_since(started) => {
                        sent.await
                    }
                    Poll::Pending => {
                        self.leave_held_archive_out();
                        return Ok(false);
                    }
                }
            }
        };
        match sent {
            Ok(()) => {
                self.archive_works();
                return Ok(true);
            }
            Err(QueueError::Lost) if self.publishing.breakdowns() != breakdowns => {
                self.leave_archive_out(
                    "RabbitMQ failed and closed the connection while events were published to the \
                     archive: they are accepted without it for a while",
                );
            }
            // Another event has found out that the archive holds confirms.
            Err(QueueError::Lost) if self.held.is_left_out() => {}
            Err(error) => return Err(error),
        }
        self.publish_without_archive(sealed).await.map(|()| false)
    }

    pub(super) fn archive_works(&self) {
        if self.held.works() {
            tracing::info!("the archive takes events again");
            self.metrics.archive.leave_out(false);
        }
    }

    /// Returns `false` if it is left out already.
    fn leave_archive_out(&self, why: &'static str) -> bool {
        let begins = self.held.leave_out();
        if begins {
            tracing::error!("{why}");
            self.metrics.archive.leave_out(true);
        }
        begins
    }

    /// Puts an event into the archive alone, to see whether the archive works again.
    pub(super) async fn try_archive(self, sealed: Sealed) {
        match timeout(TRIAL, self.is_archived(&sealed)).await {
            Ok(Ok(true)) => self.archive_works(),
            Ok(Err(QueueError::Disconnected)) => self.held.try_again(),
            failed => {
                tracing::debug!(?failed, "the archive still takes no events");
                self.held.leave_out();
                // Its queue may have been deleted: it is declared again.
                if let Some(session) = self.publishing.now() {
                    session.archived.store(false, Ordering::Release);
                }
            }
        }
    }

    /// On a connection of its own, because the broker may close it.
    ///
    /// # Errors
    ///
    /// [`QueueError::Disconnected`] if there is no connection: the archive is not to blame.
    async fn is_archived(&self, sealed: &Sealed) -> Result<bool, QueueError> {
        let session = self.publishing.now().ok_or(QueueError::Disconnected)?;
        let properties = message::new(sealed).map_err(failed)?;
        let connection = connect(&session.url, &self.settings, "archive").await;
        let connection = connection.map_err(|_| QueueError::Disconnected)?;
        let (exchange, key) = (self.names.archived(), sealed.route.as_str());
        let confirmed =
            publish_alone(&connection, (&exchange, key), &sealed.body, properties).await;
        close_aside(connection);
        confirmed.map_err(failed)
    }

    /// The connection is a new one since the archive is left out: waits for it for half of the time
    /// limit of a confirm.
    pub(super) async fn publish_without_archive(&self, sealed: &Sealed) -> Result<(), QueueError> {
        let mut publishing = self.publishing.clone();
        let connected = timeout(self.settings.publish_timeout / 2, publishing.session()).await;
        connected.ok().flatten().ok_or(QueueError::Disconnected)?;
        self.reroute(sealed).await
    }

    /// Publishes an event that waits for its confirm once more, without the archive. Only the
    /// confirm of this copy proves that it is the archive that holds the first one.
    async fn is_confirmed_without_archive(&self, sealed: &Sealed) -> Result<bool, QueueError> {
        let Some(session) = self.publishing.now() else { return Ok(false) };
        let properties = message::new(sealed).map_err(failed)?;
        let (events, limit) = (self.names.events(), self.settings.publish_timeout / 4);
        let to = (events.as_str(), sealed.route.as_str());
        Ok(session.confirms_aside(limit, to, &sealed.body, properties).await)
    }

    fn leave_held_archive_out(&self) {
        let why =
            "the archive holds the confirms of events: they are accepted without it for a while";
        if self.leave_archive_out(why)
            && let Some(session) = self.publishing.now()
        {
            // What it holds would fill the lanes.
            session.renew();
        }
    }
}
