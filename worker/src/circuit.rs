//! The circuit breaker of one destination, per worker: when most attempts fail no more messages are
//! taken for a while, so that an outage burns no attempts.
//!
//! ```text
//! closed ──most attempts failed──▶ open ──pause──▶ half-open ──enough worked──▶ closed
//!                                   ▲                  │ more failed than worked
//!                                   └──────────────────┘
//! ```
//!
//! While it is half-open it probes: first with the messages that have been attempted most often,
//! since one that fails its own first attempts says little of the destination. The pause is short at
//! first and grows while no probe works. Each probe that works doubles how many may run at once, and
//! lets more fail in the next round.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use zentra_config::Breaker;
use zentra_store::control;

/// Failure rate of the last attempts that opens the circuit.
const RATE: f64 = 0.8;
/// Maximum number of messages that are deferred in one round of probes, to find one with more
/// attempts.
const PUT_ASIDE: usize = 1000;
/// Maximum time of this search in a round; another worker can have taken the message.
const SEARCH: Duration = Duration::from_secs(2);
/// Number of pauses in a row that are as short as the first.
const SHORT: u32 = 3;
/// Maximum number of known retries.
const DUE: usize = 1000;

/// The circuit breaker of one destination.
#[derive(Debug)]
pub(crate) struct Circuit {
    settings: Breaker,
    /// Attempts at a time while it is closed.
    concurrency: usize,
    inner: Mutex<Inner>,
    /// 1 while it isn't closed.
    shown: IntGauge,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Increases with each change of the state.
    epoch: u64,
    /// Results of the last attempts: whether each succeeded.
    recent: VecDeque<bool>,
    /// Retries that are due: time and number of the attempt.
    due: VecDeque<(Instant, u32)>,
    /// Rounds of probes in a row without a success.
    in_vain: u32,
    /// Successful probes of earlier rounds; halved after each round without a success.
    credit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Probes at a time.
        room: usize,
        worked: u32,
        failed: u32,
        put_aside: usize,
        since: Instant,
    },
}

/// How many messages can be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// This many at a time.
    UpTo(usize),
    /// None until this time.
    NoneUntil(Instant),
}

/// Decision for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Attempt it.
    Take,
    /// Defer it without an attempt: one that was attempted before goes first.
    PutAside(Duration),
}

