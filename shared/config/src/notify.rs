//! Receivers of notifications about incidents.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use webhook_verify::{KeyFormat, NamedSecret, Secret};
use zentra_core::clock::Timestamp;
use zentra_store::incident::Severity;

use super::reader::Reader;
use super::secrets::secret;
use super::section::Section;

/// PagerDuty's Events API v2: <https://developer.pagerduty.com/docs/send-alert-event>.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// A receiver of notifications about incidents.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Name.
    pub name: String,
    /// How messages are sent. Without the secrets, if this program sends none.
    pub channel: Channel,
    /// The least severity.
    pub severity: Severity,
    /// Time between two reminders of an incident that nobody has acknowledged; zero: none.
    pub remind_after: Duration,
    /// When only critical incidents are sent.
    pub quiet_hours: Option<QuietHours>,
}

/// How messages are sent.
#[derive(Clone, Debug)]
pub enum Channel {
    /// An incoming webhook of Slack, or of a service that takes the same JSON.
    Slack {
        /// Its address, which is a secret.
        url: Option<Secret>,
    },
    /// A request that is signed by Standard Webhooks.
    Webhook {
        /// The address.
        url: Option<Secret>,
        /// Signs.
        key: Option<NamedSecret>,
    },
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// The address.
        url: Option<Secret>,
        /// The integration key.
        key: Option<Secret>,
    },
    /// An email.
    Email {
        /// `smtps://user:password@host`.
        server: Option<Secret>,
        /// Sender.
        from: String,
        /// Recipients.
        to: Vec<String>,
    },
}

/// A time of each day, also over midnight.
#[derive(Clone, Debug)]
pub struct QuietHours {
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl QuietHours {
    /// `22:00-07:00` in a time zone such as `Europe/Berlin`.
    ///
    /// # Errors
    /// What it should be.
    pub fn parse(hours: &str, zone: &str) -> Result<Self, &'static str> {
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
        let parts = hours.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
        let (from, to) =
            parts.filter(|(from, to)| from != to).ok_or("must be like \"22:00-07:00\"")?;
        let zone = TimeZone::get(zone)
            .map_err(|_| "needs a time_zone like \"Europe/Berlin\" or \"UTC\"")?;
        Ok(Self { from, to, zone })
    }

    /// Whether this moment is in them. The end is not.
    pub fn contains(&self, at: Timestamp) -> bool {
        let millis = i64::try_from(at.millis()).unwrap_or(i64::MAX);
        let Ok(at) = jiff::Timestamp::from_millisecond(millis) else { return false };
        let time = self.zone.to_datetime(at).time();
        match self.from < self.to {
            true => (self.from..self.to).contains(&time),
            false => time >= self.from || time < self.to,
        }
    }
}

