//! What happened within the last hour, in steps of ten seconds, from the heartbeats of the workers.
//! It is kept in memory: after a start it begins anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_store::control::{Counts, Heartbeat, TALLY_STEP};

/// Length of the window.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// How often heartbeats must be added: a worker reports a step until the next one is complete.
pub const COLLECT: Duration = Duration::from_secs(4);
/// Maximum number of sources in a window, those with the most deliveries.
const SOURCES: usize = 200;
/// How far a worker's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// Collects tallies of workers.
#[derive(Default)]
pub struct Series(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Begin of the last step that was added, by worker, its start, and destination.
    added: HashMap<(String, Timestamp, String), Timestamp>,
    destinations: BTreeMap<String, Row>,
    sources: BTreeMap<String, Row>,
}

/// Counts by the begin of their step. Steps without anything are not there.
type Row = BTreeMap<Timestamp, Counts>;

/// A window of steps that ends with the last complete one.
#[derive(Debug)]
pub struct Window {
    /// Begin of the first step.
    pub from: Timestamp,
    /// Number of steps.
    pub steps: usize,
    /// By destination: those of the configuration.
    pub destinations: Vec<Line>,
    /// By source, summed over destinations: those of the configuration in which something happened, at
    /// most 200.
    pub sources: Vec<Line>,
}

/// The counts of one name, one for each step.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub counts: Vec<Counts>,
}

impl Series {
    /// Adds what is new in these heartbeats. Names that the configuration does not have are left out.
    pub fn add(&self, config: &Config, heartbeats: &[Heartbeat], now: Timestamp) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (oldest, newest) = (now.minus(WINDOW + TALLY_STEP), now.plus(AHEAD));
        for heartbeat in heartbeats {
            for (destination, work) in &heartbeat.destinations {
                let Some(tally) = &work.last else { continue };
                let known = config.destinations.iter().any(|one| one.name == *destination);
                let by = (heartbeat.worker.clone(), heartbeat.started_at, destination.clone());
                let is_new = inner.added.get(&by).is_none_or(|at| *at < tally.at);
                if !known || !is_new || tally.at < oldest || tally.at > newest {
                    continue;
                }
                inner.added.insert(by, tally.at);
                for (source, counts) in &tally.sources {
                    let row = inner.destinations.entry(destination.clone()).or_default();
                    add(row.entry(tally.at).or_default(), counts);
                    if config.sources.iter().any(|one| one.name == *source) {
                        let row = inner.sources.entry(source.clone()).or_default();
                        add(row.entry(tally.at).or_default(), counts);
                    }
                }
            }
        }
        inner.added.retain(|_, at| *at >= oldest);
        let Inner { destinations, sources, .. } = &mut *inner;
        for rows in [destinations, sources] {
            rows.retain(|_, row| {
                *row = row.split_off(&oldest);
                !row.is_empty()
            });
        }
    }

    /// The hour before `now`.
    pub fn window(&self, config: &Config, now: Timestamp) -> Window {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let step = millis(TALLY_STEP);
        let end = now.millis() - now.millis() % step;
        let from = Timestamp::from_millis(end.saturating_sub(millis(WINDOW)));
        let none = Row::new();
        let destinations = config.destinations.iter().map(|destination| {
            line(
                &destination.name,
                inner.destinations.get(&destination.name).unwrap_or(&none),
                from,
            )
        });
        let mut busiest: Vec<_> = inner.sources.iter().collect();
        busiest
            .sort_by_key(|(_, row)| Reverse(row.values().map(|counts| counts.taken).sum::<u64>()));
        let sources = busiest.into_iter().take(SOURCES).map(|(name, row)| line(name, row, from));
        Window {
            from,
            steps: steps(),
            destinations: destinations.collect(),
            sources: sources.collect(),
        }
    }
}

fn steps() -> usize {
    usize::try_from(millis(WINDOW) / millis(TALLY_STEP)).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn line(name: &str, row: &Row, from: Timestamp) -> Line {
    let mut counts = vec![Counts::default(); steps()];
    for (at, more) in row.range(from..) {
        let step = at.since(from).as_millis() / TALLY_STEP.as_millis();
        if let Some(counts) = usize::try_from(step).ok().and_then(|step| counts.get_mut(step)) {
            add(counts, more);
        }
    }
    Line { name: name.to_owned(), counts }
}

fn add(counts: &mut Counts, more: &Counts) {
    counts.taken += more.taken;
    counts.delivered += more.delivered;
    counts.failed += more.failed;
    counts.dead += more.dead;
}

#[cfg(test)]
mod tests {
    use zentra_store::control::{Circuit, Tally, Work};

    use super::*;
    use crate::fakes::{Fakes, LEDGER};

    fn heartbeat(worker: &str, at: u64, source: &str, delivered: u64) -> Heartbeat {
        let counts = Counts { taken: delivered, delivered, ..Counts::default() };
        let sources = BTreeMap::from([(source.to_owned(), counts)]);
        let last = Some(Tally { at: Timestamp::from_secs(at), sources });
        let work = Work { in_flight: 0, circuit: Circuit::Closed, paused: false, last };
        Heartbeat {
            worker: worker.into(),
            version: String::new(),
            started_at: Timestamp::default(),
            destinations: BTreeMap::from([(LEDGER.to_owned(), work)]),
        }
    }

    #[test]
    fn each_step_of_each_worker_counts_once_and_an_hour_is_kept() {
        let (series, config) = (Series::default(), Fakes::new().config);
        let known = config.sources[0].name.clone();
        let now = 7200;
        let at = |seconds: u64| Timestamp::from_secs(seconds);
        let (one, other) =
            (heartbeat("w1", now - 10, &known, 3), heartbeat("w2", now - 10, "unknown", 4));
        let old = heartbeat("w3", now - 5000, &known, 9);
        for _ in 0..3 {
            series.add(&config, &[one.clone(), other.clone(), old.clone()], at(now));
        }
        let delivered = |lines: &[Line], name: &str| {
            let line = lines.iter().find(|line| line.name == name);
            line.map(|line| line.counts.iter().map(|counts| counts.delivered).collect::<Vec<_>>())
        };
        let window = series.window(&config, at(now));
        assert_eq!(window.from, at(now - 3600));
        let of_ledger = delivered(&window.destinations, LEDGER).unwrap();
        assert_eq!((of_ledger.len(), of_ledger[359]), (360, 7));
        assert_eq!(of_ledger.iter().sum::<u64>(), 7, "what is old, or was added, is not added");
        assert_eq!(delivered(&window.sources, &known).unwrap()[359], 3);
        assert_eq!(delivered(&window.sources, "unknown"), None);
        // A step later, it stands a step earlier; after an hour, it is gone.
        let later = series.window(&config, at(now + 10));
        assert_eq!(delivered(&later.destinations, LEDGER).unwrap()[358], 7);
        series.add(&config, &[], at(now + 3700));
        let gone = series.window(&config, at(now + 3700));
        assert_eq!(delivered(&gone.destinations, LEDGER).unwrap().iter().sum::<u64>(), 0);
        assert!(gone.sources.is_empty());
    }
}
