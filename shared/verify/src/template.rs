//! A template of the signed content: `{timestamp}.{body}`.

use http::HeaderName;
use serde::Deserialize;

use super::canonical::Canonical;
use super::place::Location;

/// A parsed template. Its text is literal but for
///
/// - `{body}`, and `{form}`: the fields of a form, sorted by name, each as name and value;
/// - `{timestamp}`, as the provider wrote it;
/// - `{method}`, `{url}` (as the provider knows it, with the query) and `{path}` (of that);
/// - `{header:NAME}`, `{json:/POINTER}`, `{query:NAME}`, `{form:NAME}`, `{item:NAME}`: the value
///   there, which must be there; `{lower:…}` for the same in lower case, and `{maybe:…}` for
///   nothing where it isn't there; `{json:/POINTER|form:NAME}`: the first of these that is there;
/// - `{canonical:NAME}`: a form that one provider has of its own;
/// - `{secret}`, for plain digests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Literal(String),
    /// The raw body.
    Body,
    /// The form's fields in the order of their names.
    Form,
    /// The timestamp's text.
    Timestamp,
    /// What is at a place.
    At(Location),
    /// The same in lower case.
    Lower(Location),
    /// The same, or nothing.
    Maybe(Location),
    /// Method of the request.
    Method,
    /// The address that the provider sends to, with the query.
    Url,
    /// Its path.
    Path,
    /// A form of one provider's own.
    Canonical(Canonical),
    /// The secret.
    Secret,
}

impl Part {
    /// The place that it is read from, if it is read from one.
    pub(super) fn place(&self) -> Option<&Location> {
        match self {
            Self::At(place) | Self::Lower(place) | Self::Maybe(place) => Some(place),
            _ => None,
        }
    }

    /// Whether it leaves nothing of the body open.
    pub(super) fn is_body(&self) -> bool {
        matches!(self, Self::Body | Self::Form | Self::Canonical(_))
    }

    /// Whether it is made of a form.
    pub(super) fn is_form(&self) -> bool {
        matches!(self, Self::Form | Self::Canonical(Canonical::Twilio | Canonical::Plivo))
    }

    /// The header with the time that a canonical form signs.
    pub(super) fn time(&self) -> Option<HeaderName> {
        match self {
            Self::Canonical(form) => form.time(),
            _ => None,
        }
    }

    /// Whether a canonical form takes this header in.
    pub(super) fn needs(&self, header: &HeaderName) -> bool {
        matches!(self, Self::Canonical(form) if form.needs(header))
    }

    /// Whether the configured address is needed for it.
    pub(super) fn is_url(&self) -> bool {
        match self {
            Self::Canonical(form) => form.is_url(),
            _ => matches!(self, Self::Url | Self::Path),
        }
    }
}

impl Template {
    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether what is at this place is taken in, as it is there.
    pub fn takes(&self, place: &Location) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Lower(_)) && part.place() == Some(place))
    }

    /// Whether a piece occurs.
    pub fn covers(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Literal(rest[..open].into()));
            }
            let close = rest.find('}').filter(|close| *close > open);
            let close = close.ok_or("the template has a { without a }")?;
            parts.push(variable(&rest[open + 1..close])?);
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(Self(parts))
    }
}

fn variable(name: &str) -> Result<Part, String> {
    let part = match name {
        "body" => Part::Body,
        "form" => Part::Form,
        "timestamp" => Part::Timestamp,
        "method" => Part::Method,
        "url" => Part::Url,
        "path" => Part::Path,
        "secret" => Part::Secret,
        _ => match name.split_once(':') {
            Some(("lower", name)) => Part::Lower(place(name)?),
            Some(("maybe", name)) => Part::Maybe(place(name)?),
            Some(("canonical", name)) => {
                Part::Canonical(Canonical::named(name).ok_or_else(unknown)?)
            }
            _ => Part::At(place(name)?),
        },
    };
    Ok(part)
}

fn place(text: &str) -> Result<Location, String> {
    if text.contains('|') {
        return text.split('|').map(place).collect::<Result<_, _>>().map(Location::Any);
    }
    match text.split_once(':') {
        Some(("header", name)) => HeaderName::try_from(name)
            .map(Location::Header)
            .map_err(|_| "the template names a header that can't exist".into()),
        Some(("json", pointer)) => Ok(Location::Json(pointer.into())),
        Some(("query", name)) => Ok(Location::Query(name.into())),
        Some(("form", name)) => Ok(Location::Form(name.into())),
        Some(("multipart", path)) => Ok(Location::Multipart(path.into())),
        Some(("item", name)) => Ok(Location::Item(name.into())),
        Some(("claim", name)) => Ok(Location::Claim(name.into())),
        _ => Err(unknown()),
    }
}

fn unknown() -> String {
    "the template knows {body}, {form}, {timestamp}, {method}, {url}, {path}, {secret}, \
     {header:NAME}, {json:/POINTER}, {query:NAME}, {form:NAME}, {multipart:NAME/POINTER}, \
     {item:NAME}, {lower:…}, {maybe:…}, {PLACE|PLACE} and {canonical:NAME}: twilio, plivo, contentful, easypost, \
     sns, truelayer, crc32 or box"
        .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_template_is_literal_text_and_known_variables() {
        let parsed = Template::try_from("{header:webhook-id}.{timestamp}.{body}!".to_owned());
        let dot = || Part::Literal(".".into());
        let id = Part::At(Location::Header(HeaderName::from_static("webhook-id")));
        let parts = [id, dot(), Part::Timestamp, dot(), Part::Body, Part::Literal("!".into())];
        assert_eq!(parsed.unwrap().parts(), parts);
    }

    #[test]
    fn an_unknown_variable_or_an_open_brace_is_an_error() {
        for bad in ["{bod}", "{body", "}{", "{header:a b}", "{:}", "{lower:body}"] {
            assert!(Template::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in ".{0,64}") {
            let _ = Template::try_from(text);
        }
    }
}
