//! The circuit breaker of one destination, per worker: after many failures in a row no more
//! messages are taken for a while, so that an outage burns no attempts.
//!
//! ```text
//! closed ──failures in a row──▶ open ──pause──▶ half-open ──success──▶ closed
//!                                 ▲                 │ failure
//!                                 └─────────────────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use zentra_shared::control;

/// How many failures in a row open it, and for how long.
#[derive(Debug)]
pub(crate) struct Circuit {
    failures: u32,
    pause: Duration,
    state: Mutex<State>,
    /// 1 while it isn't closed.
    shown: IntGauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Failures in a row so far.
    Closed(u32),
    Open {
        until: Instant,
    },
    /// One message at a time, until one has been attempted.
    HalfOpen,
}

/// What may be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// As many as there is room for.
    Many,
    /// One, if none runs.
    One,
    /// None until then.
    NoneUntil(Instant),
}

impl Circuit {
    /// Closed. `failures` of 0: it never opens.
    pub(crate) fn new(failures: u32, pause: Duration, shown: IntGauge) -> Self {
        shown.set(0);
        Self { failures, pause, state: Mutex::new(State::Closed(0)), shown }
    }

    /// What may be taken at `now`.
    pub(crate) fn allowed(&self, now: Instant) -> Allowed {
        let mut state = self.state();
        match *state {
            State::Closed(_) => Allowed::Many,
            State::Open { until } if now < until => Allowed::NoneUntil(until),
            State::Open { .. } | State::HalfOpen => {
                *state = State::HalfOpen;
                Allowed::One
            }
        }
    }

    /// An attempt ended at `now`: the destination did its work, or it failed to. What it has
    /// judged for good is work too. `true` if the circuit has opened by that.
    pub(crate) fn attempted(&self, worked: bool, now: Instant) -> bool {
        let mut state = self.state();
        let open = State::Open { until: now + self.pause };
        let next = match *state {
            // What was under way when it opened says nothing of the destination since.
            State::Open { .. } => return false,
            State::HalfOpen if !worked => open,
            State::Closed(failed) if !worked && failed + 1 == self.failures => open,
            State::Closed(failed) if !worked => State::Closed(failed.saturating_add(1)),
            _ => State::Closed(0),
        };
        *state = next;
        self.shown.set((!matches!(next, State::Closed(_))).into());
        next == open
    }

    /// An operator says that it works again.
    pub(crate) fn close(&self) {
        *self.state() = State::Closed(0);
        self.shown.set(0);
    }

    /// For an operator.
    pub(crate) fn standing(&self, now: Instant) -> control::Circuit {
        match *self.state() {
            State::Closed(_) => control::Circuit::Closed,
            State::Open { until } if now < until => control::Circuit::Open,
            State::Open { .. } | State::HalfOpen => control::Circuit::HalfOpen,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn circuit(failures: u32) -> (Circuit, IntGauge) {
        let shown = IntGauge::new("open", "open").unwrap();
        (Circuit::new(failures, PAUSE, shown.clone()), shown)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_by_one_probe_that_works() {
        let ((circuit, shown), now) = (circuit(3), Instant::now());
        for worked in [false, false, true, false, false] {
            assert!(!circuit.attempted(worked, now));
            assert_eq!(circuit.allowed(now), Allowed::Many);
        }
        assert!(circuit.attempted(false, now));
        let until = now + PAUSE;
        assert_eq!((circuit.allowed(now), shown.get()), (Allowed::NoneUntil(until), 1));
        // Others that were under way end now.
        assert!(!circuit.attempted(true, now));
        assert_eq!(circuit.allowed(now), Allowed::NoneUntil(until));
        assert_eq!(circuit.allowed(until), Allowed::One);
        assert!(circuit.attempted(false, until));
        assert_eq!(circuit.allowed(until), Allowed::NoneUntil(until + PAUSE));
        assert_eq!(circuit.allowed(until + PAUSE), Allowed::One);
        assert!(!circuit.attempted(true, until + PAUSE));
        assert_eq!((circuit.allowed(until + PAUSE), shown.get()), (Allowed::Many, 0));
    }

    #[test]
    fn with_0_it_never_opens() {
        let ((circuit, _), now) = (circuit(0), Instant::now());
        assert!((0..1000).all(|_| !circuit.attempted(false, now)));
        assert_eq!(circuit.allowed(now), Allowed::Many);
    }
}
