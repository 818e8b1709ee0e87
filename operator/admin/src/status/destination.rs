//! The status of a destination.

use std::collections::BTreeMap;

use serde::Serialize;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::State;
use zentra_store::control::{Attribution, Circuit, DesiredState, Heartbeat};
use zentra_store::journal::list::Listed;
use zentra_store::journal::{DeliveryStore, HistoryEvent};

use super::RECENT;
use crate::error::AdminError;

/// Maximum number of dead deliveries that are counted.
const DEAD: usize = 1000;
/// Minimum number of attempts for a finding.
const ENOUGH: u64 = 5;

/// Status of a destination.
#[derive(Clone, Debug, Serialize)]
pub struct Destination {
    pub destination: String,
    /// What is wrong: `no_worker`, `no_consumer` (nobody pulls), `paused`, `circuit_open`, `failing`, `queue_missing`, `stuck`, `dead_letters`,
    /// `unlisted_letters`; nothing if all is well.
    pub findings: Vec<&'static str>,
    /// Number of workers. `None` if it is unknown.
    pub workers: Option<usize>,
    /// The worst circuit state of all workers.
    pub circuit: Option<Circuit>,
    /// Who paused it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Attribution>,
    /// Messages that wait for a worker. `None` if no worker has declared the queue yet, or the
    /// queue can't be read.
    pub backlog: Option<u64>,
    /// Whether its work queue doesn't exist.
    pub queue_missing: bool,
    /// Number of work queues.
    #[serde(skip)]
    pub(super) shards: u16,
    /// Whether consumers pull its events.
    #[serde(skip)]
    pulled: bool,
    /// Attempts of the last hour among the deliveries that were read.
    pub attempts: u64,
    pub succeeded: u64,
    pub in_flight: usize,
    pub waiting: usize,
    /// Receipt of the oldest unfinished delivery.
    pub oldest: Option<Timestamp>,
    pub last_delivered: Option<Timestamp>,
    /// Dead deliveries by reason, up to 1,000.
    pub dead: BTreeMap<&'static str, usize>,
    /// Letters in its dead-letter queue beyond the known dead deliveries: RabbitMQ dead-lettered
    /// them after 100 unacknowledged deliveries, or a killed pass left them. `None` if it is
    /// unknown.
    pub unlisted_letters: Option<u64>,
    #[serde(skip)]
    since: Timestamp,
}

impl Destination {
    /// By what was looked at, newest first.
    pub(super) fn new(
        configured: &zentra_config::Destination,
        listed: &[Listed],
        now: Timestamp,
    ) -> Self {
        let name = &configured.name;
        let mut one = Self {
            destination: name.clone(),
            findings: Vec::new(),
            workers: None,
            circuit: None,
            paused: None,
            backlog: None,
            queue_missing: false,
            shards: configured.shards,
            pulled: configured.pull.is_some(),
            attempts: 0,
            succeeded: 0,
            in_flight: 0,
            waiting: 0,
            oldest: None,
            last_delivered: None,
            dead: BTreeMap::new(),
            unlisted_letters: None,
            since: now.minus(RECENT),
        };
        for Listed { delivery, .. } in listed {
            if delivery.key.destination() != name.as_str() {
                continue;
            }
            match delivery.record.state {
                State::InFlight => one.in_flight += 1,
                State::Waiting => one.waiting += 1,
                State::Delivered | State::Dead => {}
            }
            if matches!(delivery.record.state, State::InFlight | State::Waiting) {
                let received = delivery.event.received_at;
                one.oldest = one.oldest.into_iter().chain(received).min();
            }
            for entry in &delivery.history {
                let succeeded = matches!(entry.what, HistoryEvent::Delivered { .. });
                if succeeded {
                    one.last_delivered = one.last_delivered.max(Some(entry.at));
                }
                let ended =
                    matches!(entry.what, HistoryEvent::Failed { .. } | HistoryEvent::Dead { .. });
                if (succeeded || ended) && entry.at >= one.since {
                    one.attempts += 1;
                    one.succeeded += u64::from(succeeded);
                }
            }
        }
        one
    }

    /// Counts the dead, however long they have been.
    pub(super) async fn count_dead(
        &mut self,
        histories: &impl DeliveryStore,
    ) -> Result<(), AdminError> {
        for delivery in histories.dead(&self.destination, DEAD, &|_| true).await? {
            let reason = delivery.reason.map_or("unknown", |reason| reason.as_str());
            *self.dead.entry(reason).or_default() += 1;
        }
        Ok(())
    }

    /// By how many letters its dead-letter queue has. What is dead goes there first, and is written down
    /// then.
    pub(super) fn compare(&mut self, letters: Option<u64>) {
        let written: usize = self.dead.values().sum();
        self.unlisted_letters = match letters {
            Some(letters) if written < DEAD => Some(letters.saturating_sub(written as u64)),
            _ => None,
        };
    }

    /// What its workers tell, and operators want.
    pub(super) fn heard(&mut self, heartbeats: &[Heartbeat], desired: Option<&DesiredState>) {
        let works = || {
            heartbeats.iter().filter_map(|heartbeat| heartbeat.destinations.get(&self.destination))
        };
        self.workers = Some(works().count());
        self.circuit = works().map(|work| work.circuit).max();
        self.paused = desired.and_then(|desired| desired.pause.clone());
    }

    /// Nothing is known of its workers.
    pub(super) fn unheard(&mut self) {
        (self.workers, self.circuit, self.paused) = (None, None, None);
    }

    /// Says what is wrong.
    pub(super) fn judge(&mut self) {
        let all = [
            ("no_worker", self.workers == Some(0) && !self.pulled),
            ("no_consumer", self.workers == Some(0) && self.pulled),
            ("paused", self.paused.is_some()),
            ("circuit_open", self.circuit.is_some_and(|circuit| circuit != Circuit::Closed)),
            ("failing", self.attempts >= ENOUGH && self.succeeded * 2 < self.attempts),
            ("queue_missing", self.queue_missing),
            ("stuck", self.backlog > Some(0) && self.attempts == 0),
            ("dead_letters", !self.dead.is_empty()),
            ("unlisted_letters", self.unlisted_letters > Some(0)),
        ];
        self.findings = all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect();
    }
}
