//! Conformance of the store of incidents.

use crate::incident::{Incident, Incidents, KEPT, Notice, Sent, Severity, Subject};

use super::*;

fn incident(id: &str, at: u64) -> Incident {
    let at = Timestamp::from_millis(at);
    Incident {
        id: id.into(),
        version: 1,
        subject: Subject::Destination,
        name: "ledger".into(),
        finding: "circuit_open".into(),
        severity: Severity::Critical,
        opened_at: at,
        seen_at: at,
        closed_at: None,
        acknowledged: None,
        resolved: None,
        sent: [("ops".to_owned(), Sent { notice: Notice::Opened, at })].into(),
    }
}

pub async fn of_two_changes_of_an_incident_one_is_kept<B: Backend>() {
    let backend = B::new();
    let (_, journal) = backend.open(ledger()).await;
    assert_eq!(journal.incidents().await.unwrap(), []);
    assert!(journal.keep_incident(&incident("a", 1)).await.unwrap());
    assert!(!journal.keep_incident(&incident("a", 1)).await.unwrap(), "it is no new one");
    assert!(journal.keep_incident(&incident("b", 2)).await.unwrap());
    let (_, journal) = backend.open(ledger()).await;
    assert_eq!(journal.incidents().await.unwrap(), [incident("b", 2), incident("a", 1)]);

    let changed = |seen| {
        let seen_at = Timestamp::from_millis(seen);
        Incident { version: 2, seen_at, ..incident("a", 1) }
    };
    let (one, other) = (changed(5), changed(6));
    let kept = tokio::join!(journal.keep_incident(&one), journal.keep_incident(&other));
    assert_ne!(kept.0.unwrap(), kept.1.unwrap());
    let stored = journal.incidents().await.unwrap();
    assert!(stored[1] == one || stored[1] == other, "{stored:?}");
    let skipped = Incident { version: 4, ..incident("a", 1) };
    assert!(!journal.keep_incident(&skipped).await.unwrap());
}

pub async fn the_newest_closed_incidents_are_kept_and_all_open_ones<B: Backend>() {
    let (_, journal) = B::new().open(ledger()).await;
    assert!(journal.keep_incident(&incident("open", 0)).await.unwrap());
    for at in 1..=KEPT as u64 + 2 {
        let closed_at = Some(Timestamp::from_millis(at));
        let one = Incident { closed_at, ..incident(&format!("closed-{at}"), at) };
        assert!(journal.keep_incident(&one).await.unwrap());
    }
    let stored = journal.incidents().await.unwrap();
    assert_eq!(stored.len(), KEPT + 1);
    let ids: Vec<&str> = stored.iter().map(|incident| incident.id.as_str()).collect();
    assert_eq!(ids.last(), Some(&"open"));
    assert_eq!(ids[KEPT - 1], "closed-3");
}
