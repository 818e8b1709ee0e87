//! A time in a provider's documents.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A time that a provider's documents state, if they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Documented {
    /// Not looked up, or no page was found.
    #[default]
    Unknown,
    /// The page doesn't state it (`"unstated"`).
    Unstated,
    Time(Duration),
}

impl Documented {
    /// The time; `None` if it is unknown or unstated.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Unknown | Self::Unstated => None,
        }
    }
}

impl Display for Documented {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("?"),
            Self::Unstated => f.write_str("unstated"),
            Self::Time(time) => humantime::format_duration(*time).fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Documented {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.as_str() {
            "unstated" => Ok(Self::Unstated),
            time => humantime::parse_duration(time).map(Self::Time).map_err(|_| {
                serde::de::Error::custom("neither a duration like \"5m\" nor \"unstated\"")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Scheme;

    #[test]
    fn a_time_is_a_duration_or_unstated_and_nothing_else() {
        let stripe = include_str!("../providers/stripe.toml");
        assert!(stripe.contains("\nretries = \"3d\""));
        let retries = |value: &str| {
            let text = stripe.replace("\nretries = \"3d\"", value);
            Scheme::from_toml(text.parse().unwrap()).map(|scheme| scheme.retries)
        };
        let three_days = Duration::from_secs(3 * 24 * 60 * 60);
        assert_eq!(retries("\nretries = \"3d\"").unwrap(), Documented::Time(three_days));
        assert_eq!(retries("\nretries = \"unstated\"").unwrap(), Documented::Unstated);
        assert_eq!(retries("").unwrap(), Documented::Unknown);
        for bad in ["unknown", "", "3", "-1d", "?"] {
            assert!(retries(&format!("\nretries = {bad:?}")).is_err(), "{bad}");
        }
    }
}
