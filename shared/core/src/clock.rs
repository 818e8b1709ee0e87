//! The clock: the current time is read here and passed on as an argument.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{IntCounterVec, Registry};
use rustix::time::{ClockId, clock_gettime};
pub use webhook_verify::timestamp::{Timestamp, as_millis, millis};

/// The current time. This is the only reader of the wall clock. A step of more than a second counts
/// only after it has lasted a minute.
pub fn now() -> Timestamp {
    both().0
}

/// The wall clock's time during a step that has not lasted a minute yet. Either of both times can
/// be right then.
pub fn stepped() -> Option<Timestamp> {
    let (steady, wall) = both();
    (wall.millis().abs_diff(steady.millis()) > SLEW).then_some(wall)
}

/// The time that counts, and the wall clock's time.
fn both() -> (Timestamp, Timestamp) {
    static CLOCK: Mutex<Option<SteadyClock>> = Mutex::new(None);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
    let running = millis(running());
    let (time, step) = CLOCK
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(SteadyClock { wall, running, stepped: None })
        .read(wall, running);
    if let Some(step) = step {
        step.report();
    }
    (Timestamp::from_millis(time), Timestamp::from_millis(wall))
}

/// Time since the machine's start, including suspension. It can't be set.
pub fn running() -> Duration {
    let since = clock_gettime(ClockId::Boottime);
    Duration::new(since.tv_sec.unsigned_abs(), u32::try_from(since.tv_nsec).unwrap_or(0))
}

/// Counter of the wall clock's steps, with the label `outcome`.
static STEPS: OnceLock<IntCounterVec> = OnceLock::new();

/// Registers the counter of steps of more than a second.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    let help =
        "Steps of the wall clock by more than 1 s, and whether they were followed or reverted.";
    let opts = prometheus::opts!("zentra_clock_steps_total", help);
    let new = IntCounterVec::new(opts, &["outcome"])?;
    let steps = STEPS.get_or_init(|| new);
    for outcome in ["noticed", "followed", "reverted"] {
        steps.with_label_values(&[outcome]);
    }
    registry.register(Box::new(steps.clone()))
}

/// Deviation in milliseconds that counts as slewing, not as a step.
const SLEW: u64 = 1_000;
/// How long a step must last to count, in milliseconds.
const LASTING: u64 = 60_000;

/// The wall clock without short-lived steps. All times are in milliseconds.
#[derive(Clone, Copy, Debug)]
struct SteadyClock {
    /// The wall clock when it was last right,
    wall: u64,
    /// and [`running`] then.
    running: u64,
    /// When the current step was first seen, by [`running`], and its size.
    stepped: Option<(u64, i64)>,
}

/// An observation of the wall clock. Sizes are in milliseconds, forwards or backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A step was seen.
    Noticed(i64),
    /// A step has lasted; its time counts from now on.
    Followed(i64),
    /// The step was reverted.
    Reverted,
}

impl SteadyClock {
    fn read(&mut self, wall: u64, running: u64) -> (u64, Option<Step>) {
        let expected = self.wall.saturating_add(running.saturating_sub(self.running));
        let off = wall.wrapping_sub(expected).cast_signed();
        let right = Self { wall, running, stepped: None };
        if off.unsigned_abs() <= SLEW {
            let reverted = self.stepped.is_some().then_some(Step::Reverted);
            *self = right;
            return (wall, reverted);
        }
        match self.stepped {
            Some((since, was)) if was.abs_diff(off) <= SLEW => {
                if running.saturating_sub(since) < LASTING {
                    return (expected, None);
                }
                *self = right;
                (wall, Some(Step::Followed(off)))
            }
            // A different step starts its own minute.
            _ => {
                self.stepped = Some((running, off));
                (expected, Some(Step::Noticed(off)))
            }
        }
    }
}

