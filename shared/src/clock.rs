//! Time as a value: `now` is read here and handed on as an argument.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{IntCounterVec, Registry};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since the Unix epoch, UTC. As text, and in JSON, it is RFC 3339 with milliseconds; in
/// binary formats it is the number. The number is read from JSON, too. What is stored in JSON for each
/// event has the number (see [`as_millis`]), which is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "openapi",
    schema(
        value_type = String,
        format = DateTime,
        description = "RFC 3339 with milliseconds, in UTC.",
        example = "2026-11-28T19:37:55.725Z"
    )
)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch; saturates far outside any real date.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// This time and `duration` on, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This time less `duration`, saturating.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime panics past the year 9999.
        const LAST: u64 = 253_402_300_799_000;
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = humantime::TimestampError;

    /// From RFC 3339, or from milliseconds since the epoch.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(millis) = text.parse() {
            return Ok(Self(millis));
        }
        let since = humantime::parse_rfc3339_weak(text)?.duration_since(UNIX_EPOCH);
        Ok(Self(since.map_or(0, millis)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match to.is_human_readable() {
            true => to.collect_str(self),
            false => to.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in RFC 3339, or milliseconds since 1970")
            }

            fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Timestamp, E> {
                Ok(Timestamp(millis))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        match from.is_human_readable() {
            true => from.deserialize_any(Either),
            false => u64::deserialize(from).map(Self),
        }
    }
}

/// For a field whose JSON is stored for each event: the number. RFC 3339 is read, too.
pub mod as_millis {
    use serde::{Serialize, Serializer};

    use super::Timestamp;

    /// Writes the number, or null.
    pub fn serialize<S: Serializer, T: Copy + Into<Option<Timestamp>>>(
        time: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match (*time).into() {
            Some(time) => to.serialize_u64(time.millis()),
            None => None::<u64>.serialize(to),
        }
    }
}

/// Whole milliseconds of a duration, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The time, by the wall clock: the only place that reads it. A step of the wall clock by more than
/// a second counts once it has lasted a minute.
pub fn now() -> Timestamp {
    both().0
}

/// The wall clock's time while it is off by a step that has not lasted yet. Nobody knows then which
/// of the two is right.
pub fn stepped() -> Option<Timestamp> {
    let (steady, wall) = both();
    (wall.0.abs_diff(steady.0) > SLEW).then_some(wall)
}

/// The time that counts, and the wall clock's.
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
    (Timestamp(time), Timestamp(wall))
}

/// The time since the machine has started, suspended or not. No one sets it.
pub fn running() -> Duration {
    let since = clock_gettime(ClockId::Boottime);
    Duration::new(since.tv_sec.unsigned_abs(), u32::try_from(since.tv_nsec).unwrap_or(0))
}

/// Counts the steps of the wall clock that this process sees, with a label `outcome`.
static STEPS: OnceLock<IntCounterVec> = OnceLock::new();

/// Shows the steps of the wall clock by more than a second, by outcome.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    let help = "Steps of the wall clock by over 1 s: noticed, then followed or reverted.";
    let opts = prometheus::opts!("zentra_clock_steps_total", help);
    let new = IntCounterVec::new(opts, &["outcome"])?;
    let steps = STEPS.get_or_init(|| new);
    for outcome in ["noticed", "followed", "reverted"] {
        steps.with_label_values(&[outcome]);
    }
    registry.register(Box::new(steps.clone()))
}

/// What the wall clock may be off at once: it is slewed, and read in between.
const SLEW: u64 = 1_000;
/// How long a step has to last, in milliseconds.
const LASTING: u64 = 60_000;

/// The wall clock, but for steps that don't last. All times are in milliseconds.
#[derive(Clone, Copy, Debug)]
struct SteadyClock {
    /// The wall clock when it was last right,
    wall: u64,
    /// and [`running`] then.
    running: u64,
    /// When the wall clock was first seen elsewhere, by [`running`], and how far off.
    stepped: Option<(u64, i64)>,
}

/// What was seen of the wall clock. By milliseconds, forwards or backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was stepped just now.
    Noticed(i64),
    /// A step has lasted, and counts from now on.
    Followed(i64),
    /// It is right again.
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
            // Another step has a minute of its own.
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
                tracing::warn!(off_ms, "the wall clock was stepped: followed if it lasts a minute");
                "noticed"
            }
            Self::Followed(off_ms) => {
                tracing::warn!(
                    off_ms,
                    "the step of the wall clock has lasted: its time counts now"
                );
                "followed"
            }
            Self::Reverted => {
                tracing::info!("the wall clock is right again");
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

    #[test]
    fn a_time_is_text_in_json_and_a_number_where_each_byte_counts() {
        #[derive(Serialize, Deserialize, Debug, PartialEq)]
        struct Stored {
            #[serde(serialize_with = "as_millis::serialize")]
            at: Timestamp,
            #[serde(serialize_with = "as_millis::serialize")]
            signed: Option<Timestamp>,
        }
        let at = Timestamp::from_millis(1_795_894_675_725);
        let text = r#""2026-11-28T19:37:55.725Z""#;
        assert_eq!(serde_json::to_string(&at).unwrap(), text);
        for text in [text, "1795894675725", r#""1795894675725""#, r#""2026-11-28 19:37:55.725""#] {
            assert_eq!(serde_json::from_str::<Timestamp>(text).unwrap(), at, "{text}");
        }
        for text in [r#""soon""#, "-1", "1.5", "null", r#""""#] {
            assert!(serde_json::from_str::<Timestamp>(text).is_err(), "{text}");
        }
        let packed = rmp_serde::to_vec(&at).unwrap();
        assert_eq!(rmp_serde::from_slice::<u64>(&packed).unwrap(), at.millis());
        let stored = Stored { at, signed: Some(at) };
        let json = serde_json::to_string(&stored).unwrap();
        assert_eq!(json, r#"{"at":1795894675725,"signed":1795894675725}"#);
        assert_eq!(serde_json::from_str::<Stored>(&json).unwrap(), stored);
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

    #[test]
    fn a_timestamp_prints_as_rfc_3339_and_never_panics() {
        assert_eq!(
            Timestamp::from_millis(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert!(Timestamp::from_millis(u64::MAX).to_string().starts_with("9999-12-31"));
    }
}
