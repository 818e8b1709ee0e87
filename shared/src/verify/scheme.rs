//! A provider's scheme as data, and the catalogue of those that come along.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderName;
use serde::{Deserialize, Deserializer};

use super::key::{Algorithm, KeyFormat};
use super::template::{Part, Template};
use crate::clock::{Timestamp, millis};

/// The envelope has to fit into one AMQP frame.
const MAX_CONTEXT_HEADERS: usize = 16;

/// How one provider signs: where the signature is, what it covers, how old it may be,
/// and where id and type are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// Where the signature is and what it covers.
    pub signature: Signature,
    /// The signed time. `None`: the provider signs none, so freshness can't be judged.
    pub timestamp: Option<Time>,
    /// What it has been held to: a vendor's SDK and its version (`npm stripe 23.1.0`). None: it
    /// is unproven.
    pub proof: Option<String>,
    /// For how long the provider sends a callback again, if it is known.
    #[serde(default, deserialize_with = "some_duration")]
    pub retries: Option<Duration>,
    /// The request headers that are kept for an operator to see. Never one that holds a
    /// signature or a credential.
    #[serde(default, deserialize_with = "header_names")]
    pub context: Vec<HeaderName>,
    /// Where the provider says which try this is, and why it tries again.
    #[serde(default)]
    pub attempt: Attempt,
    /// Where the event's id is.
    pub id: Option<Location>,
    /// Where the event's type is.
    #[serde(rename = "type")]
    pub kind: Option<Location>,
}

/// Where the provider tells of its own attempts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attempt {
    /// Its count.
    pub number: Option<Location>,
    /// Its reason.
    pub reason: Option<Location>,
}

/// The signature: header, grammar, algorithm, encoding, key, content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The header that holds it.
    #[serde(deserialize_with = "header_name")]
    pub header: HeaderName,
    /// How the header's value is read.
    pub grammar: Grammar,
    /// What computes it.
    pub algorithm: Algorithm,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// How the secret becomes a key.
    pub key: KeyFormat,
    /// What it covers.
    pub content: Template,
}

/// How a signature header is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Grammar {
    /// The value is the signature.
    Bare,
    /// The signature follows this text.
    Prefix(String),
    /// A list of `name assign value` items; those of one name are signatures, and any of
    /// them may fit (a provider that rotates its secret sends several).
    List {
        /// Between items.
        separator: char,
        /// Between an item's name and its value.
        assign: char,
        /// The name of the signature items.
        item: String,
    },
}

/// How the signature's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Hexadecimal, either case.
    Hex,
    /// Standard base64, with or without padding.
    Base64,
    /// Base64 for URLs (RFC 4648, section 5), with or without padding.
    Base64url,
    /// As it is: a token.
    Text,
}

/// The signed time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Where it is written.
    pub at: TimeLocation,
    /// How.
    #[serde(default)]
    pub unit: Unit,
    /// How far it may be from the time of receipt, either way.
    #[serde(deserialize_with = "duration")]
    pub tolerance: Duration,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Unix seconds.
    #[default]
    Seconds,
    /// Unix milliseconds.
    Milliseconds,
    /// RFC 3339 in UTC, with or without the `Z`.
    Rfc3339,
}

impl Unit {
    /// A time as it is written; none if it isn't one.
    pub(super) fn read(self, text: &str) -> Option<Timestamp> {
        match self {
            Self::Seconds => text.parse().ok().map(Timestamp::from_secs),
            Self::Milliseconds => text.parse().ok().map(Timestamp::from_millis),
            Self::Rfc3339 => {
                let time = humantime::parse_rfc3339_weak(text).ok()?;
                let since = time.duration_since(UNIX_EPOCH).ok()?;
                Some(Timestamp::from_millis(millis(since)))
            }
        }
    }

    /// As a provider would write it.
    pub(super) fn write(self, time: Timestamp) -> String {
        match self {
            Self::Seconds => time.secs().to_string(),
            Self::Milliseconds => time.millis().to_string(),
            Self::Rfc3339 => time.to_string(),
        }
    }
}

