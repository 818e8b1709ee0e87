//! Counts what happens at a destination, in steps of [`TALLY_STEP`], for the heartbeat.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zentra_core::clock::{self, Timestamp};
use zentra_store::control::{Counts, TALLY_STEP, Tally};

/// Maximum number of sources that are counted by name in one step. The others are counted together.
const SOURCES: usize = 50;
/// How long a step is reported, from its begin.
const REPORTED: Duration = Duration::from_secs(40);
/// The name under which the others are counted: no source has it.
const OTHERS: &str = "";

/// The counts of one destination.
#[derive(Default)]
pub(crate) struct Tallies(Mutex<Steps>);

#[derive(Default)]
struct Steps {
    current: Tally,
    /// The last complete step in which something happened.
    last: Option<Tally>,
}

impl Tallies {
    /// Counts something that happened to an event of this source.
    pub(crate) fn count(&self, source: &str, what: impl FnOnce(&mut Counts)) {
        let mut steps = self.steps();
        steps.begin(clock::now());
        let sources = &mut steps.current.sources;
        let name = match sources.contains_key(source) || sources.len() < SOURCES {
            true => source,
            false => OTHERS,
        };
        match sources.get_mut(name) {
            Some(counts) => what(counts),
            None => what(sources.entry(name.to_owned()).or_default()),
        }
    }

    /// The last complete step in which something happened, for a while after its end.
    pub(crate) fn last(&self) -> Option<Tally> {
        let (mut steps, now) = (self.steps(), clock::now());
        steps.begin(now);
        steps.last.clone().filter(|last| now.since(last.at) < REPORTED)
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    /// Ends the current step, if its time is over.
    fn begin(&mut self, now: Timestamp) {
        let step = u64::try_from(TALLY_STEP.as_millis()).unwrap_or(u64::MAX);
        let at = Timestamp::from_millis(now.millis() - now.millis() % step);
        if self.current.at == at {
            return;
        }
        let ended = std::mem::replace(&mut self.current, Tally { at, ..Tally::default() });
        if !ended.sources.is_empty() {
            self.last = Some(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_reported_when_it_is_over_and_its_sources_are_bounded() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let mut steps = Steps::default();
        steps.begin(at(12));
        steps.current.sources.entry("acme".into()).or_default().delivered += 1;
        steps.begin(at(19));
        assert_eq!(steps.last, None);
        steps.begin(at(20));
        let last = steps.last.clone().unwrap();
        assert_eq!((last.at, last.sources["acme"].delivered), (at(10), 1));
        // Nothing happens: the last one stays.
        steps.begin(at(45));
        assert_eq!(steps.last, Some(last));

        let tallies = Tallies::default();
        for source in 0..SOURCES + 20 {
            tallies.count(&format!("s{source}"), |counts| counts.taken += 1);
        }
        let steps = tallies.steps();
        let taken = |tally: &Tally| tally.sources.values().map(|counts| counts.taken).sum::<u64>();
        let all = taken(&steps.current) + steps.last.as_ref().map_or(0, taken);
        assert_eq!(all, SOURCES as u64 + 20);
        assert!(steps.current.sources.len() <= SOURCES + 1);
    }
}
