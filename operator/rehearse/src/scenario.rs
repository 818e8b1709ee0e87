//! A scenario: what a provider does, how the destination answers, and what Zentra promises. Users
//! can write scenarios in TOML. See `docs/rehearsals.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Maximum number of events or copies in one step.
const MOST: u32 = 10_000;

/// One scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Its name. For a file, the name of the file.
    #[serde(skip)]
    pub(crate) name: String,
    /// What is rehearsed, in one sentence.
    pub(crate) about: String,
    /// Overrides of a private Zentra's configuration.
    #[serde(default)]
    pub(crate) config: toml::Table,
    /// In this order.
    #[serde(rename = "step")]
    pub(crate) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// The provider sends a callback.
    Send(Send),
    /// How the destination answers its next requests. Later requests get 200.
    Destination(Answers),
    /// What must come true within the time limit.
    Check(Box<Check>),
    /// Kills a program with -9. It is started again.
    Kill(Kill),
    /// Stops a worker for a while (SIGSTOP, SIGCONT).
    Freeze(Freeze),
    /// Only these secrets of the source are active from now on.
    Secrets(Secrets),
    /// An operator requeues a dead letter.
    Requeue(Named),
    /// An operator releases a suspected replay.
    Release(Named),
}

/// See [`Step::Send`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    /// The expected responses.
    pub(crate) contract: Option<String>,
    /// The event's name in this scenario.
    pub(crate) event: String,
    /// How often the same bytes are sent.
    #[serde(default = "one", deserialize_with = "few")]
    pub(crate) copies: u32,
    /// Number of events, named `event-1` and so on.
    #[serde(default, deserialize_with = "few")]
    pub(crate) events: u32,
    /// Send concurrently, not one after the other.
    #[serde(default)]
    pub(crate) at_once: bool,
    /// How it is signed.
    #[serde(default)]
    pub(crate) signed: Signed,
    /// The age of the signature.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) age: Duration,
    /// How far the signed time is in the future.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) ahead: Duration,
    /// Its contents.
    #[serde(default)]
    pub(crate) body: Body,
    /// The body of `event`, under the ID of this event.
    pub(crate) as_id: Option<String>,
    /// Signed with this secret of the source.
    pub(crate) key: Option<String>,
    /// Sent to a source of this provider.
    pub(crate) provider: Option<String>,
    /// Every response must be this: a status, and a reason if the callback is refused.
    pub(crate) answer: Option<String>,
}

/// How a callback is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Signed {
    /// As the provider does.
    #[default]
    Genuine,
    /// With a secret that is not the source's.
    Forged,
    /// Not at all.
    Unsigned,
    /// With text that is not a signature.
    Malformed,
}

/// The contents of a callback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Body {
    /// The event's body.
    #[default]
    Usual,
    /// Another body, under the same ID.
    Other,
    /// Not JSON.
    NotJson,
    /// More than the source accepts.
    Oversized,
    /// Nothing.
    Empty,
}

/// See [`Step::Destination`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answers {
    /// For the next requests, one answer each.
    #[serde(default)]
    pub(crate) turns: Vec<Turn>,
    /// Whether it refuses connections from now on.
    pub(crate) down: Option<bool>,
}

/// How the destination answers one request: `"500"`, `"429 retry-after=2"`, `"hang"`,
/// `"write-and-hang"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Turn {
    /// This status, and perhaps a time to retry after.
    Answer(u16, Option<u64>),
    /// Writes nothing, and never answers.
    Hang,
    /// Writes the result, and never answers.
    WriteAndHang,
}

/// See [`Step::Check`]. Fields that are missing are not checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// What Zentra promises.
    pub(crate) contract: String,
    /// About this event.
    pub(crate) event: String,
    /// About `event-1` and so on, up to this number.
    #[serde(default, deserialize_with = "few")]
    pub(crate) events: u32,
    /// Its state.
    pub(crate) state: Option<String>,
    /// The reason of its dead letter.
    pub(crate) reason: Option<String>,
    /// Lines of its history in this order. Other lines may be between them.
    #[serde(default)]
    pub(crate) history: Vec<String>,
    /// How often its history has a line.
    #[serde(default)]
    pub(crate) lines: BTreeMap<String, Count>,
    /// Number of requests that the destination got.
    pub(crate) requests: Option<Count>,
    /// Number of idempotency keys that the destination acted under.
    pub(crate) effects: Option<Count>,
    /// Minimum time between two requests.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) apart: Duration,
    /// Whether the destination got the exact bytes each time, under one idempotency key.
    #[serde(default)]
    pub(crate) exact: bool,
    /// Nothing is known about it.
    #[serde(default)]
    pub(crate) unknown: bool,
}

/// See [`Step::Kill`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kill {
    /// Which program is killed.
    pub(crate) program: Program,
    /// The worker that holds this event, as soon as the destination's request hangs.
    pub(crate) holding: Option<String>,
    /// What Zentra promises.
    pub(crate) contract: Option<String>,
}

/// See [`Step::Freeze`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Freeze {
    /// The worker that holds this event, as soon as the destination's request hangs.
    pub(crate) holding: String,
    /// For this long.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub(crate) time: Duration,
    /// What Zentra promises.
    pub(crate) contract: Option<String>,
}

/// A program of Zentra. In a standalone, both are one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Program {
    /// The ingress.
    Ingress,
    /// The worker.
    Worker,
}

/// See [`Step::Secrets`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secrets {
    /// Their names.
    pub(crate) active: Vec<String>,
}

/// An event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// Its name in this scenario.
    pub(crate) event: String,
}

