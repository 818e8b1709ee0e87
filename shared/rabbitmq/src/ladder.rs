//! The delay ladder: queues with a fixed TTL, two per octave, from 0.25 s to 13.65 h.
//!
//! With a TTL per message, a message with a long TTL at the head would block the ones behind it.
//! With one TTL per queue, the head is always due first. Each retry passes through one queue.

use std::time::Duration;

use zentra_store::queue::Delay;

/// The TTLs in milliseconds, ascending.
pub(super) const RUNGS: [u64; 36] = rungs();

const fn rungs() -> [u64; 36] {
    let mut all = [0; 36];
    let (mut at, mut octave) = (0, 250);
    while at < 36 {
        all[at] = octave;
        all[at + 1] = octave + octave / 2;
        octave *= 2;
        at += 2;
    }
    all
}

/// The TTL for a delay. Delays beyond the last step use the last step.
pub(super) fn rung(wanted: Delay) -> Duration {
    let last = RUNGS[RUNGS.len() - 1];
    let millis = |wanted: Duration| u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
    let chosen = match wanted {
        Delay::AtLeast(wanted) => {
            let wanted = millis(wanted);
            RUNGS.iter().copied().find(|rung| *rung >= wanted)
        }
        Delay::Near(wanted) => {
            let wanted = millis(wanted);
            RUNGS.iter().copied().min_by_key(|rung| rung.abs_diff(wanted))
        }
    };
    Duration::from_millis(chosen.unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ladder_has_two_rungs_an_octave_up_to_over_thirteen_hours() {
        assert_eq!(RUNGS[..6], [250, 375, 500, 750, 1000, 1500]);
        assert_eq!(RUNGS[34..], [32_768_000, 49_152_000]);
    }

    proptest! {
        #[test]
        fn at_least_is_never_early_and_near_is_within_a_third(ms in 250u64..49_152_000) {
            let wanted = Duration::from_millis(ms);
            let past = rung(Delay::AtLeast(wanted));
            prop_assert!(past >= wanted && past.as_secs_f64() <= wanted.as_secs_f64() * 1.5);
            let near = rung(Delay::Near(wanted)).as_secs_f64() / wanted.as_secs_f64();
            prop_assert!((0.79..=1.34).contains(&near), "{near}");
        }
    }
}
