//! A steady load, for tests of servers under faults.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::http::Http;
use crate::ledger::{Ledger, transfer};
use crate::stack::Program;
use crate::{eventually, sign};

/// How long everything may take to be delivered in the end: RabbitMQ resends what a killed node had
/// under way to a retry after a time of its own.
const SETTLED: Duration = Duration::from_secs(120);
/// Pause of a provider before it sends an event again.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause between two events.
const EVERY: Duration = Duration::from_millis(50);

/// A provider and an application: when each event was acknowledged, and each new row was seen.
pub struct Load {
    ledger: Arc<Ledger>,
    acknowledged: Arc<Mutex<Vec<(String, Instant)>>>,
    delivered: Arc<Mutex<Vec<Instant>>>,
    stop: CancellationToken,
}

impl Load {
    /// Starts to send events to `acme`. The IDs of no two loads are alike.
    pub fn start(ingress: &Program, ledger: &Arc<Ledger>) -> Self {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        let number = LOADS.fetch_add(1, Ordering::Relaxed);
        let load = Self {
            ledger: ledger.clone(),
            acknowledged: Arc::default(),
            delivered: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (url, stop) = (format!("{}/in/acme", ingress.listen), load.stop.clone());
        let acknowledged = load.acknowledged.clone();
        tokio::spawn(async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for at in 0.. {
                tick.tick().await;
                if stop.is_cancelled() {
                    return;
                }
                tokio::spawn(send(url.clone(), format!("{number}-{at}"), acknowledged.clone()));
            }
        });
        let (ledger, seen, stop) = (ledger.clone(), load.delivered.clone(), load.stop.clone());
        tokio::spawn(async move {
            let mut rows = 0;
            while !stop.is_cancelled() {
                sleep(EVERY).await;
                let now = ledger.rows().map_or(rows, |known| known.len());
                if now > rows {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
                rows = now;
            }
        });
        load
    }

    /// Waits until this number of further events is acknowledged.
    pub async fn flows(&self, more: usize) {
        let known = || self.known().len();
        let begun = known();
        eventually("events are accepted", SETTLED, async || {
            (known() >= begun + more).then_some(())
        })
        .await;
    }

    /// Stops, and waits until every acknowledged event has its row. Returns their number.
    ///
    /// # Errors
    ///
    /// A transfer that was booked twice.
    pub async fn settle(self) -> anyhow::Result<usize> {
        self.stop.cancel();
        let sent: HashSet<String> = self.known().iter().map(|(id, _)| id.clone()).collect();
        eventually("every acknowledged event is delivered", SETTLED, async || {
            let rows = self.ledger.rows().ok()?;
            let known: HashSet<&str> = rows.iter().map(|row| row.transfer.as_str()).collect();
            sent.iter().all(|id| known.contains(id.as_str())).then_some(())
        })
        .await;
        let rows = self.ledger.rows()?;
        let transfers: HashSet<&str> = rows.iter().map(|row| row.transfer.as_str()).collect();
        ensure!(transfers.len() == rows.len(), "a transfer was booked twice");
        Ok(sent.len())
    }

    fn known(&self) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time without an acknowledged event, and without a delivery, since then.
    pub fn gaps(&self, since: Instant) -> [Duration; 2] {
        let acknowledged = self.known().iter().map(|(_, at)| *at).collect();
        let delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        [acknowledged, delivered].map(|times| gap(times, since))
    }
}

fn gap(mut times: Vec<Instant>, since: Instant) -> Duration {
    times.retain(|at| *at >= since);
    times.sort();
    let (mut last, mut longest) = (since, Duration::ZERO);
    for at in times.into_iter().chain([Instant::now()]) {
        longest = longest.max(at - last);
        last = at;
    }
    longest
}

/// A provider: sends one event until it is acknowledged.
async fn send(url: String, id: String, acknowledged: Arc<Mutex<Vec<(String, Instant)>>>) {
    let (http, body) = (Http::default(), transfer(&id, &id, 1));
    let end = Instant::now() + SETTLED * 2;
    while Instant::now() < end {
        let headers = sign::acme(&id, sign::now(), body.as_bytes());
        let answer = http.post(&url, &headers, body.clone()).await;
        if answer.is_some_and(|answer| answer.status.is_success()) {
            let mut known = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            known.push((id, Instant::now()));
            return;
        }
        sleep(AGAIN).await;
    }
}
