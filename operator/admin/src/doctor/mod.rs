//! Examines an installation: the configuration, and all that it names. Nothing is changed: no queue
//! is declared, nothing is written, and no destination gets a request.

mod files;
mod http_get;
mod management;
mod reach;
mod servers;

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde::Serialize;
use zentra_config::{ClientTls, Config, Environment, Role};
use zentra_core::clock::Timestamp;

use http_get::HttpGet;
use reach::Target;

/// Time limit for each server, destination and certificate.
const LIMIT: Duration = Duration::from_secs(5);
/// Number of destinations that are examined at a time.
const AT_A_TIME: usize = 16;
/// Clocks may differ by this much. The Date of an HTTP answer has no fractions of a second.
const CLOCK_TOLERANCE_MS: u64 = 2000;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Not examined; the text says why.
    Skipped,
    /// It works. Something should be changed.
    Warning,
    /// It does not work, or events can be lost.
    Problem,
}

/// What was found about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// The part: a file, a server, a destination.
    pub about: String,
    /// What was found. One line, without secrets.
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(level: Level, about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level, about: about.into(), text: text.into(), remedy: None }
    }

    fn ok(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, about, text)
    }

    fn skipped(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Skipped, about, text)
    }

    fn warning(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, about, text)
    }

    fn problem(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Problem, about, text)
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Of an error whose first line is the cause, and the others what to do.
    fn failed(about: impl Into<String>, error: &str) -> Self {
        let mut lines = error.lines();
        let found = Self::problem(about, lines.next().unwrap_or_default());
        match lines.map(str::trim).collect::<Vec<_>>().join(" ") {
            rest if rest.is_empty() => found,
            rest => found.remedy(rest),
        }
    }
}

/// Another machine's time, and when it was read.
struct OtherClock {
    of: String,
    theirs: Timestamp,
    ours: Timestamp,
}

/// Examines what the configuration in this file names. `management` is the URL of RabbitMQ's
/// management API, with user and password.
pub async fn examine(
    path: &Path,
    environment: &Environment,
    management: Option<&str>,
) -> Vec<Finding> {
    let (mut found, config) = configuration(path, environment);
    found.extend(files::permissions(path));
    let Some(config) = config else {
        found.push(Finding::skipped("everything else", "the configuration is not valid"));
        return found;
    };
    found.extend(files::open_files(&config));
    found.extend(reach::own_certificates(&config));
    let Some(http) = HttpGet::new(&config.rabbitmq.tls) else {
        found.push(Finding::problem("TLS", "no client can be set up"));
        return found;
    };
    let mut clocks = Vec::new();
    match &config.embedded {
        Some(embedded) => found.extend(files::embedded(embedded)),
        None => {
            found.extend(servers::rabbitmq(&config).await);
            found.extend(management::examine(&config, &http, management, &mut clocks).await);
            found.extend(servers::redis(&config, &mut clocks).await);
        }
    }
    found.extend(clocks.iter().map(judge_clock));
    for (name, address) in [("ingress", config.ingress.admin), ("worker", config.worker_admin)] {
        found.push(servers::ready(&http, name, address).await);
    }
    let targets = config.destinations.iter().filter_map(Target::of);
    let examined = iter(targets).map(async |target| target.examine().await);
    found.extend(examined.buffered(AT_A_TIME).collect::<Vec<_>>().await);
    found
}

/// Asks a health endpoint, such as `/readyz`, once.
///
/// # Errors
/// Why it does not answer 2xx within 5 s. The text has no part of the URL.
pub async fn health(url: &str) -> Result<(), String> {
    let http = HttpGet::new(&ClientTls::default()).ok_or("no TLS client can be set up")?;
    let answer = http.get(url, LIMIT).await?;
    let said = String::from_utf8_lossy(&answer.body);
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(format!("{} {}", answer.status, said.lines().next().unwrap_or_default())),
    }
}

/// Reads the configuration with all that it needs; if that fails, with what some programs need.
fn configuration(path: &Path, environment: &Environment) -> (Vec<Finding>, Option<Config>) {
    let about = path.display().to_string();
    let load = |role| Config::load(path, role, environment, &[]);
    let error = match load(Role::Check) {
        Ok(config) => return (vec![valid(about, &config)], Some(config)),
        Err(error) => error,
    };
    let problem = |what: &String| Finding::problem(&about, what);
    let found = error.0.iter().map(problem).collect();
    let roles = [Role::Standalone, Role::Worker, Role::Operator, Role::Ingress];
    (found, roles.into_iter().find_map(|role| load(role).ok()))
}

fn valid(about: String, config: &Config) -> Finding {
    let (sources, destinations) = (config.sources.len(), config.destinations.len());
    let text = format!("valid: sources: {sources}, destinations: {destinations}");
    match config.advice().len() {
        0 => Finding::ok(about, text),
        count => Finding::ok(about, format!("{text}, notes: {count}"))
            .remedy("Read the notes: zentra check"),
    }
}

fn judge_clock(OtherClock { of, theirs, ours }: &OtherClock) -> Finding {
    let difference = theirs.millis().abs_diff(ours.millis());
    match difference <= CLOCK_TOLERANCE_MS {
        true => Finding::ok("clock", format!("within {CLOCK_TOLERANCE_MS} ms of {of}")),
        false => Finding::warning(
            "clock",
            format!("{:.1} s apart from {of}", difference as f64 / 1000.0),
        )
        .remedy("Synchronize both clocks (NTP): freshness of callbacks is judged by them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_in_both_directions() {
        for (theirs, level) in [
            (100_000, Level::Ok),
            (102_000, Level::Ok),
            (98_000, Level::Ok),
            (102_001, Level::Warning),
            (0, Level::Warning),
        ] {
            let (theirs, ours) = (Timestamp::from_millis(theirs), Timestamp::from_millis(100_000));
            let found = judge_clock(&OtherClock { of: "it".into(), theirs, ours });
            assert_eq!(found.level, level, "{found:?}");
        }
    }
}
