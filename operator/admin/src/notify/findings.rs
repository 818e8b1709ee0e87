//! What each finding means, and what helps.

use std::time::Duration;

use zentra_store::incident::{Severity, Subject};

use crate::status::Status;

/// What a finding means.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// How urgent it is.
    pub severity: Severity,
    /// What is wrong.
    pub summary: &'static str,
    /// What to do next.
    pub next: &'static str,
    /// Page of the console, after `#/`.
    pub page: &'static str,
    /// Section of docs/runbooks.md.
    pub runbook: &'static str,
}

/// A finding of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CurrentFinding {
    pub(super) subject: Subject,
    pub(super) name: String,
    pub(super) finding: &'static str,
}

/// Finding, severity, summary, next step, page of the console, section of the runbooks.
type Row = (&'static str, Severity, &'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = {
    use Severity::{Critical, Info, Warning};
    &[
        ("down", Critical, "It is down.", "See zentra doctor.", "", "zentratargetdown"),
        ("test", Info, "This is a test.", "Nothing is wrong.", "", ""),
        (
            "unrouted",
            Warning,
            "Accepted events have no destination.",
            "Subscribe to their types, then requeue them.",
            "stored",
            "zentraunroutedevents",
        ),
        (
            "no_worker",
            Critical,
            "No worker runs for it.",
            "Start zentra-worker.",
            "system",
            "zentranoworker",
        ),
        (
            "no_consumer",
            Critical,
            "Nobody pulls from it.",
            "Start a consumer.",
            "destinations",
            "zentranoworker",
        ),
        (
            "paused",
            Info,
            "An operator has paused it.",
            "Resume it when the reason is gone.",
            "destinations",
            "zentradestinationpaused",
        ),
        (
            "circuit_open",
            Critical,
            "Most attempts fail: workers only probe it.",
            "See what it answers.",
            "destinations",
            "zentracircuitopen",
        ),
        (
            "failing",
            Warning,
            "Many attempts of the last hour failed.",
            "See what it answers.",
            "destinations",
            "zentraretrystorm",
        ),
        (
            "queue_missing",
            Critical,
            "Its work queue does not exist.",
            "Start a worker: it declares the queue again.",
            "destinations",
            "zentradestinationstuck",
        ),
        (
            "stuck",
            Critical,
            "Events wait, and nothing is delivered.",
            "See its workers.",
            "destinations",
            "zentradestinationstuck",
        ),
        (
            "dead_letters",
            Warning,
            "It has dead letters.",
            "Fix the cause, then requeue them.",
            "dead",
            "zentradeadlettersgrowing",
        ),
        (
            "unlisted_letters",
            Warning,
            "RabbitMQ dead-lettered messages itself.",
            "Requeue those with the reason crashed.",
            "dead",
            "zentraunlistedletters",
        ),
        (
            "delayed",
            Warning,
            "Callbacks arrive late.",
            "Look at the provider, or at the proxy.",
            "sources",
            "zentraproviderdelayed",
        ),
        (
            "duplicating",
            Info,
            "Many callbacks are copies.",
            "Look at the answers of the ingress.",
            "sources",
            "",
        ),
        (
            "refusing",
            Warning,
            "Callbacks are refused.",
            "See why: a secret may have changed.",
            "refused",
            "zentrarefusalsrising",
        ),
        (
            "copies_jumped",
            Info,
            "Far more callbacks than before are copies.",
            "Look at the answers of the ingress.",
            "sources",
            "",
        ),
        (
            "conflicts_jumped",
            Warning,
            "Far more conflicts than before.",
            "See them.",
            "dead",
            "zentraconflicts",
        ),
        (
            "suspected_replays_jumped",
            Warning,
            "Far more suspected replays than before.",
            "Somebody may send captured callbacks again.",
            "dead",
            "zentrasuspectedreplays",
        ),
        (
            "silent",
            Warning,
            "It is quieter than usual.",
            "Ask the provider, or reconcile.",
            "reconcile",
            "zentrasourcesilent",
        ),
        (
            "nothing_seen",
            Info,
            "No event came yet.",
            "Enter its address at the provider, and send a test.",
            "sources",
            "",
        ),
    ]
};

/// What a finding means. Unknown ones, of a newer version, are worth knowing.
pub fn meaning(finding: &str) -> Meaning {
    let row = ROWS.iter().find(|row| row.0 == finding);
    let (_, severity, summary, next, page, runbook) =
        *row.unwrap_or(&("", Severity::Info, "See zentra status.", "", "", ""));
    Meaning { severity, summary, next, page, runbook }
}

/// How long a finding must stand before the first message. A finding that clears by itself causes none. Some findings
/// compare current figures with those of the last minute, and can be wrong for a while.
pub(super) fn confirm(finding: &str) -> Duration {
    Duration::from_secs(match finding {
        "stuck" | "queue_missing" => 300,
        "unlisted_letters" => 900,
        _ => 30,
    })
}

/// Whether the status has findings of this subject. While RabbitMQ or Redis is away, findings of sources and
/// destinations are unknown.
pub(super) fn is_known(status: &Status, subject: Subject, name: &str) -> bool {
    let part = |name: &str| status.parts.iter().any(|part| part.name == name);
    match (subject, name) {
        (Subject::Part, "unrouted") => status.unrouted.is_some(),
        (Subject::Part, name) => part(name),
        (Subject::Source | Subject::Destination, _) => {
            let is_up = status.parts.iter().all(|part| part.up || part.name == "workers");
            status.knows_deliveries && is_up
        }
    }
}

/// All findings of a status about what it knows.
pub(super) fn current(status: &Status) -> Vec<CurrentFinding> {
    let one =
        |subject, name: &str, finding| CurrentFinding { subject, name: name.to_owned(), finding };
    let parts = status.parts.iter().filter(|part| !part.up);
    let parts = parts.map(|part| one(Subject::Part, part.name, "down"));
    let unrouted = status.unrouted.filter(|count| *count > 0);
    let unrouted = unrouted.map(|_| one(Subject::Part, "unrouted", "unrouted"));
    let sources = status.sources.iter().flat_map(|source| {
        source.findings.iter().map(move |finding| one(Subject::Source, &source.source, finding))
    });
    let destinations = status.destinations.iter().flat_map(|of| {
        of.findings.iter().map(move |finding| one(Subject::Destination, &of.destination, finding))
    });
    let all = parts.chain(unrouted).chain(sources).chain(destinations);
    all.filter(|one| is_known(status, one.subject, &one.name)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_finding_of_the_status_has_a_meaning_and_each_runbook_exists() {
        let runbooks = include_str!("../../../../docs/runbooks.md");
        let sections: BTreeSet<String> = runbooks
            .lines()
            .filter_map(|line| Some(line.strip_prefix("### ")?.to_lowercase()))
            .collect();
        for (finding, _, _, _, _, runbook) in ROWS {
            assert!(runbook.is_empty() || sections.contains(*runbook), "{finding}: {runbook}");
        }
        let code = [include_str!("../status/destination.rs"), include_str!("../status/source.rs")];
        let mut known = 0;
        for code in code {
            let all = code.split("let all = [").nth(1).and_then(|rest| rest.split("];").next());
            for line in all.unwrap_or_default().lines() {
                let Some(name) = line.trim().strip_prefix("(\"") else { continue };
                let name = name.split('"').next().unwrap_or_default();
                assert!(ROWS.iter().any(|row| row.0 == name), "{name} has no meaning");
                known += 1;
            }
        }
        assert!(known > 10, "{known}");
    }
}
