//! Notifications: a server of the API looks at the status, stores incidents, and sends messages about them to receivers.
//! One of several servers does it at a time.

mod findings;
mod message;
mod policy;
mod send;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngCore;
use tokio::time::Instant;
use zentra_config::{Channel, Config, Receiver};
use zentra_core::clock::{self, Timestamp};
use zentra_store::control::OperatorControl;
use zentra_store::incident::{Incident, Incidents, Notice, Sent, Severity, Subject};
use zentra_store::job::Jobs;

pub use findings::{Meaning, meaning};

use crate::audit::{Actor, Audited};
use crate::backend::Backend;
use crate::error::{AdminError, ErrorCode};
use crate::status::{self, Refusals, Status};
use message::Message;
use send::Sender;

/// How often the status is looked at.
pub const LOOK: Duration = Duration::from_secs(5);
/// The lock of the server that sends messages. No destination can have this name.
const SENDER: &str = "@notify";
/// First and longest pause after a message that was not accepted.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// When refused callbacks are counted again: if there are others, and anyway.
const RECOUNT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// Maximum number of incidents in one message.
const MOST: usize = 50;
/// Maximum number of PagerDuty's events for one look: each is a request.
const EVENTS: usize = 10;
/// How long a closed incident of the store itself is kept for receivers that do not answer.
const LOCAL: Duration = Duration::from_secs(24 * 3600);
/// How often a change of an incident is tried again, if somebody else changes it at the same time.
const TRIES: usize = 5;

/// Looks at the status and sends messages to receivers.
pub struct Notifier {
    config: &'static Config,
    sender: Sender,
    holder: String,
    /// Incidents of the store itself, which it cannot store. Each server sends messages about them.
    local: Vec<Incident>,
    /// Messages that were accepted while the store did not answer: they are noted later, and not sent again.
    unnoted: Vec<Accepted>,
    /// When a receiver that accepted no message is tried again, and the pause before that.
    pauses: HashMap<String, (Instant, Duration)>,
    /// The refused callbacks, as they were counted last.
    refused: Option<Counted>,
    /// Why incidents cannot be kept, as it was logged.
    trouble: Option<String>,
}

/// Refused callbacks of the last hour.
struct Counted {
    at: Instant,
    /// Number of those that were kept then.
    kept: u64,
    by: Refusals,
}