impl Reader<'_> {
    /// `None` only if an error was recorded.
    pub(super) fn receiver(&self, name: String, mut section: Section<'_>) -> Option<Receiver> {
        let before = section.problem_count();
        let channel = self.channel(&mut section);
        let severity = section.text_or_default("severity");
        let severity = Severity::named(&severity);
        if severity.is_none() {
            section.problem("severity", "must be info, warning or critical");
        }
        let remind_after = section.duration("remind_after");
        let (hours, zone) = (section.text("quiet_hours"), section.text_or_default("time_zone"));
        let quiet_hours = hours.and_then(|hours| match QuietHours::parse(&hours, &zone) {
            Ok(quiet) => Some(quiet),
            Err(what) => {
                section.problem("quiet_hours", what);
                None
            }
        });
        if section.problem_count() == before {
            section.finish();
        }
        Some(Receiver { name, channel: channel?, severity: severity?, remind_after, quiet_hours })
    }

    fn channel(&self, section: &mut Section<'_>) -> Option<Channel> {
        let needed = self.role.notifies();
        let kind = section.text("kind").unwrap_or_default();
        let of = |section: &mut Section<'_>, key| secret(section, key, self.environment, needed);
        let url = |section: &mut Section<'_>| {
            let url = of(section, "url");
            let is_web = |url: &Secret| {
                let text = std::str::from_utf8(url.expose()).ok();
                text.is_some_and(|text| super::reader::destination_url(text.trim()).is_some())
            };
            if url.as_ref().is_some_and(|url| !is_web(url)) {
                section.problem("url", "must be an http:// or https:// address");
            }
            url
        };
        Some(match kind.as_str() {
            "slack" => Channel::Slack { url: url(section) },
            "webhook" => {
                let url = url(section);
                let key = of(section, "secret");
                if key.as_ref().is_some_and(|key| !KeyFormat::Whsec.accepts(key)) {
                    section.problem("secret", "must be base64, as Standard Webhooks keys are");
                }
                let key = key.map(|secret| NamedSecret { name: "notify".into(), secret });
                Channel::Webhook { url, key }
            }
            "pagerduty" => {
                let url = match section.missing("url") {
                    true => Some(Secret::new(PAGERDUTY)),
                    false => url(section),
                };
                Channel::Pagerduty { url, key: of(section, "secret") }
            }
            "email" => {
                let server = of(section, "url");
                let is_smtp = |url: &Secret| is_safe_smtp(&String::from_utf8_lossy(url.expose()));
                if server.as_ref().is_some_and(|url| !is_smtp(url)) {
                    section.problem(
                        "url",
                        "must be smtps://USER:PASSWORD@HOST, or smtp://…?tls=required",
                    );
                }
                let from = section.text("from").unwrap_or_default();
                let to = section.texts("to");
                if !from.contains('@') || to.is_empty() || to.iter().any(|to| !to.contains('@')) {
                    section.problem(
                        "to",
                        "an email needs from and to: addresses like \"ops@example.com\"",
                    );
                }
                Channel::Email { server, from, to }
            }
            _ => {
                section.problem("kind", "must be slack, webhook, pagerduty or email");
                return None;
            }
        })
    }
}

/// Whether a mail server's address keeps its password from the network: TLS, or this machine.
fn is_safe_smtp(url: &str) -> bool {
    let url = url.trim();
    let Some(rest) = url.strip_prefix("smtp://") else { return url.starts_with("smtps://") };
    let host = rest.rsplit('@').next().unwrap_or_default();
    let is_here = |name: &str| {
        let rest = host.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/', '?']))
    };
    rest.contains("tls=required") || ["127.0.0.1", "localhost", "[::1]"].into_iter().any(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_mail_server_is_not_sent_as_it_is() {
        for (url, is_safe) in [
            ("smtps://ada:secret@mail.example.com", true),
            ("smtp://ada:secret@mail.example.com:587?tls=required", true),
            ("smtp://127.0.0.1:2525", true),
            ("smtp://localhost", true),
            ("smtp://ada:secret@mail.example.com", false),
            ("smtp://ada:secret@localhost.example.com", false),
            ("smtp://127.0.0.1@mail.example.com", false),
            ("https://mail.example.com", false),
        ] {
            assert_eq!(is_safe_smtp(url), is_safe, "{url}");
        }
    }

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap())
    }

    #[test]
    fn quiet_hours_are_those_of_their_zone_also_over_midnight_and_summer_time() {
        let quiet = QuietHours::parse("22:00-07:00", "Europe/Berlin").unwrap();
        for (time, is_quiet) in [
            ("2026-01-10T20:59:59Z", false),
            ("2026-01-10T21:00:00Z", true),
            ("2026-01-11T05:59:59Z", true),
            ("2026-01-11T06:00:00Z", false),
            ("2026-07-10T20:00:00Z", true),
            ("2026-07-11T05:00:00Z", false),
        ] {
            assert_eq!(quiet.contains(at(time)), is_quiet, "{time}");
        }
        let noon = QuietHours::parse("12:00-13:00", "UTC").unwrap();
        assert!(noon.contains(at("2026-01-10T12:30:00Z")));
        assert!(!noon.contains(at("2026-01-10T13:00:00Z")));
        for (hours, zone) in [
            ("22-07", "UTC"),
            ("25:00-07:00", "UTC"),
            ("07:00-07:00", "UTC"),
            ("22:00-07:00", "Mars/Base"),
        ] {
            assert!(QuietHours::parse(hours, zone).is_err(), "{hours} {zone}");
        }
    }
}
