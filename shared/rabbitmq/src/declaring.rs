//! What a connection declares, before its first publish or beside it, and keeps declared.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lapin::options::BasicPublishOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{BasicProperties, ErrorKind};
use tokio::sync::watch;
use tokio::time::timeout;

use super::applied::{apply, archive, depth, look, waiting};
use super::declare::declare;
use super::lane;
use super::link::{Declared, Failures};
use super::session::{Session, connect};
use super::topology::short;
use super::{QueueError, Routes, Settings, Subscriber};
use crate::error::{failed, is_missing};

/// Time to declare the topology and to open the lanes. A busy broker takes seconds for new queues.
const PREPARE: Duration = Duration::from_secs(30);
/// Pause between two attempts to declare.
const AGAIN: Duration = Duration::from_secs(5);
/// How often queues are counted, and how often an archive that the broker could not serve is tried
/// again.
const HOUSE: Duration = Duration::from_secs(15);
/// How often a worker looks at the numbers of shards that others have applied.
const LOOK: Duration = Duration::from_secs(30);
const REPLY_SUCCESS: u16 = 200;

impl Session {
    pub(super) async fn declare_now(
        &self,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        let wanted = routes.borrow().clone();
        match wanted {
            Some(wanted) => self.declare_within(settings, &wanted, declared).await,
            None => Ok(()),
        }
    }

    /// Declares routes that this link has not declared yet.
    pub(super) async fn declare_new(
        &self,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        loop {
            let wanted = routes.borrow().clone();
            let known = declared.borrow().as_ref().map(|known| known.routes.clone());
            if wanted.is_none() || wanted == known {
                return Ok(());
            }
            self.declare_now(settings, routes, declared).await?;
        }
    }

    async fn declare_within(
        &self,
        settings: &Settings,
        routes: &Routes,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        let declare = timeout(PREPARE, self.declare(settings, routes, declared)).await;
        declare.unwrap_or(Err(QueueError::Timeout(PREPARE)))
    }

