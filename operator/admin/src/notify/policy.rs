//! When an incident opens and closes, and when a message is due. Pure functions.

use std::time::Duration;

use zentra_config::Receiver;
use zentra_core::clock::Timestamp;
use zentra_store::incident::{Incident, Notice, Severity, Subject};

use super::findings::{CurrentFinding, confirm, meaning};

/// How long a finding is gone before its incident closes, so that one that comes and goes is one incident.
pub(super) const CLEAR: Duration = Duration::from_secs(300);
/// How often an open incident is stored while nothing changes.
const SEEN: Duration = Duration::from_secs(15);

/// Whether it stands, or an operator has resolved it and its finding has not gone yet.
fn is_current(incident: &Incident, now: Timestamp) -> bool {
    let is_held = incident.resolved.is_some() && now.since(incident.seen_at) < CLEAR;
    incident.closed_at.is_none() || is_held
}

/// The incidents that a look changes or opens, with their new versions. `is_known` says whether the findings of a
/// subject are known at all: while RabbitMQ is away, those of destinations are not.
pub(super) fn observe(
    incidents: &[Incident],
    found: &[CurrentFinding],
    is_known: impl Fn(&Incident) -> bool,
    now: Timestamp,
    id: impl Fn() -> String,
) -> Vec<Incident> {
    let mut changed = Vec::new();
    for incident in incidents.iter().filter(|incident| is_current(incident, now)) {
        let stands = found.iter().any(|one| is_of(incident, one)) || !is_known(incident);
        let gone = now.since(incident.seen_at);
        let mut next = Incident { version: incident.version + 1, ..incident.clone() };
        match stands {
            // The clock was stepped back, or that of another server is ahead.
            _ if incident.seen_at > now => {
                (next.seen_at, next.opened_at) = (now, incident.opened_at.min(now));
            }
            true if gone >= SEEN => next.seen_at = now,
            false if gone >= CLEAR && incident.closed_at.is_none() => next.closed_at = Some(now),
            _ => continue,
        }
        changed.push(next);
    }
    for one in found {
        let is_open = |incident: &Incident| is_of(incident, one) && is_current(incident, now);
        if incidents.iter().any(is_open) {
            continue;
        }
        let about = (one.subject, one.name.as_str(), one.finding);
        changed.push(Incident::new(id(), about, meaning(one.finding).severity, now));
    }
    changed
}

fn is_of(incident: &Incident, found: &CurrentFinding) -> bool {
    incident.is_about(found.subject, &found.name, found.finding)
}

/// The message about an incident that is due to a receiver now.
pub(super) fn due(incident: &Incident, receiver: &Receiver, now: Timestamp) -> Option<Notice> {
    let quiet = receiver.quiet_hours.as_ref().is_some_and(|quiet| quiet.contains(now));
    let sent = incident.sent.get(&receiver.name);
    // A receiver that got the first message also gets the last one.
    let is_minor = incident.severity < receiver.severity && sent.is_none();
    if is_minor || (quiet && incident.severity < Severity::Critical) {
        return None;
    }
    match (sent.map(|sent| sent.notice), incident.closed_at) {
        // It closed before its first message, or the last message was sent.
        (None | Some(Notice::Closed), Some(_)) => None,
        (Some(_), Some(_)) => Some(Notice::Closed),
        // An incident stays open for a while after its finding has gone: that does not count.
        (None, None) => {
            let stood = incident.seen_at.since(incident.opened_at);
            (stood >= confirm(&incident.finding)).then_some(Notice::Opened)
        }
        (Some(_), None) => {
            let again = receiver.remind_after;
            let is_due = sent.is_some_and(|sent| now.since(sent.at) >= again);
            let reminds = again > Duration::ZERO && incident.acknowledged.is_none() && is_due;
            reminds.then_some(Notice::Reminder)
        }
    }
}

