//! Schemes as data.

use http::{HeaderName, Method};
use serde::{Deserialize, Deserializer};

use super::canonical::Canonical;
use super::claims::Claims;
use super::documented::Documented;
use super::fetched::Keys;
use super::handshake::{Handshake, HandshakeMethod, SuccessResponse};
use super::key::{Algorithm, KeyFormat};
use super::multipart;
use super::place::Location;
use super::template::{Part, Template};
use super::time::Time;
use crate::event::Weakness;
use crate::secret::Secret;

/// The scheme of a provider: place and content of the signature, age, identity, id and type.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// The provider's documentation.
    pub documents: Option<String>,
    /// Advice for users: which secret it is, what the signature doesn't cover.
    pub note: Option<String>,
    /// Where the signature is and what it covers.
    pub signature: Signature,
    /// The signed time. `None`: the provider signs none, so freshness can't be checked.
    pub timestamp: Option<Time>,
    /// Claims, if the signature is a JSON Web Token.
    pub claims: Option<Claims>,
    /// Published keys, if the provider has them.
    pub keys: Option<Keys>,
    /// Whether the signature doesn't cover the body: it proves the sender, not the content.
    #[serde(default)]
    pub body_unsigned: bool,
    /// What `id` names. It is an identity only if it names an event, or a delivery whose retries
    /// share it. Left out if the provider's documents don't show it.
    pub id_names: Option<IdNames>,
    /// The document or SDK that shows what `id` names, or what else tells two events apart.
    pub identity_source: Option<String>,
    /// What distinguishes two events, if neither a signed id nor the signed content does.
    pub identity: Option<Template>,
    /// Place of a value that differs between any two events, if no id does. An event without it is
    /// never a copy.
    pub told_apart_by: Option<Location>,
    /// Whether the provider sends the same bytes for different events. Then each callback is an
    /// event, except one that was signed at the same time; a retry can be delivered again.
    #[serde(default)]
    pub repeats: bool,
    /// Whether the provider sends the same bytes under several types that nothing signs. Then the
    /// type is a part of the identity, and whoever has seen a callback can send it under another.
    #[serde(default)]
    pub types_share_bytes: bool,
    /// The vendor's SDK and version that proves it (`npm stripe 23.1.0`). `None`: unproven.
    pub proof: Option<String>,
    /// Whether that SDK has also signed the callbacks. Otherwise they were made from the vendor's
    /// documents and judged by the SDK.
    #[serde(default)]
    pub sdk_signs: bool,
    /// How long the provider retries a callback.
    #[serde(default)]
    pub retries: Documented,
    /// How long the provider waits for the answer.
    #[serde(default)]
    pub timeout: Documented,
    /// Has no effect; older configurations can have it.
    #[serde(default, rename = "context")]
    pub(super) _context: serde::de::IgnoredAny,
    /// Methods of the provider's callbacks (default: POST).
    #[serde(default = "by_post", deserialize_with = "methods")]
    pub methods: Vec<Method>,
    /// The largest body that the provider sends, in bytes, where that is more than a source takes if
    /// nothing is said. By size: `"25MB"`.
    #[serde(default, deserialize_with = "size")]
    pub max_body: Option<usize>,
    /// Whether a compressed body (`content-encoding`) is signed before compression.
    #[serde(default)]
    pub signs_decoded_body: bool,
    /// Places of the provider's own attempt count and reason.
    #[serde(default)]
    pub attempt: Attempt,
    /// Required values, such as a version or the name of an algorithm.
    #[serde(default, rename = "require")]
    pub required: Vec<Required>,
    /// Handshakes of the provider.
    #[serde(default, rename = "handshake")]
    pub handshakes: Vec<Handshake>,
    /// The answer that the provider expects, if that isn't any 2xx.
    pub success: Option<SuccessResponse>,
    /// Where the array of events is in the JSON body, by JSON pointer (RFC 6901), if the provider
    /// sends several in one callback; `id` and `type` are then looked up in each of them. A body
    /// without an array there is one event.
    pub items: Option<String>,
    /// Whether each item has its own signature: every place is looked up in the item, and a
    /// callback is accepted only if all items verify.
    #[serde(default)]
    pub items_signed: bool,
    /// Place of the event's id.
    pub id: Option<Location>,
    /// Place of the event's type.
    #[serde(rename = "type")]
    pub kind: Option<Location>,
}

