//! The signed time and its format.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::place::Location;
use crate::timestamp::{Timestamp, millis};

/// The signed time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Place of the time.
    pub at: Location,
    /// Format.
    #[serde(default)]
    pub unit: Unit,
    /// Tolerance from the time of receipt, both ways.
    #[serde(deserialize_with = "duration")]
    pub tolerance: Duration,
}

/// Format of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Unix seconds.
    #[default]
    Seconds,
    /// Unix milliseconds.
    Milliseconds,
    /// RFC 3339, in UTC if it names no offset.
    Rfc3339,
    /// As in a `Date` header (RFC 9110, section 5.6.7).
    HttpDate,
}

impl Unit {
    /// A time as it is written; none if it isn't one.
    pub(super) fn read(self, text: &str) -> Option<Timestamp> {
        match self {
            Self::Seconds => text.parse().ok().map(Timestamp::from_secs),
            Self::Milliseconds => text.parse().ok().map(Timestamp::from_millis),
            Self::Rfc3339 => {
                let (local, minutes) = offset(text);
                let local = instant(humantime::parse_rfc3339_weak(local).ok()?)?;
                let offset = Duration::from_secs(minutes.unsigned_abs() * 60);
                Some(if minutes < 0 { local.plus(offset) } else { local.minus(offset) })
            }
            Self::HttpDate => instant(httpdate::parse_http_date(text).ok()?),
        }
    }

    /// Whether nothing before or after it could belong to it: where a time runs into other signed
    /// bytes, it must be seen where it ends.
    pub(super) fn is_whole(self, text: &str) -> bool {
        match self {
            // One digit less or more is another time by years.
            Self::Seconds | Self::Milliseconds => text.bytes().all(|byte| byte.is_ascii_digit()),
            Self::Rfc3339 => text.ends_with(['Z', 'z']) || offset(text).0 != text,
            Self::HttpDate => true,
        }
    }

    /// The time that a text begins with, if it is one.
    pub(super) fn starting(self, text: &str) -> Option<Timestamp> {
        let end = match self {
            Self::Seconds | Self::Milliseconds => {
                // No time has more digits.
                text.bytes().take(32).take_while(u8::is_ascii_digit).count()
            }
            // `2024-02-29T12:00:00`, and what belongs to it besides says little.
            Self::Rfc3339 => 19,
            // `Tue, 14 Nov 2023 22:13:20 GMT`
            Self::HttpDate => 29,
        };
        self.read(text.get(..end)?)
    }

    /// As a provider would write it.
    pub(super) fn write(self, time: Timestamp) -> String {
        match self {
            Self::Seconds => time.secs().to_string(),
            Self::Milliseconds => time.millis().to_string(),
            Self::Rfc3339 => time.to_string(),
            Self::HttpDate => {
                httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.secs()))
            }
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "Unix seconds",
            Self::Milliseconds => "Unix milliseconds",
            Self::Rfc3339 => "a UTC time by RFC 3339",
            Self::HttpDate => "a date as HTTP writes it",
        })
    }
}

/// A time without its offset from UTC (`-07:00`), and that in minutes.
fn offset(text: &str) -> (&str, i64) {
    let split = || {
        let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
        let sign = match offset.as_bytes()[0] {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = offset[1..].split_once(':')?;
        let number = |text: &str, most: i64| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>().ok().filter(|number| digits && *number <= most)
        };
        // A date alone ends in `-02-29`, which has no colon.
        Some((local, sign * (number(hours, 23)? * 60 + number(minutes, 59)?)))
    };
    split().unwrap_or((text, 0))
}

fn instant(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(millis(since)))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("not a duration like \"5m\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_may_name_its_offset_from_utc() {
        for (text, seconds) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000),
            ("2023-11-14T22:13:20+00:00", 1_700_000_000),
            ("2023-11-14T15:13:20-07:00", 1_700_000_000),
            ("2023-11-15T03:43:20.5+05:30", 1_700_000_000),
        ] {
            let read = Unit::Rfc3339.read(text).map(Timestamp::secs);
            assert_eq!(read, Some(seconds), "{text}");
        }
        for text in
            ["2023-11-14T22:13:20-7:00", "2023-11-14T22:13:20-24:00", "2023-11-14", "-07:00"]
        {
            assert_eq!(Unit::Rfc3339.read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9TZ:.+é-]{0,40}") {
            for unit in [Unit::Seconds, Unit::Milliseconds, Unit::Rfc3339, Unit::HttpDate] {
                let _ = (unit.read(&text), unit.is_whole(&text), unit.starting(&text));
            }
        }
    }
}