/// A receiver, and the messages that are due to it.
type Due = (&'static Receiver, Vec<(Incident, Notice)>);

/// A message that a receiver accepted.
struct Accepted {
    incident: String,
    receiver: String,
    sent: Sent,
}

/// Whether a local incident is open, or its last message is still due.
fn is_wanted(incident: &Incident, now: Timestamp) -> bool {
    let is_sent = incident.sent.values().all(|sent| sent.notice == Notice::Closed);
    incident.closed_at.is_none_or(|at| !is_sent && now.since(at) < LOCAL)
}

impl Notifier {
    /// `None` without receivers.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] if this machine cannot use TLS.
    pub fn new(config: &'static Config) -> Result<Option<Self>, AdminError> {
        if config.receivers.is_empty() {
            return Ok(None);
        }
        let (sender, holder) = (Sender::new()?, format!("notify {}", id()));
        Ok(Some(Self {
            config,
            sender,
            holder,
            local: Vec::new(),
            unnoted: Vec::new(),
            pauses: HashMap::new(),
            refused: None,
            trouble: None,
        }))
    }

    /// One look: stores what changed, and sends the messages that are due. A receiver that does not answer delays
    /// nothing but its own messages.
    pub async fn look(&mut self, backend: &impl Backend, status: &Status) {
        let (now, mut status) = (clock::now(), status.clone());
        let holds = self.holds(backend).await;
        if let Ok(true) = holds {
            self.count_refused(backend, &mut status).await;
        }
        let store = backend.store_name();
        let is_own = |subject, name: &str| policy::is_local(subject, name, store);
        let (own, others): (Vec<_>, Vec<_>) =
            findings::current(&status).into_iter().partition(|one| is_own(one.subject, &one.name));
        for next in policy::observe(&self.local, &own, |_| true, now, id) {
            self.local.retain(|incident| incident.id != next.id);
            self.local.push(next);
        }
        let mut incidents = self.local.clone();
        let stored = match holds {
            Ok(true) => self.stored(backend, &others, &status, now).await,
            Ok(false) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        match stored {
            Ok(mut stored) => {
                self.note_late(&backend.histories(), &mut stored).await;
                incidents.extend(stored);
                self.trouble = None;
            }
            Err(error) if self.trouble.as_ref() != Some(&error.message) => {
                tracing::warn!(error = error.message, "incidents cannot be kept");
                self.trouble = Some(error.message);
            }
            Err(_) => {}
        }
        for (receiver, notices) in self.send(self.due(&incidents, now)).await {
            for (Incident { id: incident, .. }, notice) in notices {
                let accepted = Accepted {
                    incident,
                    receiver: receiver.clone(),
                    sent: Sent { notice, at: now },
                };
                self.note(&backend.histories(), accepted).await;
            }
        }
        self.local.retain(|incident| is_wanted(incident, now));
    }

    /// Whether this server sends messages, and no other one.
    async fn holds(&self, backend: &impl Backend) -> Result<bool, AdminError> {
        Ok(backend.histories().hold(&[SENDER.to_owned()], &self.holder).await?.is_none())
    }

    /// Adds the refused callbacks of the last hour to the status. Their count is read again if there are others, or
    /// after a while, because it holds them.
    async fn count_refused(&mut self, backend: &impl Backend, status: &mut Status) {
        let kept = status.refused.unwrap_or(0);
        let is_old = |counted: &Counted| {
            let age = counted.at.elapsed();
            age >= RECOUNT.1 || (age >= RECOUNT.0 && counted.kept != kept)
        };
        if kept == 0 {
            self.refused = None;
        } else if self.refused.as_ref().is_none_or(is_old)
            && let Ok(queue) = backend.queue().await
            && let Ok(by) = status::count_refused(&queue, self.config).await
        {
            self.refused = Some(Counted { at: Instant::now(), kept, by });
        }
        if let Some(counted) = &self.refused {
            status.with_refused(&counted.by);
        }
    }

    /// The incidents of the store, after this look's changes.
    async fn stored(
        &self,
        backend: &impl Backend,
        found: &[findings::CurrentFinding],
        status: &Status,
        now: Timestamp,
    ) -> Result<Vec<Incident>, AdminError> {
        let store = backend.histories();
        let mut incidents = store.incidents().await?;
        let is_known =
            |incident: &Incident| findings::is_known(status, incident.subject, &incident.name);
        for next in policy::observe(&incidents, found, is_known, now, id) {
            // An operator was faster: the next look sees it.
            if store.keep_incident(&next).await? {
                incidents.retain(|incident| incident.id != next.id);
                incidents.push(next);
            }
        }
        Ok(incidents)
    }

    /// The messages that are due, the most urgent incidents first. Incidents beyond the limit of one message follow
    /// with the next look.
    fn due(&self, incidents: &[Incident], now: Timestamp) -> Vec<Due> {
        let of = |receiver: &'static Receiver| {
            let notices = incidents.iter().filter_map(|incident| {
                Some((incident.clone(), policy::due(incident, receiver, now)?))
            });
            let mut notices: Vec<_> = notices.collect();
            notices.sort_by_key(|(incident, notice)| {
                (*notice == Notice::Closed, std::cmp::Reverse(incident.severity))
            });
            notices.truncate(match receiver.channel {
                Channel::Pagerduty { .. } => EVENTS,
                _ => MOST,
            });
            (receiver, notices)
        };
        let all = self.config.receivers.iter().map(of);
        all.filter(|(_, notices)| !notices.is_empty()).collect()
    }

    /// Sends to all receivers at the same time. Returns what was accepted.
    async fn send(&mut self, due: Vec<Due>) -> Vec<(String, Vec<(Incident, Notice)>)> {
        let is_paused = |receiver: &Receiver| {
            self.pauses.get(&receiver.name).is_some_and(|(until, _)| Instant::now() < *until)
        };
        let due: Vec<_> = due.into_iter().filter(|(receiver, _)| !is_paused(receiver)).collect();
        let (sender, config) = (&self.sender, self.config);
        let sends = due.iter().map(|(receiver, notices)| {
            let message = Message::of(config, &receiver.name, notices);
            async move { sender.send(receiver, &message).await }
        });
        let results = join_all(sends).await;
        let mut accepted = Vec::new();
        for ((receiver, notices), result) in due.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    tracing::info!(
                        receiver = receiver.name,
                        incidents = notices.len(),
                        "a receiver accepted a message"
                    );
                    self.pauses.remove(&receiver.name);
                    accepted.push((receiver.name.clone(), notices));
                }
                Err(error) => {
                    let last = self.pauses.get(&receiver.name).map(|(_, pause)| *pause * 2);
                    let pause = last.unwrap_or(PAUSES.0).min(PAUSES.1);
                    self.pauses.insert(receiver.name.clone(), (Instant::now() + pause, pause));
                    tracing::warn!(receiver = receiver.name, error, again_in = ?pause, "a receiver accepted no message");
                }
            }
        }
        accepted
    }

    /// Notes a message that was accepted.
    async fn note(&mut self, store: &impl Incidents, accepted: Accepted) {
        let Accepted { incident, receiver, sent } = &accepted;
        if let Some(local) = self.local.iter_mut().find(|one| one.id == *incident) {
            local.sent.insert(receiver.clone(), *sent);
            return;
        }
        let change = |incident: &mut Incident| {
            incident.sent.insert(receiver.clone(), *sent);
        };
        match changed(store, incident, change).await {
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::IncidentNotFound => {}
            Err(error) => {
                tracing::warn!(error = error.message, "a message cannot be noted yet");
                self.unnoted.push(accepted);
            }
        }
    }

    /// Notes what could not be noted before, also in `incidents`, which were read without it.
    async fn note_late(&mut self, store: &impl Incidents, incidents: &mut [Incident]) {
        for accepted in std::mem::take(&mut self.unnoted) {
            if let Some(one) = incidents.iter_mut().find(|one| one.id == accepted.incident) {
                one.sent.insert(accepted.receiver.clone(), accepted.sent);
            }
            self.note(store, accepted).await;
        }
    }
}

