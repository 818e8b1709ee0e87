//! Keeps events away from an archive that holds their confirms.
//!
//! An event is published once, to the archive and to the work queues, and the broker confirms it
//! when all of them have it. So a stream whose leader is away holds every confirm for as long. An
//! event that waits for half of the time limit of a confirm, while none is confirmed through the
//! archive, is published once more without it. If that copy is confirmed, the archive is left out
//! for a while. Copies have no effect. After the pause one event at a time tries the archive, so
//! that an archive that still holds confirms holds one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the archive is left out the first time. It doubles while the archive still holds
/// confirms.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is known about the archive.
#[derive(Default)]
pub(super) struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    until: Option<Instant>,
    pause: Duration,
    /// Whether `until` is the end of a trial, not of the pause.
    trying: bool,
    worked_at: Option<Instant>,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events are published without the archive now.
    pub(super) fn is_left_out(&self) -> bool {
        self.state().until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether this event is published to the archive. After a pause one event is. The others are
    /// published without it until the result is known, or for this time.
    pub(super) fn lets_in(&self, trial: Duration) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        let Some(until) = state.until else { return true };
        if now < until {
            return false;
        }
        (state.until, state.trying) = (Some(now + trial), true);
        true
    }

    /// Leaves the archive out for a while. Returns `false` if it is left out already.
    pub(super) fn leave_out(&self) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        if !state.trying && state.until.is_some_and(|until| now < until) {
            return false;
        }
        state.trying = false;
        state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        state.until = Some(now + state.pause);
        true
    }

    /// An event was confirmed through the archive. Returns whether it had been left out.
    pub(super) fn works(&self) -> bool {
        let mut state = self.state();
        state.trying = false;
        (state.pause, state.worked_at) = (Duration::ZERO, Some(Instant::now()));
        state.until.take().is_some()
    }

    /// Whether an event was confirmed through the archive since then.
    pub(super) fn has_worked_since(&self, then: Instant) -> bool {
        self.state().worked_at.is_some_and(|at| at >= then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_until_the_archive_works_again() {
        let held = Held::default();
        assert!(!held.works() && !held.is_left_out());
        assert!(held.leave_out() && held.is_left_out());
        assert!(!held.leave_out(), "one outage is reported once");
        held.state().until = Some(Instant::now());
        assert!(held.leave_out());
        assert_eq!(held.state().pause, FIRST_PAUSE * 2);
        assert!(held.works() && !held.is_left_out());
        assert!(held.leave_out());
        assert_eq!(held.state().pause, FIRST_PAUSE);
    }

    #[test]
    fn after_the_pause_one_event_tries_the_archive() {
        let (held, trial) = (Held::default(), Duration::from_secs(60));
        assert!(held.lets_in(trial) && held.lets_in(trial));
        held.leave_out();
        assert!(!held.lets_in(trial));
        held.state().until = Some(Instant::now());
        assert!(held.lets_in(trial) && !held.lets_in(trial));
        assert!(held.leave_out(), "the trial failed: the next pause is longer");
        assert!(!held.lets_in(trial) && !held.leave_out());
        assert_eq!(held.state().pause, FIRST_PAUSE * 2);
        held.state().until = Some(Instant::now());
        assert!(held.lets_in(trial) && held.works());
        assert!(held.lets_in(trial) && held.lets_in(trial));
    }
}