/// What a provider's id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdNames {
    /// An event: the same in all of its deliveries and retries, whatever their bytes.
    Event,
    /// A delivery: the same in its retries.
    Delivery,
    /// What the event is about (a message, a payment): later events about it have the same id.
    Resource,
}

impl IdNames {
    /// Name, as in an entry of the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Delivery => "delivery",
            Self::Resource => "resource",
        }
    }
}

/// Places of the provider's own attempts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attempt {
    /// Number of the attempt.
    pub number: Option<Location>,
    /// Reason of the retry.
    pub reason: Option<Location>,
}

/// The signature: place, grammar, algorithm, encoding, key, content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Place; with several, any of them.
    #[serde(deserialize_with = "places")]
    pub at: Vec<Location>,
    /// Grammar of the text.
    pub grammar: Grammar,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Encoding.
    pub encoding: Encoding,
    /// Format of the secret.
    pub key: KeyFormat,
    /// Signed content.
    pub content: Template,
    /// Alternative forms of the signed content, as the vendor's SDK tries them.
    #[serde(default)]
    pub also: Vec<Template>,
}

/// A value that a callback must have, as the vendor's SDK requires.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Required {
    /// Place.
    pub at: Location,
    /// Required value (default: any).
    pub is: Option<String>,
}

/// Grammar of a text with signatures.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Grammar {
    /// The text is the signature.
    Bare,
    /// The signature follows this text.
    Prefix(String),
    /// A list of `name assign value` items; those of one name are signatures, and any of
    /// them may fit (a provider that rotates its secret sends several).
    List {
        /// What stands between items: any of these characters. With more than one there are
        /// groups, and what each group says again must be the same.
        separator: String,
        /// Between an item's name and its value.
        assign: String,
        /// The name of the signature items; `*` is any.
        item: String,
    },
    /// The signed time, then signatures, between commas.
    TimeFirst,
    /// JSON Web Signature, compact (RFC 7515, section 7.1), after `Bearer` or nothing: the items
    /// `header` and `payload`, as they are written, and the signature. The header's `alg` must be
    /// the scheme's algorithm.
    Jws,
}

/// Encoding of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Hexadecimal, either case.
    Hex,
    /// Standard base64, with or without padding.
    Base64,
    /// Base64 for URLs (RFC 4648, section 5), with or without padding.
    Base64url,
    /// Text: a token.
    Text,
}

impl Scheme {
    /// Reads a scheme from TOML and checks it for contradictions. The error shows no value.
    pub fn from_toml(table: toml::Table) -> Result<Self, String> {
        let scheme: Self =
            table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match scheme.contradictions().into_iter().find(|(found, _)| *found) {
            Some((_, error)) => Err(error.into()),
            None => Ok(scheme),
        }
    }

