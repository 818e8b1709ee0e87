//! A point in time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since the Unix epoch, UTC. As text, and in JSON, it is RFC 3339 with milliseconds; in
/// binary formats it is the number. The number is read from JSON, too. What is stored in JSON for each
/// event has the number (see [`as_millis`]), which is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// This time plus `duration`, saturating.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This time minus `duration`, saturating.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Duration since `earlier`; zero if this is not after it.
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

/// Serializes a field as a number. RFC 3339 is read too.
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

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_timestamp_prints_as_rfc_3339_and_never_panics() {
        assert_eq!(
            Timestamp::from_millis(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert!(Timestamp::from_millis(u64::MAX).to_string().starts_with("9999-12-31"));
    }
}
