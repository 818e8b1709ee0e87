//! A whole Zentra in front of a ledger: what the end-to-end tests share.

use std::time::Duration;

use zentra_config::ClientTls;
use zentra_core::lifecycle::State;
use zentra_redis::RedisJournal;
use zentra_store::journal::{Delivery, DeliveryStore, Entry, HistoryEvent};

use crate::http::{Answer, Headers};
use crate::ledger::Ledger;
use crate::services::folder;
use crate::stack::{Program, Stack};
use crate::{eventually, one_server, sign};

/// How long anything may take: RabbitMQ 3.10 may hold a message that it dead-letters, as what is set
/// aside is, for three minutes.
pub const BOUND: Duration = Duration::from_secs(240);

/// How long the tests' journals remember.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A ledger behind an ingress; workers are started as they are needed.
pub struct World {
    /// Config and binaries.
    pub stack: Stack,
    /// The destination.
    pub ledger: Ledger,
    /// The ingress.
    pub ingress: Program,
    /// To look at histories.
    pub journal: RedisJournal,
}

impl World {
    /// Starts ledger and ingress. `retry` is the destination's retry table.
    pub async fn start(
        rabbit: &str,
        redis: &str,
        namespace: &str,
        retry: &str,
    ) -> anyhow::Result<Self> {
        let ledger = Ledger::start(&folder("ledger")).await?;
        let more = format!("retry = {{ {retry} }}");
        let stack = Stack::new(rabbit, redis, namespace, &ledger.url, &more);
        let journal =
            RedisJournal::new(&one_server(redis), &ClientTls::default(), namespace, RETENTION)?;
        let ingress = stack.ingress().await;
        Ok(Self { stack, ledger, ingress, journal })
    }

    /// POSTs a callback to `acme`. `None` without an answer.
    pub async fn post(&self, headers: &Headers, body: &str) -> Option<Answer> {
        let url = format!("{}/in/acme", self.ingress.listen);
        self.stack.http.post(&url, headers, body.to_owned()).await
    }

    /// Sends a genuine callback; it must get a 2xx.
    pub async fn send(&self, id: &str, body: &str) {
        let answer = self.post(&sign::acme(id, sign::now(), body.as_bytes()), body).await;
        let accepted = answer.as_ref().is_some_and(|answer| answer.status.is_success());
        assert!(accepted, "{id} was not accepted: {answer:?}");
    }

    /// What the journal knows of an event.
    pub async fn delivery(&self, id: &str) -> Option<Delivery> {
        let pairs = ["acme", "github", "stripe-eu", "slack"].map(|source| ("ledger", source));
        let keys = self.journal.find(id, &pairs).await.ok()?;
        self.journal.history(keys.first()?).await.ok()?
    }

    /// Kills, with -9, the worker that holds the claim of an event, as its history says.
    pub async fn kill_the_holder<'w>(
        &self,
        id: &str,
        workers: &'w mut [Program],
    ) -> anyhow::Result<&'w mut Program> {
        let known = self.delivery(id).await;
        let history = known.map(|delivery| delivery.history).unwrap_or_default();
        let claims = |entry: &&Entry| matches!(entry.what, HistoryEvent::Claimed { .. });
        let holder = history.iter().rev().find(claims).map(|entry| entry.by.clone());
        let holder = holder.unwrap_or_default();
        let holds = |worker: &&mut Program| holder.ends_with(&format!("-{}", worker.process.id()));
        let worker = workers.iter_mut().find(holds);
        let worker = worker.ok_or_else(|| anyhow::anyhow!("no worker is {holder}"))?;
        worker.process.kill();
        Ok(worker)
    }

    /// Waits for a delivery whose state and history are as wanted.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
        eventually(&format!("{id} comes to its end"), BOUND, async || {
            self.delivery(id).await.filter(&wanted)
        })
        .await
    }
}

/// How many lines of its history are as wanted.
pub fn count(delivery: &Delivery, wanted: impl Fn(&HistoryEvent) -> bool) -> usize {
    delivery.history.iter().filter(|entry| wanted(&entry.what)).count()
}

/// Whether a line records a copy without effect.
pub fn is_copy(what: &HistoryEvent) -> bool {
    matches!(what, HistoryEvent::Duplicate | HistoryEvent::Stale)
}

/// Whether it is delivered.
pub fn delivered(delivery: &Delivery) -> bool {
    delivery.record.state == State::Delivered
}

/// Whether it is dead.
pub fn dead(delivery: &Delivery) -> bool {
    delivery.record.state == State::Dead
}