/// Changes a stored incident, also if somebody else changes it at the same time.
async fn changed(
    store: &impl Incidents,
    id: &str,
    change: impl Fn(&mut Incident),
) -> Result<Incident, AdminError> {
    for _ in 0..TRIES {
        let mut incident = find(store, id).await?;
        change(&mut incident);
        incident.version += 1;
        if store.keep_incident(&incident).await? {
            return Ok(incident);
        }
    }
    Err(AdminError::new(
        ErrorCode::IncidentChanged,
        format!("others change incident {id} all the time."),
    )
    .hint("Try again."))
}

/// The incident with this id.
///
/// # Errors
/// [`ErrorCode::IncidentNotFound`], and those of the store.
pub async fn find(store: &impl Incidents, id: &str) -> Result<Incident, AdminError> {
    let found = store.incidents().await?.into_iter().find(|incident| incident.id == id);
    found.ok_or_else(|| {
        AdminError::new(ErrorCode::IncidentNotFound, format!("unknown incident {id}.")).about(id)
    })
}

/// All incidents, newest first; with `open`, only those that stand.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &impl Incidents, open: bool) -> Result<Vec<Incident>, AdminError> {
    let mut all = store.incidents().await?;
    all.retain(|incident| !open || incident.closed_at.is_none());
    Ok(all)
}