impl Step {
    fn report(self) {
        let outcome = match self {
            Self::Noticed(off_ms) => {
                tracing::warn!(
                    off_ms,
                    "the wall clock was set: the new time counts if it lasts a minute"
                );
                "noticed"
            }
            Self::Followed(off_ms) => {
                tracing::warn!(off_ms, "the new time of the wall clock has lasted: it counts now");
                "followed"
            }
            Self::Reverted => {
                tracing::info!("the wall clock was set back");
                "reverted"
            }
        };
        if let Some(steps) = STEPS.get() {
            steps.with_label_values(&[outcome]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3_600_000;
    const START: u64 = 1_700_000_000_000;

    fn clock() -> SteadyClock {
        SteadyClock { wall: START, running: 5_000, stepped: None }
    }

    #[test]
    fn a_step_that_lasts_a_minute_is_followed_and_told() {
        for off in [DAY.cast_signed(), -DAY.cast_signed(), 1_500] {
            let mut clock = clock();
            let mut at = |after: u64| {
                let wall = (START + after).wrapping_add_signed(off);
                let (time, step) = clock.read(wall, 5_000 + after);
                ((time - after).wrapping_sub(START).cast_signed(), step)
            };
            assert_eq!(at(100), (0, Some(Step::Noticed(off))));
            assert_eq!(at(60_099), (0, None));
            assert_eq!(at(60_100), (off, Some(Step::Followed(off))));
            assert_eq!(at(60_200), (off, None));
        }
    }

    #[test]
    fn a_step_that_does_not_last_is_told_and_changes_nothing() {
        let mut clock = clock();
        assert_eq!(clock.read(START + DAY, 5_000).1, Some(Step::Noticed(DAY.cast_signed())));
        assert_eq!(clock.read(START + 2_500, 7_500), (START + 2_500, Some(Step::Reverted)));
        // The next one has a minute of its own.
        assert_eq!(clock.read(START, 64_900).1, Some(Step::Noticed(-59_900)));
        assert_eq!(clock.read(START + 60_000, 65_000), (START + 60_000, Some(Step::Reverted)));
    }

    #[test]
    fn a_step_after_a_step_has_a_minute_of_its_own() {
        let mut clock = clock();
        assert_eq!(clock.read(START + DAY, 5_000).1, Some(Step::Noticed(DAY.cast_signed())));
        let (time, step) = clock.read(START + 59_000 + 2 * DAY, 64_000);
        assert_eq!((time, step), (START + 59_000, Some(Step::Noticed(2 * DAY.cast_signed()))));
        assert_eq!(clock.read(START + 118_000 + 2 * DAY, 123_000), (START + 118_000, None));
        let (time, step) = clock.read(START + 119_000 + 2 * DAY, 124_000);
        let followed = Some(Step::Followed(2 * DAY.cast_signed()));
        assert_eq!((time, step), (START + 119_000 + 2 * DAY, followed));
    }

    proptest! {
        /// Whatever steps there are, if each is taken back within a minute, and however slowly the
        /// clock is slewed meanwhile, time goes on.
        #[test]
        fn time_goes_on_over_steps_that_do_not_last(
            reads in prop::collection::vec(
                (1u64..20_000, 2_000i64..1_000_000_000_000, any::<bool>(), 0u8..3), 1..200
            ),
        ) {
            let (mut clock, mut passed, mut stepped, mut last) = (clock(), 0, 0, START);
            for (pause, off, back, choice) in reads {
                passed += pause;
                // At most two readings in a row: less than a minute.
                stepped = if choice == 0 || stepped == 2 { 0 } else { stepped + 1 };
                let off = if stepped == 0 { 0 } else if back { -off } else { off };
                let (time, _) = clock.read((START + passed).wrapping_add_signed(off), 5_000 + passed);
                prop_assert!(time.abs_diff(START + passed) <= SLEW, "{time}");
                prop_assert!(time + SLEW >= last, "{time} after {last}");
                last = time;
            }
        }
    }
}