    /// Contradictions, each with whether this scheme has it.
    fn contradictions(&self) -> Vec<(bool, &'static str)> {
        let Signature { at, grammar, algorithm, key, content, .. } = &self.signature;
        let (token, listed) = (self.is_token(), matches!(grammar, Grammar::List { .. }));
        let time = self.timestamp.as_ref().map(|time| &time.at);
        let inside =
            matches!(time, Some(Location::Json(_) | Location::Form(_) | Location::Multipart(_)))
                && !content.covers(&Part::Timestamp);
        let jws = matches!(grammar, Grammar::Jws);
        let claimed = matches!(time, Some(Location::Claim(_)));
        let takes_secret = content.covers(&Part::Secret);
        let published = self.keys.as_ref().and_then(|keys| keys.contradiction(takes_secret));
        let in_item = matches!(time, Some(Location::Item(_)));
        vec![
            (at.is_empty(), "signature.at names no place"),
            (
                at.iter().any(|at| matches!(at, Location::Item(_) | Location::Claim(_))),
                "signature.at is a header, json, query or form",
            ),
            (
                token != content.parts().is_empty(),
                "a token signs nothing: its signature.content is \"\"",
            ),
            (token && self.body_unsigned, "a token never signs a body: leave body_unsigned out"),
            (
                !token && self.covers_body() == self.body_unsigned,
                "signature.content must cover {body}, or body_unsigned = true says that it doesn't",
            ),
            (token && time.is_some(), "a token signs no time: leave [timestamp] out"),
            (
                inside && !self.covers_body(),
                "a time in the body needs a body that is signed, or {timestamp} in \
                 signature.content",
            ),
            (
                !inside && !claimed && time.is_some() != self.covers_time(),
                "a scheme with [timestamp] must sign {timestamp}, and one that signs {timestamp} \
                 needs [timestamp]",
            ),
            (
                matches!(grammar, Grammar::TimeFirst) && time != Some(&Location::time_first()),
                "the time-first grammar goes with timestamp.at = { item = \"time\" }",
            ),
            (
                in_item && !listed && !matches!(grammar, Grammar::TimeFirst),
                "timestamp.at.item needs a signature.grammar of the list kind",
            ),
            (
                jws != self.claims.is_some() && !(jws && self.covers_body()),
                "[claims] and the jws grammar go together, unless the content covers {body}",
            ),
            (claimed && self.claims.is_none(), "timestamp.at.claim needs [claims]"),
            (
                self.claims.is_none() && self.places().any(|at| matches!(at, Location::Claim(_))),
                "a claim needs [claims]: only a JSON Web Token has one",
            ),
            (
                self.claims.is_some() && !content.takes(&Location::Item("payload".into())),
                "[claims] are only as good as their signature: signature.content must be \
                 {item:header}.{item:payload}",
            ),
            (jws && algorithm.jws().is_none(), "the jws grammar takes no such algorithm"),
            (
                algorithm.is_public()
                    && matches!(key, KeyFormat::Utf8 | KeyFormat::Whsec | KeyFormat::Sha1),
                "signature.key of a public key is hex, base64, spki, jwk or x509",
            ),
            (
                !algorithm.is_public()
                    && matches!(key, KeyFormat::Spki | KeyFormat::Jwk | KeyFormat::X509),
                "signature.key can't be spki, jwk or x509: the algorithm takes a secret",
            ),
            (
                algorithm.is_digest() && !content.covers(&Part::Secret),
                "a plain digest needs {secret} in signature.content",
            ),
            (
                self.keys.is_some() && !algorithm.is_public(),
                "[keys] are public: the algorithm takes a secret",
            ),
            (published.is_some(), published.unwrap_or_default()),
            (
                content.covers(&Part::Secret) && !algorithm.is_digest() && self.keys.is_none(),
                "{secret} in signature.content is for plain digests, and for [keys]",
            ),
            (
                self.identity.as_ref().is_some_and(|identity| {
                    !identity.parts().iter().any(|part| part.place().is_some() || part.is_body())
                }),
                "identity names no place: all its events would be taken for one",
            ),
            (
                self.signature.also.iter().any(|also| {
                    !token && !self.body_unsigned && !also.parts().iter().any(Part::is_body)
                }),
                "each of signature.also must cover the body",
            ),
            (
                self.id_names.is_some() && self.id.is_none(),
                "id_names says what [id] names, and there is no [id]",
            ),
            (
                content
                    .parts()
                    .iter()
                    .filter_map(Part::place)
                    .flat_map(Location::each)
                    .any(|at| matches!(at, Location::Claim(_))),
                "signature.content can't take {claim:…}: claims are read once the signature fits",
            ),
            (
                self.repeats && self.identity.is_some(),
                "repeats = true and identity exclude each other: one says that nothing tells two \
                 events apart, the other what does",
            ),
            (
                self.repeats && self.told_apart_by.is_some(),
                "repeats = true and told_apart_by exclude each other: one says that nothing tells two \
                 events apart, the other what does",
            ),
            (
                self.types_share_bytes && (self.kind.is_none() || !self.type_unsigned()),
                "types_share_bytes is for a [type] that the signature doesn't cover",
            ),
            (
                self.handshakes
                    .iter()
                    .any(|one| one.when.is_none() && one.method != HandshakeMethod::Head),
                "a handshake by GET or POST needs when = { … }: what shows that it is one",
            ),
            (
                self.items.is_some()
                    && [&self.id, &self.kind]
                        .into_iter()
                        .flatten()
                        .flat_map(Location::each)
                        .any(|at| !matches!(at, Location::Json(_))),
                "with items, id and type are in each of them: { json = … }",
            ),
            (
                self.items.as_deref().is_some_and(|at| !at.is_empty() && !at.starts_with('/')),
                "items is a JSON pointer: \"\" or \"/data/events\"",
            ),
            (
                self.items_signed
                    && (self.items.is_none()
                        || self.keys.is_some()
                        || !self.handshakes.iter().all(Handshake::is_unsigned)),
                "items_signed needs items, and goes with neither [keys] nor a signed [[handshake]]",
            ),
            (
                self.items_signed && at.iter().any(|at| !matches!(at, Location::Json(_))),
                "with items_signed, signature.at is in each item: { json = … }",
            ),
        ]
    }