/// A number, or bounds: `3`, `"2.."`, `"..3"`, `"2..3"`. Both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    from: usize,
    to: usize,
}

impl Count {
    pub(crate) fn takes(self, count: usize) -> bool {
        (self.from..=self.to).contains(&count)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (from, to) if from == to => write!(f, "{from}"),
            (0, to) => write!(f, "at most {to}"),
            (from, usize::MAX) => write!(f, "at least {from}"),
            (from, to) => write!(f, "{from} to {to}"),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(usize),
            Bounds(String),
        }
        let text = match Either::deserialize(from)? {
            Either::Number(number) => return Ok(Self { from: number, to: number }),
            Either::Bounds(text) => text,
        };
        let bounds = text.split_once("..").and_then(|(from, to)| {
            let number = |text: &str, open| match text {
                "" => Some(open),
                text => text.parse().ok(),
            };
            Some(Self { from: number(from, 0)?, to: number(to, usize::MAX)? })
        });
        bounds.ok_or_else(|| serde::de::Error::custom("not a number like 3, \"2..\" or \"..3\""))
    }
}

impl TryFrom<String> for Turn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no turn: a status, perhaps with retry-after=SECONDS, hang, or \
                     write-and-hang"
            )
        };
        let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match first {
            "hang" => Ok(Self::Hang),
            "write-and-hang" => Ok(Self::WriteAndHang),
            status => {
                let status = status.parse().ok().filter(|status| (200..600).contains(status));
                let after = match rest {
                    "" => None,
                    rest => {
                        let seconds = rest.strip_prefix("retry-after=");
                        Some(seconds.and_then(|text| text.parse().ok()).ok_or_else(bad)?)
                    }
                };
                Ok(Self::Answer(status.ok_or_else(bad)?, after))
            }
        }
    }
}

fn one() -> u32 {
    1
}

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    match (1..=MOST).contains(&number) {
        true => Ok(number),
        false => Err(serde::de::Error::custom(format!("not from 1 to {MOST}"))),
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("not a duration like \"5m\""))
}

impl Scenario {
    /// Parses a scenario. The error says what is wrong, and where.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self { name: name.into(), ..scenario })
    }

    /// Whether it can be played only on a private Zentra.
    pub(crate) fn needs_private(&self) -> bool {
        let owns = |step: &Step| matches!(step, Step::Kill(_) | Step::Freeze(_) | Step::Secrets(_));
        !self.config.is_empty() || self.steps.iter().any(owns)
    }

    /// The built-in scenarios.
    pub(crate) fn shipped() -> Vec<Self> {
        let all = SHIPPED.iter().filter_map(|(name, text)| Self::parse(name, text).ok());
        all.collect()
    }
}

/// In the order in which they are played.
const SHIPPED: &[(&str, &str)] = &[
    ("transfer", include_str!("scenarios/transfer.toml")),
    ("duplicates", include_str!("scenarios/duplicates.toml")),
    ("conflict", include_str!("scenarios/conflict.toml")),
    ("concurrent", include_str!("scenarios/concurrent.toml")),
    ("forged", include_str!("scenarios/forged.toml")),
    ("freshness", include_str!("scenarios/freshness.toml")),
    ("rotation", include_str!("scenarios/rotation.toml")),
    ("suspected-replay", include_str!("scenarios/suspected-replay.toml")),
    ("out-of-order", include_str!("scenarios/out-of-order.toml")),
    ("burst", include_str!("scenarios/burst.toml")),
    ("slow", include_str!("scenarios/slow.toml")),
    ("beyond-the-lease", include_str!("scenarios/beyond-the-lease.toml")),
    ("outage", include_str!("scenarios/outage.toml")),
    ("rate-limited", include_str!("scenarios/rate-limited.toml")),
    ("gone", include_str!("scenarios/gone.toml")),
    ("malformed", include_str!("scenarios/malformed.toml")),
    ("poison", include_str!("scenarios/poison.toml")),
    ("worker-crash", include_str!("scenarios/worker-crash.toml")),
    ("ingress-crash", include_str!("scenarios/ingress-crash.toml")),
    ("dead-letter", include_str!("scenarios/dead-letter.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_along_can_be_read() {
        for (name, text) in SHIPPED {
            let read = Scenario::parse(name, text);
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
    }

    #[test]
    fn what_a_scenario_gets_wrong_is_told_with_its_place() {
        let step = |text: &str| {
            let text = format!("about = \"x\"\n[[step]]\n{text}");
            Scenario::parse("x", &text).unwrap_err()
        };
        assert!(step("do = \"send\"\nevent = \"a\"\ncopys = 3").contains("copys"));
        assert!(step("do = \"send\"\nevent = \"a\"\ncopies = 0").contains("from 1 to"));
        assert!(step("do = \"dance\"").contains("dance"));
        assert!(step("do = \"destination\"\nturns = [\"500 soon\"]").contains("is no turn"));
        let check = "do = \"check\"\ncontract = \"c\"\nevent = \"a\"\nrequests = \"2...\"";
        assert!(step(check).contains("not a number like"));
    }

    #[test]
    fn a_count_is_a_number_or_has_bounds() {
        #[derive(Deserialize)]
        struct Of {
            count: Count,
        }
        for (text, takes, leaves, shown) in [
            ("3", 3, 4, "3"),
            ("\"2..\"", 9, 1, "at least 2"),
            ("\"..3\"", 0, 4, "at most 3"),
            ("\"2..3\"", 3, 4, "2 to 3"),
        ] {
            let Of { count } = toml::from_str(&format!("count = {text}")).unwrap();
            assert!(count.takes(takes) && !count.takes(leaves));
            assert_eq!(count.to_string(), shown);
        }
    }
}
