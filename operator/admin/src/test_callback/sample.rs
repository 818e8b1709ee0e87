//! Sample events of providers, for test callbacks. Their fields are those of the providers' public
//! documentation, their values are invented.

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use webhook_verify::Scheme;
use zentra_core::clock::Timestamp;

macro_rules! samples {
    ($($name:literal)*) => {
        /// In alphabetical order.
        const SAMPLES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../samples/", $name, ".json")))),*];
    };
}

samples! {
    "adyen"
    "calendly"
    "clerk"
    "github"
    "gitlab"
    "hubspot"
    "intercom"
    "linear"
    "mailgun"
    "paddle"
    "razorpay"
    "shopify"
    "slack"
    "square"
    "standard-webhooks"
    "stripe"
    "twilio"
    "typeform"
    "woocommerce"
    "zendesk"
    "zoom"
}

/// The samples of a provider.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// The form of its event IDs. Empty if it sends none.
    id: String,
    /// Bodies by event type. An object is a form where the provider sends forms.
    events: Map<String, Value>,
}

/// An event that can be signed and sent.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
}

impl Samples {
    /// Names of the providers that have samples.
    pub fn providers() -> impl Iterator<Item = &'static str> {
        SAMPLES.iter().map(|(name, _)| *name)
    }

    /// The samples of a provider. `None` if it has none.
    pub fn of(provider: &str) -> Option<Self> {
        let (_, text) = SAMPLES.iter().find(|(name, _)| *name == provider)?;
        serde_json::from_str(text).ok()
    }

    /// The types of its sample events.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// A new event of this type. `None` if there is no sample of it.
    pub(crate) fn event(
        &self,
        kind: &str,
        scheme: &Scheme,
        id: Option<&str>,
        time: Timestamp,
    ) -> Option<Event> {
        let body = self.events.get(kind)?;
        let mut blanks = Blanks::new(time);
        blanks.id = id.map_or_else(|| blanks.text(&self.id), str::to_owned);
        let body = blanks.fill(body);
        let body = match &body {
            Value::Object(fields) if scheme.sends_forms() => form(fields).into_bytes(),
            body => body.to_string().into_bytes(),
        };
        Some(Event { id: blanks.id, body })
    }

    /// A new ID in the provider's form.
    pub(crate) fn id(&self, time: Timestamp) -> String {
        Blanks::new(time).text(&self.id)
    }
}

fn form(fields: &Map<String, Value>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        form.append_pair(name, value.as_str().unwrap_or_default());
    }
    form.finish()
}

/// What stands in the place of `{…}` in a sample.
struct Blanks {
    id: String,
    /// One number for the whole event.
    number: u32,
    time: Timestamp,
}

impl Blanks {
    fn new(time: Timestamp) -> Self {
        Self {
            id: String::new(),
            number: rand::rng().random_range(100_000_000..1_000_000_000),
            time,
        }
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.number(text) {
                Some(number) => Value::Number(number),
                None => Value::String(self.text(text)),
            },
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect()
            }
            other => other.clone(),
        }
    }

    /// A text that stands for a number.
    fn number(&self, text: &str) -> Option<Number> {
        Some(match text {
            "{#number}" => self.number.into(),
            "{#seconds}" => self.time.secs().into(),
            "{#millis}" => self.time.millis().into(),
            _ => return None,
        })
    }

    /// The text with every blank filled.
    fn text(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, blank)) = rest.split_once('{') {
            let (blank, after) = blank.split_once('}').unwrap_or((blank, ""));
            filled += before;
            filled += &self.blank(blank);
            rest = after;
        }
        filled + rest
    }

    fn blank(&self, blank: &str) -> String {
        let (name, length) = blank.split_once(':').unwrap_or((blank, "24"));
        let length = length.parse().unwrap_or_default();
        match name {
            "id" => self.id.clone(),
            "number" => self.number.to_string(),
            "seconds" => self.time.secs().to_string(),
            "millis" => self.time.millis().to_string(),
            "time" => self.time.to_string(),
            "random" => random(b"0123456789abcdef", length),
            "RANDOM" => random(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", length),
            // The form of a random UUID (RFC 9562, version 4).
            "uuid" => {
                let digits = random(b"0123456789abcdef", 30);
                let (a, b) = (&digits[..8], &digits[8..12]);
                let (c, d, e) = (&digits[12..15], &digits[15..18], &digits[18..30]);
                format!("{a}-{b}-4{c}-8{d}-{e}")
            }
            _ => format!("{{{blank}}}"),
        }
    }
}

fn random(alphabet: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use webhook_verify::{Callback, Endpoint, NamedSecret, Secret, Unverified};
    use zentra_core::clock;

    use super::*;

    #[test]
    fn each_sample_verifies_as_one_event_of_its_type_and_no_two_are_copies() {
        for provider in Samples::providers() {
            let scheme = Scheme::named(provider).unwrap();
            let samples = Samples::of(provider).unwrap();
            let secret = Secret::new(scheme.new_secret(&[7; 32]).unwrap());
            let url = "https://zentra.example/in/x";
            let endpoint = Endpoint {
                provider: provider.into(),
                public_url: scheme.signs_url().then(|| url.to_owned()),
                handshake_token: None,
                secrets: vec![NamedSecret { name: "k1".into(), secret: secret.clone() }],
                max_body: 1 << 20,
                trusts_id: false,
                scheme,
            };
            let scheme = &endpoint.scheme;
            for kind in samples.types() {
                let mut identities = HashSet::new();
                for at in 0..3 {
                    let time = clock::now().plus(std::time::Duration::from_millis(at));
                    let event = samples.event(kind, scheme, None, time).unwrap();
                    let (id, body) = (&*event.id, &*event.body);
                    assert!(
                        !String::from_utf8_lossy(body)
                            .contains(['{', '}'].map(|c| format!("{c}{c}")).concat().as_str())
                    );
                    let signed =
                        scheme.sign(&secret, &Callback { id, kind, time, body, url }).unwrap();
                    let callback = Unverified {
                        method: http::Method::POST,
                        headers: signed.headers,
                        query: signed.query,
                        peer: None,
                        body: signed.body,
                        received_at: time,
                        receipt: at,
                    };
                    let verified = callback.verify_by(&endpoint, None);
                    let events =
                        verified.unwrap_or_else(|refusal| panic!("{provider} {kind}: {refusal}"));
                    assert!(events.handshake().is_none(), "{provider} {kind}");
                    let events = events.into_events();
                    let [one] = &events[..] else { panic!("{provider} {kind}: {}", events.len()) };
                    assert_eq!(one.event_type.as_deref(), Some(kind), "{provider}");
                    if !id.is_empty() && scheme.id.is_some() {
                        assert!(
                            one.event_id().is_some_and(|found| found.contains(id)),
                            "{provider} {kind}"
                        );
                    }
                    identities.insert(one.identity.as_str().to_owned());
                }
                assert_eq!(identities.len(), 3, "{provider} {kind}");
            }
        }
    }
}
