//! The signed time, and how it is written.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::place::Location;
use crate::clock::{Timestamp, millis};

/// The signed time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Where it is written.
    pub at: Location,
    /// How.
    #[serde(default)]
    pub unit: Unit,
    /// How far it may be from the time of receipt, either way.
    #[serde(deserialize_with = "duration")]
    pub tolerance: Duration,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Unix seconds.
    #[default]
    Seconds,
    /// Unix milliseconds.
    Milliseconds,
    /// RFC 3339 in UTC, with or without the `Z` (or `+00:00`).
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
                let utc = text.strip_suffix("+00:00").or_else(|| text.strip_suffix("-00:00"));
                instant(humantime::parse_rfc3339_weak(utc.unwrap_or(text)).ok()?)
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
            Self::Rfc3339 => ["Z", "z", "+00:00", "-00:00"].iter().any(|end| text.ends_with(end)),
            Self::HttpDate => true,
        }
    }

    /// The time that a text begins with, if it is one.
    pub(super) fn starting(self, text: &str) -> Option<Timestamp> {
        let end = match self {
            Self::Seconds | Self::Milliseconds => {
                text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
            }
            // `2024-02-29T12:00:00`, and what belongs to it besides says little.
            Self::Rfc3339 => 19,
            Self::HttpDate => text.find("GMT")? + 3,
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

fn instant(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(millis(since)))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("not a duration like \"5m\""))
}
