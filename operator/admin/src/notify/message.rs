//! Messages to receivers. Only names of the configuration, findings and times: never what a provider or an
//! application wrote.

use std::time::Duration;

use serde::Serialize;
use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_store::incident::{Incident, Notice, Severity, Subject};

use super::findings::meaning;

/// A message about one or more incidents.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
    /// Namespace of the Zentra that it is about.
    pub(super) namespace: String,
    /// What it is about, the most urgent first.
    pub(super) incidents: Vec<AboutIncident>,
}

/// What a message says about one incident.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AboutIncident {
    pub(super) id: String,
    pub(super) notice: Notice,
    pub(super) severity: Severity,
    pub(super) subject: Subject,
    pub(super) name: String,
    pub(super) finding: String,
    pub(super) summary: &'static str,
    pub(super) next: &'static str,
    pub(super) opened_at: Timestamp,
    /// When the receiver accepted its last message about it.
    #[serde(skip)]
    pub(super) last_sent_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) closed_at: Option<Timestamp>,
    /// Who resolved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolved_by: Option<String>,
    /// Page of the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) console: Option<String>,
    /// Section of the documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runbook: Option<String>,
}

impl Message {
    /// In their order.
    pub(super) fn of(config: &Config, receiver: &str, notices: &[(Incident, Notice)]) -> Self {
        let one = |(of, what): &(Incident, Notice)| about(config, receiver, of, *what);
        let incidents = notices.iter().map(one).collect();
        Self { namespace: config.namespace.clone(), incidents }
    }

    /// One line.
    pub(super) fn title(&self) -> String {
        match &self.incidents[..] {
            [one] => format!("{}: {}", self.namespace, one.title()),
            all => {
                let closed = all.iter().filter(|one| one.notice == Notice::Closed).count();
                let open = all.len() - closed;
                let count = |count: usize, what| match count {
                    0 => None,
                    count => Some(format!("{count} {what}")),
                };
                let parts = [count(open, "incidents"), count(closed, "closed")];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                format!("{}: {}", self.namespace, parts.join(", "))
            }
        }
    }

    /// Several lines of plain text.
    pub(super) fn text(&self) -> String {
        let text: Vec<String> = self.incidents.iter().map(AboutIncident::text).collect();
        text.join("\n\n")
    }
}

impl AboutIncident {
    /// Whether it is about the same finding.
    pub(super) fn is_about_same(&self, other: &Self) -> bool {
        let about = |of: &Self| (of.subject, of.name.clone(), of.finding.clone());
        about(self) == about(other)
    }

    /// One line.
    pub(super) fn title(&self) -> String {
        let Self { name, finding, notice, .. } = self;
        let finding = finding.replace('_', " ");
        let what = if *name == finding { String::new() } else { format!("{name}: ") };
        match notice {
            Notice::Opened => format!("[{}] {what}{finding}", self.severity.as_str()),
            Notice::Reminder => format!("[{}, still] {what}{finding}", self.severity.as_str()),
            Notice::Closed => format!("[closed] {what}{finding}"),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![self.title()];
        match (self.notice, &self.resolved_by, self.closed_at) {
            (Notice::Closed, Some(by), _) => lines.push(format!("{by} has resolved it.")),
            (Notice::Closed, None, Some(at)) => {
                let seconds = Duration::from_secs(at.since(self.opened_at).as_secs());
                lines.push(format!("It lasted {}.", humantime::format_duration(seconds)));
            }
            _ => lines.push(format!("{} {} Since {}.", self.summary, self.next, self.opened_at)),
        }
        lines.extend(self.console.clone());
        if self.notice != Notice::Closed {
            lines.extend(self.runbook.as_ref().map(|runbook| format!("Runbook: {runbook}")));
        }
        lines.join("\n")
    }
}

fn about(config: &Config, receiver: &str, incident: &Incident, notice: Notice) -> AboutIncident {
    let meaning = meaning(&incident.finding);
    let console = config.console_url.as_ref();
    let console =
        console.map(|url| format!("{}/#/{}", url.to_string().trim_end_matches('/'), meaning.page));
    let runbook = Some(meaning.runbook).filter(|runbook| !runbook.is_empty());
    AboutIncident {
        id: incident.id.clone(),
        notice,
        severity: incident.severity,
        subject: incident.subject,
        name: incident.name.clone(),
        finding: incident.finding.clone(),
        summary: meaning.summary,
        next: meaning.next,
        opened_at: incident.opened_at,
        last_sent_at: incident.sent.get(receiver).map(|sent| sent.at),
        closed_at: incident.closed_at,
        resolved_by: incident.resolved.as_ref().map(|by| by.by.clone()),
        console,
        runbook: runbook.map(|runbook| format!("docs/runbooks.md#{runbook}")),
    }
}