    /// Whether this header is needed for verification, identity or a handshake.
    pub fn needs(&self, header: &HeaderName) -> bool {
        let place = Location::Header(header.clone());
        let asked = self.handshakes.iter().flat_map(Handshake::places);
        let content = &self.signature.content;
        self.places().chain(asked).any(|at| *at == place)
            || content.takes(&place)
            || content.parts().iter().any(|part| part.needs(header))
    }

    /// Whether this header has a signature or a token.
    pub fn signs_in(&self, header: &HeaderName) -> bool {
        self.signature.at.contains(&Location::Header(header.clone()))
    }

    /// Whether the query is used. The query of any other provider isn't kept, because it can have a
    /// credential.
    pub fn needs_query(&self) -> bool {
        let asked = self.handshakes.iter().flat_map(Handshake::places);
        let mut all = self.places().chain(asked);
        self.signs_url() || all.any(|place| matches!(place, Location::Query(_)))
    }

    /// Whether its bodies are forms (`application/x-www-form-urlencoded`): of several kinds, the
    /// first one counts.
    pub fn sends_forms(&self) -> bool {
        matches!(self.signature.at.first(), Some(Location::Form(_)))
            || self.signature.content.parts().iter().any(Part::is_form)
    }

    /// The field of a multipart form in which its callbacks are, if they are.
    pub(super) fn multipart_field(&self) -> Option<&str> {
        match self.signature.at.first() {
            Some(Location::Multipart(path)) => Some(multipart::split(path).0),
            _ => None,
        }
    }