/// Acknowledges an incident: nobody is reminded of it.
///
/// # Errors
/// [`ErrorCode::IncidentNotFound`], [`ErrorCode::IncidentClosed`], and those of the store.
pub async fn acknowledge(
    backend: &impl Backend,
    id: &str,
    actor: &Actor,
) -> Result<Incident, AdminError> {
    act(backend, id, actor, "incident acknowledge", |incident| {
        incident.acknowledged = Some(actor.attribution());
    })
    .await
}

/// Resolves an incident: it closes, and its finding opens a new one only after it has gone.
///
/// # Errors
/// As [`acknowledge`].
pub async fn resolve(
    backend: &impl Backend,
    id: &str,
    actor: &Actor,
) -> Result<Incident, AdminError> {
    act(backend, id, actor, "incident resolve", |incident| {
        (incident.resolved, incident.closed_at) = (Some(actor.attribution()), Some(clock::now()));
    })
    .await
}

async fn act(
    backend: &impl Backend,
    id: &str,
    actor: &Actor,
    action: &str,
    change: impl Fn(&mut Incident),
) -> Result<Incident, AdminError> {
    let store = backend.histories();
    let incident = find(&store, id).await?;
    if incident.closed_at.is_some() {
        let message = format!("incident {id} is closed.");
        return Err(AdminError::new(ErrorCode::IncidentClosed, message).about(id));
    }
    let Incident { name, finding, .. } = &incident;
    let on = format!("{id} {name} {finding}");
    let audited = Audited { control: Some(&store), action, on, attribution: actor.attribution() };
    audited.run(changed(&store, id, change), |_| String::new()).await
}

/// Sends a test message to a receiver.
///
/// # Errors
/// [`ErrorCode::ReceiverNotFound`], [`ErrorCode::ReceiverFailed`] with what happened.
pub async fn test(
    config: &Config,
    control: &impl OperatorControl,
    name: &str,
    actor: &Actor,
) -> Result<(), AdminError> {
    let receiver = config.receivers.iter().find(|one| one.name == name).ok_or_else(|| {
        let all: Vec<&str> = config.receivers.iter().map(|one| one.name.as_str()).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        AdminError::new(ErrorCode::ReceiverNotFound, format!("unknown receiver {name}."))
            .hint(format!("The configuration has: {all}."))
            .about(name)
    })?;
    let about = (Subject::Part, "test", "test");
    let incident = Incident::new(format!("test-{}", id()), about, Severity::Info, clock::now());
    let sender = Sender::new()?;
    let send = async {
        let mut notices = vec![Notice::Opened];
        // Nobody has to close the test at PagerDuty.
        if matches!(receiver.channel, Channel::Pagerduty { .. }) {
            notices.push(Notice::Closed);
        }
        for notice in notices {
            let message = Message::of(config, name, &[(incident.clone(), notice)]);
            sender.send(receiver, &message).await.map_err(|error| {
                let message = format!("{name} accepted no message: {error}.");
                AdminError::new(ErrorCode::ReceiverFailed, message).about(name)
            })?;
        }
        Ok(())
    };
    let on = name.to_owned();
    let audited = Audited {
        control: Some(control),
        action: "notify test",
        on,
        attribution: actor.attribution(),
    };
    audited.run(send, |()| String::new()).await
}

