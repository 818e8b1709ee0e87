//! The retry schedule: exponential with jitter, bounded by attempts and age.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::clock::Timestamp;
use crate::lifecycle::DeadReason;

/// A destination's retry policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Number of attempts, including the first; 1 to 100.
    pub attempts: u32,
    /// Delay after the first failure.
    pub initial: Duration,
    /// Factor from each delay to the next; 1.0 to 100.0.
    pub multiplier: f64,
    /// Longest delay, unless the destination asks for a longer one.
    pub max: Duration,
    /// Longest `Retry-After`; a longer one is shortened to this.
    pub max_retry_after: Duration,
    /// Random part of a delay; 0.0 to 1.0.
    pub jitter: f64,
    /// Age (since receipt) beyond which an event isn't retried.
    pub max_age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 8,
            initial: Duration::from_secs(5),
            multiplier: 3.0,
            max: Duration::from_secs(6 * 3600),
            max_retry_after: Duration::from_secs(6 * 3600),
            jitter: 0.5,
            max_age: Duration::from_secs(3 * 24 * 3600),
        }
    }
}

/// Decision after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Retry after this delay.
    Retry(Duration),
    /// Make a dead letter.
    Dead(DeadReason),
}

impl Policy {
    /// What follows the failure of attempt number `attempt` (from 1) at `now`.
    ///
    /// `chance` in 0.0..=1.0 places the delay between its full length (0.0) and its
    /// length less the jitter (1.0). `retry_after` is the destination's own wish: it
    /// lengthens the delay up to `max_retry_after`, but not beyond `max_age`, and never shortens it.
    pub fn after_failure(
        &self,
        attempt: u32,
        received_at: Timestamp,
        now: Timestamp,
        chance: f64,
        retry_after: Option<Duration>,
    ) -> Decision {
        if attempt >= self.attempts {
            return Decision::Dead(DeadReason::Exhausted);
        }
        let cut = 1.0 - self.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
        let jittered = self.delay(attempt).mul_f64(cut).min(self.max);
        if now.plus(jittered).since(received_at) > self.max_age {
            return Decision::Dead(DeadReason::TooOld);
        }
        let left = received_at.plus(self.max_age).since(now);
        let wanted = retry_after.unwrap_or_default().min(self.max_retry_after).min(left);
        Decision::Retry(jittered.max(wanted))
    }

    /// Delay after attempt number `attempt`, before jitter.
    fn delay(&self, attempt: u32) -> Duration {
        let mut schedule = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.initial)
            .with_multiplier(self.multiplier)
            .with_max_interval(self.max)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        let mut delay = self.initial.min(self.max);
        for _ in 0..attempt.min(self.attempts) {
            delay = schedule.next_backoff().unwrap_or(self.max).min(self.max);
        }
        delay
    }
}

/// Pauses between attempts to reach a server: exponential with jitter, bounded.
#[derive(Debug)]
pub struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Pauses from `initial` up to `max`. Each is 1.5 times the previous one, plus or minus half.
    pub fn new(initial: Duration, max: Duration) -> Self {
        let schedule = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial)
            .with_max_interval(max)
            .with_max_elapsed_time(None)
            .build();
        Self(schedule)
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts again with the initial pause.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THEN: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn secs(decision: Decision) -> f64 {
        match decision {
            Decision::Retry(delay) => delay.as_secs_f64(),
            Decision::Dead(reason) => panic!("dead: {reason:?}"),
        }
    }

    #[test]
    fn the_default_schedule_grows_threefold_up_to_its_max() {
        let policy = Policy { attempts: 12, ..Policy::default() };
        let delays: Vec<f64> = (1..12)
            .map(|attempt| secs(policy.after_failure(attempt, THEN, THEN, 0.0, None)))
            .collect();
        let expected =
            [5.0, 15.0, 45.0, 135.0, 405.0, 1215.0, 3645.0, 10935.0, 21600.0, 21600.0, 21600.0];
        for (got, want) in delays.iter().zip(expected) {
            assert!((got - want).abs() < 0.001, "{delays:?}");
        }
    }

    #[test]
    fn the_last_attempt_and_old_age_end_in_the_dead_letter_queue() {
        let policy = Policy::default();
        let dead = Decision::Dead(DeadReason::Exhausted);
        assert_eq!(policy.after_failure(8, THEN, THEN, 0.0, None), dead);
        let late = THEN.plus(policy.max_age);
        let old = Decision::Dead(DeadReason::TooOld);
        assert_eq!(policy.after_failure(1, THEN, late, 0.0, None), old);
    }

    #[test]
    fn retry_after_lengthens_a_delay_up_to_its_own_max_and_never_shortens_it() {
        let max = Duration::from_secs(6);
        let policy = Policy { max, ..Policy::default() };
        let wanted = |secs| Some(Duration::from_secs(secs));
        assert_eq!(secs(policy.after_failure(1, THEN, THEN, 0.0, wanted(60))), 60.0);
        assert_eq!(secs(policy.after_failure(1, THEN, THEN, 0.0, wanted(1))), 5.0);
        assert_eq!(secs(policy.after_failure(1, THEN, THEN, 0.0, wanted(u64::MAX))), 21600.0);
        // The last attempt isn't lost by a wish for more time than is left.
        let late = THEN.plus(policy.max_age).minus(Duration::from_secs(100));
        assert_eq!(secs(policy.after_failure(1, THEN, late, 0.0, wanted(3600))), 100.0);
    }

    #[test]
    fn pauses_grow_up_to_their_max_and_start_small_again_after_a_success() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut pauses = Pauses::new(least, most);
        let last = (0..50).map(|_| pauses.next_pause()).last().unwrap();
        assert!(last >= most / 2 && last <= most * 3 / 2, "{last:?}");
        pauses.reset();
        assert!(pauses.next_pause() <= least * 2);
    }

    proptest! {
        #[test]
        fn a_delay_stays_between_its_jittered_and_its_full_length(
            attempt in 1u32..100, chance in 0.0f64..=1.0, jitter in 0.0f64..=1.0,
            initial_ms in 1u64..100_000, multiplier in 1.0f64..100.0,
        ) {
            let policy = Policy {
                attempts: 101, jitter, multiplier,
                initial: Duration::from_millis(initial_ms),
                ..Policy::default()
            };
            let full = secs(policy.after_failure(attempt, THEN, THEN, 0.0, None));
            let got = secs(policy.after_failure(attempt, THEN, THEN, chance, None));
            prop_assert!(got <= full + 1e-6 && got >= full * (1.0 - jitter) - 1e-6);
            prop_assert!(full <= policy.max.as_secs_f64());
            if attempt > 1 {
                let before = secs(policy.after_failure(attempt - 1, THEN, THEN, 0.0, None));
                prop_assert!(full >= before - 1e-6);
            }
        }
    }
}
