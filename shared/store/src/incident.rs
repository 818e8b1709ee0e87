//! An incident: a finding of the status that stands, with what was done about it. Notifications are about incidents.

use std::collections::BTreeMap;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::control::Attribution;
use crate::journal::JournalError;
use crate::stored::Document;
use zentra_core::clock::Timestamp;

/// Number of closed incidents that are kept, the newest ones.
pub const KEPT: usize = 1000;

/// How urgent a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Callbacks are refused, or nothing is delivered.
    Critical,
}

impl Severity {
    /// All, the least urgent first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A part that everything depends on, such as `rabbitmq`.
    Part,
    /// A source.
    Source,
    /// A destination.
    Destination,
}

/// A message about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The finding stands.
    Opened,
    /// It still stands, and nobody has acknowledged it.
    Reminder,
    /// It has gone, or an operator has resolved it.
    Closed,
}

/// The last message to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message.
    pub notice: Notice,
    /// When it was accepted.
    pub at: Timestamp,
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Id.
    pub id: String,
    /// Number of changes. See [`Incidents::keep_incident`].
    pub version: u64,
    /// What it is about.
    pub subject: Subject,
    /// Name of the part, source or destination.
    pub name: String,
    /// The finding, such as `circuit_open`.
    pub finding: String,
    /// Severity.
    pub severity: Severity,
    /// When it was found.
    pub opened_at: Timestamp,
    /// When it was found last.
    pub seen_at: Timestamp,
    /// When it had gone, or an operator resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// Who acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Attribution>,
    /// Who resolved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Attribution>,
    /// The last message to each receiver.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sent: BTreeMap<String, Sent>,
}

impl Document for Incident {
    const KIND: &'static str = "incident";
}

impl Incident {
    /// A new incident about a finding.
    pub fn new(
        id: String,
        (subject, name, finding): (Subject, &str, &str),
        severity: Severity,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            version: 1,
            subject,
            name: name.to_owned(),
            finding: finding.to_owned(),
            severity,
            opened_at: now,
            seen_at: now,
            closed_at: None,
            acknowledged: None,
            resolved: None,
            sent: BTreeMap::new(),
        }
    }

    /// Whether it is about this finding.
    pub fn is_about(&self, subject: Subject, name: &str, finding: &str) -> bool {
        self.subject == subject && self.name == name && self.finding == finding
    }
}

/// Storage of incidents.
pub trait Incidents: Clone + Send + Sync + 'static {
    /// All incidents, newest first.
    fn incidents(&self) -> impl Future<Output = Result<Vec<Incident>, JournalError>> + Send;

    /// Stores an incident if the stored one has the version before (`version - 1`), or if its version is 1 and
    /// none is stored. Otherwise somebody else has changed it: `false`.
    fn keep_incident(
        &self,
        incident: &Incident,
    ) -> impl Future<Output = Result<bool, JournalError>> + Send;
}

/// The ids of closed incidents beyond [`KEPT`].
pub fn surplus(mut all: Vec<Incident>) -> Vec<String> {
    all.retain(|incident| incident.closed_at.is_some());
    all.sort_by_key(|incident| std::cmp::Reverse(incident.opened_at));
    all.into_iter().skip(KEPT).map(|incident| incident.id).collect()
}
