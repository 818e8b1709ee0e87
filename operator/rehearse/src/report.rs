//! The report of a rehearsal: each promise beside the observation, as text, JSON and JUnit.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use console::{style, truncate_str};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::error::unusable;
use zentra_admin::AdminError;

/// Maximum width of a promise.
const CONTRACT: usize = 70;

/// The report of all scenarios.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backend: `embedded`, `rabbitmq`, or an address.
    pub on: String,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub scenarios: Vec<Played>,
}

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub struct Played {
    pub name: String,
    pub about: String,
    pub outcome: Outcome,
    /// Why it was skipped or aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub seconds: f64,
    pub contracts: Vec<Row>,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every promise was kept.
    Passed,
    /// A promise was broken, or the scenario could not be played to its end.
    Failed,
    /// It was not played.
    Skipped,
}

/// One promise.
#[derive(Debug, Serialize)]
pub struct Row {
    pub contract: String,
    pub observed: String,
    /// `None`: nobody could observe it.
    pub kept: Option<bool>,
}

impl Played {
    pub(crate) fn new(
        (name, about): (&str, &str),
        contracts: Vec<Row>,
        why: Option<String>,
        took: Duration,
    ) -> Self {
        let broken = why.is_some() || contracts.iter().any(|row| row.kept == Some(false));
        let outcome = if broken { Outcome::Failed } else { Outcome::Passed };
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        Self { name: name.into(), about: about.into(), outcome, why, seconds, contracts }
    }

    pub(crate) fn skipped((name, about): (&str, &str), why: &str) -> Self {
        let played = Self::new((name, about), Vec::new(), Some(why.into()), Duration::ZERO);
        Self { outcome: Outcome::Skipped, ..played }
    }

    /// A summary as text.
    pub fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mark = match self.outcome {
            Outcome::Passed => style("passed").green(),
            Outcome::Failed => style("FAILED").red().bold(),
            Outcome::Skipped => style("skipped").yellow(),
        };
        let (name, about) = (style(&self.name).bold(), &self.about);
        writeln!(out, "{name}  {about}  {mark} in {:.1} s", self.seconds)?;
        for row in &self.contracts {
            row.show(out)?;
        }
        if let Some(why) = &self.why {
            writeln!(out, "  {}", style(why).yellow())?;
        }
        writeln!(out)
    }
}

impl Row {
    fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mark = match self.kept {
            Some(true) => style("✓").green(),
            Some(false) => style("✗").red().bold(),
            None => style("?").yellow(),
        };
        let contract = truncate_str(&self.contract, CONTRACT, "…");
        writeln!(out, "  {mark} {contract:<CONTRACT$}  {}", self.observed)
    }
}

impl Report {
    pub(crate) fn new(on: &str) -> Self {
        Self { on: on.into(), passed: 0, failed: 0, skipped: 0, scenarios: Vec::new() }
    }

    pub(crate) fn add(&mut self, played: Played) {
        match played.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
        self.scenarios.push(played);
    }

    /// The last line.
    pub fn sum(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { on, passed, failed, skipped, .. } = self;
        writeln!(out, "on {on}: {passed} passed, {failed} failed, {skipped} skipped")
    }

    /// The JUnit form, which CI servers read.
    pub fn junit(&self, path: &Path) -> Result<(), AdminError> {
        let mut suite = TestSuite::new(format!("zentra rehearse on {}", self.on));
        for played in &self.scenarios {
            let mut status = match played.outcome {
                Outcome::Passed => TestCaseStatus::success(),
                Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Outcome::Skipped => TestCaseStatus::skipped(),
            };
            let broken = played.contracts.iter().filter(|row| row.kept == Some(false));
            let broken = broken.map(|row| format!("{}: {}", row.contract, row.observed));
            let message: Vec<String> = broken.chain(played.why.clone()).collect();
            if !message.is_empty() {
                status.set_message(message.join("; "));
            }
            let mut case = TestCase::new(&*played.name, status);
            case.set_time(Duration::from_secs_f64(played.seconds));
            suite.add_test_case(case);
        }
        let mut report = Junit::new("zentra rehearse");
        report.add_test_suite(suite);
        let failed = |error: &dyn std::fmt::Display| {
            unusable(format!("cannot write {}: {error}", path.display())).hint("Name another file.")
        };
        let text = report.to_string().map_err(|error| failed(&error))?;
        std::fs::write(path, text).map_err(|error| failed(&error))
    }
}
