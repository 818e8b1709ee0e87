//! What happens, for the view: accepted and refused callbacks as the ingress stores them, and the
//! deliveries in the file.

use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use zentra_admin::Backend;
use zentra_admin::backend::File;
use zentra_admin::payload::shown;
use zentra_admin::refused::mask;
use zentra_config::Config;
use zentra_core::event::Event;
use zentra_core::refused::RefusedRecord;
use zentra_core::seal::Sealed;
use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::{Listed, Query};
use zentra_store::queue::{Publish, QueueError, Routes, Subscribe};

use super::application::Received;

/// Poll interval of the file.
const POLL: Duration = Duration::from_millis(300);
/// Number of deliveries that are shown, the newest ones.
pub(super) const SHOWN: usize = 200;

/// The start of a body that is shown, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Number of news that can wait for a slow terminal. In a flood the others are not shown: the ingress
/// never waits for the view.
pub(super) const WAITING: usize = 1024;

/// Something new.
pub(super) enum News {
    /// The ingress has accepted an event.
    Accepted(Box<Event>),
    /// The ingress has refused a callback.
    Refused(Box<RefusedRecord>, Bytes),
    /// The built-in application has got a request.
    Received(Received),
    /// The newest deliveries, newest first. Sent only if they have changed.
    Deliveries(Vec<Listed>),
    /// What to tell the user.
    Note(String),
}

/// The queue of the ingress. It shows what is stored.
#[derive(Clone)]
pub(super) struct Shown<Q> {
    pub(super) queue: Q,
    pub(super) config: &'static Config,
    pub(super) news: mpsc::Sender<News>,
}

impl<Q: Publish> Subscribe for Shown<Q> {
    const SYSTEM: &'static str = Q::SYSTEM;

    async fn subscribe(&self, routes: Routes) {
        self.queue.subscribe(routes).await;
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.queue.register(registry)
    }
}

impl<Q: Publish> Publish for Shown<Q> {
    async fn publish(&self, sealed: &Sealed) -> Result<(), QueueError> {
        self.queue.publish(sealed).await?;
        if let Ok(mut event) = self.config.seal.open(sealed) {
            event.body = excerpt(&shown(self.config, &event.envelope.source, &event.body));
            let _ = self.news.try_send(News::Accepted(Box::new(event)));
        }
        Ok(())
    }

    async fn keep(&self, refused: &Sealed) -> Result<(), QueueError> {
        self.queue.keep(refused).await?;
        if let Ok((mut record, callback)) = RefusedRecord::open(&self.config.seal, refused) {
            mask(&mut record, &self.config.sources);
            let body = excerpt(&shown(self.config, &record.source, &callback.body));
            let _ = self.news.try_send(News::Refused(Box::new(record), body));
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.queue.ready()
    }
}

/// The start of a body.
pub(super) fn excerpt(body: &Bytes) -> Bytes {
    if body.len() <= MAX_BODY {
        return body.clone();
    }
    let rest = format!("\n… {} bytes in all", body.len());
    [&body[..MAX_BODY], rest.as_bytes()].concat().into()
}

/// Reads the newest deliveries again and again, until nobody wants them.
pub(super) async fn poll(backend: &File<'_>, news: mpsc::Sender<News>) {
    let histories = backend.histories();
    let mut tick = interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Vec::new();
    loop {
        tick.tick().await;
        let sent = match histories.list(&Query::default(), None, SHOWN).await {
            Ok(page) if page.items == last => !news.is_closed(),
            Ok(page) => {
                last.clone_from(&page.items);
                news.send(News::Deliveries(page.items)).await.is_ok()
            }
            Err(error) => news.send(News::Note(error.to_string())).await.is_ok(),
        };
        if !sent {
            return;
        }
    }
}