    /// A connection that was made again only adds bindings: an older program that is shutting down
    /// must not unbind what a newer one bound.
    async fn declare(
        &self,
        settings: &Settings,
        routes: &Routes,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Result<(), QueueError> {
        self.unrouted.look(self, &self.names, routes).await?;
        let known = declared.borrow().clone();
        let known = known.unwrap_or_else(|| Declared::nothing(routes));
        let (unbound, shards) = match known.unbound && known.routes == *routes {
            true => {
                declare(&self.connection, &self.names, settings, routes).await.map_err(failed)?;
                (true, known.shards)
            }
            false => match apply(&self.connection, &self.names, settings, routes).await? {
                Some(highest) => (true, highest),
                None => (false, known.shards),
            },
        };
        self.attach_archive(settings, routes).await?;
        if let Some(wanted) = settings.largest_body {
            self.measure(wanted).await?;
        }
        self.declared.store(true, Ordering::Release);
        self.has_probes.store(true, Ordering::Release);
        declared.send_replace(Some(Declared { routes: routes.clone(), unbound, shards }));
        Ok(())
    }

    fn has_declared(&self, routes: &Routes, declared: &watch::Sender<Option<Declared>>) -> bool {
        let known = declared.borrow();
        let is_done = known.as_ref().is_some_and(|known| known.unbound && known.routes == *routes);
        is_done && self.declared.load(Ordering::Acquire)
    }

    /// Declares on a connection that was made again, and whenever the routes change.
    pub(super) async fn keep_declared(
        &self,
        purpose: &str,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Infallible {
        let mut routes = routes.clone();
        let mut failures = Failures::default();
        let mut asked = false;
        loop {
            let wanted = routes.borrow_and_update().clone();
            let Some(wanted) = wanted else { return pending().await };
            if asked {
                // Others may have bound something since.
                declared.send_if_modified(|known| {
                    known.iter_mut().for_each(|known| known.unbound = false);
                    false
                });
            }
            if asked || !self.has_declared(&wanted, declared) {
                let declare = self.declare_within(settings, &wanted, declared).await;
                if let Err(error) = &declare {
                    failures.log("cannot declare the routes: retrying", purpose, error);
                }
                if declare.is_err() || !self.has_declared(&wanted, declared) {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            // Operators also reload to have everything declared again.
            asked = true;
            if routes.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Asks the broker whether it accepts a body of this size, by a message to a queue that does
    /// not exist. The broker checks the size first, and then drops the message.
    async fn measure(&self, wanted: usize) -> Result<(), QueueError> {
        let channel = lane::open(&self.connection).await.map_err(failed)?;
        let (exchange, nowhere) = (
            short(&self.names.internal()).map_err(failed)?,
            short(&format!("{}.nowhere", self.names.probe())).map_err(failed)?,
        );
        let (options, body) = (BasicPublishOptions::default(), vec![0; wanted]);
        let properties = BasicProperties::default();
        let asked = async {
            channel.basic_publish(exchange, nowhere, options, &body, properties).await?.await
        };
        match asked.await {
            Ok(_) => {
                self.largest.store(usize::MAX, Ordering::Release);
                channel.close(REPLY_SUCCESS, short("").map_err(failed)?).await.map_err(failed)
            }
            Err(error) => {
                let most = most_told(&error).ok_or(error).map_err(failed)?;
                self.largest.store(most, Ordering::Release);
                tracing::error!(
                    max_message_size = most,
                    max_body = wanted,
                    "rabbitmq takes no messages as large as the sources' max_body: larger callbacks \
                     are refused (413); raise max_message_size in rabbitmq.conf or lower max_body"
                );
                Ok(())
            }
        }
    }

    /// Binds the archive if the broker can serve it. See [`archive`].
    async fn attach_archive(&self, settings: &Settings, routes: &Routes) -> Result<(), QueueError> {
        let aside = connect(&self.url, settings, "archive");
        let attached = archive(&self.connection, &self.names, routes, aside).await?;
        self.archived.store(attached, Ordering::Release);
        self.metrics.archive.attach(attached);
        Ok(())
    }

    /// Counts the messages that wait in queues, and tries again an archive that the broker could
    /// not serve.
    pub(super) async fn keep_house(
        &self,
        settings: &Settings,
        routes: &watch::Receiver<Option<Routes>>,
        declared: &watch::Sender<Option<Declared>>,
    ) -> Infallible {
        let mut tick = tokio::time::interval(HOUSE);
        let (mut deleted, mut looked) = (HashSet::new(), Instant::now());
        loop {
            tick.tick().await;
            let routes = routes.borrow().clone();
            let Some(routes) = routes else {
                continue;
            };
            if settings.binds_shards && looked.elapsed() >= LOOK {
                looked = Instant::now();
                let look = timeout(HOUSE, look(&self.connection, &self.names, &routes)).await;
                if let Ok(Ok(Some(highest))) = look {
                    declared.send_if_modified(|known| {
                        known.as_mut().is_some_and(|known| known.learn(highest))
                    });
                }
            }
            let known = declared.borrow().clone();
            let known = known.unwrap_or_else(|| Declared::nothing(&routes));
            let _ = timeout(HOUSE, self.count(&routes, &known, &mut deleted)).await;
            if !self.archived.load(Ordering::Acquire) {
                let attach = timeout(PREPARE, self.attach_archive(settings, &routes)).await;
                if let Err(error) = attach.unwrap_or(Err(QueueError::Timeout(PREPARE))) {
                    tracing::debug!(%error, "the broker still cannot serve the archive");
                }
            }
        }
    }

    /// `deleted`: queues of former shards that no longer exist. The broker logs each question about
    /// such a queue.
    async fn count(&self, routes: &Routes, known: &Declared, deleted: &mut HashSet<String>) {
        if let Some(messages) = depth(&self.connection, &self.names.unrouted()).await {
            self.metrics.depths.unrouted.set(messages.into());
        }
        let gauges = &self.metrics.depths.waiting;
        for Subscriber { destination, shards, .. } in &routes.subscribers {
            let mut work = None;
            for shard in 0..known.shards(destination).highest.max(*shards) {
                let queue = self.names.work_queue(destination, shard);
                let is_former = shard >= *shards;
                if is_former && deleted.contains(&queue) {
                    continue;
                }
                match waiting(&self.connection, &queue).await {
                    Ok(messages) => *work.get_or_insert(0) += i64::from(messages),
                    Err(error) if is_former && is_missing(&error) => drop(deleted.insert(queue)),
                    Err(_) => {}
                }
            }
            if let Some(messages) = work {
                gauges.with_label_values(&[destination.as_str(), "work"]).set(messages);
            }
            if let Some(messages) =
                depth(&self.connection, &self.names.dead_queue(destination)).await
            {
                gauges.with_label_values(&[destination.as_str(), "dead"]).set(messages.into());
            }
        }
    }
}

/// The limit in "message size 3145728 is larger than configured max size 2097152".
fn most_told(error: &lapin::Error) -> Option<usize> {
    let ErrorKind::ProtocolError(reply) = error.kind() else { return None };
    let precondition = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
    let text = reply.get_message().to_string();
    let size = text.contains("message size") && *reply.kind() == precondition;
    size.then(|| text.rsplit(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()))
        .flatten()?
        .parse()
        .ok()
}