/// State of the circuit at the start of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Circuit {
    /// A closed circuit. With `failures` of 0 it never opens.
    pub(crate) fn new(settings: Breaker, concurrency: u16, shown: IntGauge) -> Self {
        shown.set(0);
        let inner = Inner {
            state: State::Closed,
            epoch: 0,
            recent: VecDeque::new(),
            due: VecDeque::new(),
            in_vain: 0,
            credit: 0,
        };
        let concurrency = usize::from(concurrency).max(1);
        Self { settings, concurrency, inner: Mutex::new(inner), shown }
    }

    /// How many attempts can run at `now`.
    pub(crate) fn allowed(&self, now: Instant) -> Allowed {
        let mut inner = self.inner();
        match inner.state {
            State::Closed => Allowed::UpTo(self.concurrency),
            State::Open { until } if now < until => Allowed::NoneUntil(until),
            State::Open { .. } => {
                let half =
                    State::HalfOpen { room: 1, worked: 0, failed: 0, put_aside: 0, since: now };
                self.change_to(&mut inner, half);
                Allowed::UpTo(1)
            }
            State::HalfOpen { room, .. } => Allowed::UpTo(room),
        }
    }

    /// Decision for a message with this attempt.
    pub(crate) fn admits(&self, attempt: u32, now: Instant) -> Admission {
        let mut inner = self.inner();
        let Inner { state, due, .. } = &mut *inner;
        if let State::HalfOpen { put_aside, since, .. } = state {
            let there = due.iter().filter(|(due, _)| *due <= now);
            let best = there.map(|(_, attempt)| *attempt).max().unwrap_or_default();
            if best > attempt {
                if *put_aside < PUT_ASIDE && now.duration_since(*since) < SEARCH {
                    *put_aside += 1;
                    return Admission::PutAside(self.first_pause());
                }
                // Others have taken them, or they are too far behind.
                due.retain(|(due, _)| *due > now);
            }
        }
        if let Some(at) = due.iter().position(|(_, next)| *next == attempt) {
            due.remove(at);
        }
        Admission::Take
    }

    /// Called at the start of an attempt.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.inner().epoch)
    }

    /// A retry with this attempt is due at this time.
    pub(crate) fn comes_back(&self, due: Instant, attempt: u32) {
        let mut inner = self.inner();
        if inner.due.len() == DUE {
            inner.due.pop_front();
        }
        inner.due.push_back((due, attempt));
    }

    /// An attempt ended at `now`: the destination did its work, or it failed to. What it has
    /// judged for good is work too. The pause, if the circuit has opened by that.
    pub(crate) fn attempted(&self, worked: bool, began: Epoch, now: Instant) -> Option<Duration> {
        let mut inner = self.inner();
        // What was under way at a change says nothing of the destination since.
        if began.0 != inner.epoch {
            return None;
        }
        let Inner { state, recent, in_vain, credit, .. } = &mut *inner;
        match state {
            State::Open { .. } => return None,
            State::Closed if !self.opens(recent, worked) => return None,
            State::Closed => (*in_vain, *credit) = (0, 0),
            State::HalfOpen { room, worked: well, .. } if worked => {
                *well += 1;
                *room = room.saturating_mul(2);
                if *room >= self.concurrency {
                    self.change_to(&mut inner, State::Closed);
                }
                return None;
            }
            State::HalfOpen { worked: well, failed, .. } => {
                *failed += 1;
                if *failed <= (*well).max(*credit / 2) {
                    return None;
                }
                (*in_vain, *credit) = match *well {
                    0 => (*in_vain + 1, *credit / 2),
                    well => (0, well.max(*credit)),
                };
            }
        }
        let doubled = 2_u32.saturating_pow(in_vain.saturating_sub(SHORT - 1));
        let pause = self.first_pause().saturating_mul(doubled).min(self.settings.pause);
        self.change_to(&mut inner, State::Open { until: now + pause });
        Some(pause)
    }

    fn first_pause(&self) -> Duration {
        self.settings.first_pause.min(self.settings.pause)
    }

    /// Whether too many of the last attempts failed.
    fn opens(&self, recent: &mut VecDeque<bool>, worked: bool) -> bool {
        let failures = self.settings.failures as usize;
        recent.push_back(worked);
        if recent.len() as f64 > (failures as f64 / RATE).ceil() {
            recent.pop_front();
        }
        let failed = recent.iter().filter(|worked| !**worked).count();
        !worked && failures > 0 && failed >= failures
    }

    fn change_to(&self, inner: &mut Inner, state: State) {
        inner.state = state;
        inner.epoch += 1;
        inner.recent.clear();
        self.shown.set((state != State::Closed).into());
    }

    /// Closes the circuit for an operator.
    pub(crate) fn close(&self) {
        self.change_to(&mut self.inner(), State::Closed);
    }

    /// State for operators.
    pub(crate) fn state(&self, now: Instant) -> control::Circuit {
        match self.inner().state {
            State::Closed => control::Circuit::Closed,
            State::Open { until } if now < until => control::Circuit::Open,
            State::Open { .. } | State::HalfOpen { .. } => control::Circuit::HalfOpen,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_secs(30);

    fn circuit(failures: u32, concurrency: u16) -> (Circuit, IntGauge) {
        let shown = IntGauge::new("open", "open").unwrap();
        let settings = Breaker { failures, first_pause: FIRST, pause: PAUSE };
        (Circuit::new(settings, concurrency, shown.clone()), shown)
    }

    fn attempted(circuit: &Circuit, worked: bool, now: Instant) -> Option<Duration> {
        circuit.attempted(worked, circuit.epoch(), now)
    }

    #[test]
    fn it_opens_when_most_failed_and_its_pause_grows_until_a_probe_works() {
        let ((circuit, shown), mut now) = (circuit(4, 4), Instant::now());
        // Three of five, and then four of five.
        for worked in [false, true, false, true, false] {
            assert_eq!(attempted(&circuit, worked, now), None);
        }
        let before = circuit.epoch();
        assert_eq!((attempted(&circuit, false, now), attempted(&circuit, true, now)), (None, None));
        assert_eq!(attempted(&circuit, false, now), None);
        assert_eq!((circuit.allowed(now), shown.get()), (Allowed::UpTo(4), 0));
        assert_eq!(attempted(&circuit, false, now), Some(FIRST));
        assert_eq!((circuit.allowed(now), shown.get()), (Allowed::NoneUntil(now + FIRST), 1));
        for pause in [1, 1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            let Allowed::NoneUntil(until) = circuit.allowed(now) else { panic!("it isn't open") };
            // Others that were under way end now.
            assert_eq!(circuit.attempted(true, before, now), None);
            now = until;
            assert_eq!(circuit.allowed(now), Allowed::UpTo(1));
            assert_eq!(circuit.attempted(true, before, now), None);
            assert_eq!(circuit.allowed(now), Allowed::UpTo(1), "an older attempt is no probe");
            assert_eq!(attempted(&circuit, false, now), Some(pause));
        }
        now += PAUSE;
        assert_eq!(circuit.allowed(now), Allowed::UpTo(1));
        assert_eq!(attempted(&circuit, true, now), None);
        assert_eq!((circuit.allowed(now), shown.get()), (Allowed::UpTo(2), 1));
        // As many may fail as work; then it is short again.
        assert_eq!(attempted(&circuit, false, now), None);
        assert_eq!(attempted(&circuit, false, now), Some(FIRST));
        now += FIRST;
        assert_eq!(circuit.allowed(now), Allowed::UpTo(1));
        for _ in 0..2 {
            assert_eq!(attempted(&circuit, true, now), None);
        }
        assert_eq!((circuit.allowed(now), shown.get()), (Allowed::UpTo(4), 0));
    }

    #[test]
    fn with_0_it_never_opens() {
        let ((circuit, _), now) = (circuit(0, 1), Instant::now());
        assert!((0..1000).all(|_| attempted(&circuit, false, now).is_none()));
        assert_eq!(circuit.allowed(now), Allowed::UpTo(1));
    }

    #[test]
    fn what_was_attempted_less_often_is_put_aside_only_while_another_is_due() {
        let ((circuit, _), now) = (circuit(1, 4), Instant::now());
        assert_eq!(circuit.admits(1, now), Admission::Take);
        circuit.comes_back(now + 2 * FIRST, 3);
        circuit.comes_back(now, 2);
        attempted(&circuit, false, now);
        assert_eq!(circuit.allowed(now + FIRST), Allowed::UpTo(1));
        assert_eq!(circuit.admits(1, now + FIRST), Admission::PutAside(FIRST));
        assert_eq!(circuit.admits(2, now + FIRST), Admission::Take);
        assert_eq!(circuit.admits(1, now + FIRST), Admission::Take, "it has been taken");
        let later = now + 2 * FIRST;
        for _ in 1..PUT_ASIDE {
            assert_eq!(circuit.admits(2, later), Admission::PutAside(FIRST));
        }
        assert_eq!(circuit.admits(1, later), Admission::Take, "it isn't found");
        // One that comes a moment before its time is the one that was meant.
        circuit.comes_back(later + FIRST, 4);
        assert_eq!(circuit.admits(4, later), Admission::Take);
        assert_eq!(circuit.admits(1, later + FIRST), Admission::Take);
    }

    #[test]
    fn what_another_worker_has_taken_is_not_looked_for_for_long() {
        let ((circuit, _), now) = (circuit(1, 4), Instant::now());
        circuit.comes_back(now, 7);
        attempted(&circuit, false, now);
        let half_open = now + FIRST;
        assert_eq!(circuit.allowed(half_open), Allowed::UpTo(1));
        assert_eq!(circuit.admits(1, half_open), Admission::PutAside(FIRST));
        assert_eq!(circuit.admits(1, half_open + SEARCH), Admission::Take);
        assert_eq!(circuit.admits(1, half_open), Admission::Take, "it is forgotten");
    }

    /// How a destination does its work.
    #[derive(Clone, Debug)]
    struct Destination {
        /// How many of its first attempts each event fails.
        fails: Vec<u32>,
        /// Everything fails until then, in milliseconds.
        down: u64,
        concurrency: u16,
        /// An attempt takes so long, in milliseconds.
        takes: u64,
    }

    fn destination(down: std::ops::Range<u64>) -> impl Strategy<Value = Destination> {
        let fails = prop_oneof![
            prop::collection::vec(Just(1_u32), 1..250),
            prop::collection::vec(0..3_u32, 1..250),
            prop::collection::vec(Just(3_u32), 1..60),
        ];
        (fails, down, 1..40_u16, 1..200_u64).prop_map(|(fails, down, concurrency, takes)| {
            Destination { fails, down, concurrency, takes }
        })
    }

    /// Delivers all events as a worker does, in virtual time; when that was done, and how many
    /// attempts failed while the destination was down.
    fn delivered(of: &Destination) -> (Duration, usize) {
        let (circuit, _) = circuit(20, of.concurrency);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut queue: VecDeque<(usize, u32)> = (0..of.fails.len()).map(|one| (one, 1)).collect();
        let mut waiting: BinaryHeap<Reverse<(u64, usize, u32)>> = BinaryHeap::new();
        let mut running: BinaryHeap<Reverse<(u64, usize, u32, u64)>> = BinaryHeap::new();
        let (mut now, mut left, mut burnt) = (0, of.fails.len(), 0);
        while left > 0 {
            assert!(now < 24 * 3_600_000, "{left} are never delivered");
            while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
                let Some(Reverse((_, one, attempt))) = waiting.pop() else { break };
                queue.push_back((one, attempt));
            }
            while running.peek().is_some_and(|Reverse((ends, ..))| *ends <= now) {
                let Some(Reverse((_, one, attempt, epoch))) = running.pop() else { break };
                let worked = now >= of.down && attempt > of.fails[one];
                if worked {
                    left -= 1;
                } else {
                    burnt += usize::from(now < of.down);
                    let due = now + 500 * 2_u64.pow((attempt - 1).min(6));
                    waiting.push(Reverse((due, one, attempt + 1)));
                    circuit.comes_back(at(due), attempt + 1);
                }
                circuit.attempted(worked, Epoch(epoch), at(now));
            }
            let mut next = now + 1000;
            match circuit.allowed(at(now)) {
                Allowed::NoneUntil(until) => {
                    next = u64::try_from(until.duration_since(start).as_millis()).unwrap() + 1;
                }
                Allowed::UpTo(room) => {
                    if running.len() < room
                        && let Some((one, attempt)) = queue.pop_front()
                    {
                        match circuit.admits(attempt, at(now)) {
                            Admission::Take => {
                                let epoch = circuit.epoch().0;
                                running.push(Reverse((now + of.takes, one, attempt, epoch)));
                            }
                            Admission::PutAside(pause) => {
                                let due = now + u64::try_from(pause.as_millis()).unwrap();
                                waiting.push(Reverse((due, one, attempt)));
                            }
                        }
                        continue;
                    }
                }
            }
            let ends = running.peek().map(|Reverse((ends, ..))| *ends);
            let due = waiting.peek().map(|Reverse((due, ..))| *due);
            now = [ends, due].into_iter().flatten().fold(next, u64::min).max(now + 1);
        }
        (Duration::from_millis(now), burnt)
    }

    #[test]
    fn two_hundred_events_whose_second_attempt_works_are_delivered_within_a_minute() {
        let fails = vec![1; 200];
        for concurrency in [1, 8, 64] {
            let of = Destination { fails: fails.clone(), down: 0, concurrency, takes: 5 };
            let (took, _) = delivered(&of);
            assert!(took < Duration::from_secs(60), "{concurrency}: {took:?}");
        }
    }

    proptest! {
        /// The work itself, and two minutes.
        #[test]
        fn what_would_work_is_delivered_in_time(of in destination(0..1)) {
            let attempts: u64 = of.fails.iter().map(|fails| u64::from(*fails) + 1).sum();
            let work = attempts * of.takes / u64::from(of.concurrency);
            let most = Duration::from_millis(work) + Duration::from_secs(120);
            let (took, _) = delivered(&of);
            prop_assert!(took <= most, "{:?} of {:?}", took, most);
        }

        /// After an outage: a pause, the longest wait for a retry, and the same. The outage itself
        /// burns what opens the circuit, and a probe each pause.
        #[test]
        fn an_outage_burns_few_attempts_and_ends_with_all_delivered(of in destination(5_000..600_000)) {
            let attempts: u64 = of.fails.iter().map(|fails| u64::from(*fails) + 1).sum();
            let work = attempts * of.takes / u64::from(of.concurrency);
            let most = Duration::from_millis(of.down + work) + PAUSE + Duration::from_secs(32 + 120);
            let (took, burnt) = delivered(&of);
            prop_assert!(took <= most, "{:?} of {:?}", took, most);
            let probes = 6 + usize::try_from(of.down).unwrap() / 30_000;
            let burns = 20 + usize::from(of.concurrency) + probes;
            prop_assert!(burnt <= burns, "{} of {}", burnt, burns);
        }
    }
}