/// Whether each server of the API keeps an incident for itself: that of the store which would keep it.
pub(super) fn is_local(subject: Subject, name: &str, store: &str) -> bool {
    subject == Subject::Part && name == store
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zentra_config::{Channel, QuietHours};
    use zentra_store::control::Attribution;
    use zentra_store::incident::Sent;

    use super::*;

    const LOOK: Duration = Duration::from_secs(5);

    fn receiver() -> Receiver {
        Receiver {
            name: "ops".into(),
            channel: Channel::Slack { url: None },
            severity: Severity::Warning,
            remind_after: Duration::from_secs(4 * 3600),
            quiet_hours: None,
        }
    }

    fn circuit() -> CurrentFinding {
        CurrentFinding {
            subject: Subject::Destination,
            name: "ledger".into(),
            finding: "circuit_open",
        }
    }

    /// The messages of looks at a finding that stands or does not.
    fn messages(
        looks: impl IntoIterator<Item = bool>,
        receiver: &Receiver,
        mut operator: impl FnMut(&mut Incident, Timestamp),
    ) -> (Vec<(Notice, Duration)>, Vec<Incident>) {
        let start = Timestamp::from_millis(1_796_000_000_000);
        let (mut now, mut incidents, mut sent) = (start, Vec::<Incident>::new(), Vec::new());
        for stands in looks {
            let found: Vec<CurrentFinding> = stands.then(circuit).into_iter().collect();
            let id = incidents.len();
            for next in observe(&incidents, &found, |_| true, now, || id.to_string()) {
                incidents.retain(|incident| incident.id != next.id);
                incidents.push(next);
            }
            for incident in &mut incidents {
                operator(incident, now);
                if let Some(notice) = due(incident, receiver, now) {
                    incident.sent.insert(receiver.name.clone(), Sent { notice, at: now });
                    sent.push((notice, now.since(start)));
                }
            }
            now = now.plus(LOOK);
        }
        (sent, incidents)
    }

    fn looks(minutes: u32) -> usize {
        usize::try_from(minutes * 60 / 5).unwrap()
    }

    #[test]
    fn a_message_is_sent_once_a_finding_stands_and_when_it_has_gone() {
        let stands =
            std::iter::repeat_n(true, looks(10)).chain(std::iter::repeat_n(false, looks(10)));
        let (sent, incidents) = messages(stands, &receiver(), |_, _| ());
        let sent: Vec<_> = sent.into_iter().map(|(notice, at)| (notice, at.as_secs())).collect();
        assert_eq!(sent[0], (Notice::Opened, 30));
        assert!(matches!(sent[1..], [(Notice::Closed, 880..=900)]), "{sent:?}");
        assert_eq!(incidents.len(), 1);
        let blip = [true; 5].into_iter().chain([false; 240]);
        let (sent, incidents) = messages(blip, &receiver(), |_, _| ());
        assert_eq!(sent, [], "it has gone before it is confirmed");
        assert!(incidents[0].closed_at.is_some());
    }

    #[test]
    fn what_comes_and_goes_sixty_times_in_ten_minutes_is_at_most_three_messages() {
        let flaps = (0..looks(10)).map(|look| look % 2 == 0);
        let (sent, incidents) = messages(flaps.chain([false; 120]), &receiver(), |_, _| ());
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert_eq!(incidents.len(), 1);
    }

    #[test]
    fn nobody_is_reminded_of_what_is_acknowledged_and_a_resolved_finding_sends_no_more() {
        let day = || std::iter::repeat_n(true, looks(24 * 60));
        let reminders = |sent: &[(Notice, Duration)]| {
            sent.iter().filter(|(notice, _)| *notice == Notice::Reminder).count()
        };
        let by = |at| Some(Attribution { by: "ada".into(), at, because: "I look".into() });
        assert_eq!(reminders(&messages(day(), &receiver(), |_, _| ()).0), 5);
        let (sent, _) = messages(day(), &receiver(), |one, at| one.acknowledged = by(at));
        assert_eq!(sent.len(), 1, "{sent:?}");
        let silent = Receiver { remind_after: Duration::ZERO, ..receiver() };
        assert_eq!(messages(day(), &silent, |_, _| ()).0.len(), 1);
        let (sent, incidents) = messages(day(), &receiver(), |one, at| {
            if one.resolved.is_none() && at.since(one.opened_at) > CLEAR {
                (one.resolved, one.closed_at) = (by(at), Some(at));
            }
        });
        let notices: Vec<Notice> = sent.into_iter().map(|(notice, _)| notice).collect();
        assert_eq!((notices, incidents.len()), (vec![Notice::Opened, Notice::Closed], 1));
    }

    #[test]
    fn a_receiver_gets_its_severity_and_warnings_wait_for_the_end_of_quiet_hours() {
        let start = Timestamp::from_millis(1_796_000_000_000);
        let [one] = &observe(&[], &[circuit()], |_| true, start, || "1".into())[..] else {
            panic!()
        };
        let warning = Incident { severity: Severity::Warning, ..one.clone() };
        let now = start.plus(Duration::from_secs(30));
        let one = &Incident { seen_at: now, ..one.clone() };
        let warning = Incident { seen_at: now, ..warning };
        let critical = Receiver { severity: Severity::Critical, ..receiver() };
        assert_eq!(due(&warning, &critical, now), None);
        assert_eq!(due(one, &critical, now), Some(Notice::Opened));
        let quiet = QuietHours::parse("00:00-23:59", "UTC").unwrap();
        let asleep = Receiver { quiet_hours: Some(quiet), ..receiver() };
        assert_eq!(due(&warning, &asleep, now), None);
        assert_eq!(due(one, &asleep, now), Some(Notice::Opened));
        assert_eq!(due(&warning, &receiver(), now), Some(Notice::Opened));
    }

    #[test]
    fn a_clock_that_was_an_hour_ahead_delays_nothing() {
        let ahead = Timestamp::from_millis(1_796_003_600_000);
        let mut incidents = observe(&[], &[circuit()], |_| true, ahead, || "1".into());
        let (mut now, mut sent) = (Timestamp::from_millis(1_796_000_000_000), 0);
        for _ in 0..looks(2) {
            now = now.plus(LOOK);
            for next in observe(&incidents, &[circuit()], |_| true, now, || "2".into()) {
                incidents = vec![next];
            }
            sent += usize::from(due(&incidents[0], &receiver(), now).is_some());
        }
        assert!(sent > 0, "{incidents:?}");
    }

    #[test]
    fn a_receiver_of_the_first_message_gets_the_last_one_whatever_the_severity() {
        let at = Timestamp::from_millis(1_796_000_000_000);
        let [one] = &observe(&[], &[circuit()], |_| true, at, || "1".into())[..] else { panic!() };
        let sent = [("ops".to_owned(), Sent { notice: Notice::Opened, at })].into();
        let severity = Severity::Info;
        let closed = Incident { closed_at: Some(at), severity, sent, ..one.clone() };
        assert_eq!(due(&closed, &receiver(), at), Some(Notice::Closed));
    }

    #[test]
    fn what_is_unknown_is_not_gone() {
        let start = Timestamp::from_millis(1_796_000_000_000);
        let mut incidents = observe(&[], &[circuit()], |_| true, start, || "1".into());
        let mut now = start;
        for _ in 0..looks(30) {
            now = now.plus(LOOK);
            for next in observe(&incidents, &[], |_| false, now, || "2".into()) {
                incidents = vec![next];
            }
        }
        assert_eq!(incidents[0].closed_at, None);
    }

    proptest! {
        /// However a finding comes and goes: in ten minutes there are at most three messages, each incident is opened
        /// once and closed once, and there is no message about a finding that no look has found.
        #[test]
        fn messages_are_few_and_in_order(looks in prop::collection::vec(any::<bool>(), 0..400)) {
            let (sent, incidents) = messages(looks.clone(), &receiver(), |_, _| ());
            for (at, (_, first)) in sent.iter().enumerate() {
                let within = sent[at..].iter().take_while(|(_, time)| *time < *first + Duration::from_secs(600));
                prop_assert!(within.count() <= 3, "{sent:?}");
            }
            for pair in sent.windows(2) {
                prop_assert_ne!(pair[0].0, pair[1].0);
            }
            prop_assert!(incidents.len() <= 1 + looks.len() / 60);
        }
    }
}