    /// Content type of its bodies.
    pub fn content_type(&self) -> &'static str {
        match self.multipart_field() {
            Some(_) => "multipart/form-data",
            None if self.sends_forms() => "application/x-www-form-urlencoded",
            None => "application/json",
        }
    }

    /// All places that are read.
    fn places(&self) -> impl Iterator<Item = &Location> {
        let time = self.timestamp.as_ref().map(|time| &time.at);
        let named = [&self.id, &self.kind, &self.attempt.number, &self.attempt.reason];
        let named = named.into_iter().filter_map(Option::as_ref);
        let keys =
            self.keys.iter().flat_map(|keys| [keys.at.as_ref(), keys.pin.as_ref()]).flatten();
        let templates = [Some(&self.signature.content), self.identity.as_ref()];
        let parts = templates.into_iter().flatten().flat_map(Template::parts);
        let required = self.required.iter().map(|required| &required.at);
        let all = self.signature.at.iter().chain(time).chain(named).chain(keys).chain(required);
        all.chain(parts.filter_map(Part::place)).flat_map(Location::each)
    }

    /// Whether it signs nothing, and sends the secret itself.
    pub fn is_token(&self) -> bool {
        self.signature.algorithm == Algorithm::Token
    }

    /// Whether it signs challenges for whoever asks: then such text is never an event.
    pub(super) fn signs_for_anyone(&self) -> bool {
        self.handshakes.iter().any(Handshake::signs_for_anyone)
    }

    /// Whether a source of it needs a `handshake_token` to be asked by its provider.
    pub fn asks_for_token(&self) -> bool {
        self.handshakes.iter().any(|handshake| handshake.token.is_some())
    }

    /// Weakness, if it has one.
    pub fn weakness(&self) -> Option<Weakness> {
        let parts = self.signature.content.parts();
        match (self.is_token(), self.body_unsigned) {
            (true, _) => Some(Weakness::Token),
            (_, true) => Some(Weakness::BodyUnsigned),
            _ if parts.contains(&Part::Canonical(Canonical::Crc32)) => Some(Weakness::Checksum),
            // SHA-1 and SHA-2 go on from a digest whose input ends anywhere but in the secret.
            _ if self.signature.algorithm.is_digest() && parts.last() != Some(&Part::Secret) => {
                Some(Weakness::LengthExtension)
            }
            // A token's address or the secret in what is signed would say for whom it is.
            _ if self.needs_no_secret() && !self.signs_own_address() => Some(Weakness::AnyCustomer),
            _ => None,
        }
    }

    /// Other ways in which the provider may have written an address that it signed.
    pub(super) fn other_urls(&self, url: &str) -> Vec<String> {
        let parts = self.signature.content.parts();
        let forms = parts.iter().filter_map(|part| match part {
            Part::Canonical(form) => Some(form.other_urls(url)),
            _ => None,
        });
        forms.flatten().collect()
    }

    /// Whether a token names the address that it is for.
    fn signs_own_address(&self) -> bool {
        self.claims.as_ref().is_some_and(|claims| claims.url.is_some())
    }

    /// Whether an endpoint needs [`Endpoint::public_url`](crate::Endpoint::public_url).
    pub fn signs_url(&self) -> bool {
        self.signs_own_address() || self.signature.content.parts().iter().any(Part::is_url)
    }

    /// Whether all keys are at one fixed address.
    pub fn has_key_set(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.url.is_some())
    }

    /// Whether its endpoints need no secrets.
    pub fn needs_no_secret(&self) -> bool {
        let fixed = self.keys.as_ref().is_some_and(|keys| keys.url.is_some() && keys.pin.is_none());
        fixed && !self.signature.content.covers(&Part::Secret)
    }

    /// A secret in the form of this scheme, made of 32 random bytes. `None` if its callbacks are
    /// signed with a private key, or verified with published keys.
    pub fn new_secret(&self, random: &[u8; 32]) -> Option<String> {
        let is_secret = self.keys.is_none() && !self.signature.algorithm.is_public();
        self.signature.key.write(random).filter(|_| is_secret)
    }

    /// Whether a secret has the right form for this scheme.
    pub fn accepts(&self, secret: &Secret) -> bool {
        match self.keys {
            // It is no key, but says whose callback it is.
            Some(_) => !secret.expose().is_empty(),
            None => self.signature.key.accepts(secret),
        }
    }

    pub(super) fn covers_query(&self) -> bool {
        let claimed = self.claims.as_ref().is_some_and(|claims| claims.url.is_some());
        let mut parts = self.signature.content.parts().iter();
        let path = [Part::Path, Part::Canonical(Canonical::Truelayer)];
        claimed || parts.any(|part| part.is_url() && !path.contains(part))
    }

    fn covers_time(&self) -> bool {
        let own = self.signature.content.parts().iter().find_map(Part::time);
        let time = self.timestamp.as_ref().map(|time| &time.at);
        self.signature.content.covers(&Part::Timestamp)
            || own.is_some_and(|own| time == Some(&Location::Header(own)))
    }

    fn covers_body(&self) -> bool {
        let claimed = self.claims.as_ref().is_some_and(|claims| claims.body.is_some());
        claimed || self.signature.content.parts().iter().any(Part::is_body)
    }

    /// Whether its id alone makes two callbacks the same event: it is shown to name one, and it is as
    /// good as the signature. Where nothing signs the body, what is in it is.
    pub fn id_is_identity(&self) -> bool {
        let names = matches!(self.id_names, Some(IdNames::Event | IdNames::Delivery));
        let vouched = |at: &Location| self.covers(at) || (self.body_unsigned && at.is_in_body());
        names && self.identity.is_none() && self.id.as_ref().is_some_and(vouched)
    }

    /// Whether another body under the same identity is a retry that the provider rendered again.
    pub fn renders_retries(&self) -> bool {
        self.id_names == Some(IdNames::Event)
    }

    /// Whether it has a type that its signature doesn't cover.
    pub fn type_unsigned(&self) -> bool {
        self.kind.as_ref().is_some_and(|at| !self.covers(at))
    }

    /// Whether a retry can't be distinguished from a new event, so it can be delivered again.
    pub fn delivers_at_least_once(&self) -> bool {
        self.repeats
    }

    /// Whether address and body run into each other in what is signed.
    pub(super) fn url_adjoins_body(&self) -> bool {
        let parts = self.signature.content.parts();
        let both = |two: &[Part]| two.contains(&Part::Url) && two.contains(&Part::Body);
        parts.windows(2).any(both)
    }

    /// Whether the signed time runs into what is signed before or after it.
    pub(super) fn time_adjoins(&self) -> bool {
        let parts = self.signature.content.parts();
        let literal = |part: &Part| matches!(part, Part::Literal(_));
        parts.windows(2).any(|two| two.contains(&Part::Timestamp) && !two.iter().any(literal))
    }

    /// Whether the signature covers what is at this place. Derived, not declared, so an
    /// entry can't claim more than its template signs.
    ///
    /// Who has seen a token's callback can forge any: what is in it is as good as the token.
    pub fn covers(&self, location: &Location) -> bool {
        if self.is_token() {
            return true;
        }
        self.signature.content.takes(location)
            || match location {
                Location::Header(_) | Location::Item(_) => false,
                Location::Json(_) | Location::Multipart(_) => self.covers_body(),
                // Names and values that run together can be cut in other ways.
                Location::Form(_) => {
                    self.covers_body() && !self.signature.content.parts().iter().any(Part::is_form)
                }
                Location::Query(_) => self.covers_query(),
                Location::Claim(_) => true,
                Location::All(places) | Location::Any(places) => {
                    places.iter().all(|at| self.covers(at))
                }
            }
    }
}