/// Where the signed time is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TimeLocation {
    /// In a header of its own.
    Header(#[serde(deserialize_with = "header_name")] HeaderName),
    /// An item of the signature header's list.
    Item(String),
    /// A string or number in the JSON body, by JSON pointer.
    Json(String),
}

/// Where an id or type is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Location {
    /// A header's value.
    Header(#[serde(deserialize_with = "header_name")] HeaderName),
    /// A string or integer in the JSON body, by JSON pointer (RFC 6901).
    Json(String),
}

impl Scheme {
    /// Reads a scheme and checks that it makes sense: the body is covered, and a time
    /// that is judged is also signed. The error names no value.
    pub fn from_toml(table: toml::Table) -> Result<Self, String> {
        let scheme: Self =
            table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let content = &scheme.signature.content;
        let token = scheme.is_token();
        if token != content.parts().is_empty() {
            return Err("a token signs nothing: its signature.content is \"\"".into());
        }
        if !token && !content.covers(&Part::Body) {
            return Err("signature.content must cover {body}".into());
        }
        let inside = matches!(&scheme.timestamp, Some(Time { at: TimeLocation::Json(_), .. }));
        if inside && (token || content.covers(&Part::Timestamp)) {
            return Err("a time in the body is signed with the body: signature.content takes no \
                        {timestamp}, and a token signs none"
                .into());
        }
        if !inside && scheme.timestamp.is_some() != content.covers(&Part::Timestamp) {
            return Err("a scheme with [timestamp] must sign {timestamp}, and one that signs \
                        {timestamp} needs [timestamp]"
                .into());
        }
        let listed = matches!(scheme.signature.grammar, Grammar::List { .. });
        let public = scheme.signature.algorithm.is_public();
        if public && matches!(scheme.signature.key, KeyFormat::Utf8 | KeyFormat::Whsec) {
            return Err("signature.key of a public key is hex, base64 or spki".into());
        }
        if !public && scheme.signature.key == KeyFormat::Spki {
            return Err("signature.key can't be spki: the algorithm takes a secret".into());
        }
        let item = matches!(&scheme.timestamp, Some(Time { at: TimeLocation::Item(_), .. }));
        if item && !listed {
            return Err("timestamp.at.item needs a signature.grammar of the list kind".into());
        }
        if scheme.context.contains(&scheme.signature.header) {
            return Err("context must not list the signature's header".into());
        }
        if scheme.context.len() > MAX_CONTEXT_HEADERS {
            return Err(format!("context lists more than {MAX_CONTEXT_HEADERS} headers"));
        }
        Ok(scheme)
    }

    /// An entry of the catalogue.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = CATALOGUE.iter().find(|(known, _)| *known == name)?;
        Self::from_toml(text.parse().ok()?).ok()
    }

    /// The catalogue's names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|(name, _)| *name)
    }

    /// Whether this header is needed to verify or identify a callback.
    pub fn needs(&self, header: &HeaderName) -> bool {
        let time = matches!(&self.timestamp, Some(Time { at: TimeLocation::Header(at), .. }) if at == header);
        let named = [&self.id, &self.kind];
        let named = named.iter().any(|at| matches!(at, Some(Location::Header(at)) if at == header));
        let signed = self.signature.content.covers(&Part::Header(header.clone()));
        self.signature.header == *header || time || named || signed
    }

    /// Whether it signs nothing: the secret itself is sent along.
    pub fn is_token(&self) -> bool {
        self.signature.algorithm == Algorithm::Token
    }

    /// Whether a source needs to know where its provider sends to.
    pub fn signs_url(&self) -> bool {
        self.signature.content.covers(&Part::Url)
    }

    /// Whether the signature covers what is at this place. Derived, not declared, so an
    /// entry can't claim more than its template signs.
    ///
    /// Who has seen a token's callback can forge any: what is in it is as good as the token.
    pub fn covers(&self, location: &Location) -> bool {
        if self.is_token() {
            return true;
        }
        let part = match location {
            Location::Header(name) => Part::Header(name.clone()),
            Location::Json(_) => Part::Body,
        };
        self.signature.content.covers(&part)
    }
}