fn id() -> String {
    let mut random = [0; 4];
    rand::rng().fill_bytes(&mut random);
    hex::encode(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Fakes;
    use zentra_store::journal::JournalError;

    fn notifier(channel: Channel) -> Notifier {
        let mut config = Config::clone(&Fakes::new().config);
        config.receivers = vec![Receiver {
            name: "ops".into(),
            channel,
            severity: Severity::Info,
            remind_after: Duration::ZERO,
            quiet_hours: None,
        }];
        Notifier::new(Box::leak(Box::new(config))).unwrap().unwrap()
    }

    fn incidents(count: usize) -> Vec<Incident> {
        let (start, now) = (Timestamp::from_millis(0), clock::now());
        let one = |at: usize| Incident {
            id: at.to_string(),
            version: 1,
            subject: Subject::Destination,
            name: format!("d{at}"),
            finding: "failing".into(),
            severity: if at.is_multiple_of(2) { Severity::Warning } else { Severity::Critical },
            opened_at: start,
            seen_at: now,
            closed_at: None,
            acknowledged: None,
            resolved: None,
            sent: Default::default(),
        };
        (0..count).map(one).collect()
    }

    #[tokio::test]
    async fn what_is_too_much_for_one_message_follows_and_the_urgent_goes_first() {
        for (channel, most) in [
            (Channel::Slack { url: None }, MOST),
            (Channel::Pagerduty { url: None, key: None }, EVENTS),
        ] {
            let (notifier, mut all) = (notifier(channel), incidents(120));
            let (mut accepted, now) = (Vec::new(), clock::now());
            while let [(_, notices)] = &notifier.due(&all, now)[..] {
                assert!(notices.len() <= most);
                for (incident, notice) in notices {
                    accepted.push(incident.severity);
                    let sent = Sent { notice: *notice, at: now };
                    let noted = all.iter_mut().find(|one| one.id == incident.id).unwrap();
                    noted.sent.insert("ops".into(), sent);
                }
            }
            assert_eq!(accepted.len(), 120, "each is sent once");
            assert!(accepted.is_sorted_by(|one, next| one >= next), "{accepted:?}");
        }
    }

    /// A store of one incident, which may not answer.
    #[derive(Clone)]
    struct OneIncident(std::sync::Arc<std::sync::Mutex<(bool, Incident)>>);

    impl Incidents for OneIncident {
        async fn incidents(&self) -> Result<Vec<Incident>, JournalError> {
            let (answers, incident) = &*self.0.lock().unwrap();
            let down = || JournalError::Unavailable("down".into());
            answers.then(|| vec![incident.clone()]).ok_or_else(down)
        }

        async fn keep_incident(&self, incident: &Incident) -> Result<bool, JournalError> {
            self.0.lock().unwrap().1 = incident.clone();
            Ok(true)
        }
    }

    #[tokio::test]
    async fn what_was_sent_while_the_store_was_away_is_not_sent_again() {
        let mut notifier = notifier(Channel::Slack { url: None });
        let (all, now) = (incidents(1), clock::now());
        let store = OneIncident(std::sync::Arc::new((false, all[0].clone()).into()));
        let accepted = Accepted {
            incident: all[0].id.clone(),
            receiver: "ops".into(),
            sent: Sent { notice: Notice::Opened, at: now },
        };
        notifier.note(&store, accepted).await;
        store.0.lock().unwrap().0 = true;
        let mut read = store.incidents().await.unwrap();
        assert_eq!(notifier.due(&read, now).len(), 1, "the store has no note of it");
        notifier.note_late(&store, &mut read).await;
        assert!(notifier.due(&read, now).is_empty());
        let noted = store.incidents().await.unwrap();
        assert!(notifier.due(&noted, now).is_empty() && notifier.unnoted.is_empty());
    }

    #[test]
    fn a_closed_incident_of_the_store_is_kept_until_it_is_sent() {
        let now = clock::now();
        let [one] = &incidents(1)[..] else { panic!() };
        let sent = |notice| [("ops".to_owned(), Sent { notice, at: now })].into();
        let closed = Incident { closed_at: Some(now), sent: sent(Notice::Opened), ..one.clone() };
        assert!(is_wanted(one, now) && is_wanted(&closed, now.plus(LOCAL / 2)));
        assert!(!is_wanted(&closed, now.plus(LOCAL)));
        assert!(!is_wanted(&Incident { sent: sent(Notice::Closed), ..closed }, now));
    }
}
