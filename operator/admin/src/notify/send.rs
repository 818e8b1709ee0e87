//! Sends messages to receivers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Email, Tokio1Executor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use webhook_verify::{NamedSecret, Secret};
use zentra_config::{Channel, Receiver};
use zentra_core::clock;
use zentra_store::incident::Notice;

use super::message::{AboutIncident, Message};
use crate::error::AdminError;
use crate::http_client::{Http, Made};

/// Time limit of a message.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends messages.
pub(super) struct Sender {
    http: Http,
}

impl Sender {
    /// # Errors
    /// [`crate::ErrorCode::Internal`] if this machine cannot use TLS.
    pub(super) fn new() -> Result<Self, AdminError> {
        Ok(Self { http: Http::new()? })
    }

    /// Sends a message. The error says what happened, and has no secret.
    pub(super) async fn send(&self, receiver: &Receiver, message: &Message) -> Result<(), String> {
        let sent = tokio::time::timeout(LIMIT, self.exchange(receiver, message));
        sent.await.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
    }

    async fn exchange(&self, receiver: &Receiver, message: &Message) -> Result<(), String> {
        match &receiver.channel {
            Channel::Slack { url } => {
                let text = format!("*{}*\n{}", escaped(&message.title()), escaped(&message.text()));
                self.post(url.as_ref(), HeaderMap::new(), &json!({ "text": text })).await
            }
            Channel::Webhook { url, key } => {
                let now = clock::now();
                let body = json!({ "type": "zentra.incidents", "timestamp": now, "data": message });
                let headers = signed(key.as_ref(), message, &body);
                self.post(url.as_ref(), headers, &body).await
            }
            Channel::Pagerduty { url, key } => {
                let key = text(key.as_ref())?;
                for one in events(message) {
                    let body = pagerduty(key, &message.namespace, one);
                    self.post(url.as_ref(), HeaderMap::new(), &body).await?;
                }
                Ok(())
            }
            Channel::Email { server, from, to } => {
                email(text(server.as_ref())?, from, to, message).await
            }
        }
    }

    async fn post(
        &self,
        url: Option<&Secret>,
        mut headers: HeaderMap,
        body: &Value,
    ) -> Result<(), String> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(body.to_string());
        let made = Made { url: text(url)?.trim().to_owned(), headers, body };
        let answer = self.http.post(&made).await;
        match answer.starts_with('2') {
            true => Ok(()),
            false if answer.starts_with(|first: char| first.is_ascii_digit()) => {
                Err(format!("it answered {answer}"))
            }
            false => Err(answer),
        }
    }
}

/// The events for PagerDuty, in this order. All events of one finding have one key: an older incident must not end a newer
/// one.
fn events(message: &Message) -> Vec<&AboutIncident> {
    let is_open = |of: &AboutIncident| {
        let mut all = message.incidents.iter();
        all.any(|one| one.notice != Notice::Closed && one.is_about_same(of))
    };
    let (closed, open): (Vec<&AboutIncident>, Vec<&AboutIncident>) =
        message.incidents.iter().partition(|one| one.notice == Notice::Closed);
    closed.into_iter().filter(|one| !is_open(one)).chain(open).collect()
}

fn text(secret: Option<&Secret>) -> Result<&str, String> {
    let bytes = secret.ok_or("this program does not have its secret")?.expose();
    std::str::from_utf8(bytes).map_err(|_| "its secret is not UTF-8".into())
}

/// For Slack: <https://docs.slack.dev/messaging/formatting-message-text#escaping>.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The headers of Standard Webhooks. The same message has the same id, also from another server.
fn signed(key: Option<&NamedSecret>, message: &Message, body: &Value) -> HeaderMap {
    let mut id = Sha256::new();
    for one in &message.incidents {
        id.update(format!("{} {:?} {:?}\n", one.id, one.notice, one.last_sent_at));
    }
    let id = format!("inc_{}", hex::encode(&id.finalize()[..12]));
    let keys: Vec<NamedSecret> = key.into_iter().cloned().collect();
    let headers = webhook_verify::standard_webhooks::standard_webhooks(
        &keys,
        &id,
        clock::now(),
        body.to_string().as_bytes(),
    );
    headers.into_iter().collect()
}

