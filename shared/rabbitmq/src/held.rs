//! Keeps events away from an archive that holds their confirms, or that takes their connection down.
//!
//! An event is published once, to the archive and to the work queues, and the broker confirms it
//! when all of them have it. So a stream whose leader is away holds every confirm for as long. An
//! event that waits for half of the time limit of a confirm, while none is confirmed through the
//! archive, is published once more without it. If that copy is confirmed, the archive is left out
//! for a while. Copies have no effect.
//!
//! RabbitMQ closes a connection that publishes to a stream which RabbitMQ has lost. So the archive
//! is also left out after a connection that the broker closed because it failed itself. After the
//! pause one event is put into the archive on a connection of its own, and only if that is confirmed
//! do events go there again.

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

/// Where an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To its subscribers and to the archive.
    Archived,
    /// To its subscribers; and to the archive by itself, to see whether the archive works.
    Trial,
    /// To its subscribers.
    Without,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events are published without the archive now.
    pub(super) fn is_left_out(&self) -> bool {
        self.state().until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether an event is published to the archive too. After a pause one event is for a trial. The
    /// result of the trial is awaited for this time.
    pub(super) fn way(&self, trial: Duration) -> Way {
        let (mut state, now) = (self.state(), Instant::now());
        let Some(until) = state.until else { return Way::Archived };
        if now < until {
            return Way::Without;
        }
        (state.until, state.trying) = (Some(now + trial), true);
        Way::Trial
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

    /// The trial could not be made. The next one is after the same pause.
    pub(super) fn try_again(&self) {
        let mut state = self.state();
        state.trying = false;
        state.until = Some(Instant::now() + state.pause);
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
        assert_eq!([held.way(trial), held.way(trial)], [Way::Archived; 2]);
        held.leave_out();
        assert_eq!(held.way(trial), Way::Without);
        held.state().until = Some(Instant::now());
        assert_eq!([held.way(trial), held.way(trial)], [Way::Trial, Way::Without]);
        assert!(held.leave_out(), "the trial failed: the next pause is longer");
        assert_eq!(held.way(trial), Way::Without);
        assert!(!held.leave_out());
        assert_eq!(held.state().pause, FIRST_PAUSE * 2);
        held.state().until = Some(Instant::now());
        assert_eq!(held.way(trial), Way::Trial);
        held.try_again();
        assert_eq!((held.way(trial), held.state().pause), (Way::Without, FIRST_PAUSE * 2));
        assert!(held.works());
        assert_eq!([held.way(trial), held.way(trial)], [Way::Archived; 2]);
    }
}
