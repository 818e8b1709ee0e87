//! A scenario: what a provider does, how the destination answers, what is promised. As TOML, that
//! users can write; see `docs/rehearsals.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The most events or copies of one step.
const MOST: u32 = 10_000;

/// One scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Its name; a file's is that of the file.
    #[serde(skip)]
    pub(crate) name: String,
    /// What is rehearsed, in one sentence.
    pub(crate) about: String,
    /// Goes over the config of a private Zentra.
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
    /// How the destination answers its next requests; then 200 again.
    Destination(Answers),
    /// What must come true, within the bound.
    Check(Box<Check>),
    /// Kill -9 of a program, which is started again.
    Kill(Kill),
    /// A worker stands still for a while (SIGSTOP, SIGCONT).
    Freeze(Freeze),
    /// Only these of the source's secrets are active from now on.
    Secrets(Secrets),
    /// An operator requeues a dead letter.
    Requeue(Named),
    /// An operator lets a suspected replay go on.
    Release(Named),
}

/// See [`Step::Send`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    /// What is promised of the answers.
    pub(crate) contract: Option<String>,
    /// The event's name in this scenario.
    pub(crate) event: String,
    /// The same bytes so often.
    #[serde(default = "one", deserialize_with = "few")]
    pub(crate) copies: u32,
    /// Number of events, named `event-1` and so on.
    #[serde(default, deserialize_with = "few")]
    pub(crate) events: u32,
    /// All at the same time, and not one after the other.
    #[serde(default)]
    pub(crate) at_once: bool,
    /// How it is signed.
    #[serde(default)]
    pub(crate) signed: Signed,
    /// Signed so long ago.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) age: Duration,
    /// Signed for a time that is so far ahead.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) ahead: Duration,
    /// What it carries.
    #[serde(default)]
    pub(crate) body: Body,
    /// The bytes of `event` under the id of this one.
    pub(crate) as_id: Option<String>,
    /// With this one of the source's secrets.
    pub(crate) key: Option<String>,
    /// To a source of this provider.
    pub(crate) provider: Option<String>,
    /// Each must be answered so: a status, and a reason if it is refused.
    pub(crate) answer: Option<String>,
}

/// How a callback is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Signed {
    /// As the provider does.
    #[default]
    Genuine,
    /// With a secret that isn't the source's.
    Forged,
    /// Not at all.
    Unsigned,
    /// By something that is no signature.
    Malformed,
}

/// What a callback carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Body {
    /// The event's bytes.
    #[default]
    Usual,
    /// Other bytes, under the same id.
    Other,
    /// What can't be read as JSON.
    NotJson,
    /// More than the source takes.
    Oversized,
    /// Nothing.
    Empty,
}

/// See [`Step::Destination`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answers {
    /// For the next requests, one each.
    #[serde(default)]
    pub(crate) turns: Vec<Turn>,
    /// Whether it takes no connections from now on.
    pub(crate) down: Option<bool>,
}

/// How the destination answers a request out of turn: `"500"`, `"429 retry-after=2"`, `"hang"`,
/// `"write-and-hang"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Turn {
    /// This status, and perhaps when to come again.
    Answer(u16, Option<u64>),
    /// Does nothing and never answers.
    Hang,
    /// Does what it is asked, and never answers.
    WriteAndHang,
}

/// See [`Step::Check`]. What isn't named isn't looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// What is promised.
    pub(crate) contract: String,
    /// Of this event.
    pub(crate) event: String,
    /// Of `event-1` and so on, up to this one.
    #[serde(default, deserialize_with = "few")]
    pub(crate) events: u32,
    /// Where it stands.
    pub(crate) state: Option<String>,
    /// Why it is dead.
    pub(crate) reason: Option<String>,
    /// Lines that its history has in this order, perhaps with others between.
    #[serde(default)]
    pub(crate) history: Vec<String>,
    /// How often its history has a line.
    #[serde(default)]
    pub(crate) lines: BTreeMap<String, Count>,
    /// How many requests the destination got.
    pub(crate) requests: Option<Count>,
    /// How many idempotency keys it acted under.
    pub(crate) effects: Option<Count>,
    /// At least so long between one request and the next.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) apart: Duration,
    /// Whether the destination got the exact bytes each time, and one idempotency key.
    #[serde(default)]
    pub(crate) exact: bool,
    /// Nothing is known of it.
    #[serde(default)]
    pub(crate) unknown: bool,
}

/// See [`Step::Kill`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kill {
    /// What is killed.
    pub(crate) program: Program,
    /// A worker: the one that holds this event, once the destination hangs with it.
    pub(crate) holding: Option<String>,
    /// What is promised.
    pub(crate) contract: Option<String>,
}

/// See [`Step::Freeze`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Freeze {
    /// The worker that holds this event, once the destination hangs with it.
    pub(crate) holding: String,
    /// For so long.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub(crate) time: Duration,
    /// What is promised.
    pub(crate) contract: Option<String>,
}

/// A program of Zentra. In a standalone, both are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Program {
    /// The ingress.
    Ingress,
    /// What delivers.
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

/// A number, or bounds: `3`, `"2.."`, `"..3"`, `"2..3"`, both ends included.
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
        bounds.ok_or_else(|| serde::de::Error::custom("not a count like 3, \"2..\" or \"..3\""))
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
    /// Reads a scenario. The error says what is wrong, and where.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self { name: name.into(), ..scenario })
    }

    /// Whether it can only be played on a Zentra of its own.
    pub(crate) fn needs_private(&self) -> bool {
        let owns = |step: &Step| matches!(step, Step::Kill(_) | Step::Freeze(_) | Step::Secrets(_));
        !self.config.is_empty() || self.steps.iter().any(owns)
    }

    /// The ones that come along.
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
        assert!(step(check).contains("not a count"));
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