/// An event of <https://developer.pagerduty.com/docs/send-alert-event>. All events of one finding have one key, also
/// those of several servers.
fn pagerduty(key: &str, namespace: &str, one: &AboutIncident) -> Value {
    let subject = serde_json::to_value(one.subject).unwrap_or_default();
    let subject = subject.as_str().unwrap_or_default();
    let dedup_key = format!("zentra/{namespace}/{subject}/{}/{}", one.name, one.finding);
    let links: Vec<Value> =
        one.console.iter().map(|href| json!({ "href": href, "text": "Console" })).collect();
    json!({
        "routing_key": key,
        "event_action": if one.notice == Notice::Closed { "resolve" } else { "trigger" },
        "dedup_key": dedup_key,
        "client": "Zentra",
        "links": links,
        "payload": {
            "summary": one.title(),
            "source": namespace,
            "severity": one.severity,
            "component": one.name,
            "class": one.finding,
            "timestamp": one.opened_at,
            "custom_details": { "meaning": one.summary, "next": one.next, "runbook": one.runbook },
        },
    })
}

async fn email(server: &str, from: &str, to: &[String], message: &Message) -> Result<(), String> {
    let mailbox = |address: &str| {
        address.parse::<Mailbox>().map_err(|_| "from and to must be email addresses".to_owned())
    };
    let mut email = Email::builder().from(mailbox(from)?).subject(message.title());
    email = email.header(ContentType::TEXT_PLAIN);
    for address in to {
        email = email.to(mailbox(address)?);
    }
    let email = email.body(message.text()).map_err(|error| error.to_string())?;
    // Errors of the address would have the password.
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server.trim())
        .map_err(|_| "the address of the mail server is not valid")?
        .timeout(Some(LIMIT))
        .build();
    transport.send(email).await.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use zentra_core::clock::Timestamp;
    use zentra_store::incident::{Severity, Subject};

    use super::*;

    fn about(id: &str, notice: Notice, last_sent_at: Option<u64>) -> AboutIncident {
        AboutIncident {
            id: id.into(),
            notice,
            severity: Severity::Critical,
            subject: Subject::Destination,
            name: "ledger".into(),
            finding: "circuit_open".into(),
            summary: "",
            next: "",
            opened_at: Timestamp::from_millis(0),
            last_sent_at: last_sent_at.map(Timestamp::from_millis),
            closed_at: None,
            resolved_by: None,
            console: None,
            runbook: None,
        }
    }

    #[test]
    fn a_message_has_the_same_id_when_it_is_sent_again_and_each_reminder_has_its_own() {
        let id = |last_sent_at| {
            let incidents = vec![about("a", Notice::Reminder, Some(last_sent_at))];
            let message = Message { namespace: "zentra".into(), incidents };
            signed(None, &message, &json!({}))["webhook-id"].clone()
        };
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
    }

    #[test]
    fn an_older_incident_does_not_end_a_newer_one_of_the_same_finding() {
        let incidents = vec![about("b", Notice::Opened, None), about("a", Notice::Closed, Some(1))];
        let actions = |incidents: &[AboutIncident]| {
            let message = Message { namespace: "zentra".into(), incidents: incidents.to_vec() };
            let events = events(&message).into_iter();
            events.map(|one| (one.id.clone(), one.notice)).collect::<Vec<_>>()
        };
        assert_eq!(actions(&incidents), [("b".to_owned(), Notice::Opened)]);
        assert_eq!(actions(&incidents[1..]), [("a".to_owned(), Notice::Closed)]);
    }
}