/// In alphabetical order.
const CATALOGUE: &[(&str, &str)] = &[
    ("adyen-platform", include_str!("providers/adyen-platform.toml")),
    ("anthropic", include_str!("providers/anthropic.toml")),
    ("cashfree", include_str!("providers/cashfree.toml")),
    ("clerk", include_str!("providers/clerk.toml")),
    ("coinbase-commerce", include_str!("providers/coinbase-commerce.toml")),
    ("discord", include_str!("providers/discord.toml")),
    ("dodopayments", include_str!("providers/dodopayments.toml")),
    ("elevenlabs", include_str!("providers/elevenlabs.toml")),
    ("finch", include_str!("providers/finch.toml")),
    ("github", include_str!("providers/github.toml")),
    ("gocardless", include_str!("providers/gocardless.toml")),
    ("hubspot", include_str!("providers/hubspot.toml")),
    ("line", include_str!("providers/line.toml")),
    ("linear", include_str!("providers/linear.toml")),
    ("lithic", include_str!("providers/lithic.toml")),
    ("liveblocks", include_str!("providers/liveblocks.toml")),
    ("modern-treasury", include_str!("providers/modern-treasury.toml")),
    ("mux", include_str!("providers/mux.toml")),
    ("notion", include_str!("providers/notion.toml")),
    ("onfido", include_str!("providers/onfido.toml")),
    ("openai", include_str!("providers/openai.toml")),
    ("orb", include_str!("providers/orb.toml")),
    ("paddle", include_str!("providers/paddle.toml")),
    ("polar", include_str!("providers/polar.toml")),
    ("pusher", include_str!("providers/pusher.toml")),
    ("razorpay", include_str!("providers/razorpay.toml")),
    ("replicate", include_str!("providers/replicate.toml")),
    ("resend", include_str!("providers/resend.toml")),
    ("retell", include_str!("providers/retell.toml")),
    ("sanity", include_str!("providers/sanity.toml")),
    ("sendgrid", include_str!("providers/sendgrid.toml")),
    ("shopify", include_str!("providers/shopify.toml")),
    ("slack", include_str!("providers/slack.toml")),
    ("square", include_str!("providers/square.toml")),
    ("standard-webhooks", include_str!("providers/standard-webhooks.toml")),
    ("stripe", include_str!("providers/stripe.toml")),
    ("svix", include_str!("providers/svix.toml")),
    ("telnyx", include_str!("providers/telnyx.toml")),
    ("webflow", include_str!("providers/webflow.toml")),
    ("workos", include_str!("providers/workos.toml")),
];

fn header_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeaderName>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let names = texts.into_iter().map(HeaderName::try_from).collect::<Result<_, _>>();
    names.map_err(|_| serde::de::Error::custom("not a list of header names"))
}

fn header_name<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(from)?;
    HeaderName::try_from(text).map_err(|_| serde::de::Error::custom("not a header name"))
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("not a duration like \"5m\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_catalogue_can_be_read() {
        for name in Scheme::names() {
            assert!(Scheme::named(name).is_some(), "{name}");
        }
        assert!(Scheme::named("nobody").is_none());
    }

    #[test]
    fn the_signature_covers_a_json_id_and_a_templated_header_but_not_githubs_delivery_header() {
        let signed = |name| {
            let scheme = Scheme::named(name).unwrap();
            scheme.covers(scheme.id.as_ref().unwrap())
        };
        assert!(signed("stripe"));
        assert!(signed("standard-webhooks"));
        assert!(!signed("github"));
    }

    #[test]
    fn a_scheme_that_leaves_body_or_time_unsigned_is_refused() {
        let stripe = include_str!("providers/stripe.toml");
        for content in ["{timestamp}.", "{body}", "{timestamp}.{payload}"] {
            let text = stripe.replace("{timestamp}.{body}", content);
            assert!(Scheme::from_toml(text.parse().unwrap()).is_err(), "{content}");
        }
    }
}