/// One place, or a list of them.
fn places<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Location>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Places {
        Several(Vec<Location>),
        One(Location),
    }
    Ok(match Places::deserialize(from)? {
        Places::Several(places) => places,
        Places::One(place) => vec![place],
    })
}

fn by_post() -> Vec<Method> {
    vec![Method::POST]
}

fn methods<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Method>, D::Error> {
    let known = |text: &str| match text {
        "POST" => Some(Method::POST),
        "GET" => Some(Method::GET),
        _ => None,
    };
    let texts = Vec::<String>::deserialize(from)?;
    let all: Option<Vec<_>> = texts.iter().map(|text| known(text)).collect();
    let all = all.filter(|all| !all.is_empty());
    all.ok_or_else(|| serde::de::Error::custom("methods are \"POST\" and \"GET\""))
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(from)?;
    let bytes = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| serde::de::Error::custom("not a size like \"25MB\""))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_new_secret_has_the_form_of_its_scheme_and_signs() {
        let mut made = 0;
        for scheme in Scheme::names().filter_map(Scheme::named) {
            let Some(text) = scheme.new_secret(&[7; 32]) else { continue };
            assert!(scheme.accepts(&Secret::new(text.as_bytes())), "{:?}", scheme.documents);
            made += 1;
        }
        assert!(made > 130, "{made}");
        for public in ["discord", "aws-sns", "paypal"] {
            assert_eq!(Scheme::named(public).unwrap().new_secret(&[7; 32]), None, "{public}");
        }
    }

    #[test]
    fn a_scheme_that_leaves_body_or_time_unsigned_is_refused() {
        let stripe = include_str!("../providers/stripe.toml");
        for content in ["{timestamp}.", "{body}", "{timestamp}.{payload}"] {
            let text = stripe.replace("{timestamp}.{body}", content);
            assert!(Scheme::from_toml(text.parse().unwrap()).is_err(), "{content}");
        }
    }

    #[test]
    fn an_identity_that_is_the_same_for_every_event_is_refused() {
        let stripe = include_str!("../providers/stripe.toml");
        let with = |identity| format!("identity = {identity:?}\n{stripe}").parse().unwrap();
        for good in ["{json:/id}", "a {body}", "{maybe:header:x}"] {
            assert!(Scheme::from_toml(with(good)).is_ok(), "{good}");
        }
        for bad in ["", "stripe", "{timestamp}", "{url}"] {
            assert!(Scheme::from_toml(with(bad)).is_err(), "{bad}");
        }
    }
}
