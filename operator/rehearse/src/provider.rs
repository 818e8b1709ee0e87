//! The provider that a rehearsal plays. It sends callbacks as a configured source's provider does.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use webhook_verify::{Callback, Secret};
use zentra_admin::AdminError;
use zentra_admin::http_client::{Http, Made};
use zentra_core::clock::{self, Timestamp};
use zentra_core::source::Source;

use super::scenario::{Body, Send, Signed};
use crate::error::unusable;

/// Creates callbacks.
pub(crate) struct Provider {
    http: Http,
    /// The address of the ingress, without `/in/…`.
    pub(crate) ingress: String,
    /// The type of the events.
    pub(crate) kind: String,
    /// Makes the event IDs of this rehearsal unique among those of other rehearsals.
    pub(crate) suffix: String,
}

impl Provider {
    pub(crate) fn new(ingress: String, kind: String, suffix: String) -> Result<Self, AdminError> {
        Ok(Self { http: Http::new()?, ingress, kind, suffix })
    }

    /// The provider's ID for an event.
    pub(crate) fn id(&self, event: &str) -> String {
        format!("{event}{}", self.suffix)
    }

    /// The body of an event.
    fn body(&self, source: &Source, event: &str, body: Body, time: Timestamp) -> Bytes {
        let amount = if body == Body::Other { 125_001 } else { 125_000 };
        let mut value = json!({
            "rehearsal": self.id(event), "amount_minor": amount, "currency": "USD",
        });
        source.endpoint.scheme.write_into(&mut value, &self.id(event), &self.kind, time);
        match body {
            Body::Usual | Body::Other => value.to_string().into(),
            Body::NotJson => format!("not JSON: {event}{}", self.suffix).into(),
            Body::Empty => Bytes::new(),
            Body::Oversized => {
                value["padding"] = Value::String("x".repeat(source.endpoint.max_body));
                value.to_string().into()
            }
        }
    }

    /// The callback that a step asks for. Fails if the source lacks the secret, or has only a
    /// public key.
    pub(crate) fn make(
        &self,
        source: &Source,
        event: &str,
        send: &Send,
    ) -> Result<Made, AdminError> {
        let unfit = |what: &str| unusable(format!("the source {}: {what}.", source.name));
        let secret = match &send.key {
            None => source.endpoint.secrets.first(),
            Some(name) => source.endpoint.secrets.iter().find(|named| named.name == *name),
        };
        let secret = &secret.ok_or_else(|| unfit("it does not have this secret"))?.secret;
        let id = self.id(send.as_id.as_deref().unwrap_or(event));
        let now = clock::now();
        let time = now.plus(send.ahead).millis();
        let age = u64::try_from(send.age.as_millis()).unwrap_or(u64::MAX);
        let time = Timestamp::from_millis(time.saturating_sub(age));
        let body = self.body(source, event, send.body, time);
        let address = format!("{}/in/{}", self.ingress, source.name);
        let url = source.endpoint.public_url.as_deref().unwrap_or(&address);
        let callback = Callback { id: &id, kind: &self.kind, time, body: &body, url };
        let forged;
        let secret = match send.signed {
            Signed::Forged => {
                // An ID that every scheme accepts.
                forged = Secret::new("whsec_bm90IHRoZSBzb3VyY2UncyBzZWNyZXQ=");
                &forged
            }
            _ => secret,
        };
        let signed = source.endpoint.scheme.sign(secret, &callback);
        let mut signed = signed.map_err(|what| unfit(&format!("{what}")))?;
        let in_headers = signed.headers.keys().any(|name| source.endpoint.scheme.signs_in(name));
        match send.signed {
            Signed::Malformed if !in_headers => {
                return Err(unfit("its signature is in no header, so it cannot be malformed here"));
            }
            Signed::Unsigned if !in_headers => {
                (signed.body, signed.query) = (body.clone(), None);
            }
            _ => {}
        }
        let headers = &mut signed.headers;
        for (name, value) in headers.iter_mut() {
            if source.endpoint.scheme.signs_in(name) && send.signed == Signed::Malformed {
                *value = HeaderValue::from_static("no signature");
            }
        }
        if send.signed == Signed::Unsigned {
            let signed: Vec<_> = headers
                .keys()
                .filter(|name| source.endpoint.scheme.signs_in(name))
                .cloned()
                .collect();
            signed.iter().for_each(|name| drop(headers.remove(name)));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = match &signed.query {
            Some(query) => format!("{address}?{query}"),
            None => address,
        };
        Ok(Made { url, headers: signed.headers, body: signed.body })
    }

    /// See [`Http::post`].
    pub(crate) async fn post(&self, made: &Made) -> String {
        self.http.post(made).await
    }
}
